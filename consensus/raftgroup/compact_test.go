package raftgroup

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
)

// heavy is batch with about bytes in it.
func heavy(n uint64, bytes int) event.Batch {
	b := batch(n)
	b.Drafts[0].Data = json.RawMessage(`"` + strings.Repeat("x", bytes) + `"`)
	return b
}

// TestLogIsKeptShortByBytes: few entries, many bytes; then a voter that was away
// for longer than what is kept comes back.
func TestLogIsKeptShortByBytes(t *testing.T) {
	t.Parallel()
	for _, kind := range []raftlog.Kind{raftlog.Bolt, raftlog.WAL} {
		t.Run(string(kind), func(t *testing.T) {
			c := newCluster(t, func(cfg *Config) {
				cfg.Compaction = Compaction{Every: time.Hour, Entries: 1 << 40, Bytes: 256 << 10, Keep: 20}
			})
			c.kind = kind
			all := c.form(3)
			away := all[2]
			c.mustDecide(1)
			c.agree([]uint64{1}, all...)
			lastAway := away.Status().LastIndex
			c.kill(away)
			n := uint64(1)
			until(t, "the log was cut", func() bool {
				for range 20 {
					n++
					if _, err := c.leader(all[:2]...).Submit(t.Context(), heavy(n, 20<<10)); err != nil {
						t.Fatal(err)
					}
				}
				first, err := all[0].disk.FirstIndex()
				if err != nil {
					t.Fatal(err)
				}
				return first > lastAway+1
			})
			back := c.start(2)
			c.agree([]uint64{1, 2, n}, all[0], all[1], back)
			until(t, "it was sent the state", func() bool {
				if kind == raftlog.WAL {
					return true // what was cut may still be there, as long as its segment is
				}
				back.machine.mu.Lock()
				defer back.machine.mu.Unlock()
				return back.machine.restored > 0
			})
			c.mustDecide(n+1, n+2)
			// What it has now it keeps over a restart.
			c.kill(back)
			c.mustDecide(n + 3)
			back = c.start(2)
			c.agree([]uint64{1, n + 1, n + 2, n + 3}, all[0], all[1], back)
		})
	}
}

// TestKilledBeforeTheLogWasCut: what the log still holds beside a snapshot of it
// does not wait to be applied.
func TestKilledBeforeTheLogWasCut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) {
		cfg.Compaction = Compaction{Every: time.Hour, Entries: 1 << 40, Bytes: 1 << 40, Keep: 1 << 40}
	})
	all := c.form(3)
	const size = 500 << 10
	for n := range uint64(maxBacklog/size + 2) {
		if _, err := c.leader(all...).Submit(t.Context(), heavy(n+1, size)); err != nil {
			t.Fatal(err)
		}
	}
	c.mustDecide(100)
	c.agree([]uint64{1, 100}, all...)
	died := all[2]
	if err := died.raft.Load().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	c.kill(died)
	back := c.start(2)
	if back.disk.Ledger().Between(0, back.disk.SnapshotIndex()) <= maxBacklog {
		t.Fatal("the log was cut")
	}
	c.mustDecide(101)
	c.agree([]uint64{1, 100, 101}, all[0], all[1], back)
}

// TestASnapshotIsNoBacklog: nor does what a sent snapshot has leapt over.
func TestASnapshotIsNoBacklog(t *testing.T) {
	t.Parallel()
	from, to := newMachine(), newMachine()
	entry, err := replica.EncodeEntry(replica.Entry{TimeMillis: 1, Batches: []event.Batch{batch(1)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.ApplyEntry(7, 1, entry); err != nil {
		t.Fatal(err)
	}
	var state bytes.Buffer
	if err := from.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	m := &fsm{to, newFailure(), newBacklog(), func() {}}
	if err := m.Restore(io.NopCloser(&state)); err != nil {
		t.Fatal(err)
	}
	if got := m.backlog.applied.Load(); got != 7 {
		t.Fatalf("the machine is counted at entry %d", got)
	}
}

// TestBacklogIsBounded: a follower whose machine is slow stores no more than it
// may have waiting, however much the others decide meanwhile.
func TestBacklogIsBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Timings.Stall = time.Minute }) // slow is not hung
	all := c.form(3)
	c.mustDecide(1)
	c.agree([]uint64{1}, all...)
	slow := all[2]
	slow.machine.mu.Lock() // its machine takes nothing
	n := uint64(1)
	peak := func() int64 {
		l := slow.disk
		last, err := l.LastIndex()
		if err != nil {
			t.Error(err)
		}
		return l.Ledger().Between(slow.backlog.applied.Load(), last)
	}
	for sent := 0; sent < 3*maxBacklog; {
		n++
		b := heavy(n, event.MaxBatchBytes/2)
		if _, err := all[0].Submit(t.Context(), b); err != nil {
			slow.machine.mu.Unlock()
			t.Fatal(err)
		}
		sent += b.Size()
		if p := peak(); p > maxBacklog+maxEntriesPerAppend*int64(MaxEntryBytes) {
			slow.machine.mu.Unlock()
			t.Fatalf("%d bytes wait to be applied", p)
		}
	}
	slow.machine.mu.Unlock()
	c.agree([]uint64{1, n}, all...)
	if s := slow.Status(); s.Leader != all[0].id {
		t.Fatalf("it lost its leader: %+v", s)
	}
}
