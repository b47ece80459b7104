package fleet

import (
	"fmt"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Tx stages changes beside a state. Batches are checked one after the other, each
// seeing what the accepted ones before it changed; Commit then changes the state
// at once. The state must not change in between. After Commit or Discard the Tx
// may be used again. It is for one goroutine.
type Tx struct {
	base *State
	seq  uint64
	// start is the last event before the batch that is checked.
	start uint64

	fleet      *Fleet
	nodes      staged[ident.NodeID, *Node]
	robots     staged[ident.NodeID, *robot]
	tokens     staged[string, *Token]
	enrolments staged[ident.NodeID, *Enrolment]
	persons    staged[string, *Person]
	groups     staged[string, *Group]
	versions   counters

	proposals proposals
	narrowed  narrowed
	// made are the events of the accepted batches, and dec what decodes payloads.
	made []event.Event
	dec  event.Decoder
}

// proposals are those that a Tx accepted.
type proposals struct {
	// order has all of them, as they came.
	order []span
	// peaks are the highest of each start of a node, so that one beyond is known to
	// be new without looking through order.
	peaks []event.Producer
}

// span is the events of one proposal.
type span struct {
	event.Producer
	first, last uint64
}

// find is the proposal p, or nil.
func (ps *proposals) find(p event.Producer) *span {
	for i := range ps.peaks {
		peak := &ps.peaks[i]
		if peak.Boot != p.Boot || peak.Node != p.Node {
			continue
		}
		if p.N > peak.N {
			return nil // the usual case: numbers grow
		}
		for i := range ps.order {
			if ps.order[i].Producer == p {
				return &ps.order[i]
			}
		}
	}
	return nil
}

func (ps *proposals) add(s span) {
	ps.order = append(ps.order, s)
	for i := range ps.peaks {
		if peak := &ps.peaks[i]; peak.Boot == s.Boot && peak.Node == s.Node {
			peak.N = max(peak.N, s.N)
			return
		}
	}
	ps.peaks = append(ps.peaks, s.Producer)
}

// Verdict is what became of an accepted batch.
type Verdict struct {
	// First and Last are the batch's events.
	First, Last uint64
	// Repeated: the same producer was accepted before; First and Last are those
	// of that time, and nothing changes.
	Repeated bool
	// Events are the batch's events, in order; nil when Repeated. The list is valid
	// until the first Check after a Commit or Discard, as that of Tx.Events is; an
	// Event of it may be kept. Its payload is canonical, and is the draft's own where
	// that was.
	Events []event.Event
}

// Begin starts a transaction.
func (s *State) Begin() *Tx {
	tx := &Tx{
		base:       s,
		nodes:      stage(s.nodes),
		robots:     stage(s.robots),
		tokens:     stage(s.tokens),
		enrolments: stage(s.enrolments),
		persons:    stage(s.persons),
		groups:     stage(s.groups),
		versions:   counters{base: s.versions},
	}
	tx.Discard()
	return tx
}

// table is a staged map of whatever types.
type table interface {
	keep()
	revert()
	commit()
	discard()
}

// tables are all staged maps, for what is done to every one.
func (tx *Tx) tables() [7]table {
	return [...]table{&tx.nodes, &tx.robots, &tx.tokens, &tx.enrolments, &tx.persons, &tx.groups, &tx.versions}
}

// Check says what would become of the batch now, as the leader's clock gives it,
// and stages its changes. The error is a *event.Fault; then nothing is staged.
func (s *State) Check(b event.Batch, now time.Time) (Verdict, error) {
	return s.Begin().Check(b, now)
}

// Check is as State.Check, after the batches that this Tx has accepted.
func (tx *Tx) Check(b event.Batch, now time.Time) (Verdict, error) {
	if fault := b.CheckEnvelope(); fault != nil {
		return Verdict{}, fault
	}
	if v, fault := tx.repeated(b.Producer); fault != nil || v.Repeated {
		if fault != nil {
			return Verdict{}, fault
		}
		return v, nil
	}
	seq, fleet, from := tx.seq, tx.fleet, len(tx.made)
	tx.start = seq
	if fault := tx.decide(&b, millis(now)); fault != nil {
		tx.seq, tx.fleet = seq, fleet
		tx.made = tx.made[:from]
		for _, t := range tx.tables() {
			t.revert()
		}
		return Verdict{}, fault
	}
	for _, t := range tx.tables() {
		t.keep()
	}
	to := len(tx.made)
	v := Verdict{First: seq + 1, Last: tx.seq, Events: tx.made[from:to:to]}
	if b.Producer != (event.Producer{}) {
		tx.proposals.add(span{b.Producer, v.First, v.Last})
	}
	return v, nil
}

// Events are those of all batches that Check accepted since the transaction
// began, was committed or discarded.
func (tx *Tx) Events() []event.Event { return slices.Clip(tx.made) }

// Apply stages an event of the log, after what is staged already. Whether it
// was allowed is not asked: it was decided. An error means that the log and
// this state do not belong together, or event.CodeUnknownType that this build
// is too old; then Discard.
func (tx *Tx) Apply(e event.Event) error {
	if e.Seq != tx.seq+1 || e.Version != tx.versions.get(e.Stream)+1 {
		return fmt.Errorf("apply event %d, version %d of %s: the state is at %d and %d",
			e.Seq, e.Version, e.Stream, tx.seq, tx.versions.get(e.Stream))
	}
	payload, err := tx.dec.Event(&e)
	if err != nil {
		return fmt.Errorf("apply event %d: %w", e.Seq, err)
	}
	if fault := tx.change(&e, payload); fault != nil {
		return fmt.Errorf("apply event %d (%s): %w", e.Seq, e.Type, fault)
	}
	if e.Producer != (event.Producer{}) {
		tx.proposals.order = append(tx.proposals.order, span{e.Producer, e.Seq, e.Seq})
	}
	return nil
}

// Apply applies one event of the log; see Tx.Apply.
func (s *State) Apply(e event.Event) error {
	if s.scratch == nil {
		s.scratch = s.Begin()
	}
	s.scratch.Discard()
	if err := s.scratch.Apply(e); err != nil {
		return err
	}
	s.scratch.Commit()
	return nil
}

// repeated finds what became of an earlier proposal of the same producer.
func (tx *Tx) repeated(p event.Producer) (Verdict, *event.Fault) {
	if p == (event.Producer{}) {
		return Verdict{}, nil
	}
	if found := tx.proposals.find(p); found != nil {
		return Verdict{First: found.first, Last: found.last, Repeated: true}, nil
	}
	found, known, lost := tx.base.sessions.lookup(p)
	if lost {
		return Verdict{}, event.Refuse(event.CodeUnknownOutcome, "", "read the log to see whether it happened, then propose it anew",
			"proposal %d of start %d of node %s is too old to tell whether it was accepted", p.N, p.Boot, p.Node.Short())
	}
	return Verdict{First: found.First, Last: found.Last, Repeated: known}, nil
}

// decide turns drafts into events, one after the other.
func (tx *Tx) decide(b *event.Batch, now time.Time) *event.Fault {
	actor, fault := tx.actor(b.Actor)
	if fault != nil {
		return fault.In("actor")
	}
	b.Actor = actor
	for i := range b.Drafts {
		d := &b.Drafts[i]
		decoded, fault := tx.dec.Draft(b, i, tx.fleet.ceiling())
		if fault != nil {
			return fault
		}
		version := tx.versions.get(d.Stream)
		if d.Expect != nil && *d.Expect != version {
			return event.Refuse(event.CodeConflict, event.ReasonVersion, "read it again and decide anew",
				"%s is at version %d, expected was %d", d.Stream, version, *d.Expect).In(event.DraftPath(i) + ".expect")
		}
		tx.made = append(tx.made, event.Event{
			Seq: tx.seq + 1, Time: now,
			Stream: d.Stream, Version: version + 1,
			Type: decoded.Type, Schema: decoded.Schema,
			Actor: b.Actor, Cause: d.Cause, Producer: b.Producer,
			Data: decoded.Data,
		})
		e := &tx.made[len(tx.made)-1]
		if fault := tx.allowed(e, decoded.Payload); fault != nil {
			return fault.In(event.DraftPath(i))
		}
		if fault := tx.change(e, decoded.Payload); fault != nil {
			return fault.In(event.DraftPath(i))
		}
	}
	return nil
}

// Commit makes the staged changes in the state.
func (tx *Tx) Commit() {
	s := tx.base
	s.seq, s.fleet = tx.seq, tx.fleet
	for _, t := range tx.tables() {
		t.commit()
	}
	for _, p := range tx.proposals.order {
		s.sessions.note(p.Producer, p.first, p.last)
	}
	s.sessions.expire(s.seq)
	tx.Discard()
}

// Discard forgets the staged changes.
func (tx *Tx) Discard() {
	tx.seq, tx.fleet = tx.base.seq, tx.base.fleet
	tx.proposals.order, tx.proposals.peaks = tx.proposals.order[:0], tx.proposals.peaks[:0]
	tx.made = tx.made[:0]
	for _, t := range tx.tables() {
		t.discard()
	}
}
