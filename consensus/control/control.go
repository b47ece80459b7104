// Package control holds what only the leader does on its own: it brings the
// Raft configuration in line with what admins approved, puts a spare in the
// place of a voter that is gone, states as facts who has gone silent and who is
// back, rotates the gossip key after a revocation, raises the level of event
// types once all voters know it, seals the log, and hands over when its clock is
// wrong.
//
// A controller runs on every voter and is idle unless that voter leads. It has
// no memory that matters: each round compares the replicated state with the
// world and takes the next step, so a new leader carries on where the last one
// stopped. Only the silence timers are its own; they start anew with a term,
// because a new leader has not yet listened.
//
// It imports the words and the pure state; Raft and the mesh reach it through
// the interfaces below. Only package node may import it.
package control

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

// Raft is the voter this controller runs on.
type Raft interface {
	// Leading reports whether this node leads, and in which term.
	Leading() (term uint64, leading bool)
	// Voters is the newest Raft configuration.
	Voters() []ident.NodeID
	// AddVoter adds a node, lets it catch up, and makes it a voter.
	AddVoter(ctx context.Context, id ident.NodeID) error
	// RemoveServer takes a node out of the configuration.
	RemoveServer(ctx context.Context, id ident.NodeID) error
	// Transfer hands leadership over to a voter.
	Transfer(ctx context.Context, to ident.NodeID) error
}

// Mesh is what gossip and the links know of the others.
type Mesh interface {
	// Alive is gossip's hint: the node answers others' probes.
	Alive(id ident.NodeID) bool
	// Reach tries to speak with the node itself; nil means that it answered.
	Reach(ctx context.Context, id ident.NodeID) error
	// Level is the newest level of event types that the node knows, as it told
	// when it was last spoken to; 0 is that of the first builds.
	Level(id ident.NodeID) (level uint64, known bool)
	// GossipEpoch is the epoch of the gossip keys that this node holds.
	GossipEpoch() uint64
	// NewGossipKey makes the keys of epoch, for members to fetch.
	NewGossipKey(epoch uint64) error
}

// Config is what a Controller works with. All fields are required but
// ReplaceAfter.
type Config struct {
	// Key is the node's own, which signs seals.
	Key ident.Key
	// Level is the newest level of event types that this build knows.
	Level uint64
	// View gives read access to the replicated state, and its cursor.
	View func(func(*fleet.State, event.Cursor))
	// Subscribe gives a channel that has a value after a change of the state.
	Subscribe func() (changed <-chan struct{}, release func())
	Raft      Raft
	// Learners are in the newest Raft configuration without a vote.
	Learners func() []ident.NodeID
	// Record proposes facts as the leader.
	Record func(ctx context.Context, drafts ...event.Draft) error
	Mesh   Mesh
	// Offset is a node's wall clock minus this node's own, uncorrected, if they
	// were compared. It is not called from inside View.
	Offset func(ident.NodeID) (time.Duration, bool)
	// ReplaceAfter is how long a voter may be silent before an approved spare takes
	// its place; 0 is for ever.
	ReplaceAfter time.Duration
	// Now is for measuring how long something lasts, Wall is the clock that entries
	// are stamped with.
	Now, Wall func() time.Time
	Log       *slog.Logger
}

const (
	// tick bounds how late a change in the mesh is noticed.
	tick = 500 * time.Millisecond
	// stepTimeout bounds one action; what did not work is planned again.
	stepTimeout = 10 * time.Second
	// reachTimeout bounds the question "are you really gone?".
	reachTimeout = 2 * time.Second
)

// Controller is one voter's leader duties.
type Controller struct {
	cfg     Config
	plan    planner
	leaving dismissals
}

// New returns a controller; it does nothing before Run.
func New(cfg Config) *Controller {
	return &Controller{cfg: cfg, leaving: dismissals{queue: make(chan dismissal, maxDismissals)}}
}

// Run works until ctx ends. It returns nil: whatever fails is logged and
// planned again in the next round.
func (c *Controller) Run(ctx context.Context) error {
	defer c.leaving.close()
	changed, release := c.cfg.Subscribe()
	defer release()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	wake := changed
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-c.leaving.queue:
			c.dismiss(ctx, d)
		case <-ticker.C:
		case <-wake:
		}
		if wake = changed; !c.round(ctx) {
			wake = nil // what failed is not tried again at every change, but at the next tick
		}
	}
}

// round takes the steps that are due, if this node leads, and reports whether none
// failed.
func (c *Controller) round(ctx context.Context) bool {
	term, leading := c.cfg.Raft.Leading()
	if !leading {
		return true
	}
	for _, s := range c.due(term) {
		stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
		err := c.take(stepCtx, s)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("leader's step failed, will be tried again", "step", s.kind.String(), "node", s.node, "error", err)
			return false
		}
	}
	return true
}

