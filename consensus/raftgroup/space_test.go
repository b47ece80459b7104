package raftgroup

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/raftlog"
	"skein/mesh/ident"
)

// disks gives every node of a cluster a disk whose free space the test sets.
type disks struct {
	free map[ident.NodeID]*atomic.Int64
}

const plenty = 1 << 40

func formWithDisks(t *testing.T, n int) (*cluster, []*member, disks) {
	d := disks{map[ident.NodeID]*atomic.Int64{}}
	c := newCluster(t, nil)
	c.disk = func(id ident.NodeID, disk *raftlog.Config) {
		free := &atomic.Int64{}
		free.Store(plenty)
		d.free[id] = free
		disk.Free = func(string) (int64, error) { return free.Load(), nil }
	}
	all := c.form(n)
	c.mustDecide(1)
	c.agree([]uint64{1}, all...)
	return c, all, d
}

func (d disks) set(m *member, free int64) { d.free[m.id].Store(free) }

// TestFullDiskOfAllRefusesAndRecovers: nothing is acknowledged, nobody ends, and
// all goes on when there is room again.
func TestFullDiskOfAllRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	c, all, d := formWithDisks(t, 3)
	for _, m := range all {
		d.set(m, shippedReserve-1)
	}
	for n := range uint64(20) {
		for _, m := range c.all() {
			out, err := m.Submit(t.Context(), batch(100+n))
			f, ok := event.FaultOf(err)
			if !ok || f.Code != event.CodeNoLeader && f.Code != event.CodeBusy {
				t.Fatalf("%+v %v", out, err)
			}
			if f.Code == event.CodeBusy && (f.Reason != ReasonNoSpace || f.Next == "" || f.RetryAfterMillis == 0) {
				t.Fatalf("%+v", f)
			}
		}
	}
	lead := c.leader(all...)
	until(t, "the leader tells", func() bool { return lead.Status().NoSpace })
	for _, m := range all {
		d.set(m, plenty)
	}
	c.mustDecide(2, 3)
	c.agree([]uint64{1, 2, 3}, all...)
	for _, m := range all {
		if slices.ContainsFunc(m.machine.list(), func(n uint64) bool { return n >= 100 }) {
			t.Fatalf("%s has decided what was refused: %v", m.id, m.machine.list())
		}
	}
}

// TestFullDiskOfAFollowerHoldsUpNobody and it catches up once it has room.
func TestFullDiskOfAFollowerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	c, all, d := formWithDisks(t, 3)
	d.set(all[2], 0)
	c.mustDecide(2, 3, 4)
	c.agree([]uint64{1, 2, 3, 4}, all[0], all[1])
	if got := all[2].machine.list(); len(got) != 1 {
		t.Fatalf("it stored %v without room", got)
	}
	d.set(all[2], plenty)
	c.mustDecide(5)
	c.agree([]uint64{1, 2, 3, 4, 5}, all...)
}

// TestLeaderWithoutRoomHandsOver to the only voter that has some.
func TestLeaderWithoutRoomHandsOver(t *testing.T) {
	t.Parallel()
	c, all, d := formWithDisks(t, 3)
	lead := c.leader(all...)
	var rest []*member
	for _, m := range all {
		if m != lead {
			rest = append(rest, m)
		}
	}
	d.set(rest[0], 0)
	d.set(lead, 0)
	until(t, "the one with room leads", func() bool { _, leads := rest[1].Leading(); return leads })
	until(t, "nobody has room for a majority", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := rest[1].Submit(ctx, batch(2))
		return err != nil // two of three refuse to store it
	})
	d.set(rest[0], plenty)
	c.mustDecide(3)
}

// TestNewLeaderOnFullDisksSaysWhy: what was under way before its term fits on no
// majority, so it does not become ready; who asks is not left to guess.
func TestNewLeaderOnFullDisksSaysWhy(t *testing.T) {
	t.Parallel()
	c, all, d := formWithDisks(t, 3)
	lead := c.leader(all...)
	rest := slices.DeleteFunc(slices.Clone(all), func(m *member) bool { return m == lead })
	c.kill(rest[1]) // so that only who holds the entry can be elected again
	d.set(rest[0], 0)
	under, err := lead.Enqueue(batch(2))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the entry is in the leader's log", func() bool { s := lead.Status(); return s.LastIndex > s.Commit })
	d.set(lead, 0)
	before := lead.Status().Term
	c.net.Cut(lead.id, rest[0].id)
	until(t, "it leads no more", func() bool { return lead.Status().State != Leader })
	c.net.Heal(lead.id, rest[0].id)
	until(t, "it leads in a new term", func() bool { s := lead.Status(); return s.State == Leader && s.Term > before })
	until(t, "it says why it accepts nothing", func() bool {
		f, ok := event.FaultOf(lead.Accepts())
		return ok && f.Code == event.CodeBusy && f.Reason == ReasonNoSpace
	})
	if s := lead.Status(); s.Ready {
		t.Fatalf("it is ready without a majority: %+v", s)
	}
	d.set(lead, plenty)
	d.set(rest[0], plenty)
	until(t, "it accepts again", func() bool { return c.leader(lead, rest[0]).Accepts() == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out, err := under.Wait(ctx); err == nil && out.Err != nil {
		t.Fatalf("%+v", out)
	}
	c.mustDecide(3)
}

// TestMembershipNeedsNoRoom: what makes the group smaller must work on full disks.
func TestMembershipNeedsNoRoom(t *testing.T) {
	t.Parallel()
	c, all, d := formWithDisks(t, 3)
	for _, m := range all {
		d.set(m, 1<<20)
	}
	lead := c.leader(all...)
	gone := all[2]
	if gone == lead {
		gone = all[1]
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := lead.RemoveServer(ctx, gone.id); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		d.set(m, plenty)
	}
	c.mustDecide(2)
}
