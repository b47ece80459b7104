package rescue

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"skein/consensus/audit"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/config"
)

// RecoverOptions say how RecoverQuorum goes about it.
type RecoverOptions struct {
	// Data is the data directory of a stopped node that is a member.
	Data string
	// Mesh says how other nodes are found.
	Mesh config.Mesh
	// Store is the kind of the Raft log to make where there is none: "bolt", "wal"
	// or "" for the usual.
	Store string
	// By is the admin who does it, Why what the log says of the occasion.
	By  Person
	Why string
	// RootKey is the file of the fleet's root key, with which this node gets a
	// certificate that may issue others; "" leaves it the one it has.
	RootKey string
	// Confirm is asked when everything is known and nothing was changed. An error
	// ends it there.
	Confirm func(Plan) error
	Now     func() time.Time
	Log     *slog.Logger
}

// Recovered says what became of a recovery or a restore.
type Recovered struct {
	Plan Plan `json:"plan"`
	// Cursor is where the log is now, under its new name. Recoveries counts how
	// often that has happened.
	Cursor     event.Cursor `json:"cursor"`
	Recoveries uint64       `json:"recoveries"`
	// Fetched is how many events came from another node, FromRaft how many entries
	// from this node's Raft log that it had not applied.
	Fetched  uint64 `json:"fetched"`
	FromRaft uint64 `json:"fromRaft"`
	// Aside is where the old Raft log is now, "" if there was none.
	Aside string `json:"aside,omitempty"`
	// MayIssue: the node can admit others.
	MayIssue bool `json:"mayIssue"`
	// Finished: it had been begun before, and was finished now.
	Finished bool `json:"finished,omitempty"`
}

// RecoverQuorum makes a stopped node the only voter of a fleet that has lost
// its majority for good. The log goes on from the highest chain among the
// nodes that can be reached, this one included, under a new name. It refuses
// (ErrRefused) while the fleet can decide, when somebody was recovered already,
// and when the logs of two nodes do not fit. Nothing is changed before
// o.Confirm has returned nil; what a crash interrupts after that, the same call
// finishes.
func RecoverQuorum(ctx context.Context, o RecoverOptions) (Recovered, error) {
	s, err := openStopped(o.Data)
	if err != nil {
		return Recovered{}, err
	}
	defer s.close()
	w := &work{stopped: s, o: o, kind: storeOf(o.Store)}
	if err := w.prepare(); err != nil {
		return Recovered{}, err
	}
	defer func() {
		if w.replica != nil {
			w.replica.Close()
		}
	}()
	if err := w.consider(ctx); err != nil {
		return Recovered{}, err
	}
	if err := w.carryOut(ctx); err != nil {
		return Recovered{}, fmt.Errorf("%w; run the same command again to finish", err)
	}
	return w.result, nil
}

// work is one recovery.
type work struct {
	*stopped
	o     RecoverOptions
	kind  raftlog.Kind
	root  *ident.Key
	asker *asker
	begun *begun
	// certifyOnly: nothing is to be recovered, the node only lacks a certificate
	// that may issue others.
	certifyOnly bool
	result      Recovered
	// replica is this node's copy, nil when it is closed.
	replica *replica.Replica
}

// begun is the note of a recovery under way, by which the same command goes on.
type begun struct {
	Format  string `json:"format"`
	History string `json:"history"`
}

const (
	begunName   = "recovering.json"
	begunFormat = "skein-recovering/1"
)

// prepare opens what is needed and changes nothing.
func (w *work) prepare() error {
	if err := checkReason(w.reason()); err != nil {
		return err
	}
	if w.o.RootKey != "" {
		key, err := loadRoot(w.o.RootKey, w.member.Root)
		if err != nil {
			return err
		}
		w.root = &key
	}
	var err error
	if w.begun, err = readBegun(w.path()); err != nil {
		return err
	}
	if held, err := present(w.dir.Log()); err != nil || !held {
		return errors.Join(err, refusal("%s has no copy of the fleet's log; run it on a node that has one; the only voter is just started, if its Raft log is there; else `skein restore` a backup", w.dir.Path()))
	}
	if w.replica, err = replica.Open(w.dir.Log(), replica.Options{Log: w.o.Log}); err != nil {
		return fmt.Errorf("%w; or recover on another node", err)
	}
	return nil
}

