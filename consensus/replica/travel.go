package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
)

// ErrAhead: the event asked for has not arrived here yet.
var ErrAhead = errors.New("this node has not come that far")

// maxTravels is how many past states are rebuilt at once.
const maxTravels = 2

// StateAt gives the state as it was after event seq, and the cursor there. The
// state is the caller's. It takes the newest checkpoint before and replays from
// there, for two callers at once; others wait. The error is ErrAhead,
// ErrCompacted when what it takes is not held here, or ctx's.
func (r *Replica) StateAt(ctx context.Context, seq uint64) (*fleet.State, event.Cursor, error) {
	r.mu.RLock()
	at := r.at
	if seq == at.Seq {
		defer r.mu.RUnlock()
		return r.state.Clone(), r.cursor(), nil
	}
	r.mu.RUnlock()
	if seq > at.Seq {
		return nil, event.Cursor{}, fmt.Errorf("state at event %d: %w: it is at event %d", seq, ErrAhead, at.Seq)
	}
	select {
	case r.travels <- struct{}{}:
		defer func() { <-r.travels }()
	case <-ctx.Done():
		return nil, event.Cursor{}, fmt.Errorf("state at event %d: %w", seq, ctx.Err())
	}
	i, err := r.past(ctx, seq)
	if err != nil {
		return nil, event.Cursor{}, fmt.Errorf("state at event %d: %w", seq, err)
	}
	return i.state, event.Cursor{History: i.state.History(), Seq: seq, Hash: i.at.Hash.String()}, nil
}

// SeqAt gives the last event that happened at t or before, by the leader's clock
// of that time: 0 if the log begins later. The error is ErrCompacted when what is
// held here begins later, or ctx's.
func (r *Replica) SeqAt(ctx context.Context, t time.Time) (uint64, error) {
	at, _ := r.ready()
	seq, err := r.history.SeqAt(ctx, t)
	return min(seq, at.Seq), r.noticed(err)
}

// past rebuilds the state after event seq.
func (r *Replica) past(ctx context.Context, seq uint64) (image, error) {
	i, err := r.before(seq)
	if err != nil || i.at.Seq == seq {
		return i, err
	}
	tx := i.state.Begin()
	var failed error
	err = r.history.Scan(i.at.Seq+1, func(rec history.Record) bool {
		if failed = ctx.Err(); failed == nil {
			failed = rec.Follows(i.at.Position)
		}
		if failed != nil {
			return false
		}
		events := rec.Events
		if rec.Last() > seq {
			events = events[:seq-i.at.Seq]
		}
		if failed = stage(tx, events); failed != nil {
			return false
		}
		tx.Commit()
		i.at = place{max(rec.Index, i.at.index), max(rec.Term, i.at.term), rec.End()}
		return rec.Last() < seq
	})
	if err = errors.Join(r.noticed(err), failed); err != nil {
		return image{}, err
	}
	if i.at.Seq != seq { // in the middle of a record
		if i.at.Position, err = r.history.At(seq); err != nil {
			return image{}, r.noticed(err)
		}
	}
	i.reset = false
	return i, nil
}

// before gives what to replay from to reach event seq: the newest good checkpoint
// up to there, or nothing at all.
func (r *Replica) before(seq uint64) (image, error) {
	first := r.history.First().Seq
	seqs, err := listCheckpoints(r.dir)
	if err != nil {
		return image{}, err
	}
	for _, c := range seqs {
		if c > seq {
			continue
		}
		if c < first {
			break
		}
		i, err := readCheckpoint(checkpointPath(r.dir, c), c)
		if err == nil {
			var at history.Position
			if at, err = r.history.At(c); err == nil && at != i.at.Position {
				err = fmt.Errorf("%w: it is of another history", ErrBadSnapshot)
			}
		}
		if err == nil {
			return i, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			r.log.Warn("checkpoint is left out", "seq", c, "error", err)
		}
	}
	if first > 0 {
		return image{}, fmt.Errorf("%w: there is no checkpoint to start from", ErrCompacted)
	}
	return image{state: fleet.New()}, nil
}

// Checkpoints gives the events after which there is a checkpoint in the replica
// directory dir, newest first. It changes nothing, also while a node runs there.
func Checkpoints(dir string) ([]uint64, error) {
	seqs, _, err := findCheckpoints(dir)
	return seqs, err
}

// ReadCheckpoint reads the checkpoint after event seq in the replica directory
// dir, and gives the state, its place in the chain, and the entry of the Raft log
// that is included. The error is ErrBadSnapshot when it is damaged, ErrUpgrade when
// a newer build wrote it.
func ReadCheckpoint(dir string, seq uint64) (state *fleet.State, at history.Position, index, term uint64, err error) {
	i, err := readCheckpoint(checkpointPath(dir, seq), seq)
	if err != nil {
		return nil, history.Position{}, 0, 0, fmt.Errorf("read checkpoint at event %d: %w", seq, err)
	}
	return i.state, i.at.Position, i.at.index, i.at.term, nil
}

// ladder says which checkpoints are too many: those that leave the smallest hole
// behind, until the others are few and small enough. rungs are ascending. The
// newest two and the one at event anchor stay, those before it go first.
func ladder(rungs []rung, anchor uint64, most int64) (surplus []uint64) {
	total := int64(0)
	for _, r := range rungs {
		total += r.bytes
	}
	for total > most || len(rungs) > maxCheckpoints {
		best, hole := -1, uint64(0)
		for i := 0; i < len(rungs)-keepCheckpoints; i++ {
			below := uint64(0)
			if i > 0 {
				below = rungs[i-1].seq
			}
			size := rungs[i+1].seq - below
			if rungs[i].seq < anchor {
				size = 0
			}
			if rungs[i].seq != anchor && (best < 0 || size < hole) {
				best, hole = i, size
			}
		}
		if best < 0 {
			break
		}
		surplus = append(surplus, rungs[best].seq)
		total -= rungs[best].bytes
		rungs = slices.Delete(rungs, best, best+1)
	}
	return surplus
}

// rung is one checkpoint on disk.
type rung struct {
	seq   uint64
	bytes int64
}
