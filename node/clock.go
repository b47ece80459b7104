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
	// asked is when the voters were last asked since this node leads, zero while it
	// does not; jumped is when this machine's clock last did, and jumps says so.
	asked, jumped time.Time
	jumps         chan struct{}
}

// clockReading is what a voter's clock showed at a moment of our monotonic clock.
type clockReading struct{ clock, at time.Time }

// now is the corrected time. It also holds through a jump of this machine's
// clock: the voters' clocks are remembered by the monotonic one.
func (c *clock) now() time.Time {
	mono, wall := time.Now(), c.wall().Round(0)
	c.mu.Lock()
	if !c.lookedAt.IsZero() && !c.hasJumped(mono, wall) && mono.Sub(c.lookedAt) < clockFresh {
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

// hasJumped: this machine's clock did, since the readings were last looked at.
func (c *clock) hasJumped(mono, wall time.Time) bool {
	return !c.lookedAt.IsZero() && (wall.Sub(c.wallThen)-mono.Sub(c.lookedAt)).Abs() > clockSlack
}

// look compares the clocks. The caller holds mu.
func (c *clock) look(voters []ident.NodeID, mono, wall time.Time) {
	if c.hasJumped(mono, wall) {
		c.jumped = mono
		select {
		case c.jumps <- struct{}{}:
		default: // it is told already
		}
	}
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

// offset is a voter's clock minus this machine's, uncorrected, if this node leads
// and has asked the voters since, and since its own clock jumped: on what it knew of
// clocks that were set right meanwhile, two leaders would send leadership to and
// fro. It must not be called from inside a view of the state.
func (c *clock) offset(id ident.NodeID) (time.Duration, bool) {
	c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.readings[id]
	if !ok || !c.judges() {
		return 0, false
	}
	return r.clock.Add(time.Since(r.at)).Sub(c.wall().Round(0)), true
}

// keep asks the voters for their clocks while this node leads, so that a jump of
// theirs is not taken for one of ours.
func (c *clock) keep(ctx context.Context, leading func() bool, changed func() <-chan struct{}) error {
	for {
		turned := changed()
		wait := compareEvery
		if leading() {
			if wait = c.due(); wait <= 0 {
				c.compare(ctx)
				wait = compareEvery
			}
		} else {
			c.forget()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-turned:
		case <-c.jumps:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// judges: the voters were asked since this node leads and since its clock jumped.
// The caller holds mu.
func (c *clock) judges() bool { return !c.asked.IsZero() && !c.asked.Before(c.jumped) }

// due is in how long the voters are to be asked again.
func (c *clock) due() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.judges() {
		return 0
	}
	return compareEvery - time.Since(c.asked)
}

func (c *clock) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	for _, id := range c.voters() {
		if id != c.self {
			wg.Go(func() { c.greet(ctx, id) }) // who does not answer is compared when it does
		}
	}
	wg.Wait()
	voters, mono, wall := c.voters(), time.Now(), c.wall().Round(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look(voters, mono, wall)
	c.asked = start
}

// forget: this node does not lead.
func (c *clock) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = time.Time{}
}
