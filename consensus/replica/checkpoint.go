package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skein/mesh/ident"
)

const (
	checkpointPrefix = "checkpoint-"
	// keepCheckpoints is how many checkpoints stay in any case: the newest, and one
	// to fall back to should it be damaged.
	keepCheckpoints = 2
	// maxCheckpoints and ladderBytes bound all of them. The others make the way to
	// past states short.
	maxCheckpoints = 64
	ladderBytes    = 64 << 20
	// saveBytes is after how much new history a checkpoint is written, when the
	// tail is not bounded. It takes well under a second to replay.
	saveBytes = 32 << 20
	// tailSaves is how many checkpoints are written while a bounded history fills.
	tailSaves = 8
)

// saver writes checkpoints, one at a time.
type saver struct {
	// mu is held while one is written. It is taken after Replica.apply and before
	// Replica.mu.
	mu sync.Mutex
	// last is the newest checkpoint on disk; guarded by mu.
	last place
	// busy says that one is being written in the background, which working awaits.
	busy    atomic.Bool
	working sync.WaitGroup
}

func checkpointPath(dir string, seq uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%020d", checkpointPrefix, seq))
}

// findCheckpoints gives the sequence numbers of the checkpoints in dir, newest
// first, and what an interrupted write left behind.
func findCheckpoints(dir string) (seqs []uint64, leftovers []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list checkpoints: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+checkpointPrefix) {
			leftovers = append(leftovers, e.Name())
		}
		digits, ok := strings.CutPrefix(e.Name(), checkpointPrefix)
		if !ok {
			continue
		}
		if seq, err := strconv.ParseUint(digits, 10, 64); err == nil {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	slices.Reverse(seqs)
	return seqs, leftovers, nil
}

func listCheckpoints(dir string) ([]uint64, error) {
	seqs, _, err := findCheckpoints(dir)
	return seqs, err
}

// write makes a checkpoint of i durable.
func (s *saver) write(dir string, i image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	encoded, err := i.encode()
	if err != nil {
		return err
	}
	return s.put(dir, i.at, encoded)
}

// put is write for who holds mu.
func (s *saver) put(dir string, at place, encoded []byte) error {
	if err := ident.ReplaceDurably(checkpointPath(dir, at.Seq), encoded); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	s.last = at
	return nil
}

// Checkpoint makes the state durable as it is now, the history up to it first,
// and then drops what retention has no use for, which it also does when there is
// nothing new. An error must end the node.
func (r *Replica) Checkpoint() error {
	_, err := r.save(false)
	return err
}

// save writes a checkpoint unless the newest one is as new. It gives the
// encoded snapshot, always if wanted.
func (r *Replica) save(wanted bool) ([]byte, error) {
	r.saver.mu.Lock()
	defer r.saver.mu.Unlock()
	r.mu.RLock()
	failed, at := r.failed, r.at
	fresh := at != r.saver.last
	var i image
	if failed == nil && (fresh || wanted) {
		i = image{at: at, state: r.state.Clone()}
	}
	r.mu.RUnlock()
	if failed != nil {
		return nil, failed
	}
	encoded, err := r.keep(i, fresh)
	if err == nil && (fresh || !wanted) {
		err = r.trim()
	}
	if err != nil {
		return nil, r.fail(err)
	}
	return encoded, nil
}

// keep encodes an image, if there is one, and writes it as checkpoint if it is
// fresh, after the history. The caller holds saver.mu.
func (r *Replica) keep(i image, fresh bool) ([]byte, error) {
	if i.state == nil {
		return nil, nil
	}
	if _, err := r.history.Sync(); err != nil {
		return nil, err
	}
	encoded, err := i.encode()
	if err == nil && fresh {
		err = r.saver.put(r.dir, i.at, encoded)
	}
	return encoded, err
}

// trim drops the oldest history that retention has no use for, but nothing that
// the older of the newest two checkpoints needs, and then checkpoints. The caller
// holds saver.mu.
func (r *Replica) trim() error {
	seqs, err := listCheckpoints(r.dir)
	if err != nil || len(seqs) == 0 {
		return err
	}
	keep := seqs[min(len(seqs), keepCheckpoints)-1]
	if r.tailBytes > 0 {
		err = r.history.Trim(r.tailBytes, keep)
	} else if r.maxBytes > 0 || r.maxAge > 0 {
		err = r.retain(keep)
	}
	if err != nil {
		return err
	}
	return r.thin()
}

// retain drops what is beyond MaxBytes and MaxAge. Before that it makes a
// checkpoint at the cut, so that every state can be rebuilt from there on.
func (r *Replica) retain(keep uint64) error {
	var before time.Time
	if r.maxAge > 0 {
		before = r.now().Add(-r.maxAge)
	}
	end, err := r.history.Surplus(r.maxBytes, before, keep)
	if err != nil || end == r.history.First() {
		return err
	}
	i, err := r.past(context.Background(), end.Seq)
	if err == nil {
		var encoded []byte
		if encoded, err = i.encode(); err == nil {
			err = ident.ReplaceDurably(checkpointPath(r.dir, end.Seq), encoded)
		}
	} else if errors.Is(err, ErrCompacted) { // as little is known of that time before as after
		err = nil
	}
	if err != nil {
		return fmt.Errorf("checkpoint at the cut, event %d: %w", end.Seq, err)
	}
	return r.history.DropBefore(end.Seq + 1)
}

// thin removes checkpoints: those that are too many, and those before the
// history, unless it may yet be filled.
func (r *Replica) thin() error {
	seqs, leftovers, err := findCheckpoints(r.dir)
	if err != nil {
		return err
	}
	var surplus []uint64
	var rungs []rung
	first := r.history.First().Seq
	_, lacking := r.Gap()
	slices.Reverse(seqs)
	for i, seq := range seqs {
		if seq < first && !lacking && i < len(seqs)-keepCheckpoints {
			surplus = append(surplus, seq)
			continue
		}
		info, err := os.Stat(checkpointPath(r.dir, seq))
		if err != nil {
			return fmt.Errorf("list checkpoints: %w", err)
		}
		rungs = append(rungs, rung{seq, info.Size()})
	}
	most := int64(ladderBytes)
	if r.tailBytes > 0 {
		most = min(most, r.tailBytes/2)
	}
	for _, seq := range append(surplus, ladder(rungs, first, most)...) {
		leftovers = append(leftovers, filepath.Base(checkpointPath(r.dir, seq)))
	}
	for _, name := range leftovers {
		if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return nil
}

// grew counts new history and starts a checkpoint when it is time for one. The
// caller holds apply.
func (r *Replica) grew(n int) {
	r.unsaved += int64(n)
	if r.unsaved < r.saveBytes || !r.saver.busy.CompareAndSwap(false, true) {
		return
	}
	r.unsaved = 0
	r.saver.working.Go(func() {
		defer r.saver.busy.Store(false)
		if err := r.Checkpoint(); err != nil && !errors.Is(err, ErrClosed) {
			r.log.Error("checkpoint failed", "error", err)
		}
	})
}
