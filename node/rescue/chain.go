package rescue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// ChainProtocol is the id of streams on which a node says how far its copy of
// the log is. Members only.
const ChainProtocol = "/skein/chain/1"

const (
	// chainTimeout bounds one question and its answer, fetchStall each message
	// of records after it.
	chainTimeout = 4 * time.Second
	fetchStall   = 10 * time.Second
	// fetchBytes is how much of the log is read at once.
	fetchBytes = 256 << 10
)

// ErrNotAhead: the node that was asked has no records for the asker.
var ErrNotAhead = errors.New("the node asked has no records that continue this log")

// Question is what a node asks another about its copy of the log.
type Question struct {
	// Cursor is the asker's place; zero if it does not know it.
	Cursor event.Cursor `json:"cursor"`
	// Records: send what comes after Cursor, if that is in your log.
	Records bool `json:"records,omitempty"`
}

// Standing is how far a node's copy of the log is, and what it knows of the
// fleet. It is of kind "own": one node's word about itself.
type Standing struct {
	Cursor event.Cursor `json:"cursor"`
	// Recoveries counts how often the log was recovered or restored: the epoch.
	// A node with more is of a newer fleet than one with fewer.
	Recoveries uint64 `json:"recoveries"`
	// Held: the asker's cursor is a place in this node's log.
	Held bool `json:"held"`
	// Leader is who leads as far as the node knows, and LeaderAgeMillis how long
	// ago it had last heard of that; -1 when it never has.
	Leader          ident.NodeID `json:"leader,omitempty"`
	LeaderAgeMillis int64        `json:"leaderAgeMillis"`
	// YouVote: in this node's log the asker is a voter.
	YouVote bool `json:"youVote"`
	// Sends: records follow.
	Sends bool `json:"sends,omitempty"`
}

// Chain is a node's copy of the log. *replica.Replica is one.
type Chain interface {
	ViewAt(func(*fleet.State, event.Cursor))
	Held(event.Cursor) bool
	Records(seq uint64, maxBytes int) (records []history.Record, ok bool)
}

// ServeConfig is what ServeChain answers from.
type ServeConfig struct {
	Chain Chain
	// Leader is who leads as far as the node knows and how long ago it heard so;
	// not ok when it never has. Nil knows nothing.
	Leader func() (leader ident.NodeID, age time.Duration, ok bool)
}

// ServeChain answers one question and closes the stream. remote is
// authenticated by the link.
func ServeChain(ctx context.Context, conn net.Conn, remote ident.NodeID, c ServeConfig) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(chainTimeout))
	var q Question
	if err := wire.ReadJSON(conn, &q, wire.MaxControl); err != nil {
		return fmt.Errorf("read question about the log: %w", err)
	}
	s := Standing{LeaderAgeMillis: -1}
	c.Chain.ViewAt(func(state *fleet.State, at event.Cursor) {
		asker, _ := state.Node(remote)
		s.Cursor, s.Recoveries, s.YouVote = at, state.Recoveries(), asker.Voter
	})
	if q.Cursor.Seq <= s.Cursor.Seq {
		s.Held = c.Chain.Held(q.Cursor)
	}
	if c.Leader != nil {
		if leader, age, ok := c.Leader(); ok {
			s.Leader, s.LeaderAgeMillis = leader, age.Milliseconds()
		}
	}
	s.Sends = q.Records && s.Held && q.Cursor.Seq < s.Cursor.Seq
	if err := wire.WriteJSON(conn, s, wire.MaxControl); err != nil {
		return fmt.Errorf("answer question about the log: %w", err)
	}
	if !s.Sends {
		return nil
	}
	return sendRecords(conn, c.Chain, q.Cursor.Seq, s.Cursor.Seq)
}

// sendRecords sends the records after event from up to event to, then an empty
// message.
func sendRecords(conn net.Conn, chain Chain, from, to uint64) error {
	for from < to {
		records, ok := chain.Records(from+1, fetchBytes)
		if !ok || len(records) == 0 {
			return fmt.Errorf("send records: event %d is not held here any more", from+1)
		}
		for _, r := range records {
			conn.SetDeadline(time.Now().Add(fetchStall))
			if err := wire.WriteFrame(conn, r.Bytes(), history.MaxRecord); err != nil {
				return fmt.Errorf("send records: %w", err)
			}
			from = r.Last()
		}
	}
	return wire.WriteFrame(conn, nil, 0)
}

// AskChain asks the node at the other end of conn. It reads records only when
// each is given and they were asked for: each gets them in order, and its error
// ends the exchange. ErrNotAhead says that none came. It does not close conn.
func AskChain(ctx context.Context, conn net.Conn, q Question, each func(history.Record) error) (Standing, error) {
	var s Standing
	conn.SetDeadline(time.Now().Add(chainTimeout))
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if err := ctx.Err(); err != nil {
		return s, fmt.Errorf("ask about the log: %w", err)
	}
	q.Records = q.Records && each != nil
	if err := wire.WriteJSON(conn, q, wire.MaxControl); err != nil {
		return s, fmt.Errorf("ask about the log: %w", err)
	}
	if err := wire.ReadJSON(conn, &s, wire.MaxControl); err != nil {
		return s, fmt.Errorf("read answer about the log: %w", err)
	}
	if !q.Records {
		return s, nil
	}
	if !s.Sends {
		return s, ErrNotAhead
	}
	for {
		conn.SetDeadline(time.Now().Add(fetchStall))
		if err := ctx.Err(); err != nil {
			return s, fmt.Errorf("fetch records: %w", err)
		}
		b, err := wire.ReadFrame(conn, history.MaxRecord)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return s, fmt.Errorf("fetch records: %w", err)
		}
		if len(b) == 0 {
			return s, nil
		}
		r, err := history.ParseRecord(b)
		if err == nil {
			err = each(r)
		}
		if err != nil {
			return s, fmt.Errorf("fetch records: %w", err)
		}
	}
}
