// Package backuptest makes small logs on disk, with real records, seals and
// checkpoints, for the tests of what reads them: audit, backup and rescue. Only
// tests import it.
package backuptest

import (
	"fmt"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// Log is a fleet's log on one node's disk. Its founder, fleettest.Node(0), is
// the only voter and leads; its admin is "ada".
type Log struct {
	t testing.TB
	// Dir is the replica's directory.
	Dir     string
	Replica *replica.Replica
	// Now is what the next entry is stamped with; each adds a second.
	Now         time.Time
	index, term uint64
	labels      int
}

// New founds a fleet in a directory that the test owns and raises its ceiling.
func New(t testing.TB, dir string, o replica.Options) *Log {
	t.Helper()
	l := &Log{t: t, Dir: dir, Now: time.UnixMilli(1_700_000_000_000).UTC(), term: 1}
	l.Open(o)
	l.Decide(fleettest.Genesis())
	l.Decide(fleettest.Raise())
	l.Decide(event.Batch{Actor: fleettest.Itself(Founder()), Drafts: []event.Draft{
		event.RobotRegistered{Name: "gander", Type: event.LeKiwi, Version: "v1", Arch: "arm64", OS: "linux"}.Draft(Founder())}})
	return l
}

// Empty opens an empty log. GoOn must be called when it was filled.
func Empty(t testing.TB, dir string) *Log {
	t.Helper()
	l := &Log{t: t, Dir: dir, Now: time.UnixMilli(1_700_000_000_000).UTC(), term: 1}
	l.Open(replica.Options{})
	return l
}

// GoOn makes Decide go on after what the replica holds.
func (l *Log) GoOn() { l.index, l.term = l.Replica.Applied() }

// Elect makes Decide go on in a term.
func (l *Log) Elect(term uint64) { l.term = term }

// Founder is the node whose log it is.
func Founder() ident.NodeID { return fleettest.Node(0) }

// Open opens the replica, after Close.
func (l *Log) Open(o replica.Options) {
	l.t.Helper()
	r, err := replica.Open(l.Dir, o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { r.Close() })
	l.Replica = r
	if index, _ := r.Applied(); index > l.index {
		l.index = index
	}
}

// Close closes the replica, which writes a checkpoint.
func (l *Log) Close() {
	l.t.Helper()
	if err := l.Replica.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// Decide applies batches as one entry; all must be accepted.
func (l *Log) Decide(batches ...event.Batch) {
	l.t.Helper()
	l.index++
	l.Now = l.Now.Add(time.Second)
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: l.Now.UnixMilli(), Batches: batches})
	if err != nil {
		l.t.Fatal(err)
	}
	outcomes, err := l.Replica.ApplyEntry(l.index, l.term, data)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Err != nil {
			l.t.Fatal(o.Err)
		}
	}
}

// Labels decides n changes of a label, entries of size each.
func (l *Log) Labels(n, size int) {
	l.t.Helper()
	founder := Founder() // a key is made for every question
	for n > 0 {
		at := l.Replica.Cursor().Seq
		b := event.Batch{Actor: fleettest.Admin("ada")}
		for ; len(b.Drafts) < size && n > 0; n-- {
			l.labels++
			b.Drafts = append(b.Drafts, event.RobotLabelsChanged{Set: map[string]string{"n": fmt.Sprintf("%d-%d", at, l.labels)}}.Draft(founder))
		}
		b.Actor.Scopes = []string{event.ScopeAdmin}
		l.Decide(b)
	}
}

// Admit makes the i-th node of fleettest a member.
func (l *Log) Admit(i int) {
	l.t.Helper()
	l.Decide(event.Batch{Actor: fleettest.Leader(Founder()), Drafts: []event.Draft{
		event.NodeAdmitted{PublicKey: fleettest.Key(i).Public(), Name: fmt.Sprint("goose-", i), By: event.ByEnrolment,
			Ref: string(fleettest.Key(100).ID())}.Draft()}})
}

// Seal seals the log as its leader does.
func (l *Log) Seal() {
	l.t.Helper()
	at := l.Replica.Cursor()
	seal := event.Seal(fleettest.Key(0), at.History, at.Seq, at.Hash)
	l.Decide(event.Batch{Actor: fleettest.Leader(Founder()), Drafts: []event.Draft{seal.Draft()}})
}

// Recover ends the log under its name, on the i-th node of fleettest.
func (l *Log) Recover(i int, history string) {
	l.t.Helper()
	at := l.Replica.Cursor()
	_, err := l.Replica.Recover(event.Batch{
		Actor:  event.Actor{Kind: event.KindRecovery, ID: string(fleettest.Node(i))},
		Drafts: []event.Draft{event.LogRecovered{History: history, Seq: at.Seq, Hash: at.Hash, Reason: "a test"}.Draft()}}, l.Now)
	if err != nil {
		l.t.Fatal(err)
	}
	l.GoOn()
}

// StateHash is the hash of a replica's state.
func StateHash(r *replica.Replica) (hash string) {
	r.View(func(s *fleet.State) { hash = s.Hash() })
	return hash
}

// Chain proves that the i-th node of fleettest is of the fleet; it may issue.
func Chain(i int) ident.Chain {
	root := fleettest.Key(99)
	return ident.NewChain(ident.FleetIDOf(root.Public()), fleettest.Key(i).Public(), true, time.UnixMilli(1_700_000_000_000), root, nil)
}
