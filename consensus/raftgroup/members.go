package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// ErrNotMember: the node is not in the configuration.
var ErrNotMember = errors.New("node is not in the raft configuration")

// catchUpEvery is how often a newcomer is asked whether it has caught up.
const catchUpEvery = 100 * time.Millisecond

// AddVoter makes id a voter: it is sent the log without a vote first, and
// promoted once it holds everything committed. One change at a time; only the
// leader can. It may be repeated: what was reached before ctx ended is kept.
func (g *Group) AddVoter(ctx context.Context, id ident.NodeID) error {
	return g.change(ctx, func(r *raft.Raft) error {
		status := g.Status()
		if slices.Contains(status.Voters, id) {
			return nil
		}
		for _, left := range status.Nonvoters {
			if left == id {
				continue
			}
			// An earlier attempt that came to nothing.
			if _, err := g.reconfigure(ctx, r, func(wait time.Duration) raft.IndexFuture {
				return r.RemoveServer(raft.ServerID(left), 0, wait)
			}); err != nil {
				return fmt.Errorf("remove %s, which never caught up: %w", left.Short(), err)
			}
		}
		term, err := g.reconfigure(ctx, r, func(wait time.Duration) raft.IndexFuture {
			return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, wait)
		})
		if err != nil {
			return fmt.Errorf("add %s without a vote: %w", id.Short(), err)
		}
		if err := g.awaitCaughtUp(ctx, r, id, term); err != nil {
			return fmt.Errorf("%s has not caught up with the log: %w; check that it runs and can be reached", id.Short(), err)
		}
		if _, err := g.reconfigure(ctx, r, func(wait time.Duration) raft.IndexFuture {
			return r.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, wait)
		}); err != nil {
			return fmt.Errorf("give %s a vote: %w", id.Short(), err)
		}
		return nil
	})
}

// RemoveServer takes id out of the configuration. Only the leader can; one that
// removes itself steps down when that is committed.
func (g *Group) RemoveServer(ctx context.Context, id ident.NodeID) error {
	return g.change(ctx, func(r *raft.Raft) error {
		if !g.Status().Member(id) {
			return fmt.Errorf("%w: %s", ErrNotMember, id.Short())
		}
		_, err := g.reconfigure(ctx, r, func(wait time.Duration) raft.IndexFuture {
			return r.RemoveServer(raft.ServerID(id), 0, wait)
		})
		return err
	})
}

// Transfer hands leadership over to the voter to, or to the one that is furthest
// when to is empty. Proposals are refused meanwhile. While one is under way
// another is refused with a fault of code "busy".
func (g *Group) Transfer(ctx context.Context, to ident.NodeID) error {
	err := g.change(ctx, func(r *raft.Raft) error {
		return await(ctx, g.slots.asking, func() error {
			return g.lease.hand(func() error {
				if to == "" {
					return r.LeadershipTransfer().Error()
				}
				return r.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)).Error()
			})
		})
	})
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		busy := event.Refuse(event.CodeBusy, "", "try again in a moment, or see who leads with `skein raft`", "leadership is being handed over already")
		busy.RetryAfterMillis = transferWait.Milliseconds()
		return busy
	}
	return err
}

// transferWait is when to ask again while a transfer is under way: raft gives it
// up after one election timeout.
const transferWait = time.Second

// change runs one change of the group at a time.
func (g *Group) change(ctx context.Context, do func(*raft.Raft) error) error {
	r := g.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return noLeader()
	}
	select {
	case g.slots.changing <- struct{}{}:
		defer func() { <-g.slots.changing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return do(r)
}

// reconfigure waits until one change of the configuration is committed and
// returns the term in which it was.
func (g *Group) reconfigure(ctx context.Context, r *raft.Raft, request func(wait time.Duration) raft.IndexFuture) (term uint64, err error) {
	wait := enqueueTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), time.Millisecond)
	}
	var index uint64
	err = await(ctx, g.slots.asking, func() error {
		return g.lease.hand(func() error { // a majority is now made of others
			f := request(wait)
			if err := f.Error(); err != nil {
				return err
			}
			index = f.Index()
			return nil
		})
	})
	if err != nil {
		return 0, err
	}
	var entry raft.Log
	if err := g.disk.GetLog(index, &entry); err != nil {
		return 0, fmt.Errorf("read back entry %d: %w", index, err)
	}
	g.news.tell()
	g.tellLater(committed{term: entry.Term, index: index, entryTerm: entry.Term})
	return entry.Term, nil
}

// awaitCaughtUp returns when id holds the entry that was last committed a
// moment before. This node leads in term.
func (g *Group) awaitCaughtUp(ctx context.Context, r *raft.Raft, id ident.NodeID, term uint64) error {
	ticker := time.NewTicker(catchUpEvery)
	defer ticker.Stop()
	for {
		if r.State() != raft.Leader || r.CurrentTerm() != term {
			return raft.ErrLeadershipLost
		}
		var entry raft.Log
		index := r.CommitIndex()
		if err := g.disk.GetLog(index, &entry); err != nil {
			return fmt.Errorf("read entry %d: %w", index, err)
		}
		holds, err := g.transport.Load().tellCommitted(raft.ServerID(id), term, index, entry.Term)
		if holds {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
