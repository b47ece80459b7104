package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// leave has a node dismissed, and gives the refusal and what was done until then.
func (b *bench) leave(id ident.NodeID, decide error) (did []string, refusal error) {
	b.t.Helper()
	b.did = nil
	if err := b.Dismiss([]ident.NodeID{id}, func(context.Context) error {
		b.did = append(b.did, "decide")
		return decide
	}, func(err error) { refusal = err }); err != nil {
		b.t.Fatal(err)
	}
	b.dismiss(b.t.Context(), <-b.leaving.queue)
	return b.did, refusal
}

// TestAVoterIsUnseatedBeforeItIsExpelled, and one that has no vote is not.
func TestAVoterIsUnseatedBeforeItIsExpelled(t *testing.T) {
	b := newBench(t)
	others := b.voters(3, 1)
	for _, id := range others {
		b.answers[id] = true
	}
	if did, err := b.leave(others[0], nil); err != nil || !slices.Equal(did, []string{"remove", "decide"}) {
		t.Fatalf("a voter leaves: %v %v", did, err)
	}
	learner, robot := b.robot(5), b.robot(6)
	b.w.learners = []ident.NodeID{learner}
	if did, err := b.leave(learner, nil); err != nil || !slices.Equal(did, []string{"remove", "decide"}) {
		t.Fatalf("one leaves that is brought up to date: %v %v", did, err)
	}
	if did, err := b.leave(robot, errors.New("not decided")); err != nil || !slices.Equal(did, []string{"decide"}) {
		t.Fatalf("a robot leaves: %v %v", did, err)
	}
}

// TestNobodyIsExpelledWhomTheFleetNeeds: with one of three voters silent, the other
// two are needed.
func TestNobodyIsExpelledWhomTheFleetNeeds(t *testing.T) {
	b := newBench(t)
	others := b.voters(3, 1)
	b.answers[others[0]] = true
	did, err := b.leave(others[0], nil)
	f, is := event.FaultOf(err)
	if len(did) > 0 || !is || f.Code != event.CodeConflict || f.Reason != ReasonQuorum || !strings.Contains(f.Next, "bring the silent voters back") {
		t.Fatalf("%v %v", did, err)
	}
	// The silent one can go.
	if did, err := b.leave(others[1], nil); err != nil || !slices.Equal(did, []string{"remove", "decide"}) {
		t.Fatalf("the silent one: %v %v", did, err)
	}
}

// TestTheLeaderHandsOverBeforeItLeaves: another dismisses it.
func TestTheLeaderHandsOverBeforeItLeaves(t *testing.T) {
	b := newBench(t)
	b.voters(3, 1)
	did, err := b.leave(b.cfg.Key.ID(), nil)
	if f, is := event.FaultOf(err); !slices.Equal(did, []string{"transfer"}) || !is || f.Code != event.CodeNoLeader {
		t.Fatalf("%v %v", did, err)
	}
}

// TestWhoLeftMeanwhileGetsNoVote: the plan to add it is of before.
func TestWhoLeftMeanwhileGetsNoVote(t *testing.T) {
	b := newBench(t)
	left := b.robot(7)
	b.answers[left] = true
	if err := b.take(t.Context(), step{kind: addVoter, node: left}); err != nil || slices.Contains(b.did, "add") {
		t.Fatalf("%v %v", b.did, err)
	}
	b.approve(left)
	b.next()
	if err := b.take(t.Context(), step{kind: addVoter, node: left}); err != nil || !slices.Contains(b.did, "add") {
		t.Fatalf("%v %v", b.did, err)
	}
}

func TestDismissalsAreBoundedAndEnd(t *testing.T) {
	b := newBench(t)
	refused := 0
	dismiss := func() error {
		return b.Dismiss(nil, func(context.Context) error { t.Error("decided"); return nil }, func(error) { refused++ })
	}
	for range maxDismissals {
		if err := dismiss(); err != nil {
			t.Fatal(err)
		}
	}
	if f, is := event.FaultOf(dismiss()); !is || f.Code != event.CodeBusy || f.RetryAfterMillis == 0 {
		t.Fatalf("one too many: %v", f)
	}
	b.leaving.close()
	if refused != maxDismissals {
		t.Fatalf("%d of %d that waited were told", refused, maxDismissals)
	}
	if f, is := event.FaultOf(dismiss()); !is || f.Code != event.CodeNoLeader {
		t.Fatalf("after the end: %v", f)
	}
}
