package view

import "skein/consensus/event"

// The words of the log, under the names that answers use.
type (
	// Cursor is a place in the fleet's history.
	Cursor = event.Cursor
	// Event is one decided fact.
	Event = event.Event
	// Draft is an event that somebody proposes.
	Draft = event.Draft
)
