package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/consensus/backup"
	"skein/consensus/backup/backuptest"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

var madeAt = time.UnixMilli(1_800_000_000_000).UTC()

// maker makes backups of l as node i.
func maker(l *backuptest.Log, i int) *backup.Maker {
	return backup.New(backup.Config{
		Source: l.Replica, Key: fleettest.Key(i), Chain: func() ident.Chain { return backuptest.Chain(i) },
		Build: "test", Now: func() time.Time { return madeAt },
	})
}

// small is a log of some events, and a backup of it.
func small(t testing.TB) (*backuptest.Log, []byte) {
	t.Helper()
	l := backuptest.New(t, t.TempDir(), replica.Options{})
	l.Labels(3, 2)
	l.Seal()
	var b bytes.Buffer
	if _, err := maker(l, 0).Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return l, b.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	l, b := small(t)
	at := l.Replica.Cursor()
	var events []event.Event
	s, err := backup.Read(bytes.NewReader(b), backup.Visitor{
		State: func(*fleet.State, history.Position) error {
			return errors.New("there is no state before the first event")
		},
		Record: func(r history.Record, _ int64) error {
			events = append(events, r.Events...)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(events)) != at.Seq || s.Events != at.Seq || s.End != (backup.Place{Seq: at.Seq, Hash: at.Hash}) || s.Base.Seq != 0 {
		t.Errorf("%d events, %+v; the log is at %+v", len(events), s, at)
	}
	if s.History != at.History || s.FleetName != "test fleet" || s.Made.Node != fleettest.Node(0) || s.Made.Name != "founder" ||
		!s.At.Equal(madeAt) || s.Bytes != int64(len(b)) || s.State.Hash != backuptest.StateHash(l.Replica) {
		t.Errorf("summary %+v", s)
	}
	held, err := l.Replica.Events(t.Context(), 0, replica.Filter{}, replica.MaxEvents)
	if err != nil || fmt.Sprint(held) != fmt.Sprint(events) {
		t.Errorf("other events than the log has: %v", err)
	}
}

// No private key is in a backup, however many are on the node.
func TestNoSecrets(t *testing.T) {
	_, b := small(t)
	for i := range 120 {
		if key := fleettest.Key(i); bytes.Contains(b, key.Seed()) || bytes.Contains(b, key.Private()) {
			t.Fatalf("the private half of key %d is in the backup", i)
		}
	}
}

// Every single changed byte, and every length but the right one, is found.
func TestDamageAtEveryByte(t *testing.T) {
	_, b := small(t)
	read := func(b []byte) error {
		_, err := backup.Read(bytes.NewReader(b), backup.Visitor{})
		return err
	}
	if err := read(b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		switch err := read(bad); {
		case err == nil:
			t.Fatalf("byte %d changed is not noticed", i)
		case !errors.Is(err, backup.ErrDamaged) && !errors.Is(err, backup.ErrUpgrade) && !errors.Is(err, backup.ErrUntrusted):
			t.Fatalf("byte %d: %v", i, err)
		case strings.Contains(err.Error(), "\n"):
			t.Fatalf("byte %d: more than one line: %q", i, err)
		}
		if err := read(b[:i]); !errors.Is(err, backup.ErrDamaged) {
			t.Fatalf("cut at byte %d: %v", i, err)
		}
		if err := read(append(bytes.Clone(b[:i]), b[i+1:]...)); err == nil {
			t.Fatalf("byte %d taken out is not noticed", i)
		}
	}
	if err := read(append(bytes.Clone(b), 0)); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("one byte more: %v", err)
	}
}

// Who may sign: a member with a certificate of the fleet, for what it signed.
func TestUntrusted(t *testing.T) {
	l := backuptest.New(t, t.TempDir(), replica.Options{})
	l.Admit(3)
	write := func(key int, chain ident.Chain) error {
		m := backup.New(backup.Config{Source: l.Replica, Key: fleettest.Key(key), Chain: func() ident.Chain { return chain }})
		var b bytes.Buffer
		if _, err := m.Write(t.Context(), &b); err != nil {
			return err
		}
		_, err := backup.Read(&b, backup.Visitor{})
		return err
	}
	if err := write(3, backuptest.Chain(3)); err != nil {
		t.Errorf("by a member: %v", err)
	}
	if err := write(4, backuptest.Chain(4)); err == nil {
		t.Error("a node that the log does not know made one")
	}
	if err := write(3, backuptest.Chain(0)); !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("with another's certificate: %v", err)
	}
	other := fleettest.Key(98)
	foreign := ident.NewChain(ident.FleetIDOf(other.Public()), fleettest.Key(3).Public(), true, madeAt, other, nil)
	if err := write(3, foreign); !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("with a certificate of another fleet: %v", err)
	}
	l.Decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.NodeRevoked{}.Draft(fleettest.Node(3))}})
	if err := write(3, backuptest.Chain(3)); !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("by a revoked node: %v", err)
	}
}

