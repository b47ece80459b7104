package raftgroup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
)

func TestThreeVotersDecide(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1, 2, 3)
	c.agree([]uint64{1, 2, 3}, all...)
	for _, m := range all {
		until(t, "every node knows three voters and the leader", func() bool {
			s := m.Status()
			return len(s.Voters) == 3 && len(s.Nonvoters) == 0 && s.Leader == all[0].id
		})
	}
}

// writers submits numbers from several goroutines until stopped and gives what
// was acknowledged.
func (c *cluster) writers() (stop func() []uint64) {
	ctx, cancel := context.WithCancel(c.tb.Context())
	var mu sync.Mutex
	var acked []uint64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := uint64(w*1_000_000 + 1); ctx.Err() == nil; n++ {
				if c.decide(ctx, n) == nil {
					mu.Lock()
					acked = append(acked, n)
					mu.Unlock()
				}
			}
		})
	}
	return func() []uint64 {
		cancel()
		wg.Wait()
		return acked
	}
}

func TestNothingAcknowledgedIsLostWhenLeadersDie(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	stop := c.writers()
	for range 3 {
		lead := c.leader(c.all()...)
		more := len(lead.machine.list()) + 100
		until(t, "writes with three voters", func() bool { return len(lead.machine.list()) >= more })
		c.kill(lead)
		next := c.leader(c.all()...)
		more = len(next.machine.list()) + 100
		until(t, "writes with two voters", func() bool { return len(next.machine.list()) >= more })
		again := c.start(slices.IndexFunc(all, func(m *member) bool { return m.id == lead.id }))
		until(t, "the killed voter is back", func() bool { return len(again.machine.list()) >= more })
	}
	acked := stop()
	c.agree(acked, c.all()...)
	if len(acked) < 600 {
		t.Fatalf("only %d writes were acknowledged", len(acked))
	}
}

func TestAllKilledAndRestarted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	var want []uint64
	for n := range uint64(50) {
		want = append(want, n+1)
	}
	c.mustDecide(want...)
	term := all[0].Status().Term
	for _, m := range all {
		c.kill(m)
	}
	for i := range all {
		all[i] = c.start(i)
	}
	c.leader(all...)
	c.agree(want, all...)
	if got := all[0].Status().Term; got <= term {
		t.Fatalf("term went from %d to %d over a restart", term, got)
	}
}

func TestMinorityLeaderCannotAcknowledge(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1)
	old := c.leader(all...)
	rest := slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m == old })
	c.net.Isolate(old.id)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if out, err := old.Submit(ctx, batch(2)); err == nil {
		t.Fatalf("cut-off leader acknowledged: %+v", out)
	} else if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeUnknownOutcome && f.Code != event.CodeNoLeader {
		t.Fatalf("cut-off leader answered %v", err)
	}
	c.leader(rest...)
	c.mustDecide(3, 4)
	until(t, "the old leader gives up", func() bool { return old.Status().State != Leader })
	if err := old.VerifyLeader(ctx); err == nil {
		t.Fatal("cut-off node could verify that it leads")
	}
	c.net.Join(old.id)
	until(t, "the old leader follows", func() bool { return old.Status().Leader == rest[0].Status().Leader && old.Status().Leader != "" })
	c.mustDecide(5)
	c.agree([]uint64{1, 3, 4, 5}, all...)
}

func TestVerifyLeaderHasADeadline(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) {
		cfg.Timings = Timings{Election: 20 * time.Second, Lease: 19 * time.Second, Beat: 100 * time.Millisecond}
		if cfg.ID == testnet.ID(0) {
			cfg.Timings.Election, cfg.Timings.Lease = time.Second, 900*time.Millisecond
		}
	})
	all := c.form(2)
	lead := c.leader(all...)
	if err := lead.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.net.Isolate(lead.id)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := lead.VerifyLeader(ctx); err == nil {
		t.Fatal("verified without the other voter")
	}
	if took := time.Since(began); took > 600*time.Millisecond {
		t.Fatalf("answer took %s", took)
	}
}

func TestOnlyTheTermThatRunsIsAcknowledged(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	old := c.leader(all...)
	term := old.Status().Term
	c.kill(old)
	lead := c.leader(c.all()...)
	other := c.all()[0]
	if other == lead {
		other = c.all()[1]
	}
	for asked, want := range map[uint64]bool{term: false, lead.Status().Term: true} {
		yes, err := lead.transport.Load().acknowledged(raft.ServerID(other.id), asked)
		if err != nil || yes != want {
			t.Fatalf("term %d: %v, %v", asked, yes, err)
		}
	}
}

// TestFollowersHearOfCommits: raft alone would tell them after CommitTimeout.
func TestFollowersHearOfCommits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Timings.Commit = time.Minute })
	all := c.form(3)
	c.mustDecide(1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for n := uint64(2); n < 12; n++ {
		c.mustDecide(n)
		for _, m := range all {
			if err := m.machine.has(ctx, n); err != nil {
				t.Fatalf("%s: %v", m.id, err)
			}
		}
	}
}

func TestNewLeaderIsReadyAfterEarlierTerms(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Timings.Commit = time.Minute })
	all := c.form(3)
	c.mustDecide(1, 2, 3)
	first := c.leader(all...)
	c.kill(first)
	second := c.leader(c.all()...)
	if got := second.machine.list(); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Fatalf("ready leader has applied only %v", got)
	}
	c.agree([]uint64{1, 2, 3}, c.all()...)
}

func TestAskedToStopTheLeaderHandsOver(t *testing.T) {
	t.Parallel()
	const slow = 5 * time.Second
	c := newCluster(t, func(cfg *Config) {
		// Followers would not notice a dead leader before that.
		cfg.Timings = Timings{Election: slow, Lease: slow - time.Second}
		if cfg.ID == testnet.ID(0) {
			cfg.Timings = Timings{}
		}
	})
	all := c.form(3)
	c.mustDecide(1)
	for _, m := range all[1:] {
		until(t, "the followers may vote", func() bool { return m.lease.mayVote() == nil })
	}
	c.forget(all[0])
	began := time.Now()
	if err := all[0].leave(); err != nil {
		t.Fatal(err)
	}
	c.leader(all[1:]...)
	if took := time.Since(began); took > slow-time.Second {
		t.Fatalf("a new leader took %s", took)
	}
	c.mustDecide(2)
}

func TestTransferToAChosenVoter(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1)
	if err := all[0].Transfer(t.Context(), all[2].id); err != nil {
		t.Fatal(err)
	}
	if lead := c.leader(all...); lead != all[2] {
		t.Fatalf("%s leads", lead.id)
	}
	c.mustDecide(2)
}

func TestSubmitOnAFollowerIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(2)
	_, err := all[1].Submit(t.Context(), batch(1))
	if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeNoLeader {
		t.Fatalf("got %v", err)
	}
}

func TestMachineFailureEndsTheGroup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(1)
	c.mustDecide(1)
	boom := errors.New("upgrade me")
	all[0].machine.mu.Lock()
	all[0].machine.refuse = boom
	all[0].machine.mu.Unlock()
	if out, err := all[0].Submit(t.Context(), batch(2)); err == nil {
		t.Fatalf("acknowledged %+v", out)
	}
	c.forget(all[0])
	err := <-all[0].ended
	all[0].host.Kill()
	if !errors.Is(err, ErrMachine) || !errors.Is(err, boom) {
		t.Fatalf("Run ended with %v", err)
	}
	if _, err := all[0].Submit(t.Context(), batch(3)); err == nil {
		t.Fatal("acknowledged after the end")
	}
}
