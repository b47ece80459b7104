package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"skein/mesh/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// self is the node whose logs these are, other is another.
const (
	self  ident.NodeID = "aaaaaaaaaaaaaaaaaaaaaaaa"
	other ident.NodeID = "aaaaaaaaaaaaaaaaaaaaaaab"
)

// piece is in each entry that a proposal has made.
const piece = `{"epoch":1}`

// alone is the configuration in which self votes.
func alone() raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(self), Address: raft.ServerAddress(self)}}}
}

// written makes a closed bolt log as raft does, of a voter alone: a configuration,
// five proposals, a term and a vote. It gives the directory.
func written(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "raft")
	l, err := Open(Config{Dir: dir, ID: self})
	if err != nil {
		t.Fatal(err)
	}
	entries := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone())}}
	for i := uint64(2); i <= 6; i++ {
		entries = append(entries, &raft.Log{Index: i, Term: 2, Type: raft.LogCommand, Data: fmt.Appendf(nil, "proposal %d: %s", i, piece)})
	}
	if err := errors.Join(l.SetUint64([]byte(keyCurrentTerm), 2), l.StoreLogs(entries), l.SetUint64([]byte(keyLastVoteTerm), 2),
		l.Set([]byte(keyLastVoteCand), []byte(self)), l.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// opens opens and closes the log in dir.
func opens(dir string) error {
	l, err := Open(Config{Dir: dir, ID: self})
	if err != nil {
		return err
	}
	return l.Close()
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	bolt := func(dir string) string { return filepath.Join(dir, boltFile) }
	whole := written(t)
	for _, tc := range []struct {
		name   string
		damage func(t *testing.T, dir string) error
		want   error
	}{
		{"nothing wrong", func(*testing.T, string) error { return nil }, nil},
		{"log file removed", func(_ *testing.T, dir string) error { return os.Remove(bolt(dir)) }, ErrGone},
		{"log file emptied", func(_ *testing.T, dir string) error { return os.Truncate(bolt(dir), 0) }, ErrGone},
		{"log file cut short", func(_ *testing.T, dir string) error { return os.Truncate(bolt(dir), 3*4096) }, ErrDamaged},
		{"log file is something else", func(_ *testing.T, dir string) error {
			return os.WriteFile(bolt(dir), bytes.Repeat([]byte("not a log "), 5000), 0o600)
		}, ErrDamaged},
		{"one bit of an entry", func(t *testing.T, dir string) error { return flip(t, bolt(dir), []byte(piece)) }, ErrDamaged},
		{"marker unreadable", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, markerFile), []byte("{"), 0o600)
		}, ErrDamaged},
		{"marker of another node", func(_ *testing.T, dir string) error { return writeMarker(dir, other, Bolt) }, ErrForeign},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raft")
			if err := errors.Join(os.CopyFS(dir, os.DirFS(whole)), tc.damage(t, dir)); err != nil {
				t.Fatal(err)
			}
			err := opens(dir)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), ";") {
				t.Fatalf("%q does not say what to do", err)
			}
		})
	}
}

// flip changes one bit in every copy of a piece of a file.
func flip(t *testing.T, path string, piece []byte) error {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n := 0
	for at := 0; ; n++ {
		i := bytes.Index(b[at:], piece)
		if i < 0 {
			break
		}
		b[at+i] ^= 1
		at += i + len(piece)
	}
	if n == 0 {
		return fs.ErrNotExist
	}
	return os.WriteFile(path, b, 0o600)
}

