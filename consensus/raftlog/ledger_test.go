package raftlog

import (
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"
)

func TestLedgerAgainstASimpleOne(t *testing.T) {
	t.Parallel()
	var l Ledger
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
		if got := l.Between(a, b); got != want {
			t.Fatalf("step %d: between %d and %d are %d bytes, want %d", step, a, b, got, want)
		}
		n := uint64(0)
		for i := next - 1; i >= low && bytes+simple[i] <= 500; i-- {
			bytes += simple[i]
			n++
		}
		if got := l.Newest(500); got != n {
			t.Fatalf("step %d: newest %d, want %d", step, got, n)
		}
	}
}

func TestCompactionCountsWhatANodeStartsWith(t *testing.T) {
	t.Parallel()
	l, err := Open(Config{Dir: written(t), ID: self})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if bytes, entries := l.Ledger().Since(); entries != l.last || bytes < 100 {
		t.Fatalf("%d bytes in %d of %d entries", bytes, entries, l.last)
	}
	l.Ledger().Compacted()
	if bytes, entries := l.Ledger().Since(); entries != 0 || bytes != 0 {
		t.Fatalf("%d bytes in %d entries after a compaction", bytes, entries)
	}
}
