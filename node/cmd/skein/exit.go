package main

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"regexp"
	"strings"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/node"
	"skein/node/client"
	"skein/node/config"
	"skein/node/gateway/view"
)

// The exit codes, stable for scripts.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitUnreachable = 5 // no node answers, or the fleet has no leader
	exitTimeout     = 6
)

// codedError is an error that knows its exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// withCode gives err an exit code of its own. A nil err stays nil.
func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, err}
}

// usage marks err as a wrong command line.
func usage(err error) error { return withCode(exitUsage, err) }

// problemCodes maps the codes of problem+json answers, event.Fault and
// join.Refusal, which share their words, to exit codes.
var problemCodes = map[string]int{
	"invalid":           exitUsage,
	"unknown_type":      exitUsage,
	"too_large":         exitUsage,
	"ambiguous":         exitUsage,
	"not_found":         exitNotFound,
	"not_held":          exitNotFound,
	"unauthenticated":   exitNotAllowed,
	"not_allowed":       exitNotAllowed,
	"token_used":        exitNotAllowed,
	"token_expired":     exitNotAllowed,
	"token_unknown":     exitNotAllowed,
	"enrolment_revoked": exitNotAllowed,
	"enrolment_unknown": exitNotAllowed,
	"revoked":           exitNotAllowed,
	"wrong_fleet":       exitNotAllowed,
	"no_leader":         exitUnreachable,
	"unreachable":       exitUnreachable,
	"not_ready":         exitUnreachable,
	"busy":              exitUnreachable,
	"timeout":           exitTimeout,
	"unknown_outcome":   exitTimeout,
	"conflict":          exitFailed,
	"not_leader":        exitFailed,
	"clock_skew":        exitFailed,
	"internal":          exitFailed,
	"rate_limited":      exitFailed,
}

// problemStatuses is for answers whose code this build does not know.
var problemStatuses = map[int]int{
	http.StatusBadRequest:            exitUsage,
	http.StatusUnprocessableEntity:   exitUsage,
	http.StatusRequestEntityTooLarge: exitUsage,
	http.StatusUnauthorized:          exitNotAllowed,
	http.StatusForbidden:             exitNotAllowed,
	http.StatusNotFound:              exitNotFound,
	http.StatusBadGateway:            exitUnreachable,
	http.StatusServiceUnavailable:    exitUnreachable,
	http.StatusGatewayTimeout:        exitTimeout,
}

// sentinels are errors of known kinds, in order of precedence: what ends a
// command most decisively comes first.
var sentinels = []struct {
	err  error
	code int
}{
	{node.ErrRevoked, exitNotAllowed},
	{context.DeadlineExceeded, exitTimeout},
	{client.ErrNoIdentity, exitNotAllowed},
	{client.ErrNoSuchRobot, exitNotFound},
	{client.ErrAmbiguous, exitUsage},
	{client.ErrBadAddress, exitUsage},
	{ident.ErrBadToken, exitUsage},
	{fs.ErrPermission, exitNotAllowed},
	{client.ErrUnreachable, exitUnreachable},
}

// exitCode is the code for an error of a command.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*codedError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return exitUsage
	}
	if errors.Is(err, node.ErrUpgrade) { // the fault in it is of the log, not of the command
		return exitFailed
	}
	if p, ok := errors.AsType[*view.Problem](err); ok {
		return codeOf(p.Code, p.Status)
	}
	if f, ok := errors.AsType[*event.Fault](err); ok {
		return codeOf(string(f.Code), 0)
	}
	if r, ok := errors.AsType[*join.Refusal](err); ok {
		return codeOf(string(r.Code), 0)
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return exitFailed
}

func codeOf(code string, status int) int {
	if exit, ok := problemCodes[code]; ok {
		return exit
	}
	if exit, ok := problemStatuses[status]; ok {
		return exit
	}
	return exitFailed
}

// explain is an error in words for a person: what the command sent, which she has
// never seen, is left out, and the next step is added where the error cannot know it.
func explain(err error) string {
	text := inDraft.ReplaceAllString(advise(err), "")
	if p, is := errors.AsType[*view.Problem](err); is && field(p.Path) != "" {
		return field(p.Path) + " " + text
	}
	return text
}

// advise adds the next step to errors whose own text cannot know it.
func advise(err error) string {
	text := err.Error()
	switch {
	case errors.Is(err, client.ErrMaybeDone):
		return text + "; look at the fleet before you try again"
	case errors.Is(err, context.DeadlineExceeded):
		return text + "; try again with a longer --timeout, or ask another node with --http"
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		return text + "; run this as the user that runs the node, for example with sudo"
	case errors.Is(err, client.ErrUnreachable):
		return text + "; start one with `skein run` or `skein dev`, or say where one is with --http http://HOST:7780"
	case errors.Is(err, client.ErrNoIdentity):
		return text + "; name the file that `skein fleet init` wrote with --identity FILE or SKEIN_IDENTITY"
	}
	return text
}

// inDraft is where a field stands in what a command sends.
var inDraft = regexp.MustCompile(`\b(drafts\[\d+\](\.data)?|body)[. ]`)

// field is the path of a problem in words that a person may know: a field of an
// event's data. The parts of the envelope are the command's, not the person's.
func field(path string) string {
	rest := inDraft.ReplaceAllString(path+" ", "")
	switch rest = strings.TrimSpace(rest); rest {
	case "type", "schema", "stream", "expect", "cause", "data":
		return ""
	}
	return rest
}

// oneLine folds text into one printable line: it may quote what a stranger
// wrote, and a terminal obeys control characters.
func oneLine(text string) string {
	return clean(strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))
}
