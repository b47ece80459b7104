package rescue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/backup/backuptest"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/node/rescue"
)

// lastVoter is the only voter of a fleet that was founded through its Raft log
// and decided a=1 and a=2; killed, not stopped. With entries the Raft log was
// made shorter: it keeps that many and has a snapshot.
func lastVoter(t *testing.T, kind raftlog.Kind, entries uint64) *body {
	t.Helper()
	b, killed := newBody(t, 0), newBody(t, 0)
	if err := raftgroup.Bootstrap(b.path("raft"), fleettest.Node(0), kind); err != nil {
		t.Fatal(err)
	}
	c := raftgroup.Compaction{Keep: entries, Entries: entries, Every: 10 * time.Millisecond}
	t.Run("lives", func(t *testing.T) { // ends its group
		store, g := b.group(t, kind, c)
		submit := func(batch event.Batch) {
			t.Helper()
			if out, err := g.Submit(t.Context(), batch); err != nil || out.Err != nil {
				t.Fatal(err, out.Err)
			}
		}
		submit(fleettest.Genesis())
		submit(fleettest.Raise())
		submit(event.Batch{Actor: fleettest.Itself(fleettest.Node(0)), Drafts: []event.Draft{
			event.RobotRegistered{Name: "gander", Type: event.LeKiwi, Version: "v1", Arch: "arm64", OS: "linux"}.Draft(fleettest.Node(0))}})
		submit(labelled("1"))
		if entries > 0 {
			n := 0
			b.awaitSnapshot(t, func() { n++; submit(labelled(fmt.Sprint("1.", n))) })
		}
		submit(labelled("2"))
		if store.Cursor().Seq == 0 {
			t.Fatal("nothing was decided")
		}
		for _, name := range []string{"log", "raft"} {
			if err := os.CopyFS(killed.path(name), os.DirFS(b.path(name))); err != nil {
				t.Fatal(err)
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return killed
}

func labelled(value string) event.Batch {
	return event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.RobotLabelsChanged{Set: map[string]string{"a": value}}.Draft(fleettest.Node(0))}}
}

// label is what the state says of a.
func label(r *replica.Replica) (value string) {
	r.View(func(s *fleet.State) {
		n, _ := s.Robot(fleettest.Node(0))
		value = n.Labels["a"]
	})
	return value
}

// group runs a Raft group on the body, alone, until the test ends, and waits
// until it leads.
func (b *body) group(t *testing.T, kind raftlog.Kind, c raftgroup.Compaction) (*replica.Replica, *raftgroup.Group) {
	t.Helper()
	store, err := replica.Open(b.path("log"), replica.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := raftgroup.New(raftgroup.Config{ID: fleettest.Node(b.i), Dir: b.path("raft"), Store: kind, Link: nobody{}, Machine: store, Log: quiet, Compaction: c})
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, store.Close()); err != nil {
			t.Error(err)
		}
	})
	deadline := time.After(30 * time.Second)
	for {
		changed := g.Changed()
		if _, leading := g.Leading(); leading {
			return store, g
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("it does not lead")
		}
	}
}

// awaitSnapshot goes on deciding until the Raft log begins with a snapshot.
func (b *body) awaitSnapshot(t *testing.T, decide func()) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(30 * time.Second)
	for {
		made, err := filepath.Glob(b.path("raft/snapshots/*/meta.json"))
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(made, func(path string) bool { return !strings.HasSuffix(filepath.Dir(path), ".tmp") }) {
			return
		}
		decide()
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("no snapshot was made")
		}
	}
}

