package rescue_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/audit"
	"skein/consensus/backup"
	"skein/consensus/backup/backuptest"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/rescue"
)

// backedUp writes a backup of l, made by its founder.
func backedUp(t *testing.T, l *backuptest.Log) string {
	t.Helper()
	m := backup.New(backup.Config{Source: l.Replica, Key: fleettest.Key(0), Chain: func() ident.Chain { return backuptest.Chain(0) }})
	path := filepath.Join(t.TempDir(), "geese.skein-backup")
	if _, err := backup.Save(path, func(w io.Writer) error { _, err := m.Write(t.Context(), w); return err }); err != nil {
		t.Fatal(err)
	}
	return path
}

func restoring(b *body, file string) rescue.RestoreOptions {
	return rescue.RestoreOptions{File: file, Data: b.data, Mesh: mesh, By: &ada, Why: "everything burnt",
		Confirm: func(rescue.RestorePlan) error { return nil }, Now: now, Log: quiet}
}

// All is gone but the keys. The fleet is founded anew, decides, and who has an
// old copy of the log goes on from it.
func TestRestore(t *testing.T) {
	l := survivor(t).log
	l.Decide(event.Batch{Producer: event.Producer{Node: fleettest.Node(0), Boot: 7<<20 | 5, N: 1}, Actor: fleettest.Admin("ada"),
		Drafts: []event.Draft{event.GroupCreated{}.Draft("north")}})
	at, hash := l.Replica.Cursor(), backuptest.StateHash(l.Replica)
	file := backedUp(t, l)
	b := newBody(t, 0)
	r, err := rescue.Restore(t.Context(), restoring(b, file))
	if err != nil {
		t.Fatal(err)
	}
	if r.Plan.FleetName != "test fleet" || r.Plan.Backup.End.Seq != at.Seq || r.Cursor.Seq != at.Seq+1 || r.Cursor.History == at.History ||
		r.Recoveries != 1 || !r.MayIssue || r.Finished {
		t.Errorf("%+v", r)
	}
	if boots, err := os.ReadFile(b.path("boots")); err != nil || strings.TrimSpace(string(boots)) != "1007" {
		t.Errorf("boots %q %v: this node had started 7 times at least", boots, err)
	}
	if report, err := audit.Directory(t.Context(), b.path("log"), false); err != nil || !report.OK() || report.Last != at.Seq+1 {
		t.Errorf("audit: %+v %v", report, err)
	}
	store := b.leads()
	if got := voters(store); !slices.Equal(got, []ident.NodeID{fleettest.Node(0)}) {
		t.Errorf("voters %v", got)
	}
	old, _, err := store.StateAt(t.Context(), at.Seq)
	if err != nil || old.Hash() != hash {
		t.Errorf("the state at event %d is another: %v", at.Seq, err)
	}
	for _, name := range entries(t, b.data) {
		if name == "restoring" || strings.Contains(name, ".recovered") {
			t.Errorf("left behind: %s", name)
		}
	}
	records, ok := store.Records(at.Seq+1, 1<<30)
	if !ok {
		t.Fatal("not held")
	}
	for _, rec := range records {
		if err := l.Replica.ApplyRecord(rec); err != nil {
			t.Fatalf("an old node cannot follow: %v", err)
		}
	}
	if backuptest.StateHash(l.Replica) != backuptest.StateHash(store) {
		t.Error("an old node has another state")
	}
}

func entries(t *testing.T, dir string) (all []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		all = append(all, e.Name())
	}
	return all
}

// The node that made the backup held the end of the log only.
func TestRestoreWithoutTheBeginning(t *testing.T) {
	l := backuptest.New(t, filepath.Join(t.TempDir(), "log"), replica.Options{TailBytes: 6000})
	l.Labels(60, 2)
	l.Close()
	l.Open(replica.Options{TailBytes: 6000})
	if l.Replica.First() == 1 {
		t.Fatal("nothing was dropped")
	}
	hash, at := backuptest.StateHash(l.Replica), l.Replica.Cursor()
	file := backedUp(t, l)
	sum, err := backup.VerifyFile(file)
	if err != nil || sum.Base.Seq < l.Replica.First()-1 || sum.Base.Seq >= at.Seq {
		t.Fatal(sum, err)
	}
	b := newBody(t, 0)
	if _, err := rescue.Restore(t.Context(), restoring(b, file)); err != nil {
		t.Fatal(err)
	}
	store := b.leads()
	old, _, err := store.StateAt(t.Context(), at.Seq)
	if err != nil || old.Hash() != hash || store.First() != sum.Base.Seq+1 {
		t.Errorf("first %d, want %d: %v", store.First(), sum.Base.Seq+1, err)
	}
}

// restoreRefusal is why, and who is asked is or does what.
type restoreRefusal struct {
	body func(t *testing.T) *body
	with func(t *testing.T, b *body, o *rescue.RestoreOptions)
	is   error
	says string
}

