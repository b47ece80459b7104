package raftgroup

import (
	"context"
	"fmt"
	"time"

	"skein/consensus/event"
)

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
		short := g.disk.LookAtDisk()
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
func (g *Group) hasRoom() bool { return g.failure.get() == nil && !g.disk.LookAtDisk() }
