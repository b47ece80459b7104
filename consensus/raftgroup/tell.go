package raftgroup

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein/mesh/ident"
)

// tellAfter is how long after a commit followers are told of it, if no newer
// entry is under way by then that would tell them in passing.
const tellAfter = 15 * time.Millisecond

// committed names a committed entry of a term in which this node led.
type committed struct{ term, index, entryTerm uint64 }

// teller holds the newest commit that followers may not have heard of.
//
// Raft itself tells them with the next entry or after CommitTimeout, whichever
// comes first. On an idle log that is up to two seconds with the CommitTimeout
// that keeps an idle voter cheap, too late for who watches another node.
type teller struct {
	mu     sync.Mutex
	newest committed
	wake   chan struct{}
}

func newTeller() *teller { return &teller{wake: make(chan struct{}, 1)} }

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
		if g.sending.Load() > 0 {
			continue // the next entry tells, and its own commit comes here
		}
		g.teller.mu.Lock()
		c := g.teller.newest
		g.teller.mu.Unlock()
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
					if _, err := g.transport.Load().tellCommitted(raft.ServerID(id), c.term, c.index, c.entryTerm); err != nil {
						g.cfg.Log.Debug("follower not told of a commit", "node", id, "error", err)
					}
				})
			default:
			}
		}
	}
}
