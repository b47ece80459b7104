package raftgroup

import (
	"errors"
	"testing"
	"time"
)

// TestLeaderThatCannotApplyHandsOver at once, and then ends: the others do not
// wait until they miss it.
func TestLeaderThatCannotApplyHandsOver(t *testing.T) {
	t.Parallel()
	const slow = 5 * time.Second
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1)
	c.agree([]uint64{1}, all...)
	for _, m := range all {
		c.kill(m)
	}
	// Nobody would notice a silent leader within this test.
	c.conf = func(cfg *Config) { cfg.Timings = Timings{Election: slow, Lease: slow - time.Second} }
	for i := range all {
		all[i] = c.start(i)
	}
	lead := c.leader(all...)
	c.mustDecide(2)
	boom := errors.New("the history cannot be written")
	lead.machine.mu.Lock()
	lead.machine.refuse = boom
	lead.machine.mu.Unlock()
	began := time.Now()
	if out, err := lead.Submit(t.Context(), batch(3)); err == nil {
		t.Fatalf("acknowledged %+v", out)
	}
	if _, leading := lead.Leading(); leading || lead.Leased() {
		t.Fatal("it still leads")
	}
	c.forget(lead)
	if err := <-lead.ended; !errors.Is(err, ErrMachine) || !errors.Is(err, boom) {
		t.Fatalf("Run ended with %v", err)
	}
	c.leader(c.all()...)
	if took := time.Since(began); took > slow-time.Second {
		t.Fatalf("another leader took %s", took)
	}
	lead.host.Kill()
	c.mustDecide(4)
	c.agree([]uint64{1, 2, 3, 4}, c.all()...) // what could not be applied there was decided
}

func TestLease(t *testing.T) {
	t.Parallel()
	var l lease
	at, begun := l.begin()
	if l.holds(0, time.Hour) || l.holds(1, time.Hour) {
		t.Fatal("a lease that nobody gave")
	}
	l.renew(3, at, begun)
	if !l.holds(3, time.Minute) || l.holds(4, time.Minute) || l.holds(3, 0) {
		t.Fatal("the lease of term 3")
	}
	l.renew(3, at.Add(-time.Second), begun) // an older round that took longer
	if !l.from.Equal(at) {
		t.Fatal("the lease went back")
	}
	asked, begun := l.begin()
	if err := l.hand(func() error {
		if l.holds(3, time.Hour) {
			t.Error("a lease while leadership is handed over")
		}
		l.renew(3, asked, begun)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l.renew(3, asked, begun) // asked before the hand-over
	if l.holds(3, time.Hour) {
		t.Fatal("a lease from before leadership was handed over")
	}
	l.from, l.term = time.Now().Add(-time.Hour).Round(0), 5 // as after an hour of sleep that only the wall clock saw
	if l.holds(5, time.Minute) {
		t.Fatal("a lease from before the sleep")
	}
}

// TestLeaseWithoutARound: it holds for a while after a round, and not after the
// leader has lost its majority.
func TestLeaseWithoutARound(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	lead := c.leader(all...)
	if err := lead.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.net.Isolate(lead.id)
	cut := time.Now()
	until(t, "the lease ends", func() bool { return !lead.Leased() })
	if took := time.Since(cut); took > shippedElection {
		t.Fatalf("the lease held for %s without a majority", took)
	}
	for _, m := range all[1:] {
		if m.Leased() {
			t.Fatal("a follower has a lease")
		}
	}
}

// TestNoVoteRightAfterAStart: a node may have promised a leader before it was
// restarted that it votes for nobody else.
func TestNoVoteRightAfterAStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	began := time.Now()
	m := c.form(1)[0]
	if wait := m.lease.promised.Sub(began); wait < shippedElection {
		t.Fatalf("it may vote %s after its start", wait)
	}
	mayVote := func() bool { return m.lease.mayVote() == nil }
	until(t, "it may vote", mayVote)
	m.lease.promise(shippedElection)
	if err := m.disk.SetUint64([]byte("LastVoteTerm"), 1<<40); !errors.Is(err, errTooSoon) {
		t.Fatalf("voted: %v", err)
	}
	until(t, "it may vote again", mayVote)
}
