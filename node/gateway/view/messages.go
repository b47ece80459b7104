package view

import (
	"fmt"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Events is the answer of GET /api/v1/events.
type Events struct {
	Events []Event `json:"events"`
	AsOf   AsOf    `json:"asOf"`
	// Compacted: events after the asked one are no longer held here; the list
	// starts at the first that is.
	Compacted bool `json:"compacted"`
	// More: there may be more after the last one; ask again with since set to its seq.
	More bool `json:"more"`
}

// EventFilter selects events; an empty field selects all.
type EventFilter struct {
	// Stream is the exact stream, e.g. "robot/abc…".
	Stream string
	// Type is a type or a prefix of types, e.g. "robot.".
	Type string
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
	// no_leader, unreachable, busy, not_ready, unknown_outcome, timeout, internal.
	Code string `json:"code"`
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
