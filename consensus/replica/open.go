package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"skein/consensus/fleet"
	"skein/consensus/history"
)

// DefaultTailBytes is the history that a node keeps that does not vote.
const DefaultTailBytes = 16 << 20

// Options of Open. The zero value keeps the whole history.
type Options struct {
	// TailBytes is for a node that does not vote: it keeps about that much history,
	// fills no gap and knows past states only from its oldest checkpoint on. 0
	// keeps all of it.
	TailBytes int64
	// MaxBytes and MaxAge bound the history of a node that keeps all it can. Whole
	// segments go, oldest first, when it is larger or when all their events are
	// older; never what the older of the two newest checkpoints needs. 0 is no
	// bound. They are not for use with TailBytes.
	MaxBytes int64
	MaxAge   time.Duration
	// Now is the clock for MaxAge; nil is time.Now.
	Now func() time.Time
	// Observer is told of every change; nil for none.
	Observer Observer
	// Log receives what happened on opening and in the background. Nil is silent.
	Log *slog.Logger
}

// retention is what the options say about what is kept, and the size of segments.
func (o Options) retention() (k retention, segment int64) {
	k = retention{tailBytes: o.TailBytes, maxBytes: o.MaxBytes, maxAge: o.MaxAge, now: o.Now, saveBytes: saveBytes}
	if k.now == nil {
		k.now = time.Now
	}
	segment = history.DefaultSegmentBytes
	if bound := max(o.TailBytes, o.MaxBytes); bound > 0 {
		k.saveBytes = max(min(bound/tailSaves, saveBytes), 1)
		segment = min(segment, k.saveBytes)
	}
	return k, segment
}

// Open opens the replica in dir, or makes an empty one there. The error is
// ErrDamaged when the files cannot be trusted, ErrUpgrade when a newer build
// wrote them; all that was durable is then still there. Who opens a directory
// has it alone.
func Open(dir string, o Options) (*Replica, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	keep, segment := o.retention()
	r := &Replica{dir: dir, retention: keep, log: o.Log, observer: o.Observer, travels: make(chan struct{}, maxTravels)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	saved, durable, err := r.loadCheckpoints()
	if err != nil {
		return nil, err
	}
	r.history, err = history.Open(filepath.Join(dir, "history"), history.Options{SegmentBytes: segment, DurableSeq: durable})
	if err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	if n := r.history.CutBytes(); n > 0 {
		r.log.Warn("cut torn tail of history", "bytes", n, "lastSeq", r.history.Last().Seq)
	}
	if err := r.rebuild(saved); err != nil {
		return nil, errors.Join(fmt.Errorf("open replica: %w", err), r.history.Close())
	}
	r.observer.Reset(r.state)
	return r, nil
}

// loadCheckpoints gives the newest checkpoint that is not damaged, if there is
// one, and says up to which event the history was durable when the newest was
// written.
func (r *Replica) loadCheckpoints() (saved *image, durable uint64, err error) {
	seqs, leftovers, err := findCheckpoints(r.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("open replica: %w", err)
	}
	for _, name := range leftovers {
		if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
			return nil, 0, fmt.Errorf("open replica: %w", err)
		}
	}
	for n, seq := range seqs {
		i, err := readCheckpoint(checkpointPath(r.dir, seq), seq)
		if errors.Is(err, ErrUpgrade) {
			return nil, 0, fmt.Errorf("open replica: %w", err)
		}
		if err == nil && i.reset && n == 0 {
			// The history may not have begun anew there yet. Up to the one before it
			// is durable: it was when that was written.
			if len(seqs) > 1 {
				durable = seqs[1]
			}
			return &i, durable, nil
		}
		durable = max(durable, seq)
		if err == nil {
			return &i, durable, nil
		}
		r.log.Warn("checkpoint is damaged, trying an older one", "seq", seq, "error", err)
	}
	return nil, durable, nil
}

func readCheckpoint(path string, seq uint64) (image, error) {
	f, err := os.Open(path)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	i, err := readImage(f)
	if err == nil && i.at.Seq != seq {
		err = fmt.Errorf("%w: %s holds event %d", ErrBadSnapshot, path, i.at.Seq)
	}
	return i, err
}

// rebuild makes the state from a checkpoint, or from the start of the history, and
// replays what follows.
func (r *Replica) rebuild(saved *image) error {
	if saved != nil && saved.reset && r.history.Last().Seq < saved.at.Seq {
		// Restore was interrupted between its checkpoint and its gap.
		if err := r.history.Reset(saved.at.Position); err != nil {
			return err
		}
	}
	first := r.history.First().Seq
	from := image{state: fleet.New()}
	switch {
	case saved != nil && saved.at.Seq >= first:
		from = *saved
	case first > 0:
		return fmt.Errorf("%w: no good checkpoint in %s, and the history starts only at event %d; %s", ErrDamaged, r.dir, first+1, history.Cure)
	}
	at, err := r.history.At(from.at.Seq)
	if err != nil {
		return err
	}
	if at != from.at.Position {
		return fmt.Errorf("%w: the checkpoint at event %d in %s is of another history; %s", ErrDamaged, at.Seq, r.dir, history.Cure)
	}
	r.saver.last = from.at
	r.state, r.at, r.tx = from.state, from.at, from.state.Begin()
	return r.replay()
}

// replay applies the history after the current place.
func (r *Replica) replay() error {
	var failed error
	err := r.history.Scan(r.at.Seq+1, func(rec history.Record) bool {
		if failed = rec.Follows(r.at.Position); failed == nil {
			failed = r.stage(rec)
		}
		if failed != nil {
			return false
		}
		r.commit(place{max(rec.Index, r.at.index), max(rec.Term, r.at.term), rec.End()}, nil)
		r.unsaved += int64(len(rec.Bytes()))
		return true
	})
	if failed != nil && !errors.Is(failed, ErrUpgrade) {
		failed = fmt.Errorf("%w: %w; %s", ErrDamaged, failed, history.Cure)
	}
	return errors.Join(err, failed)
}

// Close writes a checkpoint and closes the files. What waits is told.
func (r *Replica) Close() error {
	r.apply.Lock()
	defer r.apply.Unlock()
	_, failed := r.ready()
	if errors.Is(failed, ErrClosed) {
		return nil
	}
	var err error
	if failed == nil {
		err = r.Checkpoint()
	}
	r.mu.Lock()
	r.failed = ErrClosed
	r.feed.tell()
	r.mu.Unlock()
	r.saver.working.Wait()
	return errors.Join(err, r.history.Close())
}
