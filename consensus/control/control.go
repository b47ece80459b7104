// Package control holds what only the leader does on its own: it brings the
// Raft configuration in line with what admins approved, states as facts who
// has gone silent and who is back, and rotates the gossip key after a
// revocation.
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
	// Record proposes facts as the leader.
	Record(ctx context.Context, drafts ...event.Draft) error
}

// Mesh is what gossip and the links know of the others.
type Mesh interface {
	// Alive is gossip's hint: the node answers others' probes.
	Alive(id ident.NodeID) bool
	// Reach tries to speak with the node itself; nil means that it answered.
	Reach(ctx context.Context, id ident.NodeID) error
	// GossipEpoch is the epoch of the gossip keys that this node holds.
	GossipEpoch() uint64
	// NewGossipKey makes the keys of epoch, for members to fetch.
	NewGossipKey(epoch uint64) error
}

// Config is what a Controller works with. All fields are required.
type Config struct {
	// View gives read access to the replicated state.
	View func(func(*fleet.State))
	// Subscribe gives a channel that has a value after a change of the state.
	Subscribe func() (changed <-chan struct{}, release func())
	Raft      Raft
	Mesh      Mesh
	Now       func() time.Time
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
	cfg  Config
	plan planner
}

// New returns a controller; it does nothing before Run.
func New(cfg Config) *Controller {
	return &Controller{cfg: cfg}
}

// Run works until ctx ends. It returns nil: whatever fails is logged and
// planned again in the next round.
func (c *Controller) Run(ctx context.Context) error {
	changed, release := c.cfg.Subscribe()
	defer release()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-changed:
		}
		c.round(ctx)
	}
}

// round takes the steps that are due, if this node leads.
func (c *Controller) round(ctx context.Context) {
	term, leading := c.cfg.Raft.Leading()
	if !leading {
		return
	}
	for _, s := range c.due(term) {
		stepCtx, cancel := context.WithTimeout(ctx, stepTimeout)
		err := c.take(stepCtx, s)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("leader's step failed, will be tried again", "step", s.kind.String(), "node", s.node, "error", err)
			return
		}
	}
}

// due asks the planner what the state and the mesh call for now.
func (c *Controller) due(term uint64) (steps []step) {
	w := world{now: c.cfg.Now(), term: term, raftVoters: c.cfg.Raft.Voters(), alive: c.cfg.Mesh.Alive, ringEpoch: c.cfg.Mesh.GossipEpoch()}
	c.cfg.View(func(s *fleet.State) { steps = c.plan.next(s, w) })
	return steps
}

// take carries out one step.
func (c *Controller) take(ctx context.Context, s step) error {
	switch s.kind {
	case addVoter:
		return c.cfg.Raft.AddVoter(ctx, s.node)
	case removeVoter:
		return c.cfg.Raft.RemoveServer(ctx, s.node)
	case rotateKey:
		// First the decision, then the key: a key that was not decided could
		// only be a second one of its epoch.
		if err := c.cfg.Raft.Record(ctx, s.drafts...); err != nil {
			return err
		}
		if err := c.cfg.Mesh.NewGossipKey(s.epoch); err != nil {
			return fmt.Errorf("make gossip keys of epoch %d: %w", s.epoch, err)
		}
		return nil
	case silent:
		reachCtx, cancel := context.WithTimeout(ctx, reachTimeout)
		defer cancel()
		if c.cfg.Mesh.Reach(reachCtx, s.node) == nil {
			c.plan.heard(s.node, c.cfg.Now())
			return nil
		}
		return c.cfg.Raft.Record(ctx, s.drafts...)
	default:
		return c.cfg.Raft.Record(ctx, s.drafts...)
	}
}
