package follow

import (
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/raftgroup/testnet"
)

// recover ends the log's history on p alone, as `skein recover-quorum` does.
func (f *forest) recover(p *peer, history string) {
	f.tb.Helper()
	at := p.copy.Cursor()
	draft := event.LogRecovered{History: history, Seq: at.Seq, Hash: at.Hash, Reason: "the others burned"}.Draft()
	founder := fleettest.Node(0)
	r, err := p.copy.Recover(event.Batch{Actor: event.Actor{Kind: event.KindRecovery, ID: string(founder)}, Drafts: []event.Draft{draft}}, time.Now())
	if err != nil {
		f.tb.Fatal(err)
	}
	f.index = r.Index
}

func recoveries(p *peer) (n uint64) {
	p.copy.View(func(s *fleet.State) { n = s.Recoveries() })
	return n
}

// TestARecoveredLogIsFollowedFromItsParts: who holds a part of the log that was
// recovered simply goes on, also over another who does; who holds more than that
// part is told so, and its log stays as it is.
func TestARecoveredLogIsFollowedFromItsParts(t *testing.T) {
	if event.Level < 2 {
		t.Skip("this build cannot recover")
	}
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 7)
	part, behind, ahead := f.peer(1), f.peer(2), f.peer(3)
	for _, p := range []*peer{part, behind, ahead} {
		f.start(p.follows(lead))
	}
	f.decideMany(lead, 20)
	same(t, lead, part, behind, ahead)
	behind.follows()
	f.net.Cut(lead.id, behind.id)
	part.follows()
	f.net.Cut(lead.id, part.id)
	ahead.follows()
	f.decide(ahead, admit(5000)) // which the others never heard of
	f.net.Cut(lead.id, ahead.id)
	old := lead.copy.Cursor()

	f.recover(lead, "h2")
	lead.place.set(Standing{Fed: true, Leader: lead.id, Epoch: 1, Term: 2, Voters: ids(lead)})
	f.decideMany(lead, 20)
	f.net.Heal(lead.id, part.id)
	f.net.Heal(lead.id, ahead.id)
	part.follows(lead)
	behind.follows(part) // not the new leader itself
	ahead.follows(lead, part)
	same(t, lead, part, behind)
	if recoveries(behind) != 1 || behind.copy.Cursor().History != "h2" {
		t.Fatalf("the one behind is at %+v", behind.copy.Cursor())
	}
	until(t, "marks of the new epoch, although of an earlier term", func() bool {
		m, _, ok := behind.Latest()
		return ok && m.Epoch == 1 && m.Term == 2
	})
	f.decideMany(lead, 5)
	same(t, lead, part, behind)
	if at := ahead.copy.Cursor(); at.History != "h1" || at.Seq != old.Seq+1 || recoveries(ahead) != 0 {
		t.Fatalf("the one with another past is at %+v", at)
	}
	if p, ok := ahead.Parent(); ok {
		t.Fatalf("the one with another past follows %s", p)
	}
	// And nobody of the recovered fleet follows it.
	behind.follows(ahead)
	f.net.Cut(part.id, behind.id)
	until(t, "the parent is lost", func() bool { _, ok := behind.Parent(); return !ok })
	if at := behind.copy.Cursor(); at != part.copy.Cursor() {
		t.Fatalf("the one behind is at %+v", at)
	}
}

func TestTermsCompareWithinAnEpoch(t *testing.T) {
	b := newBoard(testnet.ID(5))
	now := time.Now()
	b.put(markOf(9, 10, 0, 0), now)
	later := markOf(2, 12, time.Second, 1)
	later.Epoch = 1
	b.put(later, now)
	if m, _ := b.latest(now); m.Leader != testnet.ID(1) || m.Epoch != 1 {
		t.Fatalf("newest is %+v", m)
	}
	b.put(markOf(10, 13, 0, 0), now.Add(time.Second))
	if m, _ := b.latest(now); m.Epoch != 1 {
		t.Fatalf("a mark of the epoch before counts: %+v", m)
	}
}
