package view

import (
	"fmt"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Events is the answer of GET /api/v1/events.
type Events struct {
	// Events are oldest first, also when the newest were asked for.
	Events []Event `json:"events"`
	AsOf   AsOf    `json:"asOf"`
	// Compacted: events that were asked for are no longer held here; the list
	// starts at the first that is.
	Compacted bool `json:"compacted"`
	// More: there are more. Ask again with since set to the seq of the last event,
	// or, where the newest were asked for, with before set to that of the first.
	More bool `json:"more"`
}

// EventFilter selects events; an empty field selects all.
type EventFilter struct {
	// Stream is a whole stream, e.g. "robot/abc…", or, ending in "/", a family.
	Stream string
	// Type is a whole type or, ending in ".", a family, e.g. "robot.".
	Type string
	// Actor is the id of who did it: a person's name or a node's id.
	Actor string
	// From and Until bound the time, both inclusive; zero is no bound.
	From, Until time.Time
}

// EventQuery asks for events.
type EventQuery struct {
	EventFilter
	// After and Before bound the sequence number, both exclusive; 0 is no bound.
	After, Before uint64
	// Newest wants the last ones that fit instead of the first.
	Newest bool
	// Limit is the most that is wanted, from 1.
	Limit int
}

// EventPage answers an EventQuery.
type EventPage struct {
	// Events are in ascending order; with Newest they are descending.
	Events []Event
	// Compacted: events that might fit are no longer held here.
	Compacted bool
	// More: further events fit.
	More bool
}

// Proposal is the body of POST /api/v1/events. All drafts happen or none.
type Proposal struct {
	Drafts []Draft `json:"drafts"`
}

// Receipt says which events a proposal became. Cursor is this node's after it.
type Receipt struct {
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Cursor Cursor `json:"cursor"`
}

// TokenRequest is the body of POST /api/v1/tokens.
type TokenRequest struct {
	// TTLSeconds is how long the join token is good, 1 to 604800 (a week).
	TTLSeconds int `json:"ttlSeconds"`
}

// Token is a one-time join token, shown once.
type Token struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// LoginInfo is the answer of GET /api/v1/login, which needs no token: what a
// person must sign (see SignLogin).
type LoginInfo struct {
	FleetID ident.FleetID `json:"fleetId"`
	// Issuer is the voter that will check the signature.
	Issuer ident.NodeID `json:"issuer"`
	// Now is the issuing side's clock; sign this time, not your own, so that a
	// wrong clock on a laptop keeps nobody out.
	Now time.Time `json:"now"`
}

// Login is the body of POST /api/v1/login: either Code alone, or all others.
type Login struct {
	// Code is a one-time code from LoginCode.
	Code string `json:"code,omitempty"`

	Person string       `json:"person,omitempty"`
	Issuer ident.NodeID `json:"issuer,omitempty"`
	// At is when it was signed, within five minutes of the issuer's clock.
	At *time.Time `json:"at,omitempty"`
	// Nonce is 16 to 64 characters, used once.
	Nonce     string `json:"nonce,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

// Session is the answer to a login.
type Session struct {
	// Token goes into `Authorization: Bearer …` and the WebSocket's auth message.
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expiresAt"`
	Person    string    `json:"person"`
	Scopes    []string  `json:"scopes"`
}

// LoginCode is a one-time code that logs the same person in elsewhere, e.g. in
// a browser. URL is the console's address with the code in its fragment
// (#login=<code>), so that it reaches no log and no Referer header.
type LoginCode struct {
	Code      string    `json:"code"`
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Health is the answer of GET /healthz: the process answers.
type Health struct {
	Status string `json:"status"`
}

// Ready is the answer of GET /readyz: 200 if ready, else 503 with the reason.
type Ready struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
}

// LeaveAnswer is the answer of POST /api/v1/leave: the node has left and will stop.
type LeaveAnswer struct {
	Left bool `json:"left"`
}

// Problem is every error answer (RFC 9457, application/problem+json).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail is what went wrong, one sentence.
	Detail string `json:"detail"`
	// Code is stable, for programs: invalid, unauthenticated, not_allowed,
	// not_found, ambiguous, conflict, unknown_type, too_large, rate_limited,
	// no_leader, not_leader, not_held, unreachable, busy, not_ready,
	// unknown_outcome, timeout, internal.
	Code string `json:"code"`
	// Reason tells problems of one code apart where a program must act
	// differently, e.g. no_space, transition, ceiling, version. May be empty.
	Reason string `json:"reason,omitempty"`
	// Next is what to do about it; may be empty.
	Next string `json:"next"`
	// Path names the field at fault, e.g. "drafts[0].data.name".
	Path string `json:"path,omitempty"`
	// RetryAfterMillis is also the Retry-After header, in whole seconds there.
	RetryAfterMillis int64 `json:"retryAfterMillis,omitempty"`
}

// Error makes a Problem an error: what, then what to do.
func (p *Problem) Error() string {
	if p.Next == "" {
		return p.Detail
	}
	return fmt.Sprintf("%s; %s", p.Detail, p.Next)
}

// EventTypes is the answer of GET /api/v1/events/types.
type EventTypes struct {
	Types []event.TypeInfo `json:"types"`
}