func (w *work) reason() string { return reason("recover-quorum", &w.o.By, w.o.Why) }

func (w *work) path() string { return filepath.Join(w.dir.Path(), begunName) }

func readBegun(path string) (*begun, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var b begun
	if err := json.Unmarshal(text, &b); err != nil || b.Format != begunFormat || b.History == "" {
		return nil, fmt.Errorf("%s is damaged; move it away and run the command again", path)
	}
	return &b, nil
}

// state gives a copy of the replica's state.
func (w *work) state() (s *fleet.State) {
	w.replica.View(func(now *fleet.State) { s = now.Clone() })
	return s
}

// readRaft counts what this node's Raft log has and the node has not applied. A
// voter must have one.
func (w *work) readRaft(voter bool) {
	p := &w.result.Plan
	kind, err := raftlog.KindOf(w.dir.Raft())
	switch {
	case err == nil && kind != "":
		w.kind = kind
		err = w.tail(func(uint64, uint64, []byte) error { p.RaftEntries++; return nil })
	case err == nil && voter:
		err = errors.New("it is gone")
	}
	if err != nil {
		p.RaftTrouble = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
}

// halfDone: the log says that it was recovered; the Raft log may not yet.
func (w *work) halfDone(s *fleet.State) bool { return w.begun != nil && s.History() == w.begun.History }

// consider looks at everything, asks everybody, and asks the person.
func (w *work) consider(ctx context.Context) error {
	s := w.state()
	p := &w.result.Plan
	p.Node = w.key.ID()
	if err := p.lookUp(s); err != nil {
		return err
	}
	if err := w.o.By.may(s); err != nil {
		return err
	}
	heard, err := w.heard()
	if err != nil {
		return err
	}
	if heard > s.Recoveries() {
		return refusal("this node has heard that the fleet was recovered already, without it; run `skein resync` here and start it, or recover on a node of that fleet")
	}
	report, err := audit.Directory(ctx, w.dir.Log(), false)
	if err != nil {
		return err
	}
	if !report.OK() {
		return refusal("this node's copy of the log is damaged: %v; run `skein audit verify`, and recover on another node, or run `skein resync`, which says what is left here and what to do", report.Findings[0])
	}
	var askErr error
	if w.asker, askErr = w.newAsker(w.o.Mesh, w.o.Log); askErr != nil {
		return askErr
	}
	defer w.asker.close()
	if err := p.survey(ctx, w.asker, s, w.replica.Cursor()); err != nil {
		return err
	}
	if err := p.checkOne(s.Recoveries()); err != nil {
		return err
	}
	if err := p.checkAlive(s.Recoveries()); err != nil {
		return err
	}
	if !w.halfDone(s) {
		if err := p.checkMajority(s); err != nil {
			return err
		}
		if err := p.chooseSource(ctx, w.asker, w.replica, s.Recoveries()); err != nil {
			return err
		}
	}
	w.readRaft(slices.Contains(s.Voters(), p.Node) && !w.halfDone(s))
	if p.lone(s) && p.RaftTrouble == "" && !w.halfDone(s) {
		if w.root == nil || w.member.Chain[0].MayIssue {
			return refusal("this node is the only voter, so nothing is lost: start it")
		}
		w.certifyOnly = true
	}
	if err := w.o.Confirm(*p); err != nil || p.From == nil {
		return err
	}
	if err := w.begin(); err != nil {
		return err
	}
	return w.fetch(ctx)
}

// begin notes durably that a recovery is under way.
func (w *work) begin() error {
	if w.begun != nil {
		return nil
	}
	w.begun = &begun{begunFormat, "h-" + strings.ToLower(rand.Text()[:20])}
	text, err := json.Marshal(w.begun)
	if err != nil {
		return err
	}
	return ident.ReplaceDurably(w.path(), append(text, '\n'))
}

// fetch brings this node up to the highest chain that was found.
func (w *work) fetch(ctx context.Context) error {
	from := w.result.Plan.From
	before := w.replica.Cursor()
	_, err := w.asker.ask(ctx, from.ID, Question{Cursor: before, Records: true}, func(r history.Record) error {
		return w.replica.ApplyRecord(r)
	})
	if err == nil && w.replica.Cursor().Seq < w.result.Plan.FromSeq {
		err = errors.New("it sent less than it said it had")
	}
	if err != nil {
		return fmt.Errorf("fetch the end of the log from %s: %w; run the same command again", from.label(), err)
	}
	w.result.Fetched = w.replica.Cursor().Seq - before.Seq
	return nil
}

// carryOut makes the decision in the log, then the Raft log that goes on from it.
func (w *work) carryOut(ctx context.Context) error {
	if w.certifyOnly {
		s := w.state()
		w.result.Finished, w.result.Cursor, w.result.Recoveries = true, w.replica.Cursor(), s.Recoveries()
		var err error
		w.result.MayIssue, err = w.certify(w.root, w.o.Now())
		return err
	}
	done := w.halfDone(w.state())
	if err := w.begin(); err != nil {
		return err
	}
	// Also when it is half done: the node may have run since, and decided more.
	if err := w.applyTail(); err != nil {
		return err
	}
	if !done {
		batch := recovery(w.key.ID(), w.begun.History, w.replica.Cursor(), w.reason())
		if _, err := w.replica.Recover(batch, w.o.Now()); err != nil {
			return err
		}
	}
	w.result.Finished = done
	index, term := w.replica.Applied()
	s := w.state()
	w.result.Cursor, w.result.Recoveries = w.replica.Cursor(), s.Recoveries()
	err := w.replica.Close()
	w.replica = nil
	if err != nil {
		return err
	}
	if w.result.Aside, err = raftgroup.Recover(w.dir.Raft(), w.key.ID(), w.kind, index, term); err != nil {
		return err
	}
	if w.result.MayIssue, err = w.certify(w.root, w.o.Now()); err != nil {
		return err
	}
	if err := os.Remove(w.path()); err != nil {
		return fmt.Errorf("remove the note of the recovery: %w", err)
	}
	return errors.Join(syncDir(w.dir.Path()), ctx.Err())
}

// recovery is the batch that ends the log at cursor.
func recovery(node ident.NodeID, name string, at event.Cursor, why string) event.Batch {
	return event.Batch{
		Actor:  event.Actor{Kind: event.KindRecovery, ID: string(node)},
		Drafts: []event.Draft{event.LogRecovered{History: name, Seq: at.Seq, Hash: at.Hash, Reason: why}.Draft()},
	}
}

// tail gives the entries of this node's Raft log behind the applied one. A
// leader that is gone may have acknowledged them, because this node had them on
// its disk, before this node heard that they were committed. One of a term before
// that of the newest applied entry was never committed: the log went on without it.
func (w *work) tail(each func(index, term uint64, data []byte) error) error {
	index, term := w.replica.Applied()
	return raftlog.Entries(w.dir.Raft(), w.key.ID(), index, func(i, t uint64, data []byte) error {
		if t < term {
			return nil
		}
		return each(i, t, data)
	})
}

func (w *work) applyTail() error {
	if w.result.Plan.RaftTrouble != "" { // it was said, and agreed to
		return nil
	}
	return w.tail(func(index, term uint64, data []byte) error {
		if _, err := w.replica.ApplyEntry(index, term, data); err != nil {
			return err
		}
		w.result.FromRaft++
		return nil
	})
}

// loadRoot reads the fleet's root key.
func loadRoot(path string, root []byte) (ident.Key, error) {
	key, err := ident.LoadKey(path)
	if err != nil {
		return key, err
	}
	if !bytes.Equal(key.Public(), root) {
		return key, refusal("%s is not the root key of this fleet; use the one that `skein fleet init` wrote", path)
	}
	return key, nil
}

// certify gives the node a certificate that may issue others, if it has none and
// the root key is at hand. It reports whether the node has one.
func (s *stopped) certify(root *ident.Key, now time.Time) (bool, error) {
	if s.member.Chain[0].MayIssue || root == nil {
		return s.member.Chain[0].MayIssue, nil
	}
	chain := ident.NewChain(s.member.Fleet(), s.key.Public(), true, now, *root, nil)
	s.member = ident.NewMembership(s.member.FleetName, s.member.Root, chain)
	return true, s.member.Save(s.dir.Membership())
}
