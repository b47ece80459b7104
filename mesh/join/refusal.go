package join

import (
	"strings"
	"unicode"
)

// Code says why a request was refused. They are also the codes that the command
// line turns into exit codes.
type Code string

// All codes. The first group is the leader's decision, the second any server's,
// the third the client's own.
const (
	CodeTokenUsed        Code = "token_used"
	CodeTokenExpired     Code = "token_expired"
	CodeTokenUnknown     Code = "token_unknown"
	CodeEnrolmentRevoked Code = "enrolment_revoked"
	CodeRevoked          Code = "revoked"

	// CodeInvalid: the request is malformed or its signature is wrong.
	CodeInvalid  Code = "invalid"
	CodeNoLeader Code = "no_leader"
	CodeBusy     Code = "busy"

	CodeWrongFleet Code = "wrong_fleet"
	CodeClockSkew  Code = "clock_skew"
)

// Refusal is why a robot was not admitted. It is an error; use errors.As.
type Refusal struct {
	Code Code `json:"code"`
	// Message says what is wrong, Next what to do; either may be shown to people.
	Message string `json:"message"`
	Next    string `json:"next,omitempty"`
}

// Error is message and next step on one line.
func (r *Refusal) Error() string {
	if r.Next == "" {
		return r.Message
	}
	return r.Message + "; " + r.Next
}

// Retry reports whether the same request may succeed later or elsewhere.
func (r *Refusal) Retry() bool { return r.Code == CodeNoLeader || r.Code == CodeBusy }

// textMax bounds what a server's refusal may show, in bytes.
const textMax = 300

// tidy makes a refusal that came from the network safe to show and to log.
func (r *Refusal) tidy() *Refusal {
	return &Refusal{Code: Code(printable(string(r.Code), 32)), Message: printable(r.Message, textMax), Next: printable(r.Next, textMax)}
}

func printable(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}
