package audit

import (
	"fmt"
	"strings"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/mesh/ident"
)

// place is a byte of a file.
type place struct {
	file   string
	offset int64
}

// keptHashes is how far back a seal may reach: more than can be decided between
// a leader's look at its log and the decision of what it proposed then.
const keptHashes = 1 << 16

// trail follows the events of a log and checks what can be checked of them
// once their bytes are known to be good.
type trail struct {
	report *Report
	// state is what the events add up to; nil while that is not known.
	state *fleet.State
	tx    *fleet.Tx
	at    history.Position
	// hashes are the chain's after the newest events, from event oldest on: at
	// least keptHashes if there are so many, at most twice that.
	hashes []history.Hash
	oldest uint64
}

func newTrail(r *Report) *trail { return &trail{report: r} }

// begin starts at a position, with the state there or nil.
func (t *trail) begin(at history.Position, state *fleet.State) {
	t.at, t.oldest = at, at.Seq
	t.hashes = append(t.hashes[:0], at.Hash)
	t.know(state)
}

// keep notes the chain's hash after the next event.
func (t *trail) keep(h history.Hash) {
	if len(t.hashes) == 2*keptHashes {
		t.oldest += keptHashes
		t.hashes = t.hashes[:copy(t.hashes, t.hashes[keptHashes:])]
	}
	t.hashes = append(t.hashes, h)
}

// know sets the state at the current position.
func (t *trail) know(state *fleet.State) {
	t.state, t.tx = state, nil
	if state != nil {
		t.tx = state.Begin()
	}
}

func (t *trail) wrong(w place, seq uint64, format string, args ...any) {
	t.report.add(Finding{File: w.file, Offset: w.offset, Event: seq, Problem: fmt.Sprintf(format, args...)})
}

// record takes the next record, which continues the chain at the current
// position.
func (t *trail) record(r record, w place) {
	if t.report.First == 0 {
		t.report.First = r.events[0].Seq
	}
	for i, e := range r.events {
		t.keep(r.hashes[i])
		if e.Type == event.TypeLogSealed {
			t.seal(e, w)
		}
		t.apply(e, w)
	}
	t.at = r.end()
	t.report.Counts.Events += uint64(len(r.events))
}

// apply makes the state that of after e.
func (t *trail) apply(e event.Event, w place) {
	if t.state == nil {
		return
	}
	t.tx.Discard()
	if err := t.tx.Apply(e); err != nil {
		t.wrong(w, e.Seq, "%v", err)
		t.know(nil) // what follows cannot be judged
		return
	}
	t.tx.Commit()
}

// seal checks that a leader signed the hash that the chain has.
func (t *trail) seal(e event.Event, w place) {
	payload, err := e.Decode()
	s, ok := payload.(*event.LogSealed)
	switch {
	case err != nil || !ok:
		t.wrong(w, e.Seq, "a seal cannot be read: %v", err)
		return
	case s.Seq >= e.Seq || s.Seq < t.oldest:
		t.report.Counts.SealsUnchecked++ // what it seals is not here
		return
	case t.hashes[s.Seq-t.oldest].String() != s.Hash:
		t.wrong(w, s.Seq, "%s sealed another past: the chain's hash after event %d is not the one it signed", shortOf(e.Actor.ID), s.Seq)
		return
	case t.state == nil: // nobody here knows the voters of that time
		t.report.Counts.SealsUnchecked++
		return
	}
	by, known := t.state.Node(ident.NodeID(e.Actor.ID))
	switch {
	case e.Actor.Kind != event.KindLeader || !known || !by.Voter:
		t.wrong(w, e.Seq, "the seal of event %d is by %s, who was no voter then", s.Seq, shortOf(e.Actor.ID))
	case !s.Signed(t.state.History(), by.PublicKey):
		t.wrong(w, e.Seq, "the seal of event %d does not bear the signature of %s", s.Seq, by.ID.Short())
	default:
		t.report.Counts.Seals++
		t.report.SealedSeq, t.report.SealedBy, t.report.SealedAt = s.Seq, by.ID, e.Time
	}
}

func shortOf(id string) string { return ident.NodeID(strings.ToValidUTF8(id, "?")).Short() }

// finish notes where the log ends.
func (t *trail) finish() {
	r := t.report
	r.Last, r.Hash = t.at.Seq, t.at.Hash.String()
	if t.state == nil {
		return
	}
	if f, ok := t.state.Fleet(); ok {
		r.FleetName = f.Name
	}
	r.History, r.Recoveries, r.StateHash = t.state.History(), t.state.Recoveries(), t.state.Hash()
}
