package raftgroup

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
	"skein/mesh/ident"
)

// quickCompaction cuts the log after a few entries.
func quickCompaction(cfg *Config) {
	cfg.Compaction = Compaction{Every: 20 * time.Millisecond, Entries: 20, Keep: 5}
}

func TestNewcomerWaitsWithoutRaisingTerms(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	waiting := c.start(3)
	all := c.form(3)
	c.mustDecide(1)
	term := all[0].Status().Term
	time.Sleep(5 * shippedElection) // long enough for it to have stood for election
	if s := waiting.Status(); s.Term != 0 || s.State != Follower || len(s.Voters) != 0 {
		t.Fatalf("newcomer is %+v", s)
	}
	if err := all[0].AddVoter(t.Context(), waiting.id); err != nil {
		t.Fatal(err)
	}
	if got := all[0].Status().Term; got != term {
		t.Fatalf("term went from %d to %d", term, got)
	}
	c.mustDecide(2)
	c.agree([]uint64{1, 2}, append(all, waiting)...)
}

// TestAnOldSnapshotTakesNothingBack: a voter that is sent the state of before a
// change of the voters, which its log holds, goes on knowing who votes.
func TestAnOldSnapshotTakesNothingBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	newcomer := c.start(3)
	all := c.form(3)
	c.mustDecide(1, 2, 3)
	lead := c.leader(all...)
	if err := lead.raft.Load().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	kept, err := lead.disk.Snapshots().List()
	if err != nil {
		t.Fatal(err)
	}
	meta, content, err := lead.disk.Snapshots().Open(kept[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if err := lead.AddVoter(t.Context(), newcomer.id); err != nil {
		t.Fatal(err)
	}
	other := all[0]
	if other == lead {
		other = all[1]
	}
	knows := func() bool { return slices.Contains(other.Status().Voters, newcomer.id) }
	until(t, "the other voter knows the new one", knows)
	applied := other.Status().Applied
	req := raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(lead.id), Addr: []byte(lead.id)},
		SnapshotVersion: meta.Version, Term: lead.Status().Term, Leader: []byte(lead.id),
		LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
	}
	var resp raft.InstallSnapshotResponse
	if err := lead.transport.Load().InstallSnapshot(raft.ServerID(other.id), raft.ServerAddress(other.id), &req, &resp, content); err != nil || !resp.Success {
		t.Fatalf("%+v %v", resp, err)
	}
	if s := other.Status(); !knows() || s.Applied < applied {
		t.Fatalf("it is back at %+v, was at entry %d", s, applied)
	}
	c.mustDecide(4)
	c.agree([]uint64{1, 2, 3, 4}, append(all, newcomer)...)
}

func TestNewcomerGetsASnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, quickCompaction)
	lead := c.form(1)[0]
	var want []uint64
	for n := range uint64(100) {
		want = append(want, n+1)
	}
	c.mustDecide(want...)
	until(t, "a cut log", func() bool {
		first, err := lead.disk.FirstIndex()
		return err == nil && first > 50
	})
	newcomer := c.start(1)
	if err := lead.AddVoter(t.Context(), newcomer.id); err != nil {
		t.Fatal(err)
	}
	c.agree(want, lead, newcomer)
	if newcomer.machine.restored == 0 {
		t.Fatal("no snapshot was restored")
	}
	// A machine that forgot everything gets raft's snapshot back before Run.
	c.mustDecide(101)
	c.agree(append(want, 101), lead, newcomer)
	c.kill(newcomer)
	again := c.start(1)
	c.agree(append(want, 101), lead, again)
}

func TestDeadNewcomerIsNotPromoted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(1)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if err := all[0].AddVoter(ctx, testnet.ID(5)); err == nil {
		t.Fatal("a node that does not exist was made a voter")
	}
	if s := all[0].Status(); !slices.Equal(s.Nonvoters, idsOf(5)) || len(s.Voters) != 1 {
		t.Fatalf("configuration is %v, %v", s.Voters, s.Nonvoters)
	}
	c.mustDecide(1)
	// The next attempt with another node clears it away.
	next := c.start(1)
	if err := all[0].AddVoter(t.Context(), next.id); err != nil {
		t.Fatal(err)
	}
	if s := all[0].Status(); len(s.Nonvoters) != 0 || len(s.Voters) != 2 {
		t.Fatalf("configuration is %v, %v", s.Voters, s.Nonvoters)
	}
}

