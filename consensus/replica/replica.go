package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
)

// Errors that callers tell apart.
var (
	// ErrCompacted: the events asked for are not held here; ask a voter.
	ErrCompacted = history.ErrCompacted
	// ErrDamaged: the files on disk are damaged. The text says what to do.
	ErrDamaged = history.ErrDamaged
	// ErrDiverged: a record or snapshot does not continue this replica's log.
	// Nothing was changed.
	ErrDiverged = history.ErrDiverged
	// ErrUpgrade: the log or a snapshot has something that this build does not
	// know. The node must end, and go on with a newer build.
	ErrUpgrade = errors.New("this build of skein is too old for the fleet's log; upgrade it")
	// ErrClosed: the replica was closed.
	ErrClosed = errors.New("replica is closed")
)

// Outcome is what became of one batch of an entry.
type Outcome struct {
	// First and Last are the batch's events. A repeated batch has those of the
	// first time.
	First, Last uint64
	// Err is a *event.Fault when the batch was refused.
	Err error
}

// Replica is one node's copy of the log. It is safe for concurrent use; see the
// package comment for who may apply.
type Replica struct {
	dir string
	retention
	log      *slog.Logger
	history  *history.Log
	observer Observer
	asked    asked
	// travels holds a token for every past state that is being rebuilt.
	travels chan struct{}

	// apply serialises what changes the replica. It is taken before mu.
	apply sync.Mutex
	workbench
	saver saver

	mu sync.RWMutex
	at place
	// state is what at's events decided.
	state *fleet.State
	// failed, once set, is the answer to everything that would change something.
	failed error
	feed   feed
}

// retention is what of the history is kept; see Options. It does not change.
type retention struct {
	tailBytes, maxBytes int64
	maxAge              time.Duration
	now                 func() time.Time
	// saveBytes is after how much new history a checkpoint is written.
	saveBytes int64
}

// workbench is what applying works with, again and again. It is guarded by apply.
type workbench struct {
	tx      *fleet.Tx
	decoder decoder
	encoder history.Encoder
	// events are those of the entry that is being applied.
	events []event.Event
	// unsaved is the bytes of history since the last checkpoint.
	unsaved int64
}

// asked counts queries.
type asked struct{ queries, scanned atomic.Uint64 }

// place is where a replica is.
type place struct {
	// index and term are the last entry of the Raft log that is included.
	index, term uint64
	history.Position
}

// ApplyEntry applies an entry of the Raft log and says what became of each of
// its batches. An entry that is included already is skipped and gives no
// outcomes. An error must end the node.
func (r *Replica) ApplyEntry(index, term uint64, data []byte) ([]Outcome, error) {
	r.apply.Lock()
	defer r.apply.Unlock()
	at, err := r.ready()
	if err != nil || index <= at.index {
		return nil, err
	}
	e, err := r.decoder.entry(data)
	if err != nil {
		return nil, r.fail(fmt.Errorf("apply entry %d: %w", index, err))
	}
	outcomes, events, err := r.decide(e)
	if err == nil {
		at.index, at.term = index, term
		err = r.record(at, events)
	}
	if err != nil {
		return nil, r.fail(fmt.Errorf("apply entry %d: %w", index, err))
	}
	return outcomes, nil
}

// record puts the events that are staged into the history and makes them visible.
// at is where the replica is now, but for the entry, which is the new one.
func (r *Replica) record(at place, events []event.Event) error {
	if len(events) == 0 {
		r.tx.Discard()
		r.commit(at, nil)
		return nil
	}
	rec, err := r.encoder.Record(at.index, at.term, events, at.Position)
	if err == nil {
		err = r.history.Append(rec)
	}
	if err != nil {
		return err
	}
	at.Position = rec.End()
	r.commit(at, events)
	r.grew(len(rec.Bytes()))
	return nil
}

// decide checks the batches of an entry and stages what they change. The events
// are valid until the next call.
func (r *Replica) decide(e Entry) ([]Outcome, []event.Event, error) {
	r.tx.Discard()
	now := time.UnixMilli(e.TimeMillis).UTC()
	outcomes := make([]Outcome, len(e.Batches))
	events := r.events[:0]
	for i, b := range e.Batches {
		v, err := r.tx.Check(b, now)
		if fault, ok := event.FaultOf(err); ok && fault.Code == event.CodeUnknownType {
			return nil, nil, fmt.Errorf("%w: %w", ErrUpgrade, err)
		}
		outcomes[i] = Outcome{v.First, v.Last, err}
		events = append(events, v.Events...)
	}
	r.events = events
	return outcomes, events, nil
}

// ApplyRecord applies a record of another replica's history, checked by the
// chain. One that is included already is skipped. ErrDiverged changes nothing;
// any other error must end the node.
func (r *Replica) ApplyRecord(rec history.Record) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	at, err := r.ready()
	if err != nil || rec.Last() <= at.Seq {
		return err
	}
	if err := rec.Follows(at.Position); err != nil {
		return err
	}
	if err := r.stage(rec); err != nil {
		return r.fail(err)
	}
	if err := r.history.Append(rec); err != nil {
		return r.fail(fmt.Errorf("apply event %d: %w", rec.First(), err))
	}
	r.commit(place{max(rec.Index, at.index), max(rec.Term, at.term), rec.End()}, rec.Events)
	r.grew(len(rec.Bytes()))
	return nil
}

// stage stages the events of a record.
func (r *Replica) stage(rec history.Record) error {
	r.tx.Discard()
	return stage(r.tx, rec.Events)
}

func stage(tx *fleet.Tx, events []event.Event) error {
	for i := range events {
		err := tx.Apply(events[i])
		if fault, ok := event.FaultOf(err); ok && fault.Code == event.CodeUnknownType {
			return fmt.Errorf("%w: %w", ErrUpgrade, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commit makes the staged changes visible, all at once.
func (r *Replica) commit(at place, events []event.Event) {
	r.mu.Lock()
	r.tx.Commit()
	r.at = at
	if len(events) > 0 {
		r.observer.Applied(r.state, events)
	}
	r.feed.tell()
	r.mu.Unlock()
}

// ready gives the current place, or why nothing may change any more.
func (r *Replica) ready() (place, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.at, r.failed
}

// fail makes err the answer to everything that would change something.
func (r *Replica) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
		r.feed.tell()
	}
	return r.failed
}

// Err is why nothing may change any more: what failed, or ErrClosed; nil while
// all is well. Subscribers are told when it is set, so that the node ends also
// when nothing new arrives.
func (r *Replica) Err() error {
	_, err := r.ready()
	return err
}

// Applied is the last entry of the Raft log that is known to be included.
func (r *Replica) Applied() (index, term uint64) {
	at, _ := r.ready()
	return at.index, at.term
}

// Cursor is where this replica is.
func (r *Replica) Cursor() event.Cursor {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.cursor()
}

func (r *Replica) cursor() event.Cursor {
	return event.Cursor{History: r.state.History(), Seq: r.at.Seq, Hash: r.at.Hash.String()}
}

// View calls f with the state and its cursor, under a lock that holds up
// changes: be quick, and keep no State. What the state hands out may be kept.
func (r *Replica) View(f func(*fleet.State)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.state)
}

// ViewAt is View with the cursor that belongs to the state.
func (r *Replica) ViewAt(f func(*fleet.State, event.Cursor)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.state, r.cursor())
}
