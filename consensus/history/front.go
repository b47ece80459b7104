package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"skein/consensus/history/index"
	"skein/mesh/ident"
)

// What changes where the log begins: retention takes away, back-fill puts before.

// MaxFillBytes is the most bytes of records that one Backfill takes.
const MaxFillBytes = 16 << 20

// ErrNoSpace: the disk is full. Nothing was changed.
var ErrNoSpace = errors.New("the disk is full")

// floorName is the file that says up to where events were dropped for good. It is
// written before they go, so that they are never fetched again.
const floorName = "floor"

// Gap gives the position up to which events are lacking: the log began anew
// there, behind a snapshot, or was trimmed to it. Not ok means that nothing is
// lacking, but for what was dropped for good.
func (l *Log) Gap() (Position, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	first := l.segments[0].base
	return first, first.Seq > l.floor
}

// Backfill puts records before the first one held. They follow each other and
// after, and end at Gap; the chain to its hash proves them and after, which may
// come from anybody. It is durable when it returns. The error is ErrDiverged when
// they do not fit, ErrNoSpace when the disk is full: both changed nothing.
func (l *Log) Backfill(after Position, records []Record) error {
	l.front.Lock()
	defer l.front.Unlock()
	if _, err := l.current(); err != nil {
		return err
	}
	gap, ok := l.Gap()
	if !ok {
		return fmt.Errorf("fill history: %w: nothing is lacking here", ErrDiverged)
	}
	s := &segment{path: segmentPath(l.dir, after.Seq), base: after, flags: flagFilled, size: segmentHeader, end: after}
	content, m, err := s.fill(records, gap)
	if err != nil {
		return fmt.Errorf("fill history: %w", err)
	}
	if err := ident.ReplaceDurably(s.path, content); errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill history: %w: %w", ErrNoSpace, err)
	} else if err != nil {
		return l.fail(fmt.Errorf("fill history: %w; check the disk, then restart", err))
	}
	s.seal()
	s.index.Write(m)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append([]*segment{s}, l.segments...)
	return l.failed
}

// fill makes the content of a segment out of records that end at end.
func (s *segment) fill(records []Record, end Position) ([]byte, *index.Memory, error) {
	total := segmentHeader
	for _, r := range records {
		total += frameHeader + len(r.encoded)
	}
	first := s.base.Seq == 0
	if len(records) == 0 || total > MaxFillBytes || first && s.base != (Position{}) {
		return nil, nil, fmt.Errorf("%w: %d records of %d bytes after event %d", ErrDiverged, len(records), total, s.base.Seq)
	}
	content, m := append(make([]byte, 0, total), encodeHeader(s.base, s.flags)...), index.NewMemory()
	for _, r := range records {
		if err := r.Follows(s.end); err != nil {
			return nil, nil, err
		}
		h, err := parseHeader(r.encoded)
		if err != nil {
			return nil, nil, err
		}
		content = appendFrame(content, r.encoded)
		indexRecord(m, &r, s.size)
		s.grow(h, len(r.encoded))
	}
	if s.end != end {
		return nil, nil, fmt.Errorf("%w: they end with event %d and another hash, or elsewhere than at %d", ErrDiverged, s.end.Seq, end.Seq)
	}
	return content, m, nil
}

// Before gives whole records that end with event end, and the position before the
// first of them: at least one, and of one segment no more than about maxBytes.
// The error is ErrCompacted when event end is not held, or no record ends with it.
func (l *Log) Before(end uint64, maxBytes int) (after Position, records []Record, err error) {
	p, err := l.extentBefore(end, int64(maxBytes))
	if err != nil {
		return Position{}, nil, err
	}
	_, err = p.scan(0, func(b []byte) (bool, error) {
		r, err := ParseRecord(append([]byte(nil), b...))
		if err != nil {
			return false, err
		}
		records = append(records, r)
		return r.Last() < end, nil
	})
	if err == nil && (len(records) == 0 || records[len(records)-1].Last() != end) {
		err = fmt.Errorf("event %d: %w: no record ends with it", end, ErrCompacted)
	}
	if err != nil {
		return Position{}, nil, dropped(end, err)
	}
	return p.before, records, nil
}