func TestRemovedVoterDoesNotDisturb(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1)
	gone := all[2]
	until(t, "it knows that it votes", func() bool { return slices.Contains(gone.Status().Voters, gone.id) })
	c.kill(gone)
	if err := all[0].RemoveServer(t.Context(), gone.id); err != nil {
		t.Fatal(err)
	}
	if err := all[0].RemoveServer(t.Context(), gone.id); !errors.Is(err, ErrNotMember) {
		t.Fatalf("second removal: %v", err)
	}
	term := all[0].Status().Term
	back := c.start(2) // it has not heard of its removal
	// Or the leader was still telling it of its removal when it came back.
	until(t, "it tries to become leader, or knows better", func() bool {
		s := back.Status()
		return s.State == Candidate || !s.Member(gone.id) && s.LastIndex > 0
	})
	time.Sleep(5 * shippedElection)
	for _, m := range all[:2] {
		if s := m.Status(); s.Term != term || s.Leader != all[0].id {
			t.Fatalf("%s has term %d, leader %q; was %d", m.id, s.Term, s.Leader, term)
		}
	}
	c.mustDecide(2)
}

// TestVoterThatWasCutOffDoesNotDisturb: it stands for election all the time,
// which must not cost the others their leader.
func TestVoterThatWasCutOffDoesNotDisturb(t *testing.T) {
	t.Parallel()
	// So patient that a machine under load does not cost the leader its term.
	const election = 1500 * time.Millisecond
	c := newCluster(t, func(cfg *Config) { cfg.Timings = Timings{Election: election, Lease: election - 100*time.Millisecond} })
	all := c.form(3)
	c.mustDecide(1)
	term := all[0].Status().Term
	for _, cut := range []func(){
		func() { c.net.Isolate(all[2].id) },
		func() { c.net.CutOneWay(all[0].id, all[2].id) },
	} {
		cut()
		until(t, "it tries to become leader", func() bool { return all[2].Status().State == Candidate })
		time.Sleep(3 * election)
		c.mustDecide(2)
		c.net.Join(all[2].id)
		until(t, "it follows again", func() bool { return all[2].Status().Leader == all[0].id })
		for _, m := range all {
			if s := m.Status(); s.Term != term {
				t.Fatalf("%s is in term %d, was %d", m.id, s.Term, term)
			}
		}
	}
}

func TestLeaderRemovesItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1)
	if err := all[0].RemoveServer(t.Context(), all[0].id); err != nil {
		t.Fatal(err)
	}
	lead := c.leader(all[1:]...)
	until(t, "the new leader sees two voters", func() bool { return len(lead.Status().Voters) == 2 })
	c.mustDecide(2)
}

func TestMembershipOnlyOnTheLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(2)
	for _, err := range []error{
		all[1].AddVoter(t.Context(), testnet.ID(4)), all[1].RemoveServer(t.Context(), all[0].id),
		all[1].Transfer(t.Context(), ""), all[1].VerifyLeader(t.Context()), all[1].Barrier(t.Context()),
	} {
		if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeNoLeader {
			t.Fatalf("got %v", err)
		}
	}
}

func TestFiveVotersSurviveTwo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(5)
	stop := c.writers()
	for range 2 {
		lead := c.leader(c.all()...)
		more := len(lead.machine.list()) + 100
		until(t, "writes", func() bool { return len(lead.machine.list()) >= more })
		c.kill(lead)
	}
	lead := c.leader(c.all()...)
	more := len(lead.machine.list()) + 100
	until(t, "writes with three of five", func() bool { return len(lead.machine.list()) >= more })
	acked := stop()
	c.agree(acked, c.all()...)
	if len(all)-len(c.all()) != 2 {
		t.Fatal("not two killed")
	}
}

func TestUnwelcomeStreamsAreClosed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) {
		cfg.Welcome = func(id ident.NodeID) error {
			if id == testnet.ID(9) {
				return errors.New("revoked")
			}
			return nil
		}
	})
	all := c.form(1)
	stranger, err := c.net.Start(testnet.ID(9))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Kill()
	conn, err := stranger.Link("raft").Open(t.Context(), all[0].id)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a voter that does not welcome us kept the stream open: read %d bytes, %v", n, err)
	}
}

func TestIncomingStreamsAreBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(1)
	host, err := c.net.Start(testnet.ID(9))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Kill()
	for range maxIncoming + 10 {
		conn, err := host.Link("raft").Open(t.Context(), all[0].id)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	until(t, "as many as are allowed", func() bool {
		all[0].streams.mu.Lock()
		defer all[0].streams.mu.Unlock()
		return all[0].streams.asked == maxIncoming
	})
}
