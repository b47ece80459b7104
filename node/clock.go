package node

import (
	"context"
	"sync"
	"time"

	"skein/consensus/control"
	"skein/mesh/ident"
)

const (
	// clockSlack is how far this node's clock may be from what the voters' clocks
	// say together before it is corrected: far more than the measurement is wrong,
	// far less than what anybody would notice.
	clockSlack = 500 * time.Millisecond
	// compareEvery is how often a leader asks the voters for their clocks, and
	// compareTimeout bounds one question.
	compareEvery   = 30 * time.Second
	compareTimeout = 3 * time.Second
	// clockFresh is how long what the clocks said is taken as it is, and clockOld
	// when a voter that is not connected any more does not count.
	clockFresh = 500 * time.Millisecond
	clockOld   = 10 * time.Minute
)

// clock is this node's wall clock, put right by those of the voters when more of
// them say that it is wrong than say that it is right. It is for what is
// compared with times of other nodes: entries of the log, tokens, certificates.
// How long something lasts is measured with time.Now.
type clock struct {
	self ident.NodeID
	// wall is the machine's clock as it is.
	wall func() time.Time
	// voters are the log's; skew and greet are the link's.
	voters func() []ident.NodeID
	skew   func(ident.NodeID) (time.Duration, bool)
	greet  func(context.Context, ident.NodeID) error

	mu       sync.Mutex
	readings map[ident.NodeID]clockReading
	// lookedAt is when the readings were last looked at, by both clocks.
	lookedAt, wallThen time.Time
	correction         time.Duration
}

// clockReading is what a voter's clock showed at a moment of our monotonic clock.
type clockReading struct{ clock, at time.Time }

// now is the corrected time. It also holds through a jump of this machine's
// clock: the voters' clocks are remembered by the monotonic one.
func (c *clock) now() time.Time {
	mono, wall := time.Now(), c.wall().Round(0)
	c.mu.Lock()
	since := mono.Sub(c.lookedAt)
	jumped := (wall.Sub(c.wallThen) - since).Abs() > clockSlack
	if !c.lookedAt.IsZero() && !jumped && since < clockFresh {
		defer c.mu.Unlock()
		return wall.Add(c.correction)
	}
	c.mu.Unlock()
	voters := c.voters() // not under mu: it waits for the log's lock
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(voters, mono, wall)
	return wall.Add(c.correction)
}

// look compares the clocks. The caller holds mu.
func (c *clock) look(voters []ident.NodeID, mono, wall time.Time) {
	c.lookedAt, c.wallThen, c.correction = mono, wall, 0
	known := map[ident.NodeID]clockReading{}
	var offsets []time.Duration
	for _, id := range voters {
		if id == c.self {
			offsets = append(offsets, 0)
			continue
		}
		r, ok := c.readings[id]
		if skew, connected := c.skew(id); connected {
			r, ok = clockReading{wall.Add(skew), mono}, true
		}
		if ok && mono.Sub(r.at) < clockOld {
			known[id] = r
			offsets = append(offsets, r.clock.Add(mono.Sub(r.at)).Sub(wall))
		}
	}
	c.readings = known
	if right := control.Correction(offsets); right.Abs() > clockSlack {
		c.correction = right
	}
}

// offset is a voter's clock minus this machine's, uncorrected, if it is known. It
// must not be called from inside a view of the state.
func (c *clock) offset(id ident.NodeID) (time.Duration, bool) {
	c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.readings[id]
	if !ok {
		return 0, false
	}
	return r.clock.Add(time.Since(r.at)).Sub(c.wall().Round(0)), true
}

// keep asks the voters for their clocks while this node leads, so that a jump of
// theirs is not taken for one of ours.
func (c *clock) keep(ctx context.Context, leading func() bool, changed func() <-chan struct{}) error {
	var last time.Time
	for {
		turned := changed()
		wait := compareEvery
		if leading() {
			if wait = compareEvery - time.Since(last); wait <= 0 {
				c.compare(ctx)
				last, wait = time.Now(), compareEvery
			}
		} else {
			last = time.Time{}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-turned:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (c *clock) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range c.voters() {
		if id != c.self {
			wg.Go(func() { c.greet(ctx, id) }) // who does not answer is compared when it does
		}
	}
	wg.Wait()
}