func restoreRefusals(l *backuptest.Log, file string) map[string]restoreRefusal {
	return map[string]restoreRefusal{
		"a damaged backup": {with: func(t *testing.T, _ *body, o *rescue.RestoreOptions) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)/2] ^= 1
			o.File = filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(o.File, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}, is: backup.ErrDamaged, says: "at byte"},
		"no backup": {with: func(_ *testing.T, _ *body, o *rescue.RestoreOptions) { o.File = "none" }, is: os.ErrNotExist},
		"a log is there": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) {
			if err := os.MkdirAll(b.path("log/history"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, is: rescue.ErrRefused, says: "skein resync"},
		"a Raft log is there": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) {
			if err := os.MkdirAll(b.path("raft/snapshots"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, is: rescue.ErrRefused, says: "skein resync"},
		"no key": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) {
			if err := os.Remove(b.path("node.key")); err != nil {
				t.Fatal(err)
			}
		}, is: rescue.ErrNoNode, says: "must be put back"},
		"no membership": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) {
			if err := os.Remove(b.path("membership.json")); err != nil {
				t.Fatal(err)
			}
		}, is: rescue.ErrNoNode, says: "--root-key"},
		"a node that is no member": {body: func(t *testing.T) *body { return newBody(t, 7) }, is: rescue.ErrRefused, says: "no member"},
		"another fleet": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) {
			other := fleettest.Key(98)
			chain := ident.NewChain(ident.FleetIDOf(other.Public()), fleettest.Key(0).Public(), true, now(), other, nil)
			if err := ident.NewMembership("ducks", other.Public(), chain).Save(b.path("membership.json")); err != nil {
				t.Fatal(err)
			}
		}, is: rescue.ErrRefused, says: "belongs to ducks"},
		"no admin": {with: func(_ *testing.T, _ *body, o *rescue.RestoreOptions) {
			o.By = &rescue.Person{Name: "ada", Key: fleettest.Key(51)}
		}, is: rescue.ErrNotAllowed},
		"declined": {with: func(_ *testing.T, _ *body, o *rescue.RestoreOptions) {
			o.Confirm = func(rescue.RestorePlan) error { return errDeclined }
		}, is: errDeclined},
		"somebody has more": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) { b.knows(runs(t, 5, l, 2, nil)) },
			is: rescue.ErrRefused, says: "recover-quorum"},
		"the fleet lives": {with: func(t *testing.T, b *body, _ *rescue.RestoreOptions) {
			b.knows(runs(t, 5, l, 0, func() (ident.NodeID, time.Duration, bool) { return fleettest.Node(3), time.Second, true }))
		}, is: rescue.ErrRefused, says: "heard of a leader"},
	}
}

// Whatever is refused changes nothing.
func TestRestoreRefuses(t *testing.T) {
	l := survivor(t).log
	file := backedUp(t, l)
	for name, c := range restoreRefusals(l, file) {
		t.Run(name, func(t *testing.T) {
			var b *body
			if c.body != nil {
				b = c.body(t)
			} else {
				b = newBody(t, 0)
			}
			o := restoring(b, file)
			if c.with != nil {
				c.with(t, b, &o)
			}
			same := unchanged(t, b.data)
			_, err := rescue.Restore(t.Context(), o)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v with %q", err, c.is, c.says)
			}
			same()
		})
	}
}

