package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"time"

	"skein/consensus/event"
)

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
	// current is the index of the segment that is appended to; nil for others.
	current *memory
	info    *indexInfo
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
		p := part{path: s.path, base: s.base, end: s.end, size: s.size, info: &s.info}
		if i == len(l.segments)-1 {
			seen := l.seen
			p.current = &seen
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
	scratch := l.takePages()
	defer l.givePages(scratch)
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return page, err
		}
		if p.end.Seq <= q.After || q.Before > 0 && p.base.Seq+1 >= q.Before {
			continue
		}
		places, indexed, err := l.find(p, scratch, &q, q.Limit-len(page.Events)+1)
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

// takePages gives pages for one question; givePages takes them back.
func (l *Log) takePages() *pages {
	if p, ok := l.scratch.Get().(*pages); ok {
		return p
	}
	return &pages{}
}

func (l *Log) givePages(p *pages) {
	p.open(nil, 0)
	l.scratch.Put(p)
}

// find gives where the first most events of p are that match, in the order asked
// for.
func (l *Log) find(p part, scratch *pages, q *Query, most int) (places []place, indexed bool, err error) {
	lo, hi := 0, int(p.end.Seq-p.base.Seq)
	if q.After > p.base.Seq {
		lo = int(q.After - p.base.Seq)
	}
	if q.Before > 0 && q.Before <= p.end.Seq {
		hi = int(q.Before - p.base.Seq - 1)
	}
	indexed, err = l.ask(p, scratch, func(x rows) error {
		places = nil
		set, err := match(x, &q.Filter, lo, hi)
		if err != nil || set == nil {
			return err
		}
		places, err = x.place(set.pick(most, q.Newest))
		return err
	})
	return places, indexed, err
}

