package replica

import (
	"context"
	"fmt"
)

// feed tells those who wait that the replica has changed. It is guarded by
// Replica.mu.
type feed struct {
	// next is closed at the next change; nil when nobody waits for it.
	next chan struct{}
	// subscribers each have room for one value.
	subscribers map[chan struct{}]struct{}
}

func (f *feed) tell() {
	if f.next != nil {
		close(f.next)
		f.next = nil
	}
	for c := range f.subscribers {
		select {
		case c <- struct{}{}:
		default: // it has not looked yet: one value says it all
		}
	}
}

// Subscribe gives a channel that has a value whenever something changed since it
// was last read. The subscriber calls release when done.
func (r *Replica) Subscribe() (changed <-chan struct{}, release func()) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.feed.subscribers == nil {
		r.feed.subscribers = map[chan struct{}]struct{}{}
	}
	r.feed.subscribers[c] = struct{}{}
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.feed.subscribers, c)
	}
}

// Wait returns when event seq is included, or with the reason why it no longer
// can be: ctx ended, or the replica failed or was closed.
func (r *Replica) Wait(ctx context.Context, seq uint64) error {
	for {
		r.mu.Lock()
		at, failed := r.at.Seq, r.failed
		if r.feed.next == nil {
			r.feed.next = make(chan struct{})
		}
		next := r.feed.next
		r.mu.Unlock()
		switch {
		case at >= seq:
			return nil
		case failed != nil:
			return failed
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("wait for event %d, this node is at %d: %w", seq, at, ctx.Err())
		}
	}
}
