package backup_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/backup"
	"skein/consensus/backup/backuptest"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// clock is a wall clock that the test moves.
type clock struct{ now time.Time }

func scheduled(t *testing.T, keep int) (backup.Schedule, *backuptest.Log, *clock) {
	l := backuptest.New(t, t.TempDir(), replica.Options{})
	c := &clock{madeAt}
	m := backup.New(backup.Config{Source: l.Replica, Key: fleettest.Key(0), Chain: func() ident.Chain { return backuptest.Chain(0) },
		Now: func() time.Time { return c.now }})
	return backup.Schedule{Maker: m, Dir: filepath.Join(t.TempDir(), "backups"), Every: time.Hour, Keep: keep, Log: slog.New(slog.DiscardHandler)}, l, c
}

func TestScheduleKeepsTheNewest(t *testing.T) {
	s, l, c := scheduled(t, 2)
	var ends []uint64
	for range 4 {
		l.Labels(3, 1)
		ends = append(ends, l.Replica.Cursor().Seq)
		c.now = c.now.Add(time.Hour)
		if err := s.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// What is not a backup of this fleet stays: others' files, and a backup of
	// another fleet.
	others := []string{"notes.txt", strings.Repeat("a", 24) + "-20200101T000000Z-5-00000000.skein-backup"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A write that a power cut ended.
	if err := os.WriteFile(filepath.Join(s.Dir, ".unfinished-next.skein-backup.123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Once(t.Context()); err != nil { // nothing was decided since
		t.Fatal(err)
	}
	got := names(t, s.Dir)
	if len(got) != 4 || !slices.Contains(got, others[0]) || !slices.Contains(got, others[1]) {
		t.Fatalf("kept %v", got)
	}
	var kept []uint64
	for _, name := range got {
		if slices.Contains(others, name) {
			continue
		}
		sum, err := backup.VerifyFile(filepath.Join(s.Dir, name))
		if err != nil || backup.FileName(sum) != name {
			t.Errorf("%s: %v %v", name, sum, err)
		}
		kept = append(kept, sum.End.Seq)
	}
	if !slices.Equal(kept, ends[2:]) {
		t.Errorf("kept those that end with %v, want %v", kept, ends[2:])
	}
}

// A failure costs no old backup and does not end the node.
func TestScheduleSurvivesAFullDisk(t *testing.T) {
	s, l, c := scheduled(t, 1)
	if err := s.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := names(t, s.Dir)
	l.Labels(1, 1)
	c.now = c.now.Add(time.Hour)
	good := s.Maker
	s.Maker = backup.New(backup.Config{Source: l.Replica, Key: fleettest.Key(7), // no member: its backup does not verify
		Chain: func() ident.Chain { return backuptest.Chain(7) }, Now: func() time.Time { return c.now }})
	if err := s.Once(t.Context()); err == nil {
		t.Error("no error")
	}
	if got := names(t, s.Dir); !slices.Equal(got, before) {
		t.Errorf("was %v, is %v", before, got)
	}
	s.Maker = good
	if err := s.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s.Dir); len(got) != 1 || got[0] == before[0] {
		t.Errorf("was %v, is %v", before, got)
	}
}

func TestScheduleRuns(t *testing.T) {
	s, l, _ := scheduled(t, 3)
	s.Every = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	deadline := time.Now().Add(30 * time.Second)
	for n := 0; n < 2; {
		l.Labels(1, 1)
		entries, err := os.ReadDir(s.Dir)
		if n = len(entries); err != nil && !os.IsNotExist(err) || time.Now().After(deadline) {
			t.Fatalf("%d backups: %v", n, err)
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := (backup.Schedule{Maker: s.Maker, Dir: s.Dir, Keep: 1}).Run(t.Context()); err == nil {
		t.Error("a schedule without a time runs")
	}
}
