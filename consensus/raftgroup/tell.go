package raftgroup

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"skein/mesh/ident"
)

const (
	// tellAfter is how long after a commit followers are told of it, if no newer
	// entry is under way by then that would tell them in passing.
	tellAfter = 15 * time.Millisecond
	// tellTries is how often a follower is told that answers but does not hold
	// the entry yet, because raft is still finding out where its log ends. The
	// waits between grow from tellAfter to about two seconds.
	tellTries = 8
)

// committed names a committed entry of a term in which this node led.
type committed struct{ term, index, entryTerm uint64 }

// teller holds the newest commit that followers may not have heard of.
//
// Raft itself tells them with the next entry or after CommitTimeout, whichever
// comes first. On an idle log that is up to two seconds with the CommitTimeout
// that keeps an idle voter cheap, too late for who watches another node.
type teller struct {
	// sending counts entries handed to raft whose fate is not known yet.
	sending atomic.Int64

	mu     sync.Mutex
	newest committed
	wake   chan struct{}
}

func newTeller() *teller { return &teller{wake: make(chan struct{}, 1)} }

func (t *teller) get() committed {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest
}

// tellLater notes a commit that followers should hear of.
func (g *Group) tellLater(c committed) {
	g.teller.mu.Lock()
	g.teller.newest = c
	g.teller.mu.Unlock()
	select {
	case g.teller.wake <- struct{}{}:
	default:
	}
}

// tell tells followers of commits once the log falls idle. Each is told by its
// own goroutine, one at a time, so that one that does not answer holds up none.
func (g *Group) tell(ctx context.Context, r *raft.Raft) {
	var told sync.WaitGroup
	defer told.Wait()
	places := map[ident.NodeID]chan struct{}{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.teller.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tellAfter):
		}
		if g.teller.sending.Load() > 0 {
			continue // the next entry tells, and its own commit comes here
		}
		status := g.Status()
		for _, id := range append(status.Voters, status.Nonvoters...) {
			if id == g.cfg.ID {
				continue
			}
			if places[id] == nil {
				places[id] = make(chan struct{}, 1)
			}
			place := places[id]
			select {
			case place <- struct{}{}:
				told.Go(func() {
					defer func() { <-place }()
					g.tellOne(ctx, id)
				})
			default: // who is being told now is told the newest
			}
		}
	}
}

// tellOne tells a follower of the newest commit until it holds it. One that
// cannot be reached hears of it from raft when it is back.
func (g *Group) tellOne(ctx context.Context, id ident.NodeID) {
	pause := tellAfter
	for range tellTries {
		c := g.teller.get()
		holds, err := g.transport.Load().tellCommitted(raft.ServerID(id), c.term, c.index, c.entryTerm)
		if err != nil {
			g.cfg.Log.Debug("follower not told of a commit", "node", id, "error", err)
			return
		}
		if _, leading := g.Leading(); holds && g.teller.get() == c || !leading {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause *= 2
	}
}
