package watch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/consensus/replica"
)

// Kind says what a frame is.
type Kind string

// The kinds of frames; see the package comment.
const (
	Events    Kind = "events"
	Compacted Kind = "compacted"
	Reset     Kind = "reset"
	Behind    Kind = "behind"
	Cut       Kind = "cut"
)

// Frame is one thing that a watcher is told.
type Frame struct {
	Kind Kind
	// Events, of kind Events only, are those that passed the filter: at least one.
	Events []event.Event
	// Cursor is where the watcher stands after the frame: the place to go on at.
	// Its hash is empty after Compacted, and as long as the watcher's own was.
	Cursor event.Cursor
	// Kept, of kind Reset only: what was seen up to Cursor is part of the new
	// history, and nothing is left out. Otherwise look at the whole state anew.
	Kept bool
	// By, of kind Behind only, is how many events this node lacks.
	By uint64
	// Reason is a sentence for people; empty with Events and Behind.
	Reason string
}

// The reasons, in the words that people are shown.
const (
	reasonHistory   = "the fleet was recovered or restored: its history is another"
	reasonDiverged  = "this is no place in the fleet's log: what led to it was not decided"
	reasonCompacted = "events in between are no longer held by this node"
	reasonSlow      = "the watcher does not keep up with the fleet's news"
	reasonStopped   = "this node is stopping"
)

// Watcher is one place in the log that moves on. It is for one goroutine, but
// for Cursor.
type Watcher struct {
	hub    *Hub
	filter replica.Filter
	// unsure: nobody has compared at with the log yet.
	unsure bool
	// live: it has been at the present, and so may be too slow.
	live  bool
	ended bool
	// sayAt is when to say that the node is behind; zero while it is not.
	sayAt time.Time
	leave sync.Once
	// at is where it is; mu is for who asks meanwhile.
	mu sync.Mutex
	at event.Cursor
}

// Close ends the watcher. It may be called more than once.
func (w *Watcher) Close() { w.leave.Do(w.hub.leave) }

// Cursor is where the watcher stands: it moves also over events that the filter
// leaves out. It may be called while Next waits.
func (w *Watcher) Cursor() event.Cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *Watcher) move(to event.Cursor) event.Cursor {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = to
	return to
}

// Next waits for the next frame. Its error is ctx's, and then nothing is lost:
// Next may be called again. After a Cut there is no next frame; it waits for ctx.
func (w *Watcher) Next(ctx context.Context) (Frame, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Frame{}, err
		}
		f, by, changed := w.step()
		if f.Kind != "" {
			w.ended = f.Kind == Cut
			return f, nil
		}
		if changed == nil && !w.ended {
			continue
		}
		late, err := w.wait(ctx, by > 0, changed)
		if err != nil {
			return Frame{}, err
		}
		if late {
			return Frame{Kind: Behind, Cursor: w.at, By: by}, nil
		}
	}
}

// wait waits for a change, or until it is time to say that the node is behind.
func (w *Watcher) wait(ctx context.Context, behind bool, changed <-chan struct{}) (late bool, err error) {
	if !behind {
		w.sayAt = time.Time{}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-changed:
			return false, nil
		}
	}
	if w.sayAt.IsZero() {
		w.sayAt = time.Now().Add(w.hub.quiet)
	}
	say := time.NewTimer(time.Until(w.sayAt))
	defer say.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-changed:
		return false, nil
	case <-say.C:
		w.sayAt = time.Now().Add(w.hub.quiet)
		return true, nil
	}
}

