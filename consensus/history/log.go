package history

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"skein/consensus/history/index"
	"skein/mesh/ident"
)

// Errors of a log that callers tell apart.
var (
	// ErrDamaged: bytes that were durable are missing or changed.
	ErrDamaged = errors.New("history is damaged")
	// ErrCompacted: the events asked for are not held here, by retention or because
	// the log started later.
	ErrCompacted = errors.New("events are not held here")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("history is closed")
)

// DefaultSegmentBytes is the size at which a new segment is started.
const DefaultSegmentBytes = 8 << 20

// Options of Open.
type Options struct {
	// SegmentBytes is the size at which a new segment is started; 0 is
	// DefaultSegmentBytes.
	SegmentBytes int64
	// DurableSeq is the highest event known to have been made durable. A record
	// up to there that is broken or missing is damage; later ones are a torn tail.
	DurableSeq uint64
}

// Log is a history on disk. Append and Reset are for one goroutine at a
// time; everything else is for any, also meanwhile.
type Log struct {
	dir          string
	segmentBytes int64
	// cutBytes is how much of a torn tail Open cut off.
	cutBytes int64

	// front is held by who changes where the log begins. It is taken before closing.
	front sync.Mutex
	// readers ask the indexes.
	readers index.Readers
	// index is that of the current segment. It is the appender's.
	index *index.Memory

	// closing is held for reading while the current file is being synced, for
	// writing while it is exchanged. It is taken before mu.
	closing sync.RWMutex

	mu sync.RWMutex
	// segments has at least one, oldest first and without a gap. The last is
	// appended to through file; the others are sealed.
	segments []*segment
	file     *os.File
	// seen is index as readers may see it.
	seen index.Memory
	// floor is up to where events were dropped for good.
	floor uint64
	// failed, once set, is the answer to everything.
	failed error
	// frame is scratch space of Append.
	frame []byte
}

// Cure is what to do about a node whose copy of the log is damaged.
const Cure = "stop the node and run `skein resync`, which moves the copy aside, then start it: it gets a new one from other nodes, or from its own Raft log if it is the last voter. " +
	"A voter is withdrawn first (`skein node withdraw`) if others have a majority. " +
	"If nothing has a good copy any more: `skein resync --alone`, then `skein restore` a backup"

func damaged(path string, offset int64, why string) error {
	return fmt.Errorf("%w: %s at byte %d: %s; %s", ErrDamaged, path, offset, why, Cure)
}

