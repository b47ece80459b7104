package raftgroup

import (
	"errors"
	"sync"
	"time"
)

var errTooSoon = errors.New("this node has just started and may have promised a leader not to vote")

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
	// promised is until when this node votes for nobody: see promise.
	promised time.Time
}

// promise keeps this node from voting for d. At its start that is Timings.Election:
// who led before may still count on the word that it gave then. No election begins
// sooner anyway.
func (l *lease) promise(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promised = time.Now().Add(d)
}

// mayVote is why this node must not vote; nil if it may.
func (l *lease) mayVote() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(l.promised) {
		return errTooSoon
	}
	return nil
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
