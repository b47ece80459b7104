package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/follow"
	"skein/consensus/raftgroup"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/node/config"
)

const raftProtocol link.Protocol = "/skein/raft/1"

const (
	// recentContact is how fresh the leader's last word must be for a voter to
	// take it for the leader still.
	recentContact = 5 * time.Second
	// raftAlone is how long a voter that hears no leader counts on Raft alone to
	// bring it the log. It must not run ahead of its own Raft log, or a crash
	// would leave one that lacks what the node has applied. One that was removed
	// while it was away, and so will never hear a leader again, is told so earlier
	// by the leader's marks: see fed.
	raftAlone = 30 * time.Second
)

// others is what a seat asks of, and tells to, who knows the other members.
type others struct {
	// word is the newest mark heard, and known lists members to ask at the start.
	word  func() (follow.Mark, time.Duration, bool)
	known func() []ident.NodeID
	// fresh reports whether this node's copy of the log is recent.
	fresh func() bool
	// met is told how members answer; see body.met.
	met func(ident.NodeID, error)
}

// seat is this node's place among the voters: empty, or taken by a Raft group.
// It is taken when an admin has approved the node, and given up when the leader
// has removed it, without a restart.
type seat struct {
	id    ident.NodeID
	dir   string
	cfg   config.Raft
	store *replica.Replica
	host  *link.Host
	log   *slog.Logger
	clock *clock
	// unsure: see errUnsure.
	unsure atomic.Bool
	// epochs tells of a fleet that was recovered without this node.
	epochs *epochs
	others others

	mu     sync.Mutex
	group  *raftgroup.Group // nil while empty
	since  time.Time        // when group took the seat
	turned chan struct{}    // closed when group, or its status, changes
	// alone is raftAlone; see there.
	alone time.Duration
}

func newSeat(s *self, store *replica.Replica, host *link.Host, epochs *epochs) *seat {
	v := &seat{
		id: s.key.ID(), dir: s.dir.Raft(), cfg: s.cfg.Raft, store: store, host: host, log: s.log, turned: make(chan struct{}), epochs: epochs, alone: s.alone,
		clock: &clock{self: s.key.ID(), wall: s.now, skew: host.Skew, greet: host.Greet, jumps: make(chan struct{}, 1)},
	}
	v.clock.voters = func() (ids []ident.NodeID) {
		store.View(func(st *fleet.State) { ids = st.Voters() })
		return ids
	}
	host.Handle(raftProtocol, func(ctx context.Context, st *link.Stream) {
		if g := v.current(); g != nil {
			g.Handle(ctx, st, st.Remote())
			return
		}
		st.Reset()
	})
	return v
}

// current is the group, nil while the seat is empty.
func (v *seat) current() *raftgroup.Group {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.group
}

// put takes or empties the seat.
func (v *seat) put(g *raftgroup.Group) {
	v.mu.Lock()
	v.group, v.since = g, time.Now()
	v.mu.Unlock()
	v.turn()
}

// turn tells whoever waits that the seat, or its group's status, has changed.
func (v *seat) turn() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.turned)
	v.turned = make(chan struct{})
}

// Changed is closed at the next change of the seat or of its group's status.
func (v *seat) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.turned
}

// me is what the log says of this node.
func (v *seat) me() (me fleet.Node) {
	v.store.View(func(s *fleet.State) { me, _ = s.Node(v.id) })
	return me
}

// entitled: the log wants this node to vote, or still counts it as a voter. A
// node whose copy of the log was taken away but not its Raft log gets the copy
// back from that, also when nobody else has one.
func (v *seat) entitled() bool {
	me := v.me()
	return me.Voter || me.VoterApproved && me.Member() || v.lostCopy()
}

// lostCopy: the copy of the log is empty and there is a Raft log.
func (v *seat) lostCopy() bool {
	if v.store.Cursor().Seq > 0 {
		return false
	}
	_, err := os.Stat(v.dir)
	return err == nil
}

// welcome admits Raft streams only from nodes that are voters or to be voters. An
// old copy of the log cannot tell: who votes may have changed while this node was
// away, and a leader that it refused could not bring it up to date. Then it is
// enough that the link knows them as members.
func (v *seat) welcome(id ident.NodeID) (err error) {
	if !v.others.fresh() {
		return nil
	}
	err = fmt.Errorf("%s is no voter", id.Short())
	v.store.View(func(s *fleet.State) {
		if n, ok := s.Node(id); ok && n.Member() && (n.Voter || n.VoterApproved) {
			err = nil
		}
	})
	if g := v.current(); err != nil && g != nil && g.Status().Member(id) {
		return nil
	}
	return err
}

// Open implements raftgroup.Link.
func (v *seat) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	st, err := v.host.Open(ctx, id, raftProtocol)
	v.others.met(id, err)
	if err != nil {
		return nil, err
	}
	return st, nil
}

// status is the group's, and whether there is one.
func (v *seat) status() (raftgroup.Status, bool) {
	g := v.current()
	if g == nil {
		return raftgroup.Status{}, false
	}
	return g.Status(), true
}

