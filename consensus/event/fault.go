package event

import (
	"errors"
	"fmt"
)

// Code is the class of a refusal, by which programs decide.
type Code string

// The classes of refusals.
const (
	// CodeInvalid: the proposal is malformed; the same one will never be accepted.
	CodeInvalid Code = "invalid"
	// CodeNotAllowed: the actor may not do this.
	CodeNotAllowed Code = "not_allowed"
	// CodeConflict: the state has moved on, or was never such that this makes sense.
	CodeConflict Code = "conflict"
	// CodeNotFound: what it is about does not exist.
	CodeNotFound Code = "not_found"
	// CodeBusy: a queue is full; see RetryAfterMillis.
	CodeBusy Code = "busy"
	// CodeNoLeader: nobody can decide now.
	CodeNoLeader Code = "no_leader"
	// CodeUnknownOutcome: it may or may not have been applied; read before proposing anew.
	CodeUnknownOutcome Code = "unknown_outcome"
	// CodeUnknownType: this build does not know the event type or its schema.
	CodeUnknownType Code = "unknown_type"
)

// Reason tells faults of one class apart where somebody must act differently.
type Reason string

// The reasons that other packages ask for.
const (
	ReasonTokenUsed        Reason = "token_used"
	ReasonTokenExpired     Reason = "token_expired"
	ReasonTokenUnknown     Reason = "token_unknown"
	ReasonEnrolmentRevoked Reason = "enrolment_revoked"
	ReasonEnrolmentUnknown Reason = "enrolment_unknown"
	ReasonRevoked          Reason = "revoked"
	ReasonAlreadyAdmitted  Reason = "already_admitted"
	ReasonNoChange         Reason = "no_change"
	ReasonVersion          Reason = "version"
	ReasonAmbiguous        Reason = "ambiguous"
	// ReasonCeiling: the event type is newer than some voter of the fleet.
	ReasonCeiling Reason = "ceiling"
	// ReasonTransition: the robot's state does not lead to the one wanted.
	ReasonTransition Reason = "transition"
)

// Fault is a refusal that travels to whoever proposed. Use errors.As, or FaultOf.
type Fault struct {
	Code   Code   `json:"code"`
	Reason Reason `json:"reason,omitempty"`
	// Path is the field at fault, for example "drafts[0].data.name".
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	// Next is what to do about it.
	Next string `json:"next,omitempty"`
	// RetryAfterMillis is set with CodeBusy.
	RetryAfterMillis int64 `json:"retryAfterMillis,omitempty"`
}

// Error is path, message and next step on one line.
func (f *Fault) Error() string {
	text := f.Message
	if f.Path != "" {
		text = f.Path + " " + text
	}
	if f.Next != "" {
		text += "; " + f.Next
	}
	return text
}

// FaultOf finds the Fault in err's chain.
func FaultOf(err error) (*Fault, bool) {
	return errors.AsType[*Fault](err)
}

// Refuse makes a Fault.
func Refuse(code Code, reason Reason, next, format string, args ...any) *Fault {
	return &Fault{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...), Next: next}
}

// In returns the fault with its path put below prefix.
func (f *Fault) In(prefix string) *Fault {
	g := *f
	switch {
	case g.Path == "":
		g.Path = prefix
	case g.Path[0] == '[':
		g.Path = prefix + g.Path
	default:
		g.Path = prefix + "." + g.Path
	}
	return &g
}