// step does one thing: it gives a frame; or what to wait for, and how far the
// node is behind; or neither, if it has moved on without anything to say.
func (w *Watcher) step() (f Frame, by uint64, changed <-chan struct{}) {
	if w.ended {
		return Frame{}, 0, nil
	}
	w.hub.mu.Lock()
	head, ring, stopped, next := w.hub.head, w.hub.ring, w.hub.stopped, w.hub.next
	w.hub.mu.Unlock()
	if stopped {
		return Frame{Kind: Cut, Cursor: w.at, Reason: reasonStopped}, 0, nil
	}
	if w.at.History == "" {
		w.move(event.Cursor{History: head.History, Seq: w.at.Seq, Hash: w.at.Hash})
	}
	switch {
	case head.History == "" && w.at.History != "":
		return Frame{}, w.at.Seq, next // this node's copy is empty: it has just been started
	case w.at.History != head.History:
		return w.reset(head), 0, nil
	case w.at.Seq > head.Seq:
		return Frame{}, w.at.Seq - head.Seq, next
	case w.unsure:
		w.unsure = false
		return w.check(head), 0, nil
	case w.at.Seq == head.Seq:
		w.live = true
		return Frame{}, 0, next
	}
	before := w.at
	if records, ok := since(ring, w.at.Seq); ok {
		w.live = true
		f = w.take(records, head.Seq)
	} else if w.live && head.Seq-w.at.Seq > w.hub.maxBehind {
		f = Frame{Kind: Cut, Cursor: w.at, Reason: reasonSlow}
	} else {
		f = w.read(head)
	}
	if f.Kind == "" && w.at == before {
		return f, 0, next // the next record is not decided wholly yet
	}
	return f, 0, nil
}

// reset goes over to another history: at the same place if that is part of it
// too, else at its present.
func (w *Watcher) reset(head event.Cursor) Frame {
	f := Frame{Kind: Reset, Reason: reasonHistory}
	same := event.Cursor{History: head.History, Seq: w.at.Seq, Hash: w.at.Hash}
	f.Kept = w.at.Seq == 0 || w.at.Seq <= head.Seq && w.hub.log.Held(same)
	w.unsure = false
	if !f.Kept {
		same = head
	}
	f.Cursor = w.move(same)
	return f
}

// check compares the cursor that the watcher came with to the log.
func (w *Watcher) check(head event.Cursor) Frame {
	if first := w.hub.log.First(); w.at.Seq+1 < first {
		return w.compacted(first)
	}
	if w.at.Hash == "" || w.at.Seq == 0 || w.hub.log.Held(w.at) {
		return Frame{}
	}
	if first := w.hub.log.First(); w.at.Seq+1 < first { // dropped meanwhile
		return w.compacted(first)
	}
	return Frame{Kind: Reset, Cursor: w.move(head), Reason: reasonDiverged}
}

func (w *Watcher) compacted(first uint64) Frame {
	to := w.move(event.Cursor{History: w.at.History, Seq: first - 1})
	return Frame{Kind: Compacted, Cursor: to, Reason: reasonCompacted}
}

// read gives what is next from the history.
func (w *Watcher) read(head event.Cursor) Frame {
	records, ok := w.hub.log.Records(w.at.Seq+1, w.hub.readBytes)
	if ok && len(records) > 0 {
		return w.take(records, head.Seq)
	}
	if first := w.hub.log.First(); w.at.Seq+1 < first {
		return w.compacted(first)
	}
	return Frame{Kind: Cut, Cursor: w.at, Reason: fmt.Sprintf("this node cannot read event %d from its disk any more", w.at.Seq+1)}
}

// take moves over whole records, as many as fit a frame, but not beyond event
// to. The frame is empty when the filter leaves nothing.
func (w *Watcher) take(records []history.Record, to uint64) Frame {
	f := Frame{Kind: Events, Cursor: w.at}
	size := 0
	for _, r := range records {
		if size += len(r.Bytes()); r.Last() > to || size > w.hub.readBytes && f.Cursor != w.at {
			break
		}
		for _, e := range r.Events {
			if e.Seq > w.at.Seq && w.filter.Matches(e) {
				f.Events = append(f.Events, e)
			}
		}
		f.Cursor = event.Cursor{History: w.at.History, Seq: r.Last(), Hash: r.Hash.String()}
	}
	w.move(f.Cursor)
	if len(f.Events) == 0 {
		return Frame{}
	}
	return f
}
