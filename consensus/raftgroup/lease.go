package raftgroup

import (
	"sync"
	"time"
)

// lease is how long a leader may take for granted that it leads: a follower that
// has confirmed it votes for nobody else for Timings.Election, and one that has
// just started for as long too.
type lease struct {
	mu sync.Mutex
	// from is when a majority was asked that confirmed it, in term.
	from time.Time
	term uint64
	// handing counts the transfers of leadership under way, and begun counts all:
	// voters that are asked to vote because of one do not care for a leader.
	handing, begun int
}

// begin gives what renew wants to know.
func (l *lease) begin() (at time.Time, begun int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now(), l.begun
}

// renew notes that a majority confirmed a leader of term, asked at a time.
func (l *lease) renew(term uint64, at time.Time, begun int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handing == 0 && l.begun == begun && (term > l.term || term == l.term && at.After(l.from)) {
		l.term, l.from = term, at
	}
}

// holds reports whether the lease of a leader of term is younger than d. A clock
// that was set forward ends it, and so does sleep of the whole machine, which
// only the wall clock counts.
func (l *lease) holds(term uint64, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return term == l.term && term != 0 && now.Sub(l.from) < d && now.Round(0).Sub(l.from.Round(0)) < d
}

// hand ends the lease while do runs, which may make somebody else leader.
func (l *lease) hand(do func() error) error {
	l.mu.Lock()
	l.handing++
	l.begun++
	l.term = 0
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.handing--
	}()
	return do()
}