// Leader is who leads as far as Raft here knows: false without a seat, and when
// the leader has not been heard for a while.
func (v *seat) Leader() (ident.NodeID, bool) {
	s, ok := v.status()
	if !ok || s.Leader == "" || !slices.Contains(s.Voters, v.id) {
		return "", false
	}
	return s.Leader, s.State == raftgroup.Leader || s.LastContact >= 0 && s.LastContact < recentContact
}

// standing is what following needs to know of the seat.
func (v *seat) standing() follow.Standing {
	s, ok := v.status()
	if !ok {
		// Who has a Raft log waits for its seat, whatever an old copy says: see
		// raftAlone.
		return follow.Standing{Fed: !v.outdated() && v.hasLog() && !v.unsure.Load()}
	}
	out := follow.Standing{Fed: v.fed(s), Leader: s.Leader, Epoch: v.epoch(), Term: s.Term, Index: s.Commit, Voters: s.Voters}
	if s.State == raftgroup.Leader && !s.Ready {
		out.Leader = "" // it has not applied yet what was decided before its term
	}
	return out
}

// fed reports whether Raft, and nobody else, brings this node the log.
func (v *seat) fed(s raftgroup.Status) bool {
	since := v.sitsSince()
	switch {
	case s.State == raftgroup.Stopped:
		return true // it is just starting, or ending
	case !s.Member(v.id), unheard(s, since, recentContact) && v.excluded(since):
		return false
	}
	return s.State == raftgroup.Leader || !unheard(s, since, v.alone)
}

// sitsSince is when this node took its seat.
func (v *seat) sitsSince() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.since
}

// unheard reports whether Raft has heard no leader for so long, on a seat that was
// taken then.
func unheard(s raftgroup.Status, since time.Time, d time.Duration) bool {
	return s.State != raftgroup.Leader && time.Since(since) >= d && (s.LastContact < 0 || s.LastContact >= d)
}

// Offer has a batch decided if this node leads: see raftgroup.Group.Offer.
//
// What is above the fleet's ceiling never gets into the Raft log: a voter of an
// older build could not apply the entry that it came in.
func (v *seat) Offer(b event.Batch, done func(replica.Outcome, error)) error {
	g := v.current()
	if g == nil {
		return noVoter()
	}
	var ceiling uint64
	v.store.View(func(s *fleet.State) { ceiling = s.Ceiling() })
	if err := b.CheckCeiling(ceiling); err != nil {
		return err
	}
	return g.Offer(b, done)
}

// submit offers a batch and waits for what becomes of it.
func (v *seat) submit(ctx context.Context, b event.Batch) (replica.Outcome, error) {
	type answer struct {
		outcome replica.Outcome
		err     error
	}
	answered := make(chan answer, 1)
	if err := v.Offer(b, func(o replica.Outcome, err error) { answered <- answer{o, err} }); err != nil {
		return replica.Outcome{}, err
	}
	select {
	case a := <-answered:
		return a.outcome, a.err
	case <-ctx.Done():
		return replica.Outcome{}, event.Refuse(event.CodeUnknownOutcome, "", "look whether it happened before you propose it anew", "no answer in time; it may still be decided")
	}
}

// Accepts tells whether this node leads: see raftgroup.Group.Accepts.
func (v *seat) Accepts() error {
	if g := v.current(); g != nil {
		return g.Accepts()
	}
	return noVoter()
}

func noVoter() *event.Fault {
	return event.Refuse(event.CodeNoLeader, "", "try again", "this node is no voter")
}

// The methods below make a seat what the leader's controllers work with. On an
// empty seat nobody leads.

// Leading implements control.Raft.
func (v *seat) Leading() (uint64, bool) {
	if g := v.current(); g != nil {
		return g.Leading()
	}
	return 0, false
}

// Voters implements control.Raft.
func (v *seat) Voters() []ident.NodeID {
	s, _ := v.status()
	return s.Voters
}

var errEmptySeat = errors.New("this node is no voter")

// AddVoter implements control.Raft.
func (v *seat) AddVoter(ctx context.Context, id ident.NodeID) error {
	if g := v.current(); g != nil {
		return g.AddVoter(ctx, id)
	}
	return errEmptySeat
}

// RemoveServer implements control.Raft.
func (v *seat) RemoveServer(ctx context.Context, id ident.NodeID) error {
	if g := v.current(); g != nil {
		return g.RemoveServer(ctx, id)
	}
	return errEmptySeat
}

// Transfer implements control.Raft.
func (v *seat) Transfer(ctx context.Context, to ident.NodeID) error {
	if g := v.current(); g != nil {
		return g.Transfer(ctx, to)
	}
	return errEmptySeat
}

// Record proposes facts in the leader's name. They carry no
// producer, because the controllers compare and plan again rather than retry.
func (v *seat) Record(ctx context.Context, drafts ...event.Draft) error {
	g := v.current()
	if g == nil {
		return errEmptySeat
	}
	outcome, err := g.Submit(ctx, event.Batch{Actor: event.Actor{Kind: event.KindLeader, ID: string(v.id)}, Drafts: drafts})
	if err != nil {
		return err
	}
	return outcome.Err
}