// due asks the planner what the state and the mesh call for now.
func (c *Controller) due(term uint64) (steps []step) {
	voters, offsets := c.cfg.Raft.Voters(), map[ident.NodeID]time.Duration{}
	for _, id := range voters {
		if d, ok := c.cfg.Offset(id); ok {
			offsets[id] = d
		}
	}
	w := world{
		now: c.cfg.Now(), wall: c.cfg.Wall(), term: term, self: c.cfg.Key.ID(), raftVoters: voters, learners: c.cfg.Learners(), alive: c.cfg.Mesh.Alive,
		level: c.cfg.Mesh.Level, ownLevel: c.cfg.Level, offsets: offsets, ringEpoch: c.cfg.Mesh.GossipEpoch(), replaceAfter: c.cfg.ReplaceAfter,
	}
	c.cfg.View(func(s *fleet.State, at event.Cursor) {
		w.at = at
		steps = c.plan.next(s, w)
	})
	return steps
}

// take carries out one step.
func (c *Controller) take(ctx context.Context, s step) error {
	switch s.kind {
	case addVoter, replaceVoter:
		return c.seat(ctx, s)
	case removeVoter:
		return c.unseat(ctx, s.node)
	case handOver:
		c.cfg.Log.Warn("this node's clock is far from the other voters', so another is to lead; set the clock, see `skein doctor`", "node", s.node)
		return c.cfg.Raft.Transfer(ctx, s.node)
	case sealLog:
		return c.cfg.Record(ctx, event.Seal(c.cfg.Key, s.at.History, s.at.Seq, s.at.Hash).Draft())
	case rotateKey:
		// First the decision, then the key: a key that was not decided could
		// only be a second one of its epoch.
		if err := c.cfg.Record(ctx, s.drafts...); err != nil {
			return err
		}
		if err := c.cfg.Mesh.NewGossipKey(s.epoch); err != nil {
			return fmt.Errorf("make gossip keys of epoch %d: %w", s.epoch, err)
		}
		return nil
	case silent:
		if c.answers(ctx, s.node) {
			return nil
		}
	}
	return c.cfg.Record(ctx, s.drafts...)
}

// answers asks somebody whom gossip has lost whether it is there: a rumour
// decides nothing.
func (c *Controller) answers(ctx context.Context, id ident.NodeID) bool {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if c.cfg.Mesh.Reach(ctx, id) != nil {
		return false
	}
	c.plan.heard(id, c.cfg.Now())
	return true
}

// unseat takes a node out of the Raft group, unless the voters that stay are no
// majority of theirs when they are asked: gossip notices a death after seconds
// only, and a group that cannot decide could not take the node back either.
func (c *Controller) unseat(ctx context.Context, id ident.NodeID) error {
	here := func(other ident.NodeID) bool { return other == c.cfg.Key.ID() || c.answers(ctx, other) }
	if voters := c.cfg.Raft.Voters(); slices.Contains(voters, id) && !spared(voters, id, here) {
		return fmt.Errorf("%s votes, and %w: too few of the other %d voters answer", id.Short(), errTooFew, len(voters)-1)
	}
	c.cfg.Log.Info("node is taken out of the Raft group", "node", id)
	return c.cfg.Raft.RemoveServer(ctx, id)
}

// seat makes a node a voter, unless its build does not know what the log holds,
// or the one whose place it is to take is there after all.
func (c *Controller) seat(ctx context.Context, s step) (err error) {
	if s.kind == replaceVoter {
		if c.answers(ctx, s.gone) {
			return nil
		}
		c.cfg.Log.Warn("a voter is gone, a spare takes its place", "node", s.gone, "spare", s.node)
	}
	defer func() {
		if err != nil {
			c.plan.failed[s.node] = c.cfg.Now()
		}
	}()
	if err := c.cfg.Mesh.Reach(ctx, s.node); err != nil {
		return fmt.Errorf("ask %s whether it is there: %w", s.node.Short(), err)
	}
	if level, known := c.cfg.Mesh.Level(s.node); known && max(level, 1) < s.ceiling {
		return fmt.Errorf("the build of %s knows event types of level %d and the fleet uses those of level %d; upgrade skein there",
			s.node.Short(), max(level, 1), s.ceiling)
	}
	if !c.mayVote(s.node) {
		return nil // the plan is of before
	}
	return c.cfg.Raft.AddVoter(ctx, s.node)
}

// mayVote: the node is a member, and approved. Who is to leave is dismissed by the
// goroutine that makes voters, so the answer holds until that is done.
func (c *Controller) mayVote(id ident.NodeID) (may bool) {
	c.cfg.View(func(s *fleet.State, _ event.Cursor) {
		n, ok := s.Node(id)
		may = ok && n.Member() && n.VoterApproved
	})
	return may
}
