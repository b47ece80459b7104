package rescue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"skein/consensus/audit"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// RaftCopy is the copy of the log that a voter's own Raft log gives back.
type RaftCopy struct {
	// Cursor is behind the last event. With more voters than this one the last
	// events may not have been decided.
	Cursor event.Cursor `json:"cursor"`
	// After is the event after which the copy begins: what came before is in the
	// state, but not in the log any more. 0 when the copy has every event.
	After uint64 `json:"after"`
	// Voters is how many voters there are, this node included.
	Voters int `json:"voters"`
}

// String says how the copy comes back, in sentences.
func (c RaftCopy) String() string {
	text := fmt.Sprintf("its copy of the log comes back from its own Raft log, which has everything up to event %d.", c.Cursor.Seq)
	if c.After > 0 {
		text += fmt.Sprintf(" The events up to %d themselves are not in it, only what they led to.", c.After)
	}
	if c.Voters > 1 {
		text += fmt.Sprintf(" It has %d voters; the copy is back when most of them run.", c.Voters)
	}
	return text
}

// whatToMove says which folders of a node that reaches nobody go aside, and what
// then brings its copy of the log back, nil if nothing does. It refuses what
// would lose events, unless alone.
func (s *stopped) whatToMove(ctx context.Context, folders []string, alone bool) ([]string, *RaftCopy, error) {
	log, raft := s.dir.Log(), s.dir.Raft()
	if slices.Equal(folders, []string{log}) {
		return s.orRefuse(folders, alone, "")
	}
	held := slices.Contains(folders, log)
	if held {
		if why, err := broken(ctx, log); err != nil {
			return nil, nil, err
		} else if why == "" {
			return s.orRefuse(folders, alone, fmt.Sprintf("no damage was found in its copy, so try to start it; with --alone its votes and its Raft log, %s, are moved aside too, and lost with what no other node has", raft))
		}
	}
	c, err := s.tryRaft(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case err != nil:
		return s.orRefuse(folders, alone, fmt.Sprintf("its Raft log, %s, does not give the copy back (%s); with --alone that is moved aside too, with its votes, and what it still holds is lost",
			raft, strings.ReplaceAll(err.Error(), "\n", "; ")))
	case held:
		return []string{log}, &c, nil
	}
	return s.orRefuse(folders, alone, "there is no need to: just start the node, "+c.String()+" With --alone that Raft log is moved aside, and all this is lost")
}

// orRefuse lets all folders be moved if alone, and else says what that would mean.
func (s *stopped) orRefuse(folders []string, alone bool, more string) ([]string, *RaftCopy, error) {
	if alone {
		return folders, nil, nil
	}
	if more != "" {
		more = ". This node: " + more
	}
	return nil, nil, refusal("no other node answers, from which the log could be fetched; start one, or name it with --peer HOST:PORT; "+
		"if this is the last copy and nothing else helps, `skein resync --alone` and then `skein restore` a backup: what was decided since the backup is lost%s", more)
}

// broken says what is wrong with the copy of the log in dir, "" if nothing is.
func broken(ctx context.Context, dir string) (why string, err error) {
	report, err := audit.Directory(ctx, dir, false)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return err.Error(), nil
	case !report.OK():
		return fmt.Sprint(report.Findings[0]), nil
	}
	return "", nil
}

// trialName is the folder in the data directory in which it is tried what the
// Raft log gives.
const trialName = "resyncing"

// tryRaft makes a copy of the log from the Raft log, in a folder of its own that
// is gone afterwards, as the node does when it starts: from the newest snapshot,
// if there is one, and the entries behind it. An error says why it cannot.
func (s *stopped) tryRaft(ctx context.Context) (c RaftCopy, err error) {
	if note, err := readBegun(filepath.Join(s.dir.Path(), begunName)); err != nil {
		return c, err
	} else if note != nil {
		return c, errors.New("a recovery was under way, and it is of before")
	}
	heard, err := s.heard()
	if err != nil {
		return c, err
	}
	kind, err := raftlog.KindOf(s.dir.Raft())
	if err != nil {
		return c, err
	}
	if kind == "" {
		return c, errors.New("it has no marker")
	}
	trial := filepath.Join(s.dir.Path(), trialName)
	if err := os.RemoveAll(trial); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(trial)) }()
	r, err := replica.Open(trial, replica.Options{})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := s.replay(ctx, kind, r); err != nil {
		return c, err
	}
	r.ViewAt(func(state *fleet.State, at event.Cursor) {
		c = RaftCopy{Cursor: at, After: r.First() - 1, Voters: len(state.Voters())}
		switch {
		case !slices.Contains(state.Voters(), s.key.ID()):
			err = errors.New("this node is no voter in it")
		case heard > state.Recoveries():
			err = errors.New("the fleet was recovered or restored without it")
		}
	})
	return c, err
}

// unlinked is the link of a group that is never run.
type unlinked struct{}

func (unlinked) Open(context.Context, ident.NodeID) (net.Conn, error) {
	return nil, errors.New("the node is stopped")
}

// replay fills an empty replica from the Raft log.
func (s *stopped) replay(ctx context.Context, kind raftlog.Kind, r *replica.Replica) error {
	g, err := raftgroup.New(raftgroup.Config{ID: s.key.ID(), Dir: s.dir.Raft(), Store: kind, Link: unlinked{}, Machine: r, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := g.Close(); err != nil {
		return err
	}
	index, _ := r.Applied()
	return raftlog.Entries(s.dir.Raft(), s.key.ID(), index, func(index, term uint64, data []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := r.ApplyEntry(index, term, data)
		return err
	})
}
