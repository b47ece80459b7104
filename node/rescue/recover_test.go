package rescue_test

import (
	"context"
	"errors"
	"net"
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
	"skein/mesh/ident"
	"skein/node/datadir"
	"skein/node/rescue"
)

// nobody is the link of a voter that is alone.
type nobody struct{}

func (nobody) Open(context.Context, ident.NodeID) (net.Conn, error) {
	return nil, errors.New("there is nobody")
}

// Two of three voters are gone. The survivor goes on alone, and decides.
func TestRecoverAlone(t *testing.T) {
	b := survivor(t)
	before := b.log.Replica.Cursor()
	b.seat()
	b.log.Close()
	var plan rescue.Plan
	o := b.options()
	o.Confirm = agree(&plan)
	r, err := rescue.RecoverQuorum(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if plan.FleetName != "test fleet" || plan.Node != fleettest.Node(0) || plan.Cursor != before || len(plan.Reached) != 0 || len(plan.Unreached) != 3 {
		t.Errorf("the plan was %+v", plan)
	}
	if r.Cursor.Seq != before.Seq+1 || r.Cursor.History == before.History || r.Recoveries != 1 || !r.MayIssue || r.Aside == "" {
		t.Errorf("result %+v", r)
	}
	if _, err := os.Stat(r.Aside); err != nil {
		t.Errorf("the old Raft log: %v", err)
	}
	store := b.leads()
	if got := voters(store); !slices.Equal(got, []ident.NodeID{fleettest.Node(0)}) {
		t.Errorf("voters %v", got)
	}
	events, err := store.Events(t.Context(), before.Seq, replica.Filter{Type: event.TypeLogRecovered}, 10)
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	for _, part := range []string{before.Hash, "ada", "the dock burnt down", string(fleettest.Node(0))} {
		if !strings.Contains(string(events[0].Data)+events[0].Actor.ID, part) {
			t.Errorf("the event says %s by %s, and lacks %q", events[0].Data, events[0].Actor.ID, part)
		}
	}
	if left := digest(t, b.data); left[b.path("recovering.json")] != "" {
		t.Error("the note of the recovery is still there")
	}
	// What was decided before is a prefix: a node with it goes on by records.
	old := backuptest.Empty(t, filepath.Join(t.TempDir(), "log"))
	records, _ := store.Records(1, 1<<30)
	for _, rec := range records {
		if err := old.Replica.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	if backuptest.StateHash(old.Replica) != backuptest.StateHash(store) {
		t.Error("who follows has another state")
	}
}

// survivorWithFollowers is a survivor in a fleet with followers 5, 6 and 7 too.
func survivorWithFollowers(t *testing.T) *body {
	b := survivor(t)
	b.log.Admit(6)
	b.log.Admit(7)
	return b
}

// Followers have more than the survivor: the log goes on from the highest.
func TestRecoverFetchesTheHighestChain(t *testing.T) {
	b := survivorWithFollowers(t)
	ahead := runs(t, 5, b.log, 7, nil)
	behind := runs(t, 6, b.log, 0, nil)
	between := &peer{i: 7, log: copied(t, b.log)}
	records, ok := ahead.log.Replica.Records(b.log.Replica.Cursor().Seq+1, 1<<30)
	if !ok {
		t.Fatal("not held")
	}
	for _, rec := range records[:3] {
		if err := between.log.Replica.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	between.serve(t, rescue.ServeConfig{Chain: between.log.Replica})
	b.knows(ahead, behind, between)
	b.seat()
	b.log.Close()
	r, err := rescue.RecoverQuorum(t.Context(), b.options())
	if err != nil {
		t.Fatal(err)
	}
	want := ahead.log.Replica.Cursor()
	if r.Plan.From == nil || r.Plan.From.ID != fleettest.Node(5) || r.Fetched != 7 || r.Cursor.Seq != want.Seq+1 || len(r.Plan.Reached) != 3 {
		t.Errorf("%+v", r)
	}
	store := b.leads()
	if !store.Held(want) && !heldAs(store, want) {
		t.Errorf("what the follower had, %+v, is not in the log", want)
	}
}

// heldAs: the place is in the log, under whatever name.
func heldAs(r *replica.Replica, at event.Cursor) bool {
	at.History = r.Cursor().History
	return r.Held(at)
}

// Entries that the survivor has on its disk and has not applied were maybe
// acknowledged by a leader that is gone. They are not lost.
func TestRecoverAppliesTheRaftLog(t *testing.T) {
	b := survivor(t)
	b.seat()
	b.log.Close()
	saved := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(saved, os.DirFS(b.path("log"))); err != nil {
		t.Fatal(err)
	}
	var last event.Cursor
	t.Run("decides", func(t *testing.T) { // ends its group
		one := *b
		one.t = t
		last = one.leads().Cursor()
	})
	if err := errors.Join(os.RemoveAll(b.path("log")), os.CopyFS(b.path("log"), os.DirFS(saved))); err != nil {
		t.Fatal(err)
	}
	r, err := rescue.RecoverQuorum(t.Context(), b.options())
	if err != nil {
		t.Fatal(err)
	}
	if r.Plan.RaftEntries == 0 || r.FromRaft != uint64(r.Plan.RaftEntries) || r.Cursor.Seq != last.Seq+1 {
		t.Errorf("%+v, the Raft log had event %d", r, last.Seq)
	}
	if store := b.leads(); !heldAs(store, last) {
		t.Error("an event that was acknowledged is lost")
	}
}

// An entry of a term that the log went on without was never committed: what is
// decided was learnt from a peer, in a later term.
func TestRecoverLeavesOutWhatWasNeverCommitted(t *testing.T) {
	b := survivor(t)
	b.seat()
	later := copied(t, b.log)
	b.log.Close()
	saved := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(saved, os.DirFS(b.path("log"))); err != nil {
		t.Fatal(err)
	}
	t.Run("decides", func(t *testing.T) {
		one := *b
		one.t = t
		one.leads()
	})
	if err := errors.Join(os.RemoveAll(b.path("log")), os.CopyFS(b.path("log"), os.DirFS(saved))); err != nil {
		t.Fatal(err)
	}
	later.Elect(90)
	later.Labels(1, 1)
	b.log.Open(replica.Options{})
	records, _ := later.Replica.Records(b.log.Replica.Cursor().Seq+1, 1<<20)
	for _, rec := range records {
		if err := b.log.Replica.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	b.log.Close()
	r, err := rescue.RecoverQuorum(t.Context(), b.options())
	if err != nil || r.Plan.RaftEntries != 0 || r.FromRaft != 0 || r.Cursor.Seq != later.Replica.Cursor().Seq+1 {
		t.Errorf("%+v %v", r, err)
	}
	b.leads()
}

// Two followers are ahead, and their logs do not fit each other.
func TestRecoverAsksWhoIsAheadAboutTheOthers(t *testing.T) {
	b := survivorWithFollowers(t)
	b.knows(runs(t, 5, b.log, 9, nil), forked(t, 6, b.log, 0, 3))
	b.seat()
	b.log.Close()
	same := unchanged(t, b.data)
	if _, err := rescue.RecoverQuorum(t.Context(), b.options()); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("got %v", err)
	}
	same()
}

// recoverRefusal is why, and who is asked is or does what.
type recoverRefusal struct {
	peers func(b *body) []*peer
	with  func(b *body, o *rescue.RecoverOptions)
	is    error
	says  string
}

func recoverRefusals(t *testing.T) map[string]recoverRefusal {
	leader := func(age time.Duration) func() (ident.NodeID, time.Duration, bool) {
		return func() (ident.NodeID, time.Duration, bool) { return fleettest.Node(4), age, true }
	}
	return map[string]recoverRefusal{
		"a leader is there": {
			peers: func(b *body) []*peer { return []*peer{runs(t, 5, b.log, 0, leader(2*time.Second))} },
			is:    rescue.ErrRefused, says: "heard of a leader 2 s ago"},
		"a majority is there": {
			peers: func(b *body) []*peer { return []*peer{runs(t, 3, b.log, 0, leader(time.Minute))} },
			is:    rescue.ErrRefused, says: "2 of 3 voters are there"},
		"somebody was recovered": {
			peers: func(b *body) []*peer {
				p := runs(t, 5, b.log, 0, nil)
				p.log.Recover(5, "h-other")
				return []*peer{p}
			},
			is: rescue.ErrRefused, says: "recovered already"},
		"a log that does not fit, ahead": {
			peers: func(b *body) []*peer { return []*peer{forked(t, 5, b.log, 3, 9)} },
			is:    rescue.ErrRefused, says: "does not fit"},
		"a log that does not fit, behind": {
			peers: func(b *body) []*peer { return []*peer{forked(t, 5, b.log, 3, 1)} },
			is:    rescue.ErrRefused, says: "does not fit"},
		"a node of an old build": {
			peers: func(b *body) []*peer {
				p := &peer{i: 5, log: copied(t, b.log)}
				p.serve(t, rescue.ServeConfig{})
				return []*peer{p}
			},
			is: rescue.ErrRefused, says: "does not say how far"},
		"it has heard of a recovery": {with: func(b *body, _ *rescue.RecoverOptions) {
			text := `{"fleet":"` + string(ident.FleetIDOf(fleettest.Key(99).Public())) + `","latest":1,"seated":0}`
			if err := os.WriteFile(b.path("epochs.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}, is: rescue.ErrRefused, says: "recovered already"},
		"unknown person": {with: func(_ *body, o *rescue.RecoverOptions) { o.By.Name = "bob" }, is: rescue.ErrNotAllowed, says: "no person"},
		"another's name": {with: func(_ *body, o *rescue.RecoverOptions) { o.By.Key = fleettest.Key(51) }, is: rescue.ErrNotAllowed, says: "not that of"},
		"a viewer": {with: func(b *body, o *rescue.RecoverOptions) {
			o.By = rescue.Person{Name: "eve", Key: fleettest.Key(52)}
		}, is: rescue.ErrNotAllowed, says: "no admin"},
		"a reason of two lines": {with: func(_ *body, o *rescue.RecoverOptions) { o.Why = "a\nb" }, is: rescue.ErrBadOption, says: "one line"},
		"declined": {with: func(_ *body, o *rescue.RecoverOptions) {
			o.Confirm = func(rescue.Plan) error { return errDeclined }
		}, is: errDeclined},
		"a wrong root key": {with: func(b *body, o *rescue.RecoverOptions) { o.RootKey = b.path("node.key") }, is: rescue.ErrRefused, says: "not the root key"},
	}
}

// Whatever is refused changes nothing.
func TestRecoverRefuses(t *testing.T) {
	for name, c := range recoverRefusals(t) {
		t.Run(name, func(t *testing.T) {
			b := survivor(t)
			b.log.Decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{
				event.PersonAdded{PublicKey: fleettest.Key(52).Public(), Scopes: []string{event.ScopeViewer}}.Draft("eve")}})
			if c.peers != nil {
				b.knows(c.peers(b)...)
			}
			b.seat()
			b.log.Close()
			o := b.options()
			if c.with != nil {
				c.with(b, &o)
			}
			var but []string
			if c.is == errDeclined { // the store of the Raft log marks its file when it is read
				but = append(but, "log.bolt")
			}
			same := unchanged(t, b.data, but...)
			_, err := rescue.RecoverQuorum(t.Context(), o)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v with %q", err, c.is, c.says)
			}
			same()
		})
	}
}

var errDeclined = errors.New("no")

// forked is a node whose log has gone its own way since back events ago, and has
// more of its own.
func forked(t *testing.T, i int, l *backuptest.Log, back, more int) *peer {
	t.Helper()
	p := &peer{i: i, log: backuptest.Empty(t, filepath.Join(t.TempDir(), "log"))}
	end := l.Replica.Cursor().Seq - uint64(back)
	records, _ := l.Replica.Records(1, 1<<30)
	for _, rec := range records {
		if rec.Last() <= end {
			if err := p.log.Replica.ApplyRecord(rec); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.log.GoOn()
	p.log.Now = p.log.Now.Add(time.Hour)
	p.log.Labels(more, 1)
	p.serve(t, rescue.ServeConfig{Chain: p.log.Replica})
	return p
}

// What is no stopped node with a good log is refused, and stays as it is.
func TestRecoverNeedsAStoppedNode(t *testing.T) {
	nothing := filepath.Join(t.TempDir(), "none")
	if _, err := rescue.RecoverQuorum(t.Context(), rescue.RecoverOptions{Data: nothing, Now: now, Log: quiet}); !errors.Is(err, rescue.ErrNoNode) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := os.Stat(nothing); err == nil {
		t.Error("the directory was made")
	}
	b := survivor(t)
	b.log.Close()
	held, err := datadir.Open(b.data)
	if err != nil {
		t.Fatal(err)
	}
	same := unchanged(t, b.data)
	if _, err := rescue.RecoverQuorum(t.Context(), b.options()); !errors.Is(err, rescue.ErrRunning) {
		t.Errorf("a node that runs: %v", err)
	}
	same()
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	// Damage at its worst: a record that is whole, and not the one that was decided.
	segment := filepath.Join(b.path("log"), "history", strings.Repeat("0", 20)+".seg")
	text, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(segment, text, 0o600); err != nil {
		t.Fatal(err)
	}
	same = unchanged(t, b.data)
	if _, err := rescue.RecoverQuorum(t.Context(), b.options()); !errors.Is(err, replica.ErrDamaged) || !strings.Contains(err.Error(), "skein restore") {
		t.Errorf("damaged: %v", err)
	}
	same()
	if err := os.RemoveAll(b.path("log")); err != nil {
		t.Fatal(err)
	}
	if _, err := rescue.RecoverQuorum(t.Context(), b.options()); !errors.Is(err, rescue.ErrRefused) {
		t.Errorf("no log: %v", err)
	}
}

// A crash between the decision and the Raft log: the node does not start, and
// the same command finishes.
func TestRecoverIsFinished(t *testing.T) {
	b := survivor(t)
	b.seat()
	at := b.log.Replica.Cursor()
	if err := os.WriteFile(b.path("recovering.json"), []byte(`{"format":"skein-recovering/1","history":"h-begun"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.log.Recover(0, "h-begun")
	b.log.Close()
	store, err := replica.Open(b.path("log"), replica.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = raftgroup.New(raftgroup.Config{ID: fleettest.Node(0), Dir: b.path("raft"), Link: nobody{}, Machine: store, Log: quiet, Epoch: 1})
	if !errors.Is(err, raftlog.ErrGone) {
		t.Errorf("half recovered, and starts: %v", err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := rescue.RecoverQuorum(t.Context(), b.options())
	if err != nil || !r.Finished || r.Cursor.History != "h-begun" || r.Cursor.Seq != at.Seq+1 || r.Recoveries != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	b.leads()
	if b.path("recovering.json") == "" || digest(t, b.data)[b.path("recovering.json")] != "" {
		t.Error("the note of the recovery is still there")
	}
}

// A crash before the decision: the note alone changes nothing.
func TestRecoverIsBegunAnew(t *testing.T) {
	b := survivor(t)
	b.seat()
	b.log.Close()
	if err := os.WriteFile(b.path("recovering.json"), []byte(`{"format":"skein-recovering/1","history":"h-begun"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := rescue.RecoverQuorum(t.Context(), b.options())
	if err != nil || r.Finished || r.Cursor.History != "h-begun" {
		t.Fatalf("%+v %v", r, err)
	}
	b.leads()
}

// A second catastrophe, and one on a follower that never voted and may not issue
// certificates.
func TestRecoverAgainOnAFollower(t *testing.T) {
	b := survivor(t)
	b.seat()
	b.log.Close()
	if _, err := rescue.RecoverQuorum(t.Context(), b.options()); err != nil {
		t.Fatal(err)
	}
	b.log.Open(replica.Options{})
	f := newBody(t, 5)
	plain := ident.NewChain(ident.FleetIDOf(fleettest.Key(99).Public()), fleettest.Key(5).Public(), false, now(), fleettest.Key(99), nil)
	if err := ident.NewMembership("test fleet", fleettest.Key(99).Public(), plain).Save(f.path("membership.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(f.path("log"), os.DirFS(copied(t, b.log).Dir)); err != nil {
		t.Fatal(err)
	}
	o := f.options()
	r, err := rescue.RecoverQuorum(t.Context(), o)
	if err != nil || r.Recoveries != 2 || r.MayIssue {
		t.Fatalf("%+v %v", r, err)
	}
	// The certificate may come later; nothing else changes then.
	o.RootKey = filepath.Join(t.TempDir(), "root.key")
	if err := fleettest.Key(99).Save(o.RootKey); err != nil {
		t.Fatal(err)
	}
	same := unchanged(t, f.data, "membership.json", "log.bolt")
	if again, err := rescue.RecoverQuorum(t.Context(), o); err != nil || !again.MayIssue || again.Recoveries != 2 || again.Cursor != r.Cursor {
		t.Errorf("%+v %v", again, err)
	}
	same()
	store := f.leads()
	if got := voters(store); !slices.Equal(got, []ident.NodeID{fleettest.Node(5)}) {
		t.Errorf("voters %v", got)
	}
	var eligible bool
	store.View(func(s *fleet.State) { n, _ := s.Node(fleettest.Node(0)); eligible = n.VoterApproved })
	if eligible {
		t.Error("the voter before is still approved")
	}
}

// With the root key the node gets a certificate that may issue.
func TestRecoverWithTheRootKey(t *testing.T) {
	b := survivor(t)
	b.log.Close()
	plain := ident.NewChain(ident.FleetIDOf(fleettest.Key(99).Public()), fleettest.Key(0).Public(), false, now(), fleettest.Key(99), nil)
	if err := ident.NewMembership("test fleet", fleettest.Key(99).Public(), plain).Save(b.path("membership.json")); err != nil {
		t.Fatal(err)
	}
	o := b.options()
	o.RootKey = filepath.Join(t.TempDir(), "root.key")
	if err := fleettest.Key(99).Save(o.RootKey); err != nil {
		t.Fatal(err)
	}
	r, err := rescue.RecoverQuorum(t.Context(), o)
	if err != nil || !r.MayIssue || r.Finished {
		t.Fatalf("%+v %v", r, err)
	}
	m, err := ident.LoadMembership(b.path("membership.json"), fleettest.Node(0))
	if err != nil || !m.Chain[0].MayIssue || len(m.Chain) != 1 {
		t.Errorf("%+v %v", m, err)
	}
}

// A lone voter whose Raft log is there is only to be started; one that has lost
// it has nobody else to help it.
func TestRecoverALoneVoter(t *testing.T) {
	b := newBody(t, 0)
	b.log = backuptest.New(t, b.path("log"), replica.Options{})
	b.seat()
	b.log.Close()
	if _, err := rescue.RecoverQuorum(t.Context(), b.options()); !errors.Is(err, rescue.ErrRefused) || !strings.Contains(err.Error(), "start it") {
		t.Errorf("with its Raft log: %v", err)
	}
	if err := os.RemoveAll(b.path("raft")); err != nil {
		t.Fatal(err)
	}
	r, err := rescue.RecoverQuorum(t.Context(), b.options())
	if err != nil || r.Plan.RaftTrouble == "" {
		t.Fatalf("%+v %v", r, err)
	}
	b.leads()
}

// A Raft log that is damaged does not stop the recovery; it is said, and kept.
func TestRecoverWithADamagedRaftLog(t *testing.T) {
	b := survivor(t)
	b.seat()
	b.log.Close()
	if err := os.WriteFile(b.path("raft/log.bolt"), []byte("no store"), 0o600); err != nil {
		t.Fatal(err)
	}
	var plan rescue.Plan
	o := b.options()
	o.Confirm = agree(&plan)
	r, err := rescue.RecoverQuorum(t.Context(), o)
	if err != nil || plan.RaftTrouble == "" || strings.Contains(plan.RaftTrouble, "\n") {
		t.Fatalf("%+v %v", r, err)
	}
	if text, err := os.ReadFile(filepath.Join(r.Aside, "log.bolt")); err != nil || string(text) != "no store" {
		t.Errorf("the damaged one is not kept: %q %v", text, err)
	}
	b.leads()
}
