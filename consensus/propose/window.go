package propose

import (
	"context"
	"sync"

	"skein/consensus/event"
)

// maxOpen is how far the numbers of proposals under way may lie apart. The state
// remembers the last 1024 numbers of a start (fleet.SessionWindow): a retry of
// one that is further behind could not be told from a new proposal.
const maxOpen = 1000

// window hands out the numbers of proposals.
type window struct {
	mu sync.Mutex
	// next is the number to come; those below low are decided or given up.
	next, low uint64
	// over says so of a number from low on, at its place.
	over [maxOpen]bool
	// moved is closed when low moves; nil while nobody waits for it.
	moved chan struct{}
}

// take gives a number as soon as one may be used.
func (w *window) take(ctx context.Context) (uint64, *event.Fault) {
	for {
		w.mu.Lock()
		if w.next == 0 {
			w.next, w.low = 1, 1
		}
		if w.next-w.low < maxOpen {
			n := w.next
			w.next++
			w.over[n%maxOpen] = false
			w.mu.Unlock()
			return n, nil
		}
		if w.moved == nil {
			w.moved = make(chan struct{})
		}
		moved := w.moved
		w.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			f := event.Refuse(event.CodeBusy, "", "propose less at once", "this node has %d proposals under way", maxOpen)
			f.RetryAfterMillis = pause.Milliseconds()
			return 0, f
		}
	}
}

// settle says that a number is not under way any more.
func (w *window) settle(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over[n%maxOpen] = true
	from := w.low
	for w.low < w.next && w.over[w.low%maxOpen] {
		w.low++
	}
	if w.low > from && w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
}
