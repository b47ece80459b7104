package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"skein/mesh/ident"
)

const (
	checkpointPrefix = "checkpoint-"
	// keepCheckpoints is how many checkpoints stay: the newest, and one to fall
	// back to should it be damaged.
	keepCheckpoints = 2
	// saveBytes is after how much new history a checkpoint is written, when the
	// tail is not bounded. It takes well under a second to replay.
	saveBytes = 32 << 20
	// tailSaves is how many checkpoints are written while a bounded tail fills.
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

// listCheckpoints gives the sequence numbers of the checkpoints in dir, newest
// first, and removes what an interrupted write left behind.
func listCheckpoints(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var seqs []uint64
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+checkpointPrefix) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("list checkpoints: %w", err)
			}
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
	return seqs, nil
}

// write makes a checkpoint of i durable and removes those that are too many.
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
	seqs, err := listCheckpoints(dir)
	if err != nil {
		return err
	}
	for _, seq := range seqs[min(len(seqs), keepCheckpoints):] {
		if err := os.Remove(checkpointPath(dir, seq)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return nil
}

// Checkpoint makes the state durable as it is now, the history up to it first,
// and then drops what is beyond a bounded tail. An error must end the node.
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
	if failed != nil || i.state == nil {
		return nil, failed
	}
	if _, err := r.history.Sync(); err != nil {
		return nil, r.fail(err)
	}
	encoded, err := i.encode()
	if err == nil && fresh {
		err = r.saver.put(r.dir, at, encoded)
	}
	if err == nil && fresh {
		err = r.trim()
	}
	if err != nil {
		return nil, r.fail(err)
	}
	return encoded, nil
}

// trim drops the oldest history beyond a bounded tail, but nothing that the
// oldest checkpoint needs. The caller holds saver.mu.
func (r *Replica) trim() error {
	if r.tailBytes == 0 {
		return nil
	}
	seqs, err := listCheckpoints(r.dir)
	if err != nil || len(seqs) == 0 {
		return err
	}
	return r.history.Trim(r.tailBytes, seqs[len(seqs)-1])
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