// Open opens the log in dir, or makes an empty one.
func Open(dir string, o Options) (*Log, error) {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	l := &Log{dir: dir, segmentBytes: o.SegmentBytes, floor: readFloor(dir)}
	if err := l.load(o.DurableSeq); err != nil {
		return nil, err
	}
	if len(l.segments) == 0 {
		if err := l.create(Position{}, 0); err != nil {
			return nil, err
		}
		return l, nil
	}
	last := l.segments[len(l.segments)-1]
	m, err := last.reindex()
	if err != nil {
		return nil, err
	}
	l.index, l.seen = m, *m
	f, err := os.OpenFile(last.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	l.file = f
	return l, nil
}

// load reads and checks the segments on disk.
func (l *Log) load(durable uint64) error {
	if err := l.list(); err != nil {
		return err
	}
	for i, s := range l.segments {
		if i > 0 && l.segments[i-1].end != s.base {
			return damaged(s.path, 0, fmt.Sprintf("it continues event %d, the one before ends with %d", s.base.Seq, l.segments[i-1].end.Seq))
		}
		b, err := s.scan()
		if err != nil {
			return err
		}
		last := i == len(l.segments)-1
		if b != nil && (!last || s.end.Seq < durable) {
			return damaged(s.path, b.offset, b.why)
		}
		if b != nil {
			if err := l.cut(s); err != nil {
				return err
			}
		}
		if !last {
			s.seal()
		}
	}
	if durable == 0 {
		return nil
	}
	if len(l.segments) == 0 {
		return damaged(l.dir, 0, fmt.Sprintf("it is empty, event %d was durable", durable))
	}
	if s := l.segments[len(l.segments)-1]; s.end.Seq < durable {
		return damaged(s.path, s.size, fmt.Sprintf("it ends with event %d, %d was durable", s.end.Seq, durable))
	}
	return nil
}

// list finds the segments on disk, and finishes a Reset that was interrupted.
func (l *Log) list() error {
	bases, err := listSegments(l.dir)
	if err != nil {
		return err
	}
	for i, base := range bases {
		s, err := readHeader(segmentPath(l.dir, base))
		if err != nil {
			return err
		}
		if s.base.Seq != base {
			return damaged(s.path, 0, "the header does not fit to the name")
		}
		// Before a reset there is what was put there later, or what the reset had
		// no time to remove. The last one tells: what is appended to was not put there.
		if s.reset() && i > 0 && !l.segments[len(l.segments)-1].filled() {
			if err := remove(l.segments); err != nil {
				return err
			}
			l.segments = nil
		}
		l.segments = append(l.segments, s)
	}
	return nil
}

// cut removes a torn tail.
func (l *Log) cut(s *segment) error {
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cut torn history: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		l.cutBytes += info.Size() - s.size
		err = errors.Join(f.Truncate(s.size), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cut torn history: %w", err)
	}
	return nil
}

// create starts a new segment and makes it the current one.
func (l *Log) create(base Position, flags byte) error {
	path := segmentPath(l.dir, base.Seq)
	if err := ident.ReplaceDurably(path, encodeHeader(base, flags)); err != nil {
		return fmt.Errorf("start history segment: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start history segment: %w", err)
	}
	s := &segment{path: path, base: base, flags: flags, size: segmentHeader, end: base}
	l.closing.Lock()
	l.mu.Lock()
	old := l.file
	l.file = f
	l.index = index.NewMemory()
	l.seen = *l.index
	l.segments = append(l.segments, s)
	l.mu.Unlock()
	l.closing.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// Append adds a record that continues the log. It is durable after Sync. Only
// the sequence numbers are checked; see Record.Follows.
func (l *Log) Append(r Record) error {
	h, err := parseHeader(r.encoded)
	if err != nil {
		return err
	}
	current, err := l.current()
	if err != nil {
		return err
	}
	if h.first != current.end.Seq+1 {
		return fmt.Errorf("%w: it starts at event %d and %d is next", ErrDiverged, h.first, current.end.Seq+1)
	}
	if current.size >= l.segmentBytes && current.end != current.base { // a segment has a record at least
		if err := l.roll(current); err != nil {
			return l.fail(err)
		}
		if current, err = l.current(); err != nil {
			return err
		}
	}
	frame := r.framed
	if frame == nil {
		l.frame = appendFrame(l.frame[:0], r.encoded)
		if frame = l.frame; cap(l.frame) > keptBuffer {
			l.frame = nil
		}
	}
	if _, err := l.file.Write(frame); err != nil {
		return l.fail(fmt.Errorf("append to history: %w; free space or check the disk, then restart", err))
	}
	indexRecord(l.index, &r, current.size)
	l.mu.Lock()
	current.grow(h, len(r.encoded))
	l.seen = *l.index
	l.mu.Unlock()
	return nil
}

// current is the segment that is appended to. Only Append changes it.
func (l *Log) current() (*segment, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segments[len(l.segments)-1], l.failed
}

// roll makes the current segment durable, keeps its index and starts the next.
func (l *Log) roll(current *segment) error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync history: %w", err)
	}
	current.seal()
	current.index.Write(l.index)
	current.index.Remember(l.index)
	return l.create(current.end, 0)
}

// fail makes err the answer to everything that follows.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
	return l.failed
}

// Sync makes durable what was appended before the call, and says up to where.
func (l *Log) Sync() (Position, error) {
	l.closing.RLock()
	defer l.closing.RUnlock()
	l.mu.RLock()
	failed, f, end := l.failed, l.file, l.segments[len(l.segments)-1].end
	l.mu.RUnlock()
	if failed != nil {
		return Position{}, failed
	}
	if err := f.Sync(); err != nil {
		return Position{}, l.fail(fmt.Errorf("sync history: %w; check the disk, then restart", err))
	}
	return end, nil
}

// First is the position after which the log holds events.
func (l *Log) First() Position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segments[0].base
}

// Last is the position after the last event.
func (l *Log) Last() Position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.segments[len(l.segments)-1].end
}

// Size is the number of bytes on disk.
func (l *Log) Size() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var n int64
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// CutBytes is how much of a torn tail Open cut off.
func (l *Log) CutBytes() int64 { return l.cutBytes }

// Reset gives up everything held and continues after at, which must not be
// before the last event. It is durable when it returns.
func (l *Log) Reset(at Position) error {
	l.front.Lock()
	defer l.front.Unlock()
	current, err := l.current()
	if err != nil {
		return err
	}
	if at.Seq < current.end.Seq {
		return fmt.Errorf("reset history to event %d: the log is at %d already", at.Seq, current.end.Seq)
	}
	current.seal()
	if err := l.create(at, flagReset); err != nil {
		return l.fail(err)
	}
	l.mu.Lock()
	last := len(l.segments) - 1
	old := l.segments[:last]
	l.segments = l.segments[last:]
	l.mu.Unlock()
	if at.Seq == current.base.Seq { // the new file has replaced an empty one of its name
		old = old[:last-1]
	}
	if err := remove(old); err != nil {
		return l.fail(err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Close makes the log durable and closes it.
func (l *Log) Close() error {
	_, err := l.Sync()
	l.closing.Lock()
	defer l.closing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.failed, ErrClosed) {
		return nil
	}
	l.failed = ErrClosed
	return errors.Join(err, l.file.Close())
}
