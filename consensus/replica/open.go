package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"skein/consensus/fleet"
	"skein/consensus/history"
)

// DefaultTailBytes is the history that a node keeps that does not vote.
const DefaultTailBytes = 16 << 20

// Options of Open. The zero value keeps the whole history.
type Options struct {
	// TailBytes bounds the history on disk: the oldest goes first. 0 keeps all of it.
	TailBytes int64
	// Log receives what happened on opening and in the background. Nil is silent.
	Log *slog.Logger
}

// Open opens the replica in dir, or makes an empty one there. The error is
// ErrDamaged when the files cannot be trusted, ErrUpgrade when a newer build
// wrote them; all that was durable is then still there. Who opens a directory
// has it alone.
func Open(dir string, o Options) (*Replica, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Replica{dir: dir, tailBytes: o.TailBytes, saveBytes: saveBytes, log: o.Log}
	segment := int64(history.DefaultSegmentBytes)
	if o.TailBytes > 0 {
		r.saveBytes = max(o.TailBytes/tailSaves, 1)
		segment = min(segment, r.saveBytes)
	}
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
	return r, nil
}

// loadCheckpoints reads the checkpoints, newest first, leaving out damaged ones,
// and says up to which event the history was durable when they were written.
func (r *Replica) loadCheckpoints() (saved []image, durable uint64, err error) {
	seqs, err := listCheckpoints(r.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("open replica: %w", err)
	}
	for _, seq := range seqs {
		i, err := readCheckpoint(checkpointPath(r.dir, seq), seq)
		if errors.Is(err, ErrUpgrade) {
			return nil, 0, fmt.Errorf("open replica: %w", err)
		}
		if err != nil {
			r.log.Warn("checkpoint is damaged, trying an older one", "seq", seq, "error", err)
			durable = max(durable, seq)
			continue
		}
		if !i.reset { // otherwise the history may not have begun anew yet
			durable = max(durable, seq)
		}
		saved = append(saved, i)
	}
	return saved, durable, nil
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

// rebuild makes the state from the newest checkpoint that fits to the history,
// or from the start of the history, and replays what follows.
func (r *Replica) rebuild(saved []image) error {
	if len(saved) > 0 && saved[0].reset && r.history.Last().Seq < saved[0].at.Seq {
		// Restore was interrupted between its checkpoint and its gap.
		if err := r.history.Reset(saved[0].at.Position); err != nil {
			return err
		}
	}
	first := r.history.First().Seq
	from := image{state: fleet.New()}
	switch {
	case len(saved) > 0 && saved[0].at.Seq >= first:
		from = saved[0]
	case first > 0:
		return fmt.Errorf("%w: no good checkpoint in %s, and the history starts only at event %d; %s", ErrDamaged, r.dir, first+1, advice)
	}
	at, err := r.history.At(from.at.Seq)
	if err != nil {
		return err
	}
	if at != from.at.Position {
		return fmt.Errorf("%w: the checkpoint at event %d in %s is of another history; %s", ErrDamaged, at.Seq, r.dir, advice)
	}
	r.saver.last = from.at
	r.state, r.at, r.tx = from.state, from.at, from.state.Begin()
	return r.replay()
}

const advice = "move the node's replica directory away and start again, it is fetched anew from other nodes"

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
		r.commit(place{max(rec.Index, r.at.index), max(rec.Term, r.at.term), rec.End()})
		r.unsaved += int64(len(rec.Bytes()))
		return true
	})
	if failed != nil && !errors.Is(failed, ErrUpgrade) {
		failed = fmt.Errorf("%w: %w; %s", ErrDamaged, failed, advice)
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
