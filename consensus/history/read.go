package history

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Scan calls each with every record from the one that holds event from on, up
// to the end of the log at the time of the call, until each returns false. A
// from after the end finds nothing. The error is ErrCompacted when from is not
// held, ErrDamaged when the disk gives other bytes than were written.
func (l *Log) Scan(from uint64, each func(Record) bool) error {
	return l.scan(from, func(b []byte) (bool, error) {
		r, err := ParseRecord(append([]byte(nil), b...))
		if err != nil {
			return false, err
		}
		return each(r), nil
	})
}

// Read gives whole records from the one that holds event from on: at least one
// if there is one, and no more than maxBytes otherwise.
func (l *Log) Read(from uint64, maxBytes int) ([]Record, error) {
	var (
		records []Record
		size    int
	)
	err := l.scan(from, func(b []byte) (bool, error) {
		if size += len(b); size > maxBytes && len(records) > 0 {
			return false, nil
		}
		r, err := ParseRecord(append([]byte(nil), b...))
		records = append(records, r)
		return size < maxBytes, err
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// At gives the position after event seq, with the chain's hash there. It reads
// at most a mark's distance. The error is ErrCompacted when that is not known.
func (l *Log) At(seq uint64) (Position, error) {
	if first, last := l.First(), l.Last(); seq == first.Seq {
		return first, nil
	} else if seq == last.Seq {
		return last, nil
	}
	parts, err := l.extents(seq)
	if err != nil {
		return Position{}, err
	}
	if len(parts) == 0 {
		return Position{}, fmt.Errorf("event %d: %w: the log ends before", seq, ErrCompacted)
	}
	at := parts[0].before
	_, err = parts[0].scan(0, func(b []byte) (bool, error) {
		err := eachEvent(b, func(text []byte) error {
			if at.Seq < seq {
				at = Position{at.Seq + 1, at.Hash.Then(text)}
			}
			return nil
		})
		return at.Seq < seq, err
	})
	return at, err
}

// extent is a part of a segment to read, fixed when the read began.
type extent struct {
	path       string
	start, end int64
	// before is the chain's position at start.
	before Position
}

// extents gives what to read to find event from and all that follows.
func (l *Log) extents(from uint64) ([]extent, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if errors.Is(l.failed, ErrClosed) {
		return nil, l.failed
	}
	if from <= l.segments[0].base.Seq {
		return nil, fmt.Errorf("event %d: %w: the first one held is %d", from, ErrCompacted, l.segments[0].base.Seq+1)
	}
	var parts []extent
	for _, s := range l.segments {
		if from <= s.end.Seq && s.end.Seq > s.base.Seq {
			m := s.markFor(from)
			parts = append(parts, extent{s.path, m.offset, s.size, Position{m.first - 1, m.before}})
		}
	}
	return parts, nil
}

// scan calls each with the bytes of every record; they are valid during the call.
func (l *Log) scan(from uint64, each func([]byte) (bool, error)) error {
	parts, err := l.extents(from)
	if err != nil {
		return err
	}
	for _, p := range parts {
		more, err := p.scan(from, each)
		if err != nil || !more {
			return dropped(from, err)
		}
	}
	return nil
}

// dropped makes of a missing file what it means: retention was faster.
func dropped(seq uint64, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("event %d: %w: dropped while reading", seq, ErrCompacted)
	}
	return err
}

func (p extent) scan(from uint64, each func([]byte) (bool, error)) (more bool, err error) {
	f, err := os.Open(p.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	size := min(256<<10, int(p.end-p.start))
	r := bufio.NewReaderSize(io.NewSectionReader(f, p.start, p.end-p.start), size)
	var buf []byte
	for at := p.start; at < p.end; {
		record, why, err := readFrame(r, buf)
		switch {
		case err != nil:
			return false, fmt.Errorf("read history %s: %w", p.path, err)
		case record == nil:
			return false, damaged(p.path, at, why)
		}
		buf = record
		at += int64(frameHeader + len(record))
		h, err := parseHeader(record)
		if err != nil {
			return false, damaged(p.path, at, err.Error())
		}
		if h.last() < from {
			continue
		}
		if more, err := each(record); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
