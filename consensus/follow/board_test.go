package follow

import (
	"slices"
	"testing"
	"time"

	"skein/consensus/raftgroup/testnet"
	"skein/mesh/ident"
)

func markOf(term, seq uint64, age time.Duration, path ...int) Mark {
	m := Mark{Leader: testnet.ID(path[0]), Term: term, Seq: seq, AgeMillis: age.Milliseconds()}
	for _, i := range path {
		m.Path = append(m.Path, testnet.ID(i))
	}
	return m
}

func TestMarkCountsOnceReached(t *testing.T) {
	now := time.Now()
	b := newBoard(testnet.ID(5))
	if _, ok := b.reached(100, now); ok {
		t.Fatal("a mark from nowhere")
	}
	b.put(markOf(1, 10, 0, 0, 1), now)
	b.put(markOf(1, 20, 0, 0, 1), now.Add(5*time.Second))
	at := now.Add(6 * time.Second)
	for _, tc := range []struct {
		seq, want uint64
		age       int64
	}{{9, 0, 0}, {10, 10, 6000}, {15, 10, 6000}, {25, 20, 1000}, {9, 20, 1000}} {
		m, ok := b.reached(tc.seq, at)
		if ok != (tc.want > 0) || m.Seq != tc.want || ok && m.AgeMillis != tc.age {
			t.Fatalf("at %d: mark of %d, age %d", tc.seq, m.Seq, m.AgeMillis)
		}
	}
	if m, _ := b.latest(at); m.Seq != 20 || !slices.Equal(m.Path, []ident.NodeID{testnet.ID(0), testnet.ID(1), testnet.ID(5)}) {
		t.Fatalf("latest is %+v", m)
	}
}

func TestOlderNewsChangeNothing(t *testing.T) {
	now := time.Now()
	b := newBoard(testnet.ID(5))
	b.put(markOf(2, 10, time.Second, 0, 1), now)
	for what, m := range map[string]Mark{
		"older term":             markOf(1, 50, 0, 3),
		"older mark":             markOf(2, 9, 3*time.Second, 0, 1),
		"same mark, longer way":  markOf(2, 10, time.Second, 0, 2, 1),
		"same mark, a bit later": markOf(2, 10, time.Second-newerBy/2, 0, 1),
	} {
		b.put(m, now)
		if got, _ := b.latest(now); got.Seq != 10 || got.Term != 2 || got.AgeMillis != 1000 {
			t.Fatalf("%s: %+v", what, got)
		}
	}
	b.put(markOf(2, 10, time.Second, 0, 2, 1), now)
	if !b.onPath(testnet.ID(2)) {
		t.Fatal("the new way is not known")
	}
	b.put(markOf(3, 10, 5*time.Second, 4), now) // a new leader counts, however long its mark took
	if got, _ := b.latest(now); got.Leader != testnet.ID(4) || got.AgeMillis != 5000 {
		t.Fatalf("%+v", got)
	}
}

func TestPendingMarksAreBounded(t *testing.T) {
	now := time.Now()
	b := newBoard(testnet.ID(5))
	for i := range uint64(10 * maxPending) {
		b.put(markOf(1, 100+i, 0, 0, 1), now.Add(time.Duration(i)*time.Second))
	}
	if len(b.pending) != maxPending {
		t.Fatalf("%d pending", len(b.pending))
	}
	at := now.Add(1000 * time.Second)
	if m, ok := b.reached(100, at); !ok || m.Seq != 100 {
		t.Fatalf("the oldest is lost: %+v", m)
	}
	if m, _ := b.reached(1000, at); m.Seq != 100+10*maxPending-1 {
		t.Fatalf("the youngest is lost: %+v", m)
	}
}

func TestLeaderHasAPathOfOne(t *testing.T) {
	b := newBoard(testnet.ID(5))
	b.put(markOf(1, 1, 0, 0, 1), time.Now())
	b.put(markOf(2, 1, 0, 5), time.Now())
	if m, _ := b.latest(time.Now()); !slices.Equal(m.Path, []ident.NodeID{testnet.ID(5)}) || b.depth() != 1 {
		t.Fatalf("%+v", m)
	}
}
