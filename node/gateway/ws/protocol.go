package ws

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/coder/websocket"

	"skein/mesh/ident"
	"skein/node/gateway/exact"
	"skein/node/gateway/view"
)

// Subprotocol is what a client has to offer.
const Subprotocol = "skein.console.v1"

const (
	// maxClientBytes bounds one message of a client.
	maxClientBytes = 16 << 10
	// defaultEvents and maxEvents are how many past events a snapshot has.
	defaultEvents = 100
	maxEvents     = 500
	// maxHistoryName bounds the history id in a client's cursor.
	maxHistoryName = 128
	// maxMoment bounds a past moment, whatever it says.
	maxMoment = 64
	// maxChunkBytes and maxChunkEvents bound one events message.
	maxChunkBytes  = 128 << 10
	maxChunkEvents = 256
)

// clientMessage is what a client may say: auth with Token, watch, or at.
type clientMessage struct {
	Type  string `json:"type"`
	Token string `json:"token"`
	// Cursor is where the client was; nil: it has nothing yet.
	Cursor *view.Cursor `json:"cursor"`
	// Events is how many past events a snapshot should have.
	Events *int `json:"events"`
	// At is a past moment to show; see view.ParseAt. One that is none is answered.
	At string `json:"at"`
}

// decodeClient reads a client's message. Unknown fields are left alone: a page
// of a newer node must be able to watch at an older one.
func decodeClient(text []byte) (clientMessage, error) {
	var m clientMessage
	if err := exact.Decode(text, &m); err != nil {
		return clientMessage{}, err
	}
	switch m.Type {
	case "auth":
		return m, nil
	case "at":
		if len(m.At) > maxMoment {
			return clientMessage{}, fmt.Errorf("at is longer than %d bytes", maxMoment)
		}
		return m, nil
	case "watch":
		if m.Events == nil {
			n := defaultEvents
			m.Events = &n
		}
		if *m.Events < 0 || *m.Events > maxEvents {
			return clientMessage{}, fmt.Errorf("watch asks for %d past events, 0 to %d are possible", *m.Events, maxEvents)
		}
		if m.Cursor != nil && (m.Cursor.History == "" || len(m.Cursor.History) > maxHistoryName || len(m.Cursor.Hash) > maxHistoryName) {
			return clientMessage{}, fmt.Errorf("watch has a cursor that no node gave")
		}
		return m, nil
	}
	return clientMessage{}, fmt.Errorf("message type %.20q is unknown", m.Type)
}

// The server's messages. Raw parts are encoded once for all clients.
type (
	welcomeMessage struct {
		Type   string          `json:"type"`
		Node   view.NodeRef    `json:"node"`
		Fleet  json.RawMessage `json:"fleet"`
		Person string          `json:"person"`
		Peers  json.RawMessage `json:"peers"`
	}
	snapshotMessage struct {
		Type   string            `json:"type"`
		Cursor view.Cursor       `json:"cursor"`
		Fleet  json.RawMessage   `json:"fleet"`
		Robots json.RawMessage   `json:"robots"`
		Events []json.RawMessage `json:"events"`
		Reset  bool              `json:"reset,omitempty"`
		Reason string            `json:"reason,omitempty"`
	}
	resumedMessage struct {
		Type   string          `json:"type"`
		Cursor view.Cursor     `json:"cursor"`
		Fleet  json.RawMessage `json:"fleet"`
		Robots json.RawMessage `json:"robots"`
	}
	eventsMessage struct {
		Type   string            `json:"type"`
		Events []json.RawMessage `json:"events"`
		// Cursor is after the last of Events. Its hash is empty where more follow at once.
		Cursor view.Cursor `json:"cursor"`
	}
	robotsMessage struct {
		Type    string         `json:"type"`
		Changed []view.Robot   `json:"changed"`
		Removed []ident.NodeID `json:"removed"`
	}
	fleetMessage struct {
		Type  string          `json:"type"`
		Fleet json.RawMessage `json:"fleet"`
		Peers json.RawMessage `json:"peers"`
	}
	tickMessage struct {
		Type      string      `json:"type"`
		Cursor    view.Cursor `json:"cursor"`
		AgeMillis int64       `json:"ageMillis"`
		Stale     bool        `json:"stale"`
	}
	// pastMessage is the fleet as it was at the moment At that was asked for;
	// fleet.asOf.at says which that is. Or Problem says why it cannot be shown.
	pastMessage struct {
		Type    string        `json:"type"`
		At      string        `json:"at"`
		Fleet   *view.Fleet   `json:"fleet,omitempty"`
		Robots  []view.Robot  `json:"robots,omitempty"`
		Problem *view.Problem `json:"problem,omitempty"`
	}
	behindMessage struct {
		Type string `json:"type"`
		By   uint64 `json:"by"`
	}
	errorMessage struct {
		Type    string `json:"type"`
		Code    string `json:"code"`
		Message string `json:"message"`
		Next    string `json:"next"`
	}
)

// ending is why a connection is closed by this side.
type ending struct {
	status              websocket.StatusCode
	code, message, next string
}

func (e *ending) encoded() []byte {
	return view.Encode(errorMessage{"error", e.code, e.message, e.next})
}

var (
	endTooLate = &ending{4408, "auth_too_late", "no auth and watch message came in time", "connect again and send them at once"}
	endTooSlow = &ending{websocket.StatusTryAgainLater, "too_slow", "this page does not keep up with the fleet's news", "it will connect again by itself"}
	endStopped = &ending{websocket.StatusGoingAway, "stopping", "this node is stopping", "another node of the fleet will do"}
	endNoRead  = &ending{4403, "not_allowed", "this person may not look at the fleet", "ask an admin for the scope viewer"}
)

func endBadMessage(err error) *ending {
	return &ending{websocket.StatusPolicyViolation, "invalid", err.Error(), nextOf(err, "load the console again")}
}

// nextOf is what an error says to do, or else usual.
func nextOf(err error, usual string) string {
	if f, is := errors.AsType[*exact.Fault](err); is {
		return f.Next
	}
	return usual
}

// endUnauthenticated ends what has no good token, or none that can be judged yet.
func endUnauthenticated(err error) *ending {
	if p, is := asProblem(err); is && p.Status == http.StatusServiceUnavailable {
		return &ending{websocket.StatusTryAgainLater, p.Code, p.Detail, p.Next}
	}
	e := &ending{4401, "unauthenticated", "the token is not good", "log in again"}
	if p, is := asProblem(err); is {
		e.message, e.next = p.Detail, p.Next
	}
	return e
}