// match gives the events from position lo to before hi that pass the filter; nil
// when it is sure that there are none.
func match(x rows, f *Filter, lo, hi int) (bitmap, error) {
	head := x.head()
	from, until := f.bounds()
	if head.last < from || head.first > until || lo >= hi {
		return nil, nil
	}
	patterns := f.keyPatterns()
	for kind, p := range patterns {
		if p.text != "" && !isFamily(p.text, p.separator) && !head.sieve.mayHave(kind, p.text) {
			return nil, nil
		}
	}
	set := newBitmap(head.count)
	set.fill(lo, hi)
	for kind, p := range patterns {
		if p.text == "" {
			continue
		}
		matching := newBitmap(head.count)
		if err := x.keyed(kind, p, matching); err != nil {
			return nil, err
		}
		if set.and(matching); set.count() == 0 {
			return nil, nil
		}
	}
	if head.first < from || head.last > until {
		if err := x.timed(from, until, set); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// ask puts a question to the index of a segment. If the index cannot answer it
// is made anew and asked again; indexed is false then. scratch is used again from
// one segment to the next.
func (l *Log) ask(p part, scratch *pages, question func(rows) error) (indexed bool, err error) {
	if p.current != nil {
		return true, question(p.current)
	}
	err = l.askFile(p, scratch, question)
	if !errors.Is(err, errIndex) {
		return true, err
	}
	l.indexing.Lock()
	defer l.indexing.Unlock()
	if err = l.askFile(p, scratch, question); !errors.Is(err, errIndex) { // another made it meanwhile
		return false, err
	}
	m, err := indexSegment(p)
	if err != nil {
		return false, err
	}
	l.keepIndex(p, m)
	return false, question(m)
}

// keepIndex writes the index of a full segment beside it. Without one the next
// question takes longer and tries again, so an error is no harm.
func (l *Log) keepIndex(p part, m *memory) {
	_ = writeIndex(indexPath(p.path), m.encode(p.base, p.end, p.size))
	if _, err := os.Stat(p.path); errors.Is(err, fs.ErrNotExist) { // dropped meanwhile
		os.Remove(indexPath(p.path))
	}
}

func (l *Log) askFile(p part, scratch *pages, question func(rows) error) error {
	x := &indexFile{part: p, pages: scratch}
	defer x.close()
	known := p.info.Load()
	if known == nil {
		var err error
		if known, err = x.whole(); err != nil {
			return err
		}
		p.info.Store(known)
	}
	x.is = *known
	return question(x)
}

// indexSegment makes the index of a segment by reading it.
func indexSegment(p part) (*memory, error) {
	m := newMemory()
	at := int64(segmentHeader)
	var bad error
	_, err := extent{p.path, segmentHeader, p.size, p.base}.scan(0, func(b []byte) (bool, error) {
		r, err := ParseRecord(b)
		if err != nil {
			bad = damaged(p.path, at, err.Error())
			return false, nil
		}
		m.add(&r, at)
		at += int64(frameHeader + len(b))
		return true, nil
	})
	switch {
	case err != nil || bad != nil:
		return nil, dropped(p.base.Seq+1, errors.Join(err, bad))
	case uint64(m.count) != p.end.Seq-p.base.Seq:
		return nil, damaged(p.path, at, fmt.Sprintf("it has %d events, %d were written", m.count, p.end.Seq-p.base.Seq))
	}
	return m, nil
}

// readPlaces reads events, in the order of places: all ascending or all descending.
func readPlaces(p part, places []place) ([]event.Event, error) {
	if len(places) == 0 {
		return nil, nil
	}
	f, err := os.Open(p.path)
	if err != nil {
		return nil, dropped(p.base.Seq+1, fmt.Errorf("read history: %w", err))
	}
	defer f.Close()
	descending := places[0].offset > places[len(places)-1].offset
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
func run(places []place) int {
	first := places[0]
	end := first.offset + first.room
	for i, p := range places[1:] {
		if p.offset-end > runGap || p.offset+p.room-first.offset > runBytes {
			return i + 1
		}
		end = p.offset + p.room
	}
	return len(places)
}

func readRun(f *os.File, p part, places []place, events []event.Event) ([]event.Event, error) {
	start, last := places[0].offset, places[len(places)-1]
	raw := make([]byte, last.offset+last.room-start)
	if n, err := f.ReadAt(raw, int64(start)); n < len(raw) {
		return nil, damaged(p.path, int64(start)+int64(n), fmt.Sprintf("it ends inside an event (%v)", err))
	}
	for _, at := range places {
		b := raw[at.offset-start:][:at.room]
		n := uint32(0)
		if len(b) >= lengthBytes {
			n = binary.BigEndian.Uint32(b)
		}
		if n == 0 || n > uint32(len(b)-lengthBytes) || crc32.Checksum(b[:lengthBytes+n], castagnoli) != at.sum {
			return nil, damaged(p.path, int64(at.offset), "a checksum is wrong")
		}
		e, err := event.Parse(b[lengthBytes : lengthBytes+n])
		if want := p.base.Seq + 1 + uint64(at.position); err == nil && e.Seq != want {
			err = fmt.Errorf("event %d where %d should be", e.Seq, want)
		}
		if err != nil {
			return nil, damaged(p.path, int64(at.offset), err.Error())
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
	if t.IsZero() { // which a Filter takes for no bound
		t = t.Add(1)
	}
	scratch := l.takePages()
	defer l.givePages(scratch)
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		found := -1
		_, err := l.ask(p, scratch, func(x rows) error {
			found = -1
			set, err := match(x, &Filter{Until: t}, 0, x.head().count)
			if last := set.pick(1, true); len(last) > 0 {
				found = last[0]
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		if found >= 0 {
			return p.base.Seq + 1 + uint64(found), nil
		}
	}
	if first.Seq > 0 {
		return 0, fmt.Errorf("the log at %s: %w: what is held begins later", t.UTC().Format(time.RFC3339), ErrCompacted)
	}
	return 0, nil
}
