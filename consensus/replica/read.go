package replica

import (
	"context"
	"errors"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/consensus/history/index"
)

// MaxEvents is the most events that Events and Query give at once.
const MaxEvents = history.MaxEvents

// What is asked and answered is the history's.
type (
	// Filter selects events. The zero Filter selects all.
	Filter = index.Filter
	// Query asks for events.
	Query = history.Query
	// Page answers a Query.
	Page = history.Page
)

// Query gives the events that match, in the order asked for, by the indexes of
// the history. It sees all events up to the Cursor at the time of the call.
// Without Newest the error is ErrCompacted when event After+1 is not held here;
// with it Page.Compacted says that older ones may match too.
func (r *Replica) Query(ctx context.Context, q Query) (Page, error) {
	at, _ := r.ready()
	if q.Before == 0 || q.Before > at.Seq+1 { // the history may be ahead of the state
		q.Before = at.Seq + 1
	}
	page, err := r.history.Query(ctx, q)
	r.asked.queries.Add(1)
	if !page.Indexed {
		r.asked.scanned.Add(1)
	}
	return page, r.noticed(err)
}

// Events gives the first events after seq since that pass the filter, at most
// limit (from 1 to MaxEvents). Fewer than limit means that all events up to the
// Cursor at the time of the call were looked at. The error is ErrCompacted when
// event since+1 is no longer held here, or ctx's.
func (r *Replica) Events(ctx context.Context, since uint64, f Filter, limit int) ([]event.Event, error) {
	page, err := r.Query(ctx, Query{Filter: f, After: since, Limit: limit})
	return page.Events, err
}

// Stats says what is held and how queries were answered.
type Stats struct {
	// First and Last are the first event that is held, or will be, and the last.
	First, Last uint64
	// Bytes is the size of the history on disk, without indexes and checkpoints.
	Bytes int64
	// Queries counts those since Open; Scanned those that had to read a segment
	// through, because its index was missing or damaged.
	Queries, Scanned uint64
	// Checkpoints is how many there are on disk.
	Checkpoints int
}

// Stats gives them as they are now.
func (r *Replica) Stats() Stats {
	at, _ := r.ready()
	seqs, err := listCheckpoints(r.dir)
	if err != nil {
		r.log.Warn("checkpoints cannot be counted", "error", err)
	}
	return Stats{
		First: r.First(), Last: at.Seq, Bytes: r.history.Size(),
		Queries: r.asked.queries.Load(), Scanned: r.asked.scanned.Load(), Checkpoints: len(seqs),
	}
}

// Records gives whole records from the one that holds event seq on: at least
// one if there is one, otherwise no more than maxBytes. Not ok means that seq is
// no longer held here: the asker needs a snapshot.
func (r *Replica) Records(seq uint64, maxBytes int) (records []history.Record, ok bool) {
	records, err := r.history.Read(seq, maxBytes)
	if err != nil {
		r.noticed(err)
		return nil, false
	}
	return records, true
}

// Held reports whether c is a place in this replica's log: the same history,
// and the same hash after the same event. False also when that event is no
// longer held here, or not yet.
func (r *Replica) Held(c event.Cursor) bool {
	if c.History != r.Cursor().History {
		return false
	}
	at, err := r.history.At(c.Seq)
	r.noticed(err)
	return err == nil && at.Hash.String() == c.Hash
}

// First is the first event that is held here, or will be.
func (r *Replica) First() uint64 { return r.history.First().Seq + 1 }

// noticed passes err on. Damage found while reading stops what would change
// the replica, so that the node ends.
func (r *Replica) noticed(err error) error {
	if errors.Is(err, history.ErrDamaged) || errors.Is(err, history.ErrBadRecord) {
		r.fail(err)
	}
	return err
}
