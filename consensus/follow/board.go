package follow

import (
	"slices"
	"sync"
	"time"

	"skein/mesh/ident"
)

const (
	// maxPending bounds marks that this node's copy has not caught up with.
	maxPending = 16
	// newerBy is how much younger a mark must be to be told on. What comes back
	// by another way seems younger by the time on the wires.
	newerBy = 200 * time.Millisecond
)

// heard is a mark and the moment of this node's monotonic clock at which the
// leader made it, as far as the ages on its way tell.
type heard struct {
	mark Mark
	made time.Time
}

// board keeps what this node knows of the leader's marks.
type board struct {
	self ident.NodeID

	mu sync.Mutex
	// newest is the youngest mark, pending those not yet reached by this node's
	// copy, oldest first, and asOf the youngest that it has reached.
	newest, asOf heard
	pending      []heard
	// path is the way to the leader through the present parent, without this
	// node; empty on the leader.
	path []ident.NodeID
	// changed is closed at the next change.
	changed chan struct{}
}

func newBoard(self ident.NodeID) *board {
	return &board{self: self, changed: make(chan struct{})}
}

// put takes a mark that the parent gave now, or that this node makes as leader.
func (b *board) put(m Mark, now time.Time) {
	h := heard{m, now.Add(-time.Duration(m.AgeMillis) * time.Millisecond)}
	b.mu.Lock()
	defer b.mu.Unlock()
	path := m.Path
	if m.Leader == b.self {
		path = nil
	}
	moved := !slices.Equal(path, b.path)
	b.path = slices.Clone(path)
	newest := b.newest.mark
	facts := m.Leader != newest.Leader || !slices.Equal(m.Voters, newest.Voters)
	younger := h.made.After(b.newest.made.Add(newerBy)) || facts && h.made.After(b.newest.made)
	if m.older(newest) || !newest.older(m) && !younger {
		if moved {
			b.tell()
		}
		return
	}
	b.newest = h
	if len(b.pending) == maxPending {
		b.pending = b.pending[:maxPending-1] // what is far off may become exact later
	}
	b.pending = append(b.pending, h)
	b.tell()
}

func (b *board) tell() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// touch tells that something else changed that is shown with the marks.
func (b *board) touch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell()
}

func (b *board) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// latest is the youngest mark, aged to now, with the way to this node.
func (b *board) latest(now time.Time) (Mark, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.show(b.newest, now)
}

// reached is the youngest mark that a copy which ends at seq has reached.
func (b *board) reached(seq uint64, now time.Time) (Mark, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(b.pending) && b.pending[n].mark.Seq <= seq {
		b.asOf = b.pending[n]
		n++
	}
	b.pending = slices.Delete(b.pending, 0, n)
	return b.show(b.asOf, now)
}

func (b *board) show(h heard, now time.Time) (Mark, bool) {
	if h.made.IsZero() {
		return Mark{}, false
	}
	m := h.mark
	m.AgeMillis = max(0, now.Sub(h.made).Milliseconds())
	m.Voters = slices.Clone(m.Voters)
	m.Path = append(slices.Clone(b.path), b.self)
	return m, true
}

// onPath reports whether id is on the way from the leader to this node.
func (b *board) onPath(id ident.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.path, id)
}

// depth is how many nodes are between the leader and this node, itself included.
func (b *board) depth() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.path) + 1
}
