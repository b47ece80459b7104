package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
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
	dir       string
	tailBytes int64
	// saveBytes is after how much new history a checkpoint is written.
	saveBytes int64
	log       *slog.Logger
	history   *history.Log

	// apply serialises what changes the replica. It is taken before mu.
	apply sync.Mutex
	// tx is reused from entry to entry; guarded by apply.
	tx *fleet.Tx
	// unsaved is the bytes of history since the last checkpoint; guarded by apply.
	unsaved int64
	saver   saver

	mu sync.RWMutex
	at place
	// state is what at's events decided.
	state *fleet.State
	// failed, once set, is the answer to everything that would change something.
	failed error
	feed   feed
}

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
	e, err := DecodeEntry(data)
	if err != nil {
		return nil, r.fail(fmt.Errorf("apply entry %d: %w", index, err))
	}
	outcomes, events, err := r.decide(e)
	if err != nil {
		return nil, r.fail(fmt.Errorf("apply entry %d: %w", index, err))
	}
	at.index, at.term = index, term
	if len(events) == 0 {
		r.tx.Discard()
		r.commit(at)
		return outcomes, nil
	}
	rec, err := history.NewRecord(index, term, events, at.Position)
	if err == nil {
		err = r.history.Append(rec)
	}
	if err != nil {
		return nil, r.fail(fmt.Errorf("apply entry %d: %w", index, err))
	}
	at.Position = rec.End()
	r.commit(at)
	r.grew(len(rec.Bytes()))
	return outcomes, nil
}

// decide checks the batches of an entry and stages what they change.
func (r *Replica) decide(e Entry) ([]Outcome, []event.Event, error) {
	r.tx.Discard()
	now := time.UnixMilli(e.TimeMillis).UTC()
	outcomes := make([]Outcome, len(e.Batches))
	var events []event.Event
	for i, b := range e.Batches {
		v, err := r.tx.Check(b, now)
		if fault, ok := event.FaultOf(err); ok && fault.Code == event.CodeUnknownType {
			return nil, nil, fmt.Errorf("%w: %w", ErrUpgrade, err)
		}
		outcomes[i] = Outcome{v.First, v.Last, err}
		if events == nil {
			events = v.Events
			continue
		}
		events = append(events, v.Events...)
	}
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
	r.commit(place{max(rec.Index, at.index), max(rec.Term, at.term), rec.End()})
	r.grew(len(rec.Bytes()))
	return nil
}

// stage stages the events of a record.
func (r *Replica) stage(rec history.Record) error {
	r.tx.Discard()
	for _, e := range rec.Events {
		err := r.tx.Apply(e)
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
func (r *Replica) commit(at place) {
	r.mu.Lock()
	r.tx.Commit()
	r.at = at
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
	r.ViewAt(func(s *fleet.State, _ event.Cursor) { f(s) })
}

// ViewAt is View with the cursor that belongs to the state.
func (r *Replica) ViewAt(f func(*fleet.State, event.Cursor)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.state, r.cursor())
}
