package raftlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// content is all that raft would read from a directory.
func content(t *testing.T, dir string, kind Kind) (logs []raft.Log, values map[string]string) {
	t.Helper()
	log, err := Open(Config{Dir: dir, ID: self, Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	first, err := log.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i <= log.last; i++ {
		var l raft.Log
		if err := log.readLog(i, &l); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: l.Data})
	}
	values = map[string]string{}
	for _, key := range stableKeys() {
		if v, err := log.Get([]byte(key)); err == nil {
			values[key] = string(v)
		}
	}
	return logs, values
}

func sameContent(t *testing.T, dir string, kind Kind, logs []raft.Log, values map[string]string) {
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
	dir := written(t)
	logs, values := content(t, dir, Bolt)
	for _, kind := range []Kind{WAL, WAL, Bolt, WAL} {
		if err := Convert(dir, self, kind); err != nil {
			t.Fatal(err)
		}
		sameContent(t, dir, kind, logs, values)
		if got, err := KindOf(dir); err != nil || got != kind {
			t.Fatalf("%q %v", got, err)
		}
		for _, one := range []Kind{Bolt, WAL} {
			if _, err := os.Stat(one.path(dir)); errors.Is(err, fs.ErrNotExist) == (one == kind) {
				t.Fatalf("after a conversion to %q, %q: %v", kind, one, err)
			}
		}
	}
	if err := Convert(dir, other, Bolt); !errors.Is(err, ErrForeign) {
		t.Fatalf("another node's: %v", err)
	}
	if err := Convert(filepath.Join(t.TempDir(), "none"), other, Bolt); !errors.Is(err, ErrGone) {
		t.Fatalf("nothing: %v", err)
	}
	if err := Convert(dir, self, "tape"); err == nil || !strings.Contains(err.Error(), "tape") {
		t.Fatalf("unknown kind: %v", err)
	}
}

// TestConvertIsInterrupted: what a conversion does to the directory, step by
// step, each taken as the last one before a crash. The log opens as what the
// marker says, whole, and the conversion can be repeated.
func TestConvertIsInterrupted(t *testing.T) {
	t.Parallel()
	for _, to := range []Kind{WAL, Bolt} {
		from := map[Kind]Kind{WAL: Bolt, Bolt: WAL}[to]
		dir := written(t)
		if err := Convert(dir, self, from); err != nil {
			t.Fatal(err)
		}
		logs, values := content(t, dir, from)
		done := filepath.Join(t.TempDir(), "done")
		if err := errors.Join(os.CopyFS(done, os.DirFS(dir)), Convert(done, self, to)); err != nil {
			t.Fatal(err)
		}
		for name, step := range map[string]struct {
			undo func(dir string) error
			kind Kind
		}{
			"copy begun": {func(dir string) error {
				tmp := filepath.Join(dir, convertDir)
				return errors.Join(os.Mkdir(tmp, 0o700), os.WriteFile(filepath.Join(tmp, boltFile), []byte("half"), 0o600))
			}, from},
			"copy made": {func(dir string) error { return os.CopyFS(filepath.Join(dir, convertDir), os.DirFS(done)) }, from},
			"copy in place, marker old": {func(dir string) error {
				if to == WAL {
					return os.CopyFS(filepath.Join(dir, walDir), os.DirFS(filepath.Join(done, walDir)))
				}
				b, err := os.ReadFile(filepath.Join(done, boltFile))
				return errors.Join(err, os.WriteFile(filepath.Join(dir, boltFile), b, 0o600))
			}, from},
			"marker new, old log left": {func(dir string) error {
				if err := os.CopyFS(dir+".x", os.DirFS(done)); err != nil {
					return err
				}
				err := os.Rename(from.path(dir), from.path(dir+".x"))
				return errors.Join(err, os.RemoveAll(dir), os.Rename(dir+".x", dir))
			}, to},
		} {
			at := filepath.Join(t.TempDir(), "at")
			if err := errors.Join(os.CopyFS(at, os.DirFS(dir)), step.undo(at)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sameContent(t, at, step.kind, logs, values)
			for _, left := range []string{filepath.Join(at, convertDir), map[Kind]Kind{WAL: Bolt, Bolt: WAL}[step.kind].path(at)} {
				if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%s: %s is still there: %v", name, left, err)
				}
			}
			if err := Convert(at, self, to); err != nil {
				t.Fatalf("%s, repeated: %v", name, err)
			}
			sameContent(t, at, to, logs, values)
		}
	}
}
