package raftgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"skein/consensus/raftgroup/testnet"
)

// content is all that raft would read from a directory.
func content(t *testing.T, dir string, kind Store) (logs []raft.Log, values map[string]string) {
	t.Helper()
	s, err := openStores(dir, testnet.ID(0), kind, newFailure(), silentLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	first, err := s.log.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i <= s.last; i++ {
		var l raft.Log
		if err := s.log.readLog(i, &l); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: l.Data})
	}
	values = map[string]string{}
	for _, key := range stableKeys() {
		if v, err := s.log.Get([]byte(key)); err == nil {
			values[key] = string(v)
		}
	}
	return logs, values
}

func sameContent(t *testing.T, dir string, kind Store, logs []raft.Log, values map[string]string) {
	t.Helper()
	got, gotValues := content(t, dir, kind)
	if len(got) != len(logs) || len(gotValues) != len(values) || len(values) < 3 {
		t.Fatalf("%d entries and %v, want %d and %v", len(got), gotValues, len(logs), values)
	}
	for i, l := range got {
		if w := logs[i]; l.Index != w.Index || l.Term != w.Term || l.Type != w.Type || string(l.Data) != string(w.Data) {
			t.Fatalf("entry %+v, want %+v", l, w)
		}
	}
	for key, v := range gotValues {
		if values[key] != v {
			t.Fatalf("%s is %q, want %q", key, v, values[key])
		}
	}
}

func TestConvertThereAndBack(t *testing.T) {
	t.Parallel()
	c, dir := written(t)
	logs, values := content(t, dir, StoreBolt)
	for _, kind := range []Store{StoreWAL, StoreWAL, StoreBolt, StoreWAL} {
		if err := Convert(dir, testnet.ID(0), kind); err != nil {
			t.Fatal(err)
		}
		sameContent(t, dir, kind, logs, values)
		if got, err := StoreOf(dir); err != nil || got != kind {
			t.Fatalf("%q %v", got, err)
		}
		for _, other := range []Store{StoreBolt, StoreWAL} {
			if _, err := os.Stat(other.logPath(dir)); errors.Is(err, fs.ErrNotExist) == (other == kind) {
				t.Fatalf("after a conversion to %q, %q: %v", kind, other, err)
			}
		}
	}
	if err := Convert(dir, testnet.ID(1), StoreBolt); !errors.Is(err, ErrStoreForeign) {
		t.Fatalf("another node's: %v", err)
	}
	if err := Convert(filepath.Join(c.root, "none"), testnet.ID(1), StoreBolt); !errors.Is(err, ErrStoreGone) {
		t.Fatalf("nothing: %v", err)
	}
	if err := Convert(dir, testnet.ID(0), "tape"); err == nil || !strings.Contains(err.Error(), "tape") {
		t.Fatalf("unknown kind: %v", err)
	}
}

// TestConvertedVoterGoesOn with what it had, against the others.
func TestConvertedVoterGoesOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1, 2, 3)
	for i, m := range all {
		c.kill(m)
		c.mustDecide(uint64(10 + i))
		if err := Convert(m.dir, m.id, StoreWAL); err != nil {
			t.Fatal(err)
		}
		c.conf = func(cfg *Config) {
			if kind, err := StoreOf(cfg.Dir); err == nil {
				cfg.Store = kind
			}
		}
		c.start(i)
		c.leader(c.all()...)
	}
	c.mustDecide(20)
	c.agree([]uint64{1, 2, 3, 10, 11, 12, 20}, c.all()...)
}

// TestConvertIsInterrupted: what a conversion does to the directory, step by
// step, each taken as the last one before a crash. The log opens as what the
// marker says, whole, and the conversion can be repeated.
func TestConvertIsInterrupted(t *testing.T) {
	t.Parallel()
	for _, to := range []Store{StoreWAL, StoreBolt} {
		from := map[Store]Store{StoreWAL: StoreBolt, StoreBolt: StoreWAL}[to]
		_, dir := written(t)
		if err := Convert(dir, testnet.ID(0), from); err != nil {
			t.Fatal(err)
		}
		logs, values := content(t, dir, from)
		done := filepath.Join(t.TempDir(), "done")
		if err := errors.Join(os.CopyFS(done, os.DirFS(dir)), Convert(done, testnet.ID(0), to)); err != nil {
			t.Fatal(err)
		}
		for name, step := range map[string]struct {
			undo func(dir string) error
			kind Store
		}{
			"copy begun": {func(dir string) error {
				tmp := filepath.Join(dir, convertDir)
				return errors.Join(os.Mkdir(tmp, 0o700), os.WriteFile(filepath.Join(tmp, boltFile), []byte("half"), 0o600))
			}, from},
			"copy made": {func(dir string) error { return os.CopyFS(filepath.Join(dir, convertDir), os.DirFS(done)) }, from},
			"copy in place, marker old": {func(dir string) error {
				if to == StoreWAL {
					return os.CopyFS(filepath.Join(dir, walDir), os.DirFS(filepath.Join(done, walDir)))
				}
				b, err := os.ReadFile(filepath.Join(done, boltFile))
				return errors.Join(err, os.WriteFile(filepath.Join(dir, boltFile), b, 0o600))
			}, from},
			"marker new, old log left": {func(dir string) error {
				if err := os.CopyFS(dir+".x", os.DirFS(done)); err != nil {
					return err
				}
				err := os.Rename(from.logPath(dir), from.logPath(dir+".x"))
				return errors.Join(err, os.RemoveAll(dir), os.Rename(dir+".x", dir))
			}, to},
		} {
			at := filepath.Join(t.TempDir(), "at")
			if err := errors.Join(os.CopyFS(at, os.DirFS(dir)), step.undo(at)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sameContent(t, at, step.kind, logs, values)
			if err := Convert(at, testnet.ID(0), to); err != nil {
				t.Fatalf("%s, repeated: %v", name, err)
			}
			sameContent(t, at, to, logs, values)
		}
	}
}

func TestEntriesOfAStoppedNode(t *testing.T) {
	t.Parallel()
	c, dir := written(t)
	for _, kind := range []Store{StoreBolt, StoreWAL} {
		if err := Convert(dir, testnet.ID(0), kind); err != nil {
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
		if err := Entries(dir, testnet.ID(0), 4, each); err != nil || len(got) == 0 || got[0] <= 4 {
			t.Fatalf("%v %v", got, err)
		}
		boom := errors.New("enough")
		if err := Entries(dir, testnet.ID(0), 0, func(uint64, uint64, []byte) error { return boom }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
	}
	if err := Entries(filepath.Join(c.root, "none"), testnet.ID(0), 0, nil); err != nil {
		t.Fatal(err)
	}
	if kind, err := StoreOf(filepath.Join(c.root, "none")); err != nil || kind != "" {
		t.Fatalf("%q %v", kind, err)
	}
}
