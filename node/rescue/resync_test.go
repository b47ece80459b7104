package rescue_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skein/consensus/backup/backuptest"
	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
	"skein/consensus/raftlog"
	"skein/mesh/link"
	"skein/node/datadir"
	"skein/node/rescue"
)

func resyncing(b *body) rescue.ResyncOptions {
	return rescue.ResyncOptions{Data: b.data, Mesh: mesh, Now: now, Log: quiet}
}

// A voter is refused until an admin has withdrawn it. Then everything is moved,
// byte for byte, and nothing is deleted.
func TestResync(t *testing.T) {
	b := survivor(t)
	p := runs(t, 3, b.log, 0, nil)
	b.knows(p)
	b.seat()
	b.log.Close()
	same := unchanged(t, b.data)
	if _, err := rescue.Resync(t.Context(), resyncing(b)); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "skein node withdraw") {
		t.Errorf("a voter: %v", err)
	}
	same()
	p.log.Decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterWithdrawn{}.Draft(fleettest.Node(0))}})
	p.log.Decide(event.Batch{Actor: fleettest.Leader(fleettest.Node(3)), Drafts: []event.Draft{event.VoterRemoved{}.Draft(fleettest.Node(0))}})
	before := digest(t, b.data)
	r, err := rescue.Resync(t.Context(), resyncing(b))
	if err != nil || len(r.Moved) != 2 || len(r.From) != 1 || r.From[0].ID != fleettest.Node(3) {
		t.Fatalf("%+v %v", r, err)
	}
	after := digest(t, b.data)
	for path, sum := range before {
		rel, err := filepath.Rel(b.data, path)
		if err != nil {
			t.Fatal(err)
		}
		if top := strings.Split(rel, "/")[0]; top == "log" || top == "raft" {
			path = filepath.Join(r.Attic, rel)
		}
		if after[path] != sum {
			t.Errorf("%s is gone or changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
	// What is left is a member with an empty log, which anybody's records fill.
	if got := entries(t, b.data); slices.Contains(got, "log") || slices.Contains(got, "raft") {
		t.Errorf("still there: %v", got)
	}
	if _, err := rescue.Resync(t.Context(), resyncing(b)); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "just start") {
		t.Errorf("again: %v", err)
	}
}

// The log may be damaged beyond reading; a copy that might be the last stays.
func TestResyncOfADamagedLog(t *testing.T) {
	b := newBody(t, 5)
	if err := errors.Join(os.MkdirAll(b.path("log/history"), 0o700), os.WriteFile(b.path("log/history/x.seg"), []byte("no"), 0o600)); err != nil {
		t.Fatal(err)
	}
	same := unchanged(t, b.data)
	if _, err := rescue.Resync(t.Context(), resyncing(b)); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "no other node answers") {
		t.Errorf("nobody answers: %v", err)
	}
	// A node that answers, and has nothing itself, is of no help.
	empty := &peer{i: 3, log: backuptest.Empty(t, filepath.Join(t.TempDir(), "log"))}
	empty.serve(t, rescue.ServeConfig{Chain: empty.log.Replica})
	held, err := datadir.Open(b.data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rescue.Resync(t.Context(), resyncing(b)); !errors.Is(err, rescue.ErrRunning) {
		t.Errorf("it runs: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	same()
	b.knows(empty)
	if _, err := rescue.Resync(t.Context(), resyncing(b)); !errors.Is(err, rescue.ErrRefused) {
		t.Errorf("only an empty node answers: %v", err)
	}
	o := resyncing(b)
	o.Alone = true
	if r, err := rescue.Resync(t.Context(), o); err != nil || len(r.Moved) != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestConvert(t *testing.T) {
	b := survivor(t)
	b.seat()
	b.log.Close()
	log := unchanged(t, b.path("log"))
	if _, err := rescue.Convert(b.data, "etcd"); !errors.Is(err, rescue.ErrBadOption) {
		t.Errorf("an unknown kind: %v", err)
	}
	for _, to := range []raftlog.Kind{raftlog.WAL, raftlog.WAL, raftlog.Bolt} {
		c, err := rescue.Convert(b.data, string(to))
		if err != nil || c.To != to {
			t.Fatalf("%+v %v", c, err)
		}
		if kind, err := raftlog.KindOf(b.path("raft")); err != nil || kind != to {
			t.Fatal(kind, err)
		}
	}
	log()
	f := newBody(t, 5)
	if _, err := rescue.Convert(f.data, "wal"); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "no voter") {
		t.Errorf("a follower: %v", err)
	}
}

// chain/1 sends exactly what the asker lacks, and only if it fits.
func TestChain(t *testing.T) {
	b := survivor(t)
	p := runs(t, 3, b.log, 4, nil)
	asker := &peer{i: 5}
	asker.serve(t, rescue.ServeConfig{})
	asker.host.Know(p.endpoint())
	ask := func(q rescue.Question, each func(history.Record) error) (rescue.Standing, error) {
		t.Helper()
		st, err := asker.host.Open(t.Context(), fleettest.Node(3), link.Protocol(rescue.ChainProtocol))
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		return rescue.AskChain(t.Context(), st, q, each)
	}
	at, end := b.log.Replica.Cursor(), p.log.Replica.Cursor()
	got := uint64(0)
	s, err := ask(rescue.Question{Cursor: at, Records: true}, func(r history.Record) error { got += uint64(len(r.Events)); return nil })
	if err != nil || got != end.Seq-at.Seq || s.Cursor != end || !s.Held || s.YouVote || s.LeaderAgeMillis != -1 {
		t.Errorf("%d events, %+v, %v", got, s, err)
	}
	if _, err := ask(rescue.Question{Cursor: end, Records: true}, func(history.Record) error { return nil }); !errors.Is(err, rescue.ErrNotAhead) {
		t.Errorf("nothing new: %v", err)
	}
	at.Hash = end.Hash
	if s, err := ask(rescue.Question{Cursor: at, Records: true}, func(history.Record) error { return nil }); !errors.Is(err, rescue.ErrNotAhead) || s.Held {
		t.Errorf("another past: %+v %v", s, err)
	}
	stop := errors.New("enough")
	if _, err := ask(rescue.Question{Cursor: b.log.Replica.Cursor(), Records: true}, func(history.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the asker's error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	st, err := asker.host.Open(t.Context(), fleettest.Node(3), link.Protocol(rescue.ChainProtocol))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := rescue.AskChain(ctx, st, rescue.Question{}, nil); err == nil {
		t.Error("asked although the context had ended")
	}
}
