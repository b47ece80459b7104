package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// maxDismissals bounds the dismissals that wait.
const maxDismissals = 8

// dismissal is a decision that expels nodes.
type dismissal struct {
	nodes  []ident.NodeID
	decide func(context.Context) error
	// refuse is called instead when it must not be decided.
	refuse func(error)
}

// dismissals are those that wait for the leader.
type dismissals struct {
	mu     sync.Mutex
	closed bool
	queue  chan dismissal
}

// Dismiss expels nodes in an order that is safe: first each is taken out of the
// Raft group, then decide is called. A group that counted on a node to which nobody
// talks any more could not decide, nor take it out. So it is refused while the
// voters that would stay are no majority; and no node becomes a voter between the
// two. It returns at once; then either decide is called, which must not take longer
// than its context, or refuse with a fault: "conflict" when too few voters answer,
// "no_leader" when another is to lead first. The error is a "busy" or "no_leader"
// fault, and neither is called.
func (c *Controller) Dismiss(nodes []ident.NodeID, decide func(context.Context) error, refuse func(error)) error {
	c.leaving.mu.Lock()
	defer c.leaving.mu.Unlock()
	if c.leaving.closed {
		return noLeader("this node is stopping")
	}
	select {
	case c.leaving.queue <- dismissal{nodes, decide, refuse}:
		return nil
	default:
		f := event.Refuse(event.CodeBusy, "", "try again in a moment", "%d robots are being expelled", maxDismissals)
		f.RetryAfterMillis = tick.Milliseconds()
		return f
	}
}

// close refuses what waits, and what comes.
func (d *dismissals) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for len(d.queue) > 0 {
		(<-d.queue).refuse(noLeader("this node is stopping"))
	}
}

func (c *Controller) dismiss(ctx context.Context, d dismissal) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, id := range d.nodes {
		if err := c.release(ctx, id); err != nil {
			d.refuse(err)
			return
		}
	}
	if err := d.decide(ctx); err != nil {
		c.cfg.Log.Debug("expelling was not decided", "nodes", d.nodes, "error", err)
	}
}

// release sees to it that the Raft group does not count on a node. The error is a
// fault.
func (c *Controller) release(ctx context.Context, id ident.NodeID) error {
	if _, leading := c.cfg.Raft.Leading(); !leading {
		return noLeader("this node does not lead")
	}
	voters := c.cfg.Raft.Voters()
	switch {
	case !slices.Contains(voters, id) && !slices.Contains(c.cfg.Learners(), id):
		return nil
	case id == c.cfg.Key.ID() && len(voters) > 1: // who leads next will do it
		if err := c.cfg.Raft.Transfer(ctx, ""); err != nil {
			return refused(fmt.Errorf("the leader is to leave, and could not hand over: %w", err))
		}
		return noLeader("the leader is to leave, another leads first")
	}
	if err := c.unseat(ctx, id); err != nil {
		return refused(err)
	}
	return nil
}

// refused is err as a fault.
func refused(err error) error {
	if f, is := errors.AsType[*event.Fault](err); is {
		return f
	}
	if errors.Is(err, errTooFew) {
		return event.Refuse(event.CodeConflict, ReasonQuorum, "bring the silent voters back first, see `skein node list`", "%v", err)
	}
	f := event.Refuse(event.CodeBusy, "", "try again in a moment", "%v", err)
	f.RetryAfterMillis = tick.Milliseconds()
	return f
}

// ReasonQuorum: what was asked for would leave too few voters to decide anything.
const ReasonQuorum event.Reason = "quorum"

// errTooFew: the voters that would stay are no majority.
var errTooFew = errors.New("nothing could be decided without it")

func noLeader(why string) error {
	return event.Refuse(event.CodeNoLeader, "", "try again", "%s", why)
}
