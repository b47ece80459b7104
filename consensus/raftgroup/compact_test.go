package raftgroup

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
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
	for _, kind := range []Store{StoreBolt, StoreWAL} {
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
				first, err := all[0].stores.log.FirstIndex()
				if err != nil {
					t.Fatal(err)
				}
				return first > lastAway+1
			})
			back := c.start(2)
			c.agree([]uint64{1, 2, n}, all[0], all[1], back)
			until(t, "it was sent the state", func() bool {
				if kind == StoreWAL {
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

// TestLedgerAgainstASimpleOne.
func TestLedgerAgainstASimpleOne(t *testing.T) {
	t.Parallel()
	var l ledger
	simple := map[uint64]int64{}
	var low, next uint64 = 1, 1
	r := rand.New(rand.NewPCG(1, 2))
	for step := range 20_000 {
		switch k := r.IntN(10); {
		case k < 6:
			var logs []*raft.Log
			if k == 0 && r.IntN(50) == 0 {
				simple, low = map[uint64]int64{}, next+100
				next = low
			}
			for range 1 + r.IntN(3) {
				e := &raft.Log{Index: next, Data: make([]byte, r.IntN(100))}
				simple[next] = int64(len(e.Data))
				logs = append(logs, e)
				next++
			}
			l.add(logs)
		case k < 8 && next > low: // the head
			to := low + r.Uint64N(next-low)
			l.drop(low-min(low, r.Uint64N(3)), to)
			for i := low; i <= to; i++ {
				delete(simple, i)
			}
			low = to + 1
		case next > low: // the tail
			from := low + r.Uint64N(next-low)
			l.drop(from, next-1)
			for i := from; i < next; i++ {
				delete(simple, i)
			}
			next = from
		}
		a := low + r.Uint64N(next-low+5)
		b := a + r.Uint64N(20)
		var want, bytes int64
		for i := a + 1; i <= b; i++ {
			want += simple[i]
		}
		if got := l.between(a, b); got != want {
			t.Fatalf("step %d: between %d and %d are %d bytes, want %d", step, a, b, got, want)
		}
		n := uint64(0)
		for i := next - 1; i >= low && bytes+simple[i] <= 500; i-- {
			bytes += simple[i]
			n++
		}
		if got := l.newest(500); got != n {
			t.Fatalf("step %d: newest %d, want %d", step, got, n)
		}
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
	if back.stores.log.ledger.between(0, back.stores.newest.Index) <= maxBacklog {
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
		l := slow.stores.log
		last, err := l.LastIndex()
		if err != nil {
			t.Error(err)
		}
		return l.ledger.between(slow.backlog.applied.Load(), last)
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

func TestCompactionCountsWhatANodeStartsWith(t *testing.T) {
	t.Parallel()
	_, dir := written(t)
	s, err := openStores(dir, testnet.ID(0), StoreBolt, newFailure(), silentLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if bytes, entries := s.log.ledger.since(); entries != s.last || bytes < 100 {
		t.Fatalf("%d bytes in %d of %d entries", bytes, entries, s.last)
	}
}
