package view

import "time"

// WatchRequest is what a watcher of events asks for on the WebSocket
// skein.events.v1, as {type:"watch", …}.
type WatchRequest struct {
	// Cursor is the place after which to begin, from an earlier frame of any node.
	Cursor *Cursor `json:"cursor,omitempty"`
	// Since is a place by its number only. Without both it begins at the present.
	Since  *uint64     `json:"since,omitempty"`
	Filter WatchFilter `json:"filter"`
}

// WatchFilter selects events; what is empty selects all. See EventFilter.
type WatchFilter struct {
	Stream string     `json:"stream,omitempty"`
	Type   string     `json:"type,omitempty"`
	Actor  string     `json:"actor,omitempty"`
	From   *time.Time `json:"from,omitempty"`
	Until  *time.Time `json:"until,omitempty"`
}

// The types of frames.
const (
	WatchWelcome = "welcome"
	WatchEvents  = "events"
	// WatchCompacted: events after the cursor before are not held here; it goes on
	// after this one's.
	WatchCompacted = "compacted"
	// WatchReset: the fleet has another history.
	WatchReset = "reset"
	// WatchBehind: this node has not come to the cursor yet.
	WatchBehind = "behind"
	WatchTick   = "tick"
	// WatchCut: the last frame. Go on from its cursor, here or elsewhere.
	WatchCut = "cut"
	// WatchError: the last frame, of a Problem.
	WatchError = "error"
)

// WatchFrame is one message of the WebSocket of events.
type WatchFrame struct {
	Type string `json:"type"`
	// Node is who speaks; with welcome only.
	Node   *NodeRef `json:"node,omitempty"`
	Events []Event  `json:"events,omitempty"`
	// Cursor is where to go on after this frame.
	Cursor Cursor `json:"cursor"`
	// Kept, with reset: what was seen is part of the new history.
	Kept bool `json:"kept,omitempty"`
	// By, with behind: how many events this node lacks.
	By uint64 `json:"by,omitempty"`
	// AgeMillis and Stale, with tick, are those of AsOf.
	AgeMillis *int64 `json:"ageMillis,omitempty"`
	Stale     bool   `json:"stale,omitempty"`
	// Reason is a sentence for people, with compacted, reset and cut.
	Reason string `json:"reason,omitempty"`
	// Code, Message and Next, with error.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Next    string `json:"next,omitempty"`
}
