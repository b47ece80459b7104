package replica

import (
	"context"
	"errors"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
)

// MaxEvents is the most events that Events gives at once.
const MaxEvents = 10000

// Filter selects events. The zero Filter selects all.
type Filter struct {
	// Stream is a whole stream ("robot/abc…") or, ending in "/", a family.
	Stream string
	// Type is a whole type ("robot.online") or, ending in ".", a family.
	Type string
	// Actor is the id of who did it: a person's name or a node's id.
	Actor string
	// From and Until bound the time, both inclusive; zero is no bound.
	From, Until time.Time
}

// Matches reports whether the filter selects e.
func (f Filter) Matches(e event.Event) bool {
	return matches(f.Stream, e.Stream, "/") && matches(f.Type, e.Type, ".") &&
		(f.Actor == "" || f.Actor == e.Actor.ID) &&
		(f.From.IsZero() || !e.Time.Before(f.From)) &&
		(f.Until.IsZero() || !e.Time.After(f.Until))
}

func matches(pattern, s, separator string) bool {
	if strings.HasSuffix(pattern, separator) {
		return strings.HasPrefix(s, pattern)
	}
	return pattern == "" || pattern == s
}

// Events gives the first events after seq since that pass the filter, at most
// limit (from 1 to MaxEvents). Fewer than limit means that all events up to the
// Cursor at the time of the call were looked at. The error is ErrCompacted when
// event since+1 is no longer held here, or ctx's.
func (r *Replica) Events(ctx context.Context, since uint64, f Filter, limit int) ([]event.Event, error) {
	limit = min(max(limit, 1), MaxEvents)
	var (
		events []event.Event
		ended  error
	)
	end, _ := r.ready()
	err := r.history.Scan(since+1, func(rec history.Record) bool {
		if ended = ctx.Err(); ended != nil {
			return false
		}
		for _, e := range rec.Events {
			if e.Seq > since && e.Seq <= end.Seq && f.Matches(e) {
				if events = append(events, e); len(events) == limit {
					return false
				}
			}
		}
		return rec.Last() < end.Seq
	})
	return events, errors.Join(r.noticed(err), ended)
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
