package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"skein/consensus/history"
)

const (
	segmentSuffix    = ".seg"
	indexSuffix      = ".idx"
	checkpointPrefix = "checkpoint-"
	// maxListings bounds how often a directory is looked at anew because a node
	// that runs has dropped what was listed.
	maxListings = 5
	// settle is the wait before the end of a log is read again that is not whole,
	// settleTries how often: a node that runs appends a record with one write.
	settle      = 20 * time.Millisecond
	settleTries = 5
)

// errMoved: a listed file is gone.
var errMoved = errors.New("the node drops files faster than they can be read; stop it, or audit a backup of it")

// Directory audits a node's copy of the log: the folder "log" of its data
// directory, with checkpoints and history. running says that a node may be
// writing there: the last record is then given a moment to become whole. What
// is wrong is in the report; an error means that the audit could not be made.
func Directory(ctx context.Context, dir string, running bool) (*Report, error) {
	for range maxListings {
		r, err := once(ctx, dir, running)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w", dir, err)
		}
		return r, nil
	}
	return nil, fmt.Errorf("audit %s: %w", dir, errMoved)
}

// listing is what was in the directory when the audit began.
type listing struct {
	dir string
	// checkpoints and segments are in order of their events.
	checkpoints, segments []uint64
}

func list(dir string) (l listing, err error) {
	l.dir = dir
	// Checkpoints first: the events up to one are in the history before it is.
	if l.checkpoints, err = numbered(dir, checkpointPrefix, ""); err != nil {
		return l, err
	}
	l.segments, err = numbered(l.history(), "", segmentSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // found missing later, if a checkpoint says that it must be there
	}
	return l, err
}

func (l listing) history() string { return filepath.Join(l.dir, "history") }

func (l listing) segment(i int) string {
	return filepath.Join(l.history(), fmt.Sprintf("%020d%s", l.segments[i], segmentSuffix))
}

func (l listing) checkpoint(seq uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s%020d", checkpointPrefix, seq))
}

// numbered lists the numbers between prefix and suffix in names, sorted.
func numbered(dir, prefix, suffix string) (numbers []uint64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		middle, starts := strings.CutPrefix(e.Name(), prefix)
		middle, ends := strings.CutSuffix(middle, suffix)
		n, err := strconv.ParseUint(middle, 10, 64)
		if starts && ends && err == nil && len(middle) == 20 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// once audits the files as they are listed now.
func once(ctx context.Context, dir string, running bool) (*Report, error) {
	l, err := list(dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Source: dir, Findings: []Finding{}}
	e := &examiner{listing: l, running: running, report: r, trail: newTrail(r)}
	if err := errors.Join(e.checkpoints(), e.indexes()); err != nil {
		return nil, err
	}
	if err := e.history(ctx); err != nil {
		return nil, err
	}
	e.leftover()
	e.trail.finish()
	return r, nil
}

// examiner is one audit of a directory.
type examiner struct {
	listing listing
	running bool
	report  *Report
	trail   *trail
	// images are the checkpoints that are whole, in order; those before next
	// were compared.
	images []checkpoint
	next   int
	// filled: the segment before was put there later, so the next continues it.
	filled bool
}

// checkpoints reads all of them.
func (e *examiner) checkpoints() error {
	for _, seq := range e.listing.checkpoints {
		path := e.listing.checkpoint(seq)
		c, why, err := readCheckpoint(path, seq)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a node that runs has thinned them out
		}
		if err != nil {
			return err
		}
		e.report.Counts.Files++
		e.report.Counts.Bytes += c.bytes
		e.report.Counts.Checkpoints++
		if why != "" {
			e.report.add(Finding{File: path, Offset: 0, Problem: why})
		}
		e.images = append(e.images, c)
	}
	return nil
}

// indexes checks the indexes beside the segments. They are derived: a node that
// finds one damaged makes it anew. But a changed byte is a changed byte.
func (e *examiner) indexes() error {
	for i := range e.listing.segments {
		path := strings.TrimSuffix(e.listing.segment(i), segmentSuffix) + indexSuffix
		b, err := readBounded(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the newest segment has none, and nobody may have asked yet
		}
		if err != nil {
			return err
		}
		e.report.Counts.Files++
		e.report.Counts.Bytes += int64(len(b))
		if at, ok := brokenPage(b); ok && !e.rewritten(path) {
			e.report.add(Finding{File: path, Offset: at,
				Problem: "a checksum of this index is wrong; no event is in it, and the node makes it anew"})
		}
	}
	return nil
}

