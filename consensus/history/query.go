package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/history/index"
)

// MaxEvents is the most events that one Query gives.
const MaxEvents = 10000

const (
	// runGap is how many bytes between two wanted events are read rather than
	// skipped, and runBytes how many bytes are read at once, unless one event is
	// larger.
	runGap   = 4 << 10
	runBytes = 256 << 10
)

// part is one segment as a question sees it.
type part struct {
	path      string
	base, end Position
	size      int64
	index     index.Index
}

// positions are those of the events in it after and before two sequence numbers,
// both exclusive; before 0 is no bound: from lo to before hi.
func (p part) positions(after, before uint64) (lo, hi int) {
	hi = int(p.end.Seq - p.base.Seq)
	if after > p.base.Seq {
		lo = int(after - p.base.Seq)
	}
	if before > 0 && before <= p.end.Seq {
		hi = int(before - p.base.Seq - 1)
	}
	return lo, hi
}

// Query asks for events of the log.
type Query struct {
	index.Filter
	// After and Before bound the sequence numbers, both exclusive; 0 is no bound.
	After, Before uint64
	// Newest wants the last ones, in descending order. Otherwise the first ones
	// come, in ascending order.
	Newest bool
	// Limit is the most events wanted, from 1 to MaxEvents; others are brought
	// into that range.
	Limit int
}

// Page answers a Query.
type Page struct {
	Events []event.Event
	// Indexed: the answer came from the indexes. Otherwise one was missing or
	// damaged, and a segment was read through to make it anew.
	Indexed bool
	// More: further events match than Limit.
	More bool
	// Compacted: a query for the newest came to the start of what is held here,
	// and older events, which might match too, were asked for.
	Compacted bool
}

// parts gives the segments that have events, oldest first, and where the log begins.
func (l *Log) parts() ([]part, Position, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if errors.Is(l.failed, ErrClosed) {
		return nil, Position{}, l.failed
	}
	all := make([]part, 0, len(l.segments))
	for i, s := range l.segments {
		if s.end.Seq == s.base.Seq {
			continue
		}
		p := part{path: s.path, base: s.base, end: s.end, size: s.size}
		if i < len(l.segments)-1 {
			p.index = s.index
		} else {
			seen := l.seen
			p.index = &seen
		}
		all = append(all, p)
	}
	return all, l.segments[0].base, nil
}

// Query gives the events that match, in the order asked for. Without Newest the
// error is ErrCompacted when event After+1 is not held. It sees the log as it was
// at the time of the call.
func (l *Log) Query(ctx context.Context, q Query) (Page, error) {
	q.Limit = min(max(q.Limit, 1), MaxEvents)
	page := Page{Indexed: true}
	parts, first, err := l.parts()
	if err != nil {
		return page, err
	}
	if q.After < first.Seq {
		if !q.Newest {
			return page, fmt.Errorf("event %d: %w: the first one held is %d", q.After+1, ErrCompacted, first.Seq+1)
		}
		page.Compacted = true
	}
	if q.Newest {
		slices.Reverse(parts)
	}
	reader := l.readers.Get()
	defer reader.Release()
	wanted := index.Wanted{Filter: q.Filter, Newest: q.Newest}
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return page, err
		}
		if p.end.Seq <= q.After || q.Before > 0 && p.base.Seq+1 >= q.Before {
			continue
		}
		wanted.Lo, wanted.Hi = p.positions(q.After, q.Before)
		wanted.Most = q.Limit - len(page.Events) + 1
		places, indexed, err := reader.Find(p.index, &wanted)
		page.Indexed = page.Indexed && indexed
		if err != nil {
			return page, err
		}
		if len(places) > q.Limit-len(page.Events) {
			page.More, page.Compacted = true, false
			places = places[:q.Limit-len(page.Events)]
		}
		events, err := readPlaces(p, places)
		if err != nil {
			return page, err
		}
		page.Events = append(page.Events, events...)
		if page.More {
			return page, nil
		}
	}
	return page, nil
}

// readPlaces reads events, in the order of places: all ascending or all descending.
func readPlaces(p part, places []index.Place) ([]event.Event, error) {
	if len(places) == 0 {
		return nil, nil
	}
	f, err := os.Open(p.path)
	if err != nil {
		return nil, dropped(p.base.Seq+1, fmt.Errorf("read history: %w", err))
	}
	defer f.Close()
	descending := places[0].Offset > places[len(places)-1].Offset
	if descending {
		places = slices.Clone(places)
		slices.Reverse(places)
	}
	events := make([]event.Event, 0, len(places))
	for len(places) > 0 {
		n := run(places)
		if events, err = readRun(f, p, places[:n], events); err != nil {
			return nil, err
		}
		places = places[n:]
	}
	if descending {
		slices.Reverse(events)
	}
	return events, nil
}

// run is how many of the places are near enough to each other to be read at once.
func run(places []index.Place) int {
	first := places[0]
	end := first.Offset + first.Room
	for i, p := range places[1:] {
		if p.Offset-end > runGap || p.Offset+p.Room-first.Offset > runBytes {
			return i + 1
		}
		end = p.Offset + p.Room
	}
	return len(places)
}

func readRun(f *os.File, p part, places []index.Place, events []event.Event) ([]event.Event, error) {
	start, last := places[0].Offset, places[len(places)-1]
	raw := make([]byte, last.Offset+last.Room-start)
	if n, err := f.ReadAt(raw, int64(start)); n < len(raw) {
		return nil, damaged(p.path, int64(start)+int64(n), fmt.Sprintf("it ends inside an event (%v)", err))
	}
	for _, at := range places {
		b := raw[at.Offset-start:][:at.Room]
		n := uint32(0)
		if len(b) >= lengthBytes {
			n = binary.BigEndian.Uint32(b)
		}
		if n == 0 || n > uint32(len(b)-lengthBytes) || crc32.Checksum(b[:lengthBytes+n], castagnoli) != at.Sum {
			return nil, damaged(p.path, int64(at.Offset), "a checksum is wrong")
		}
		e, err := event.Parse(b[lengthBytes : lengthBytes+n])
		if want := p.base.Seq + 1 + uint64(at.Position); err == nil && e.Seq != want {
			err = fmt.Errorf("event %d where %d should be", e.Seq, want)
		}
		if err != nil {
			return nil, damaged(p.path, int64(at.Offset), err.Error())
		}
		events = append(events, e)
	}
	return events, nil
}

// SeqAt gives the last event that happened at t or before: 0 if the log begins
// later. The error is ErrCompacted when such events are not held here.
func (l *Log) SeqAt(ctx context.Context, t time.Time) (uint64, error) {
	parts, first, err := l.parts()
	if err != nil {
		return 0, err
	}
	slices.Reverse(parts)
	if t.IsZero() { // which a filter takes for no bound
		t = t.Add(1)
	}
	reader := l.readers.Get()
	defer reader.Release()
	wanted := index.Wanted{Filter: index.Filter{Until: t}, Most: 1, Newest: true}
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		wanted.Lo, wanted.Hi = p.positions(0, 0)
		found, _, err := reader.Pick(p.index, &wanted)
		if err != nil {
			return 0, err
		}
		if len(found) > 0 {
			return p.base.Seq + 1 + uint64(found[0]), nil
		}
	}
	if first.Seq > 0 {
		return 0, fmt.Errorf("the log at %s: %w: what is held begins later", t.UTC().Format(time.RFC3339), ErrCompacted)
	}
	return 0, nil
}
