package watch

import (
	"context"
	"slices"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/consensus/replica"
)

// Log is what is watched: a node's replica.
type Log interface {
	// Cursor is where the log is.
	Cursor() event.Cursor
	// First is the first event that is held here, or will be.
	First() uint64
	// Held reports whether a cursor is a place in this log.
	Held(event.Cursor) bool
	// Records gives whole records from the one that holds event seq on, at least
	// one if there is one; not ok means that seq is not held here.
	Records(seq uint64, maxBytes int) (records []history.Record, ok bool)
	// Subscribe gives a channel that has a value whenever the log has grown.
	Subscribe() (changed <-chan struct{}, release func())
}

const (
	// ringBytes bounds the encoded size of the records that watchers share.
	ringBytes = 4 << 20
	// readBytes is how much is read at a time, and so the size of a frame unless
	// a single record is larger (history.MaxRecord).
	readBytes = 256 << 10
	// maxBehind is how many events one may fall back that was at the present.
	maxBehind = 65536
	// quiet is how long a node that is behind a cursor says nothing; then it says
	// Behind that often.
	quiet = 2 * time.Second
)

// bounds are the limits above, which tests make smaller.
type bounds struct {
	ringBytes, readBytes int
	maxBehind            uint64
	quiet                time.Duration
}

// Hub serves all watchers of one log. Run has to run for them to see news.
type Hub struct {
	log Log
	bounds
	// wake holds a signal when the first watcher has come or the last has gone.
	wake chan struct{}

	mu      sync.Mutex
	present int
	stopped bool
	// head is where the log was at the last look.
	head event.Cursor
	// ring has the newest records up to head, without a hole, oldest first.
	ring      []history.Record
	ringBytes int
	// next is closed when one of the above has changed.
	next chan struct{}
}

// New makes a hub.
func New(log Log) *Hub {
	return newHub(log, bounds{ringBytes, readBytes, maxBehind, quiet})
}

func newHub(log Log, b bounds) *Hub {
	return &Hub{log: log, bounds: b, wake: make(chan struct{}, 1), next: make(chan struct{})}
}

// Run looks at the log while somebody watches, until ctx ends. Then all
// watchers are cut, and it returns nil.
func (h *Hub) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-h.wake:
			h.serve(ctx)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	h.tell()
	return nil
}

func (h *Hub) serve(ctx context.Context) {
	changed, release := h.log.Subscribe()
	defer release()
	for h.look() {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-h.wake:
		}
	}
}

// look brings the ring to the log's present. It reports false when nobody is
// here to see it.
func (h *Hub) look() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.present == 0 {
		h.ring, h.ringBytes = nil, 0
		return false
	}
	now := h.log.Cursor()
	if now == h.head {
		return true
	}
	// Another history, or a jump (a snapshot was installed), begins a new ring.
	// A large step too: who is that far behind reads the history anyway.
	if now.History != h.head.History || now.Seq < h.head.Seq || now.Seq-h.head.Seq > h.maxBehind || !h.extend(now.Seq) {
		h.ring, h.ringBytes = nil, 0
	}
	h.head = now
	h.tell()
	return true
}

// extend adds the records from head up to event to, and forgets the oldest over
// the bound. It reports false when there is a hole.
func (h *Hub) extend(to uint64) bool {
	for at := h.head.Seq; at < to; {
		records, ok := h.log.Records(at+1, h.readBytes)
		if !ok || len(records) == 0 || records[0].First() > at+1 {
			return false
		}
		for _, r := range records {
			if r.Last() > to {
				return r.First() > to
			}
			h.ring = append(h.ring, r)
			h.ringBytes += len(r.Bytes())
			at = r.Last()
		}
		h.forget()
	}
	return true
}

func (h *Hub) forget() {
	drop := 0
	for drop < len(h.ring)-1 && h.ringBytes > h.bounds.ringBytes {
		h.ringBytes -= len(h.ring[drop].Bytes())
		drop++
	}
	if drop > 0 {
		// Copied: watchers read the old array without the lock.
		h.ring = slices.Clone(h.ring[drop:])
	}
}

// tell wakes those who wait. The caller holds mu.
func (h *Hub) tell() {
	close(h.next)
	h.next = make(chan struct{})
}

// since gives the records of the ring that hold events after seq; false if the
// ring begins later.
func since(ring []history.Record, seq uint64) ([]history.Record, bool) {
	if len(ring) == 0 || ring[0].First() > seq+1 {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(ring, seq, func(r history.Record, seq uint64) int {
		if r.Last() > seq {
			return 1
		}
		return -1
	})
	return ring[i:], true
}

// Watch begins at a cursor: after it. Nil is the present; a cursor without a
// history is a place in whatever history this node has; one without a hash is
// not checked against the chain. The caller closes the watcher.
func (h *Hub) Watch(from *event.Cursor, filter replica.Filter) *Watcher {
	w := &Watcher{hub: h, filter: filter}
	h.mu.Lock()
	h.present++
	first := h.present == 1
	h.mu.Unlock()
	if first {
		h.nudge()
	}
	h.look()
	if from != nil {
		w.at, w.unsure = *from, true
		return w
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	w.at = h.head
	return w
}

func (h *Hub) leave() {
	h.mu.Lock()
	h.present--
	last := h.present == 0
	h.mu.Unlock()
	if last {
		h.nudge()
	}
}

func (h *Hub) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
