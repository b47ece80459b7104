package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEntriesOfAStoppedNode(t *testing.T) {
	t.Parallel()
	dir := written(t)
	for _, kind := range []Kind{Bolt, WAL} {
		if err := Convert(dir, self, kind); err != nil {
			t.Fatal(err)
		}
		var got []uint64
		each := func(index, term uint64, data []byte) error {
			if term == 0 || len(data) == 0 {
				t.Errorf("entry %d has term %d and %d bytes", index, term, len(data))
			}
			got = append(got, index)
			return nil
		}
		if err := Entries(dir, self, 4, each); err != nil || len(got) == 0 || got[0] <= 4 {
			t.Fatalf("%v %v", got, err)
		}
		boom := errors.New("enough")
		if err := Entries(dir, self, 0, func(uint64, uint64, []byte) error { return boom }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
	}
	if err := Entries(filepath.Join(t.TempDir(), "none"), self, 0, nil); err != nil {
		t.Fatal(err)
	}
	if kind, err := KindOf(filepath.Join(t.TempDir(), "none")); err != nil || kind != "" {
		t.Fatalf("%q %v", kind, err)
	}
}

// TestReplace in one step, and as on a file system that cannot.
func TestReplace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, next := filepath.Join(root, "raft"), filepath.Join(root, "raft.recovered")
	put := func(what string) {
		t.Helper()
		if err := errors.Join(os.Mkdir(next, 0o700), os.WriteFile(filepath.Join(next, "file"), []byte(what), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(dir, what string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != what {
			t.Fatalf("%s holds %q, want %q: %v", dir, b, what, err)
		}
	}
	put("first")
	if moved, err := Replace(dir, next); err != nil || moved != "" {
		t.Fatalf("%q %v", moved, err)
	}
	holds(dir, "first")
	put("second")
	moved, err := Replace(dir, next)
	if err != nil || !strings.HasPrefix(moved, dir+".before-") {
		t.Fatalf("%q %v", moved, err)
	}
	holds(dir, "second")
	holds(moved, "first")
	put("third")
	if err := exchangeInSteps(next, dir); err != nil {
		t.Fatal(err)
	}
	holds(dir, "third")
	holds(next, "second")
	if left, err := os.ReadDir(root); err != nil || len(left) != 3 {
		t.Fatalf("%v %v", left, err)
	}
}
