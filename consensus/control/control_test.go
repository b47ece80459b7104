package control

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/mesh/ident"
)

// bench is a controller that works on a house; what it does is written down.
type bench struct {
	*house
	*Controller
	did []string
	// answers are the nodes that can be reached.
	answers map[ident.NodeID]bool
	// fails is what adding a voter fails with.
	fails error
}

func newBench(t *testing.T) *bench {
	b := &bench{house: newHouse(t), answers: map[ident.NodeID]bool{}}
	b.Controller = New(Config{
		Key: fleettest.Key(0), Level: 1, Raft: b, Mesh: b, ReplaceAfter: time.Minute,
		View: func(f func(*fleet.State, event.Cursor)) {
			f(b.state, event.Cursor{History: b.state.History(), Seq: b.state.Seq(), Hash: "ab"})
		},
		Record: func(_ context.Context, drafts ...event.Draft) error {
			b.leader(drafts...)
			return nil
		},
		Learners: func() []ident.NodeID { return b.w.learners },
		Offset:   func(id ident.NodeID) (time.Duration, bool) { d, ok := b.offsets[id]; return d, ok },
		Now:      func() time.Time { return b.w.now }, Wall: func() time.Time { return b.w.wall },
		Log: slog.New(slog.DiscardHandler),
	})
	return b
}

func (b *bench) Leading() (uint64, bool) { return 1, true }
func (b *bench) Voters() []ident.NodeID  { return slices.Clone(b.w.raftVoters) }
func (b *bench) AddVoter(_ context.Context, id ident.NodeID) error {
	b.did = append(b.did, "add")
	if b.fails == nil {
		b.w.raftVoters = append(b.w.raftVoters, id)
	}
	return b.fails
}
func (b *bench) RemoveServer(_ context.Context, id ident.NodeID) error {
	b.did = append(b.did, "remove")
	b.w.raftVoters = slices.DeleteFunc(b.w.raftVoters, func(v ident.NodeID) bool { return v == id })
	return nil
}
func (b *bench) Transfer(context.Context, ident.NodeID) error {
	b.did = append(b.did, "transfer")
	return nil
}
func (b *bench) Alive(id ident.NodeID) bool { return !b.dead[id] }
func (b *bench) Reach(_ context.Context, id ident.NodeID) error {
	if b.answers[id] {
		return nil
	}
	return errors.New("silence")
}
func (b *bench) Level(id ident.NodeID) (uint64, bool) { l, ok := b.levels[id]; return l, ok }
func (b *bench) GossipEpoch() uint64                  { return b.w.ringEpoch }
func (b *bench) NewGossipKey(epoch uint64) error      { b.w.ringEpoch = epoch; return nil }

// rounds lets the controller work, and gives what it did.
func (b *bench) rounds(n int) []string {
	b.did = nil
	for range n {
		b.round(b.t.Context())
	}
	return b.did
}

// TestWhoAnswersIsNotReplaced: a rumour that a voter is dead removes nobody.
func TestWhoAnswersIsNotReplaced(t *testing.T) {
	b := newBench(t)
	others := b.voters(3, 1)
	spare := b.robot(3)
	b.approve(spare)
	b.answers[spare] = true
	b.rounds(3)
	lost := others[0]
	b.dead[lost], b.answers[lost] = true, true
	for range 3 {
		b.rounds(2)
		b.later(time.Minute)
		if did := b.rounds(3); len(did) > 0 {
			t.Fatalf("it answers, and the leader did %v", did)
		}
	}
	b.answers[lost] = false
	b.later(time.Minute)
	if did := b.rounds(3); !slices.Equal(did, []string{"add", "remove"}) {
		t.Fatalf("it is gone, and the leader did %v", did)
	}
	if slices.Contains(b.w.raftVoters, lost) || !slices.Contains(b.w.raftVoters, spare) || len(b.state.Voters()) != 3 {
		t.Fatalf("voters are %v, in the log %v", b.w.raftVoters, b.state.Voters())
	}
}

// TestASpareThatFailsDoesNotHoldUpAnother, nor does it cost the dead one its place.
func TestASpareThatFailsDoesNotHoldUpAnother(t *testing.T) {
	b := newBench(t)
	one := b.robot(1)
	b.approve(one)
	if did := b.rounds(3); len(did) > 0 {
		t.Fatalf("it cannot be reached, and the leader did %v", did)
	}
	two := b.robot(2)
	b.approve(two)
	b.answers[one], b.answers[two], b.levels[one] = true, true, 1
	b.fails = errors.New("it does not catch up")
	first := b.rounds(1)
	b.fails = nil
	if did := append(first, b.rounds(1)...); !slices.Equal(did, []string{"add", "add"}) || len(b.w.raftVoters) != 2 {
		t.Fatalf("%v, voters %v", did, b.w.raftVoters)
	}
}

// TestWhoIsTakenOutLeavesAMajorityThatAnswers: gossip has not noticed yet that
// two of five voters have died when an admin withdraws a third.
func TestWhoIsTakenOutLeavesAMajorityThatAnswers(t *testing.T) {
	b := newBench(t)
	others := b.voters(5, 1)
	for _, id := range others {
		b.answers[id] = true
	}
	b.rounds(3)
	b.answers[others[0]], b.answers[others[1]] = false, false
	b.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterWithdrawn{}.Draft(others[2])}})
	if did := b.rounds(3); len(did) > 0 {
		t.Fatalf("of the four others two answer, and the leader did %v", did)
	}
	b.answers[others[0]] = true
	if did := b.rounds(1); !slices.Equal(did, []string{"remove"}) {
		t.Fatalf("of the four others three answer, and the leader did %v", did)
	}
}