// Events that only a running node has are given up only when somebody says so.
func TestRestoreLosesNewer(t *testing.T) {
	l := survivor(t).log
	file := backedUp(t, l)
	b := newBody(t, 0)
	b.knows(runs(t, 5, l, 2, nil))
	o := restoring(b, file)
	o.LoseNewer = true
	if _, err := rescue.Restore(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b.leads()
}

// Only the node's key and the root key are left: the membership is made anew.
func TestRestoreWithTheRootKey(t *testing.T) {
	file := backedUp(t, survivor(t).log)
	b := newBody(t, 3)
	if err := os.Remove(b.path("membership.json")); err != nil {
		t.Fatal(err)
	}
	o := restoring(b, file)
	o.RootKey = filepath.Join(t.TempDir(), "root.key")
	if err := fleettest.Key(98).Save(o.RootKey); err != nil {
		t.Fatal(err)
	}
	same := unchanged(t, b.data)
	if _, err := rescue.Restore(t.Context(), o); !errors.Is(err, rescue.ErrRefused) {
		t.Errorf("another fleet's root key: %v", err)
	}
	same()
	o.RootKey += ".right"
	if err := fleettest.Key(99).Save(o.RootKey); err != nil {
		t.Fatal(err)
	}
	r, err := rescue.Restore(t.Context(), o)
	if err != nil || !r.MayIssue {
		t.Fatal(r, err)
	}
	if m, err := ident.LoadMembership(b.path("membership.json"), fleettest.Node(3)); err != nil || m.FleetName != "test fleet" || !m.Chain[0].MayIssue {
		t.Errorf("%+v %v", m, err)
	}
	store := b.leads()
	store.View(func(s *fleet.State) {
		if n, _ := s.Node(fleettest.Node(3)); !n.Voter || !n.VoterApproved || !n.VoterEligible {
			t.Errorf("%+v", n)
		}
	})
}

// The count of starts never goes back, and is never lower than the log knows.
func TestRestoreKeepsTheBoots(t *testing.T) {
	l := survivor(t).log
	l.Decide(event.Batch{Producer: event.Producer{Node: fleettest.Node(0), Boot: 7<<20 | 5, N: 1}, Actor: fleettest.Admin("ada"),
		Drafts: []event.Draft{event.GroupCreated{}.Draft("north")}})
	file := backedUp(t, l)
	for had, want := range map[string]string{"3\n": "1007", "7\n": "1007", "8\n": "8", "damaged": "1007"} {
		b := newBody(t, 0)
		if err := os.WriteFile(b.path("boots"), []byte(had), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := rescue.Restore(t.Context(), restoring(b, file)); err != nil {
			t.Fatal(err)
		}
		if boots, err := os.ReadFile(b.path("boots")); err != nil || strings.TrimSpace(string(boots)) != want {
			t.Errorf("had %q, has %q, want %s (%v)", had, boots, want, err)
		}
	}
}

// The log goes in place before the Raft log: see putInPlace.
func TestRestorePutsTheLogFirst(t *testing.T) {
	file := backedUp(t, survivor(t).log)
	b := newBody(t, 0)
	if err := os.MkdirAll(b.path("restoring/log/here"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.path("restoring/raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	whole(t, b)
	if err := os.MkdirAll(b.path("raft/in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := rescue.Restore(t.Context(), restoring(b, file)); err == nil {
		t.Error("a Raft log in the way was overwritten")
	}
	if _, err := os.Stat(b.path("log/here")); err != nil {
		t.Errorf("the log was not put in place first: %v", err)
	}
	if _, err := os.Stat(b.path("restoring/raft")); err != nil {
		t.Errorf("what is not in place yet is gone: %v", err)
	}
}

// A crash at any step: what is ready is put in place, what is not is made anew.
func TestRestoreIsFinished(t *testing.T) {
	l := survivor(t).log
	file := backedUp(t, l)
	done := newBody(t, 0)
	if _, err := rescue.Restore(t.Context(), restoring(done, file)); err != nil {
		t.Fatal(err)
	}
	// put lays a folder that a restore has made ready somewhere else.
	put := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(done.path(from))); err != nil {
			t.Fatal(err)
		}
	}
	for name, step := range map[string]struct {
		crash    func(b *body)
		finished bool
	}{
		"while the log was made": {func(b *body) { put("log", b.path("restoring/log")) }, false},
		"before the renames": {func(b *body) {
			put("log", b.path("restoring/log"))
			put("raft", b.path("restoring/raft"))
			whole(t, b)
		}, true},
		"between the renames": {func(b *body) {
			put("log", b.path("log"))
			put("raft", b.path("restoring/raft"))
			whole(t, b)
		}, true},
		"after the renames": {func(b *body) {
			put("log", b.path("log"))
			put("raft", b.path("raft"))
			if err := os.Mkdir(b.path("restoring"), 0o700); err != nil {
				t.Fatal(err)
			}
			whole(t, b)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody(t, 0)
			step.crash(b)
			r, err := rescue.Restore(t.Context(), restoring(b, file))
			if err != nil || r.Finished != step.finished || r.Plan.FleetName != "test fleet" || r.Cursor.Seq != l.Replica.Cursor().Seq+1 {
				t.Fatalf("%+v %v", r, err)
			}
			one := *b
			one.t = t
			one.leads()
			if slices.Contains(entries(t, b.data), "restoring") {
				t.Error("the staging folder is still there")
			}
		})
	}
}

func whole(t *testing.T, b *body) {
	t.Helper()
	if err := os.WriteFile(b.path("restoring/whole"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The backup is from before a recovery that others have heard of. The restored
// fleet is later than that, so that they follow it.
func TestRestoreFromBeforeARecovery(t *testing.T) {
	l := survivor(t).log
	file := backedUp(t, l)
	b := newBody(t, 0)
	fleetID := string(ident.FleetIDOf(fleettest.Key(99).Public()))
	if err := os.WriteFile(b.path("epochs.json"), []byte(`{"fleet":"`+fleetID+`","latest":2,"seated":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := runs(t, 5, l, 0, nil)
	p.log.Recover(5, "h-one")
	p.log.Recover(5, "h-two")
	p.log.Recover(5, "h-three")
	b.knows(p)
	o := restoring(b, file)
	same := unchanged(t, b.data)
	if _, err := rescue.Restore(t.Context(), o); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "--lose-newer") {
		t.Errorf("somebody is of a later fleet: %v", err)
	}
	same()
	o.LoseNewer = true
	r, err := rescue.Restore(t.Context(), o)
	if err != nil || r.Recoveries != 4 || r.Cursor.Seq != l.Replica.Cursor().Seq+4 {
		t.Fatalf("%+v %v", r, err)
	}
	b.leads()
}