// TestAnyFlippedBitIsRefusedOrHarmless flips one bit in every page: the log
// opens with all its entries, or does not open.
func TestAnyFlippedBitIsRefusedOrHarmless(t *testing.T) {
	t.Parallel()
	dir := written(t)
	path := filepath.Join(dir, boltFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := 100; at < len(whole); at += 511 {
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Config{Dir: dir, ID: self})
		if err != nil {
			refused++
			continue
		}
		if l.last < 6 {
			t.Fatalf("bit in byte %d: opened with %d entries", at, l.last)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Fatal("no flipped bit was noticed")
	}
}

func TestAnotherKindIsRefused(t *testing.T) {
	t.Parallel()
	dir := written(t)
	if _, err := Open(Config{Dir: dir, ID: self, Kind: WAL}); err == nil || !strings.Contains(err.Error(), "setting") {
		t.Fatalf("got %v", err)
	}
	if _, err := Open(Config{Dir: dir, ID: self, Kind: "tape"}); err == nil || !strings.Contains(err.Error(), `known are "bolt" and "wal"`) {
		t.Fatalf("got %v", err)
	}
}

func TestUnfinishedSnapshotsAreCleared(t *testing.T) {
	t.Parallel()
	dir := written(t)
	left := filepath.Join(dir, snapshotDir, "1-2-3"+snapshotUnfinished)
	if err := os.MkdirAll(filepath.Join(left, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := opens(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("still there: %v", err)
	}
}

func TestOpenLogIsLocked(t *testing.T) {
	t.Parallel()
	dir := written(t)
	l, err := Open(Config{Dir: dir, ID: self})
	if err != nil {
		t.Fatal(err)
	}
	if err := opens(dir); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	if err := errors.Join(l.Close(), opens(dir)); err != nil {
		t.Fatal(err)
	}
}

func holds105(r io.Reader) (uint64, error) {
	if b, err := io.ReadAll(r); err != nil || string(b) != "state" {
		return 0, fmt.Errorf("%q %w", b, err)
	}
	return 105, nil
}

// TestCheck: what is known elsewhere against what the log holds.
func TestCheck(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "raft")
	voters, leapt := written(t), behind(t, Bolt)
	for _, tc := range []struct {
		dir     string
		applied uint64
		joining bool
		want    error
	}{
		{empty, 0, false, ErrGone},
		{empty, 0, true, nil},
		{empty, 7, true, nil}, // a node that follows holds more than a log without its vote
		{voters, 0, false, nil},
		{voters, 6, false, nil},
		{voters, 7, false, ErrGone},
		{voters, 7, true, ErrGone},
		{leapt, 100, false, nil},
		{leapt, 105, false, nil}, // which is in the snapshot of entry 100
		{leapt, 106, false, ErrGone},
	} {
		l, err := Open(Config{Dir: tc.dir, ID: self})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Check(tc.applied, tc.joining, holds105); !errors.Is(err, tc.want) {
			t.Errorf("%d applied, joining %t, log empty %t: got %v, want %v", tc.applied, tc.joining, l.Empty(), err, tc.want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// behind makes a log of two entries beside a snapshot of entry 100, where self alone
// votes.
func behind(t *testing.T, kind Kind) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "raft")
	l, err := Open(Config{Dir: dir, ID: self, Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.SetUint64([]byte(keyCurrentTerm), 3), l.StoreLogs([]*raft.Log{entryFor(1, 1), entryFor(2, 1)})); err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("")
	sink, err := l.Snapshots().Create(raft.SnapshotVersionMax, 100, 3, alone(), 90, trans)
	if err == nil {
		_, err = sink.Write([]byte("state"))
	}
	if err := errors.Join(err, sink.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLogBehindAnInstalledSnapshot: the crash came before the old log was emptied.
func TestLogBehindAnInstalledSnapshot(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Bolt, WAL} {
		dir := behind(t, kind)
		l, err := Open(Config{Dir: dir, ID: self, Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(l.StoreLog(entryFor(101, 3)), l.Close()); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if l, err = Open(Config{Dir: dir, ID: self, Kind: kind}); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil || l.last != 101 {
			t.Fatalf("%s ends at %d, %v", kind, l.last, err)
		}
	}
}

func TestCheckOfAnUnreadableSnapshot(t *testing.T) {
	t.Parallel()
	l, err := Open(Config{Dir: behind(t, Bolt), ID: self})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	boom := errors.New("no state")
	if err := l.Check(101, false, func(io.Reader) (uint64, error) { return 0, boom }); !errors.Is(err, ErrDamaged) || !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
}

func TestRestoreOfTheNewestSnapshot(t *testing.T) {
	t.Parallel()
	dir := behind(t, Bolt)
	l, err := Open(Config{Dir: dir, ID: self})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Empty() || l.SnapshotIndex() != 100 {
		t.Fatalf("empty %t, snapshot of %d", l.Empty(), l.SnapshotIndex())
	}
	var got []byte
	read := func(r io.Reader) (err error) { got, err = io.ReadAll(r); return err }
	if err := l.Restore(100, read); err != nil || got != nil {
		t.Fatalf("%q was given to who holds it: %v", got, err)
	}
	if err := l.Restore(99, read); err != nil || string(got) != "state" {
		t.Fatalf("%q %v", got, err)
	}
	boom := errors.New("no room")
	if err := l.Restore(99, func(io.Reader) error { return boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if err := l.Restore(99, read); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got %v", err)
	}
}