// extentBefore is from a mark to the end of the segment that has event end.
func (l *Log) extentBefore(end uint64, maxBytes int64) (extent, error) {
	parts, err := l.extents(end)
	if err == nil && len(parts) == 0 {
		err = fmt.Errorf("event %d: %w: the log ends before", end, ErrCompacted)
	}
	if err != nil {
		return extent{}, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.segments {
		if s.path != parts[0].path {
			continue
		}
		m := s.markFor(end)
		for i := len(s.marks) - 1; i >= 0; i-- {
			if s.marks[i].offset < m.offset && m.offset-s.marks[i].offset+markEvery <= maxBytes {
				parts[0].start, parts[0].before = s.marks[i].offset, Position{s.marks[i].first - 1, s.marks[i].before}
			}
		}
	}
	return parts[0], nil
}

// DropBefore removes the segments that hold only events before seq, for good:
// they are no Gap.
func (l *Log) DropBefore(seq uint64) error {
	return l.drop(true, func(p part, _ int64) bool { return p.end.Seq < seq })
}

// Trim removes the oldest segments while the log has more than maxBytes, but
// none that holds an event after keep. What it removes is lacking then.
func (l *Log) Trim(maxBytes int64, keep uint64) error {
	return l.drop(false, func(p part, left int64) bool { return p.end.Seq <= keep && left > maxBytes })
}

// Surplus gives the end of the oldest segments that retention has no use for:
// those beyond maxBytes (0: no bound) and those whose events are all from before
// the time given, but none that holds an event after keep. It is First when there
// are none.
func (l *Log) Surplus(maxBytes int64, before time.Time, keep uint64) (Position, error) {
	parts, end, err := l.parts()
	if err != nil {
		return Position{}, err
	}
	left := l.Size()
	reader := l.readers.Get()
	defer reader.Release()
	for i, p := range parts {
		old := false
		if i == len(parts)-1 || p.end.Seq > keep {
			break
		}
		if !before.IsZero() {
			last, err := reader.Last(p.index)
			if err != nil {
				return Position{}, err
			}
			old = last < before.UnixMilli()
		}
		if !old && (maxBytes <= 0 || left <= maxBytes) {
			break
		}
		left -= p.size
		end = p.end
	}
	return end, nil
}

// drop removes oldest segments as long as wanted says so, which is told how many
// bytes are left. The current segment stays.
func (l *Log) drop(forGood bool, wanted func(p part, left int64) bool) error {
	l.front.Lock()
	defer l.front.Unlock()
	l.mu.RLock()
	failed, segments, floor := l.failed, l.segments, l.floor
	left, n := int64(0), 0
	for _, s := range segments {
		left += s.size
	}
	for n < len(segments)-1 && wanted(part{end: segments[n].end}, left) {
		left -= segments[n].size
		n++
	}
	l.mu.RUnlock()
	if failed != nil || n == 0 {
		return failed
	}
	if first := segments[n].base.Seq; forGood && first > floor {
		if err := l.raiseFloor(first); err != nil {
			return l.fail(err)
		}
	}
	l.mu.Lock()
	l.segments = l.segments[n:]
	l.mu.Unlock()
	if err := remove(segments[:n]); err != nil {
		return l.fail(err)
	}
	return nil
}

func (l *Log) raiseFloor(seq uint64) error {
	b := binary.BigEndian.AppendUint64(nil, seq)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if err := ident.ReplaceDurably(filepath.Join(l.dir, floorName), b); err != nil {
		return fmt.Errorf("drop history: %w", err)
	}
	l.mu.Lock()
	l.floor = seq
	l.mu.Unlock()
	return nil
}

// readFloor gives 0 when there is none, and when it is damaged: then something
// is fetched that is dropped again.
func readFloor(dir string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, floorName))
	if err != nil || len(b) != 12 || crc32.Checksum(b[:8], castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// remove deletes segment files, oldest first, so that an interruption leaves no
// gap, each with its index.
func remove(segments []*segment) error {
	for _, s := range segments {
		if err := os.Remove(s.path); err != nil {
			return fmt.Errorf("drop history: %w", err)
		}
		_ = os.Remove(index.Path(s.path)) // often there is none; Open removes what is left
	}
	if len(segments) == 0 {
		return nil
	}
	return syncDir(filepath.Dir(segments[0].path))
}
