package raftlog

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func TestSpaceIsNotShortFromEntryToEntry(t *testing.T) {
	t.Parallel()
	free := int64(1000)
	r := &space{reserve: 800, free: func(string) (int64, error) { return free, nil }}
	entry := []*raft.Log{{Type: raft.LogCommand}}
	for _, step := range []struct {
		free  int64
		short bool
	}{{1000, false}, {799, true}, {800, true}, {899, true}, {900, false}, {800, false}, {799, true}} {
		free = step.free
		if err := r.refuses(entry); errors.Is(err, ErrNoSpace) != step.short || r.low.Load() != step.short {
			t.Fatalf("%d free: %v", step.free, err)
		}
	}
	if err := r.refuses([]*raft.Log{{Type: raft.LogConfiguration}, {Type: raft.LogNoop}}); err != nil {
		t.Fatal(err)
	}
	if r = (&space{dir: t.TempDir(), reserve: -1, free: freeBytes}); r.look() {
		t.Fatal("short without a reserve")
	}
	if r = (&space{dir: t.TempDir(), reserve: 1, free: freeBytes}); r.look() {
		t.Fatal("the disk of this test has no byte free")
	}
}

func TestFullDiskRefusesEntriesOnly(t *testing.T) {
	t.Parallel()
	free := int64(1 << 40)
	l, err := Open(Config{Dir: t.TempDir(), ID: self, ReserveBytes: 64 << 20, Free: func(string) (int64, error) { return free, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.StoreLog(entryFor(1, 1)); err != nil || l.NearlyFull() {
		t.Fatalf("refused with room: %v", err)
	}
	free = 64<<20 - 1
	if l.NearlyFull() {
		t.Fatal("nobody has looked")
	}
	if err := l.StoreLog(entryFor(2, 1)); !errors.Is(err, ErrNoSpace) || !l.NearlyFull() {
		t.Fatalf("stored without room: %v", err)
	}
	if err := errors.Join(l.StoreLog(&raft.Log{Index: 2, Type: raft.LogNoop}), l.SetUint64([]byte(keyLastVoteTerm), 1)); err != nil {
		t.Fatalf("what raft needs to go on: %v", err)
	}
	free = 1 << 40
	if l.LookAtDisk() || l.NearlyFull() {
		t.Fatal("still full")
	}
	if err := l.StoreLog(entryFor(3, 1)); err != nil {
		t.Fatal(err)
	}
}
