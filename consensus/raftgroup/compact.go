package raftgroup

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// compactLook is how often the size of the log is looked at.
	compactLook = time.Second
	// keepBytes is how many bytes of entries at most stay for voters that are a
	// little behind.
	keepBytes = 16 << 20
	// keepLeast is how many entries stay even if they are larger.
	keepLeast = 16
	// maxBacklog is how many bytes of committed entries may wait to be applied
	// before the log takes no more. Raft itself counts entries, up to 2048.
	maxBacklog = 16 << 20
	// backlogLook bounds the wait for a word that an entry was applied.
	backlogLook = 20 * time.Millisecond
	// rareTimer turns raft's own timer for snapshots off, as far as it can be.
	rareTimer = 365 * 24 * time.Hour
)

// compact keeps the log short: raft alone counts entries, of which one may have
// a few bytes or half a megabyte.
func (g *Group) compact(ctx context.Context, r *raft.Raft) {
	ticker := time.NewTicker(compactLook)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bytes, entries := g.disk.Ledger().Since()
		c := g.cfg.Compaction
		if bytes < c.Bytes && (entries < c.Entries || time.Since(last) < c.Every) {
			continue
		}
		last = time.Now()
		if err := g.compactNow(ctx, r); err != nil {
			g.cfg.Log.Warn("raft log not made shorter", "error", err)
		}
	}
}

// compactNow takes a snapshot and cuts the log behind what others may still need.
func (g *Group) compactNow(ctx context.Context, r *raft.Raft) error {
	keep := min(g.cfg.Compaction.Keep, max(keepLeast, g.disk.Ledger().Newest(keepBytes)))
	g.pacing.Lock()
	c := r.ReloadableConfig()
	c.TrailingLogs = keep
	err := r.ReloadConfig(c)
	g.pacing.Unlock()
	if err != nil {
		return err
	}
	g.disk.Ledger().Compacted() // what comes meanwhile counts for the next time
	err = await(ctx, g.slots.asking, func() error { return r.Snapshot().Error() })
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// holdBack waits while too much that is committed was not applied yet. It is
// called before entries are stored, where raft can wait: leaders are heard
// meanwhile.
func (g *Group) holdBack() {
	r := g.raft.Load()
	for r != nil && g.failure.get() == nil && g.disk.Ledger().Between(g.backlog.applied.Load(), r.AppliedIndex()) > maxBacklog {
		select {
		case <-g.backlog.progress:
		case <-g.backlog.stopping:
			return
		case <-time.After(backlogLook):
		}
	}
}

// backlog is how far the machine is.
type backlog struct {
	// applied is the last entry that it took.
	applied atomic.Uint64
	// since is when it was given the entry it works on, in nanoseconds after start;
	// 0 when it has none.
	since atomic.Int64
	start time.Time
	// progress has a value when that changed.
	progress chan struct{}
	// stopping is closed when the group ends.
	stopping chan struct{}
}

func newBacklog() *backlog {
	return &backlog{start: time.Now(), progress: make(chan struct{}, 1), stopping: make(chan struct{})}
}

// begin notes that the machine is given an entry.
func (b *backlog) begin() { b.since.Store(max(1, int64(time.Since(b.start)))) }

// stalledFor is how long the machine has worked on one entry; 0 when it has none.
// It writes to the disk of the log: while it hangs there, no write of the log is
// under way that could be seen to hang.
func (b *backlog) stalledFor() time.Duration {
	since := b.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(b.start) - time.Duration(since)
}

// progressed notes that the machine has taken entry index.
func (b *backlog) progressed(index uint64) {
	b.applied.Store(index)
	b.since.Store(0)
	select {
	case b.progress <- struct{}{}:
	default:
	}
}
