package ws

import (
	"encoding/json"

	"skein/node/gateway/view"
)

const (
	// maxRing and maxRingBytes bound the recent events that are kept encoded:
	// for snapshots, and for clients that are nearly caught up.
	maxRing      = 1000
	maxRingBytes = 2 << 20
)

// encodedEvent is an event with its JSON.
type encodedEvent struct {
	seq  uint64
	text json.RawMessage
}

func encodeEvents(events []view.Event) []encodedEvent {
	out := make([]encodedEvent, len(events))
	for i, e := range events {
		out[i] = encodedEvent{e.Seq, view.Encode(e)}
	}
	return out
}

// ring holds the newest events of the log, without a hole, oldest first.
type ring struct {
	events []encodedEvent
	bytes  int
}

// add appends events that follow directly and forgets the oldest over the bound.
func (r *ring) add(events []encodedEvent) {
	for _, e := range events {
		r.events = append(r.events, e)
		r.bytes += len(e.text)
	}
	drop := 0
	for drop < len(r.events) && (len(r.events)-drop > maxRing || r.bytes > maxRingBytes) {
		r.bytes -= len(r.events[drop].text)
		drop++
	}
	if drop > 0 {
		// Copied, so that the array does not grow for ever.
		r.events = append([]encodedEvent(nil), r.events[drop:]...)
	}
}

// after returns the events after seq; false if some of them are no longer here.
// The result is valid until the next add.
func (r *ring) after(seq uint64) ([]encodedEvent, bool) {
	if len(r.events) == 0 {
		return nil, false
	}
	first := r.events[0].seq
	if seq+1 < first {
		return nil, false
	}
	skip := min(seq+1-first, uint64(len(r.events)))
	return r.events[skip:], true
}

// last is the JSON of the newest n events, oldest first.
func (r *ring) last(n int) []json.RawMessage {
	return texts(r.events[len(r.events)-min(n, len(r.events)):])
}

func texts(events []encodedEvent) []json.RawMessage {
	out := make([]json.RawMessage, len(events))
	for i, e := range events {
		out[i] = e.text
	}
	return out
}

// chunks makes events messages of bounded size. end is the cursor after the
// last event; the cursors between have no hash, since nobody knows it.
func chunks(events []encodedEvent, end view.Cursor) [][]byte {
	var out [][]byte
	for len(events) > 0 {
		n, size := 0, 0
		for n < len(events) && n < maxChunkEvents && (n == 0 || size+len(events[n].text) <= maxChunkBytes) {
			size += len(events[n].text)
			n++
		}
		cursor := view.Cursor{History: end.History, Seq: events[n-1].seq}
		if cursor.Seq == end.Seq {
			cursor = end
		}
		out = append(out, view.Encode(eventsMessage{"events", texts(events[:n]), cursor}))
		events = events[n:]
	}
	return out
}
