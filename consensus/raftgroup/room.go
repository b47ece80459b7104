package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"skein/consensus/event"
)

// ErrNoSpace: the disk has less free than Config.ReserveBytes. Entries are
// refused before anything is written; the group goes on, and accepts entries
// again once there is room.
var ErrNoSpace = errors.New("the disk of the raft log is nearly full")

// ReasonNoSpace is the reason of the "busy" fault of a leader whose disk is
// nearly full.
const ReasonNoSpace event.Reason = "no_space"

const (
	// roomEvery is how often the disk is looked at beside the looks of writes.
	roomEvery = 250 * time.Millisecond
	// noSpaceRetry is what a refused proposer is told to wait.
	noSpaceRetry = time.Second
	// giveAwayAfter and giveAwayMost are the waits between two tries of a leader
	// without room to find a voter that has some.
	giveAwayAfter = time.Second
	giveAwayMost  = 30 * time.Second
)

// room watches how much is free on the disk of a directory.
type room struct {
	dir     string
	reserve int64
	// free is how many bytes are; a test puts its own here.
	free func(dir string) (int64, error)
	low  atomic.Bool
}

func newRoom(dir string, reserve int64) *room {
	return &room{dir: dir, reserve: reserve, free: freeBytes}
}

// freeBytes is what a process without privileges may still write.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// short looks at the disk. Once it was short there must be an eighth more than
// the reserve, so that the answer does not change from entry to entry.
func (r *room) short() bool {
	if r.reserve <= 0 {
		return false
	}
	free, err := r.free(r.dir)
	if err != nil {
		return r.low.Load() // the write itself will tell
	}
	enough := r.reserve
	if r.low.Load() {
		enough += r.reserve / 8
	}
	r.low.Store(free < enough)
	return free < enough
}

// refuses reports whether logs must not be stored. What raft itself needs to
// go on, such as a change of membership, is small and may use the reserve.
func (r *room) refuses(logs []*raft.Log) error {
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			if r.short() {
				return fmt.Errorf("%w: %s has less than %d MiB free", ErrNoSpace, r.dir, r.reserve>>20)
			}
			return nil
		}
	}
	return nil
}

// noSpace is the fault of a proposal to a leader without room.
func (g *Group) noSpace() *event.Fault {
	f := event.Refuse(event.CodeBusy, ReasonNoSpace, fmt.Sprintf("free space in %s on %s", g.cfg.Dir, g.cfg.ID.Short()),
		"the leader's disk is nearly full: less than %d MiB are free; nothing was decided", g.cfg.ReserveBytes>>20)
	f.RetryAfterMillis = noSpaceRetry.Milliseconds()
	return f
}

// watchRoom notices that the disk fills up or has room again, also when nothing
// is written, and makes a leader without room look for a voter that has some.
func (g *Group) watchRoom(ctx context.Context) {
	ticker := time.NewTicker(roomEvery)
	defer ticker.Stop()
	var next time.Time
	pause := giveAwayAfter
	was := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		short := g.stores.log.room.short()
		if short != was {
			g.cfg.Log.Warn("free space on the disk of the raft log", "dir", g.cfg.Dir, "nearlyFull", short)
			g.news.tell()
			was, pause, next = short, giveAwayAfter, time.Time{}
		}
		if _, leading := g.Leading(); !short || !leading || time.Now().Before(next) {
			continue
		}
		g.giveAway(ctx)
		next = time.Now().Add(pause)
		pause = min(2*pause, giveAwayMost)
	}
}

// giveAway hands leadership to a voter that has room, if there is one.
func (g *Group) giveAway(ctx context.Context) {
	for _, id := range g.Status().Voters {
		if id == g.cfg.ID {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
		roomy, err := g.streams.askRoom(ctx, id)
		if err == nil && roomy {
			err = g.Transfer(ctx, id)
			roomy = err == nil
		}
		cancel()
		if roomy {
			g.cfg.Log.Warn("handed leadership over, because the disk here is nearly full", "to", id)
			return
		}
		g.cfg.Log.Debug("not handed over", "to", id, "error", err)
	}
}

// hasRoom answers another voter's question.
func (g *Group) hasRoom() bool { return g.failure.get() == nil && !g.stores.log.room.short() }