// rewritten reports whether an index was made anew, or taken away, by a node
// that runs.
func (e *examiner) rewritten(path string) bool {
	if !e.running {
		return false
	}
	b, err := readBounded(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	_, broken := brokenPage(b)
	return !broken
}

// history reads the segments.
func (e *examiner) history(ctx context.Context) error {
	segments := len(e.listing.segments)
	for i := range segments {
		if err := e.segmentFile(ctx, i, i == segments-1); err != nil {
			return err
		}
	}
	return nil
}

// start places the trail at the beginning of what is held, or behind a part
// that is damaged. at is the position after which events follow.
func (e *examiner) start(at history.Position) {
	e.trail.begin(at, nil)
	if at.Seq == 0 {
		e.trail.know(emptyState())
	}
	e.compare()
}

// compare compares the state with the checkpoints at the current position, and
// takes the state from one if it is not known.
func (e *examiner) compare() {
	at := e.trail.at
	for ; e.next < len(e.images) && e.images[e.next].seq <= at.Seq; e.next++ {
		c := e.images[e.next]
		w := place{c.path, 0}
		switch {
		case !c.whole: // it was found damaged already
		case c.seq < at.Seq:
			e.beside(c, w)
		case c.at != at:
			e.trail.wrong(w, c.seq, "the checkpoint is of another past: the chain's hash after event %d is not the one it has", c.seq)
		default:
			state, why := c.state()
			if why == gone {
				continue // a node that runs has thinned them out
			}
			if why != "" {
				e.trail.wrong(w, c.seq, "%s", why)
				continue
			}
			if e.trail.state == nil {
				e.trail.know(state)
			} else if e.trail.state.Hash() != state.Hash() {
				e.trail.wrong(w, c.seq, "the checkpoint's state is not what the events up to %d add up to", c.seq)
			}
		}
	}
}

// beside judges a checkpoint that no position of the history has met.
func (e *examiner) beside(c checkpoint, w place) {
	if c.seq < e.firstBase() {
		return // from before what retention has left
	}
	e.trail.wrong(w, c.seq, "the checkpoint cannot be compared: no whole record of the history ends with event %d", c.seq)
}

// firstBase is the event after which the history begins.
func (e *examiner) firstBase() uint64 {
	if len(e.listing.segments) == 0 {
		return 0
	}
	return e.listing.segments[0]
}

// leftover judges the checkpoints behind the end of the history: they say that
// more was there.
func (e *examiner) leftover() {
	for _, c := range e.images[e.next:] {
		switch {
		case !c.whole:
		case c.reset: // a restore that was interrupted: opening finishes it
		default:
			e.report.add(Finding{File: e.end(), Event: e.trail.at.Seq + 1, Offset: sizeOf(e.end()),
				Problem: fmt.Sprintf("it ends with event %d, and %s says that event %d was there", e.trail.at.Seq, filepath.Base(c.path), c.seq)})
			return
		}
	}
}

// end is the file in which the history ends.
func (e *examiner) end() string {
	if n := len(e.listing.segments); n > 0 {
		return e.listing.segment(n - 1)
	}
	return e.listing.history()
}

func sizeOf(path string) int64 {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return info.Size()
	}
	return 0
}

// segmentFile reads one segment.
func (e *examiner) segmentFile(ctx context.Context, i int, last bool) error {
	path := e.listing.segment(i)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errMoved
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	e.report.Counts.Files++
	e.report.Counts.Bytes += info.Size()
	s, why, err := readSegment(f, e.listing.segments[i])
	if err != nil {
		return err
	}
	if why != "" {
		e.report.add(Finding{File: path, Event: e.listing.segments[i] + 1, Problem: why})
		// The name still says where its events begin; they cannot be proved.
		e.trail.begin(history.Position{Seq: e.listing.segments[i]}, nil)
		return nil
	}
	switch {
	case i == 0 || s.reset && !e.filled && e.trail.at != s.base:
		e.start(s.base)
	case e.trail.at != s.base:
		e.broken(i, s)
	}
	e.filled = s.filled
	return e.frames(ctx, f, last)
}

// broken judges segment i, which does not continue the one before.
func (e *examiner) broken(i int, s segment) {
	at := e.trail.at
	switch {
	case e.damagedTo(s.base):
	case at.Seq < s.base.Seq: // the one before has lost its end
		before := e.listing.segment(i - 1)
		e.report.add(Finding{File: before, Offset: sizeOf(before), Event: at.Seq + 1,
			Problem: fmt.Sprintf("it ends with event %d, and the next file continues event %d", at.Seq, s.base.Seq)})
	default:
		e.report.add(Finding{File: s.path, Event: min(at.Seq, s.base.Seq) + 1,
			Problem: fmt.Sprintf("it continues event %d with another hash than the file before, which ends with event %d", s.base.Seq, at.Seq)})
	}
	e.start(s.base)
}

// damagedTo reports whether it was said already that events before base are
// not proved.
func (e *examiner) damagedTo(base history.Position) bool {
	n := len(e.report.Findings)
	return n > 0 && e.report.Findings[n-1].Event == e.trail.at.Seq+1 && base.Seq >= e.trail.at.Seq
}

// frames reads the records of a segment.
func (e *examiner) frames(ctx context.Context, f *os.File, last bool) error {
	in := newFrames(f, segmentHeader)
	patience := 0
	if last && e.running {
		patience = settleTries
	}
	for {
		w := place{f.Name(), in.at}
		b, why, torn, err := in.next()
		if err != nil {
			return err
		}
		if why != "" && patience > 0 {
			// A node that runs may be writing this record.
			patience--
			if err := pause(ctx, settle); err != nil {
				return err
			}
			in = newFrames(f, in.at)
			continue
		}
		if why != "" {
			if torn && last && !e.promised() {
				why += "; a power cut leaves that: the node cuts it off when it starts, and has what was decided there from the others"
			}
			e.trail.wrong(w, e.trail.at.Seq+1, "%s", why)
			return nil
		}
		if b == nil {
			return nil
		}
		r, why := parseRecord(b, e.trail.at)
		if why != "" {
			e.trail.wrong(w, e.trail.at.Seq+1, "%s", why)
			return nil
		}
		e.trail.record(r, w)
		e.compare()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// promised: a checkpoint says that more events are there.
func (e *examiner) promised() bool { return e.next < len(e.images) }