// damage flips a bit of the copy of the log, in the middle of its newest segment.
func (b *body) damage() {
	b.t.Helper()
	segments, err := filepath.Glob(b.path("log/history/*.seg"))
	if err != nil || len(segments) == 0 {
		b.t.Fatal("no segment", err)
	}
	path := slices.Max(segments)
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// The copy of the last voter is damaged, its Raft log is whole: what was
// acknowledged is there again, and nothing but the copy was moved.
func TestResyncOfTheLastVoter(t *testing.T) {
	for name, c := range map[string]struct {
		kind    raftlog.Kind
		entries uint64
		alone   bool
		spoil   func(b *body)
	}{
		"bolt":            {raftlog.Bolt, 0, false, (*body).damage},
		"wal, alone":      {raftlog.WAL, 0, true, (*body).damage},
		"with a snapshot": {raftlog.Bolt, 2, false, (*body).damage},
		"the history gone": {raftlog.Bolt, 2, false, func(b *body) {
			if err := os.RemoveAll(b.path("log/history")); err != nil {
				b.t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := lastVoter(t, c.kind, c.entries)
			c.spoil(b)
			same := unchanged(t, b.path("log"))
			if _, err := rescue.Restore(t.Context(), restoring(b, backedUp(t, survivor(t).log))); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "skein resync --alone") {
				t.Errorf("restore: %v", err)
			}
			same()
			o := resyncing(b)
			o.Alone = c.alone
			r, err := rescue.Resync(t.Context(), o)
			if err != nil || r.Kept == nil || !slices.Equal(r.Moved, []string{b.path("log")}) || !strings.Contains(r.Next(), "own Raft log") {
				t.Fatalf("%+v %v", r, err)
			}
			if got := entries(t, b.data); slices.Contains(got, "log") || slices.Contains(got, "resyncing") || !slices.Contains(got, "raft") {
				t.Errorf("what is there: %v", got)
			}
			if (r.Kept.After > 0) != (c.entries > 0) || r.Kept.Voters != 1 {
				t.Errorf("%+v", r.Kept)
			}
			if _, err := rescue.Resync(t.Context(), resyncing(b)); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "just start") {
				t.Errorf("again: %v", err)
			}
			store, _ := b.group(t, c.kind, raftgroup.Compaction{})
			if got := label(store); got != "2" || store.Cursor() != r.Kept.Cursor {
				t.Errorf("a is %q at %+v, the Raft log had %+v", got, store.Cursor(), r.Kept)
			}
		})
	}
}

// What is refused says what would be lost and how to go on; with Alone the Raft
// log is moved too.
func TestResyncWithoutAGoodRaftLog(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T) *body
		why  string
	}{
		"it is damaged": {func(t *testing.T) *body {
			b := lastVoter(t, raftlog.Bolt, 0)
			b.damage()
			if err := os.WriteFile(b.path("raft/log.bolt"), []byte("no store"), 0o600); err != nil {
				t.Fatal(err)
			}
			return b
		}, "does not give the copy back"},
		"it begins after a recovery": {func(t *testing.T) *body {
			b := newBody(t, 0)
			b.log = backuptest.New(t, b.path("log"), replica.Options{})
			b.seat()
			b.log.Close()
			b.damage()
			return b
		}, "does not give the copy back"},
		"the fleet was recovered since": {func(t *testing.T) *body {
			b := lastVoter(t, raftlog.Bolt, 0)
			b.damage()
			text := `{"fleet":"` + string(backuptest.Chain(0)[0].Fleet) + `","latest":1}`
			if err := os.WriteFile(b.path("epochs.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return b
		}, "recovered or restored without it"},
		"nothing is damaged": {func(t *testing.T) *body { return lastVoter(t, raftlog.Bolt, 0) }, "no damage was found"},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.make(t)
			same := unchanged(t, b.data, "log.bolt") // which the store rewrites when it is opened
			_, err := rescue.Resync(t.Context(), resyncing(b))
			if !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "--alone") || !strings.Contains(err.Error(), "skein restore") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			same()
			o := resyncing(b)
			o.Alone = true
			if r, err := rescue.Resync(t.Context(), o); err != nil || len(r.Moved) != 2 || r.Kept != nil || !strings.Contains(r.Next(), "is then lost") {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}
