package replica

import (
	"errors"
	"fmt"

	"skein/consensus/history"
)

// Gap gives the position up to which events are lacking here, because the history
// began behind a snapshot or was once bounded by TailBytes, and whether they are
// wanted. They are not on a node that keeps only a tail, below what MaxBytes and
// MaxAge have dropped, or when those leave no room.
func (r *Replica) Gap() (history.Position, bool) {
	at, lacking := r.history.Gap()
	if !lacking || r.tailBytes > 0 {
		return at, false
	}
	if r.maxBytes > 0 && r.history.Size() > r.maxBytes-r.maxBytes/tailSaves {
		return at, false
	}
	if r.maxAge > 0 {
		end, err := r.history.Surplus(0, r.now().Add(-r.maxAge), 1<<63)
		if r.noticed(err) != nil || end != at {
			return at, false
		}
	}
	return at, true
}

// RecordsBefore gives whole records that end exactly with event end, and the
// position before the first of them, for a peer that fills its gap. At least one,
// otherwise no more than about maxBytes. Not ok means that end is not held here,
// or that no record ends with it.
func (r *Replica) RecordsBefore(end uint64, maxBytes int) (after history.Position, records []history.Record, ok bool) {
	after, records, err := r.history.Before(end, maxBytes)
	if err != nil {
		r.noticed(err)
		return history.Position{}, nil, false
	}
	return after, records, true
}

// Backfill puts older records before those that are held. They follow after, a
// position that the peer gave, and end at Gap. The chain proves both. Every call
// makes one file, of at most history.MaxFillBytes, durable: give it some
// megabytes. It runs beside everything else. The error is ErrDiverged when they
// do not fit: ask another peer. It is history.ErrNoSpace when the disk is full:
// wait. Neither changed anything. Any other error must end the node.
func (r *Replica) Backfill(after history.Position, records []history.Record) error {
	if _, err := r.ready(); err != nil {
		return err
	}
	err := r.history.Backfill(after, records)
	switch {
	case err == nil, errors.Is(err, ErrDiverged), errors.Is(err, history.ErrNoSpace):
		return err
	case errors.Is(err, history.ErrClosed):
		return ErrClosed
	}
	return r.fail(fmt.Errorf("fill history: %w", err))
}
