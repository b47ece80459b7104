package raftgroup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// State is what a node does in its group.
type State string

// The states.
const (
	Follower  State = "follower"
	Candidate State = "candidate"
	Leader    State = "leader"
	// Stopped: before Run or after its end.
	Stopped State = "stopped"
)

// Status is a view of the group from this node; its parts are read one after
// another, not at one instant.
type Status struct {
	State State
	// Leader is who leads as far as this node knows; "" when it knows none.
	Leader ident.NodeID
	Term   uint64
	// LastIndex is the last entry in the log here, Commit the last known to be
	// committed, Applied the last one given to the Machine.
	LastIndex, Commit, Applied uint64
	// Voters and Nonvoters are the newest configuration, committed or not.
	Voters, Nonvoters []ident.NodeID
	// LastContact is how long ago the leader was heard; 0 on the leader,
	// negative when none ever was.
	LastContact time.Duration
	// Ready: this node leads and has applied all that was decided before its term.
	Ready bool
	// NoSpace: the disk here is nearly full, so no entries are accepted.
	NoSpace bool
	// Outdated is a later epoch that was met: the fleet was recovered without
	// this node, which takes part no more. 0 while none was.
	Outdated uint64
}

// Member reports whether the configuration has id, with a vote or without.
func (s Status) Member(id ident.NodeID) bool {
	for _, list := range [][]ident.NodeID{s.Voters, s.Nonvoters} {
		if slices.Contains(list, id) {
			return true
		}
	}
	return false
}

// Status is the group as this node sees it now.
func (g *Group) Status() Status {
	r := g.raft.Load()
	if r == nil {
		return Status{State: Stopped, LastContact: -1}
	}
	_, leader := r.LeaderWithID()
	s := Status{State: stateOf(r.State()), Leader: ident.NodeID(leader), Term: r.CurrentTerm(),
		LastIndex: r.LastIndex(), Commit: r.CommitIndex(), Applied: r.AppliedIndex(), LastContact: -1}
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage == raft.Voter {
			s.Voters = append(s.Voters, ident.NodeID(server.ID))
		} else {
			s.Nonvoters = append(s.Nonvoters, ident.NodeID(server.ID))
		}
	}
	if last := r.LastContact(); s.State == Leader {
		s.LastContact = 0
	} else if !last.IsZero() {
		s.LastContact = time.Since(last)
	}
	s.Ready = s.State == Leader && s.Term != 0 && s.Term == g.readyTerm.Load()
	s.NoSpace, s.Outdated = g.disk.NearlyFull(), g.streams.newer.Load()
	if g.failure.get() != nil || s.Outdated != 0 {
		// Nothing that raft still believes counts.
		s.State, s.Leader, s.Ready = Stopped, "", false
	}
	return s
}

func stateOf(s raft.RaftState) State {
	switch s {
	case raft.Follower:
		return Follower
	case raft.Candidate:
		return Candidate
	case raft.Leader:
		return Leader
	default:
		return Stopped
	}
}

// Leading reports whether this node leads and is ready, and in which term.
// It is quick: it is asked for every proposal.
func (g *Group) Leading() (term uint64, leading bool) {
	if !g.inOffice() {
		return 0, false
	}
	term = g.raft.Load().CurrentTerm()
	return term, term != 0 && term == g.readyTerm.Load()
}

// inOffice reports whether this node leads, ready or not.
func (g *Group) inOffice() bool {
	r := g.raft.Load()
	return r != nil && r.State() == raft.Leader && g.failure.get() == nil && g.streams.newer.Load() == 0
}

// Accepts is nil if this node leads and is ready for proposals, and else the
// fault to refuse them with: "no_leader", or "busy" of a leader without room. On
// full disks a new leader does not even become ready, as entries that were under
// way before its own first one do not fit on a majority.
func (g *Group) Accepts() error {
	if _, ready := g.Leading(); ready {
		return nil
	}
	if g.inOffice() && g.disk.NearlyFull() {
		return g.noSpace()
	}
	return noLeader()
}

// Changed gives a channel that is closed at the next change of leader, term,
// readiness or configuration. Take it before Status, wait, and take a new one:
// changes in between are seen as one.
func (g *Group) Changed() <-chan struct{} { return g.news.next() }

// VerifyLeader asks a majority whether this node still leads. A fault of code
// "no_leader" means no, or not in time (ctx, at most 5 s).
//
// Raft's own VerifyLeader counts any acknowledgement that is read after the
// call, also one that a follower gave before: a leader that was paused would
// find such ones waiting and serve old state. Here only answers to questions
// that were asked after the call began count.
func (g *Group) VerifyLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, enqueueTimeout)
	defer cancel()
	asked, begun := g.lease.begin()
	r, status := g.raft.Load(), g.Status()
	if !status.Ready {
		return noLeader()
	}
	answers := make(chan error, len(status.Voters))
	for _, id := range status.Voters {
		if id == g.cfg.ID {
			answers <- nil
			continue
		}
		go func() { // ends with the question, at the latest after Timings.RPC
			answers <- await(ctx, g.slots.asking, func() error {
				yes, err := g.transport.Load().acknowledged(raft.ServerID(id), status.Term)
				if err == nil && !yes {
					err = raft.ErrNotLeader
				}
				return err
			})
		}()
	}
	yes, why := 0, error(nil)
	for range status.Voters {
		if err := <-answers; err == nil { // each comes by ctx's end
			yes++
		} else {
			why = err
		}
		if yes > len(status.Voters)/2 && r.State() == raft.Leader && r.CurrentTerm() == status.Term {
			g.lease.renew(status.Term, asked, begun)
			return nil
		}
	}
	return notVerified(errors.Join(raft.ErrNotLeader, why))
}

func notVerified(why error) *event.Fault {
	return event.Refuse(event.CodeNoLeader, "", "ask the leader", "this node could not show that it leads: %v", why)
}

// Leased reports whether this node leads and no other voter can have been
// elected since a majority last confirmed it: see VerifyLeader, which renews it.
func (g *Group) Leased() bool {
	term, leading := g.Leading()
	return leading && g.lease.holds(term, g.cfg.Timings.Lease*9/10)
}

// Barrier waits until all that was proposed before is applied here. Only the
// leader can; see VerifyLeader for the fault and the deadline.
func (g *Group) Barrier(ctx context.Context) error {
	r := g.raft.Load()
	if r == nil {
		return noLeader()
	}
	ctx, cancel := context.WithTimeout(ctx, enqueueTimeout)
	defer cancel()
	if err := await(ctx, g.slots.asking, func() error { return r.Barrier(enqueueTimeout).Error() }); err != nil {
		return notVerified(err)
	}
	return nil
}

// await runs fn, which cannot be cancelled, and gives up waiting when ctx ends.
// A place in slots is taken until fn returns, so that what was given up cannot
// pile up.
func await(ctx context.Context, slots chan struct{}, fn func() error) error {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-slots }()
		done <- fn()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// news wakes everyone who waits for a change.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

func (n *news) init() { n.ch = make(chan struct{}) }

func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