// slow writes to w, and lets do run before each write.
type slow struct {
	w  io.Writer
	do func()
}

func (s slow) Write(b []byte) (int, error) { s.do(); return s.w.Write(b) }

// The fleet goes on writing; the backup is of the moment at which it began.
func TestWhileTheFleetWrites(t *testing.T) {
	l := backuptest.New(t, t.TempDir(), replica.Options{})
	l.Labels(400, 4)
	at, hash := l.Replica.Cursor(), backuptest.StateHash(l.Replica)
	var b bytes.Buffer
	s, err := maker(l, 0).Write(t.Context(), slow{&b, func() { l.Labels(3, 3) }})
	if err != nil {
		t.Fatal(err)
	}
	if s.End.Seq != at.Seq || s.State.Hash != hash {
		t.Errorf("it ends at %+v, the log was at %+v", s.End, at)
	}
	read, err := backup.Read(&b, backup.Visitor{})
	if err != nil || read.End != s.End {
		t.Errorf("%+v %v", read, err)
	}
	if now := l.Replica.Cursor(); now.Seq <= at.Seq {
		t.Error("the fleet did not write meanwhile")
	}
}

func TestOneAtATimeAndCancelled(t *testing.T) {
	l := backuptest.New(t, t.TempDir(), replica.Options{})
	l.Labels(50, 1)
	m := maker(l, 0)
	tried := false
	_, err := m.Write(t.Context(), slow{io.Discard, func() {
		if !tried {
			tried = true
			if _, err := m.Write(t.Context(), io.Discard); !errors.Is(err, backup.ErrBusy) {
				t.Errorf("a second one: %v", err)
			}
		}
	}})
	if err != nil || !tried {
		t.Fatal(err, tried)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := m.Write(ctx, slow{io.Discard, cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	full := errors.New("no space left on device")
	if _, err := m.Write(t.Context(), failing{full}); !errors.Is(err, full) {
		t.Errorf("full disk: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestSave(t *testing.T) {
	l, _ := small(t)
	m, dir := maker(l, 0), t.TempDir()
	path := filepath.Join(dir, "geese.backup")
	write := func(w io.Writer) error { _, err := m.Write(t.Context(), w); return err }
	if s, err := backup.Save(path, write); err != nil || s.End.Seq != l.Replica.Cursor().Seq {
		t.Fatal(s, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if _, err := backup.Save(path, write); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: %v", err)
	}
	// A stream that breaks off, and one that is whole and false.
	for what, broken := range map[string]func(io.Writer) error{
		"cut":   func(w io.Writer) error { _, b := small(t); _, err := w.Write(b[:len(b)-1]); return err },
		"empty": func(io.Writer) error { return nil },
		"error": func(io.Writer) error { return errors.New("connection lost") },
	} {
		if _, err := backup.Save(filepath.Join(dir, what), broken); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
	if _, err := backup.Save(filepath.Join(dir, "no", "such", "folder"), write); err == nil || !strings.Contains(err.Error(), "make the folder") {
		t.Errorf("no folder: %v", err)
	}
	if _, err := backup.VerifyFile(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
