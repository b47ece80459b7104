package follow

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/ident"
)

// Link opens streams to other nodes.
type Link interface {
	// Open gives a stream to the node id on which its Service.Handle answers.
	Open(ctx context.Context, id ident.NodeID) (net.Conn, error)
}

// Source is this node's copy of the log, to serve from. *replica.Replica is one.
type Source interface {
	Cursor() event.Cursor
	// Held reports whether a cursor is a place in this log.
	Held(event.Cursor) bool
	// Records gives whole records from the one with event seq on, none when
	// there is none yet. Not ok: seq is no longer held.
	Records(seq uint64, maxBytes int) ([]history.Record, bool)
	// Snapshot writes the state as it is at the call or later.
	Snapshot(w io.Writer) error
	// Subscribe gives a channel with a value after every change.
	Subscribe() (changed <-chan struct{}, release func())
}

// Sink is this node's copy of the log, to be filled. *replica.Replica is one.
type Sink interface {
	// ApplyRecord applies the next record. One that is included already changes
	// nothing; history.ErrDiverged says that it does not fit; any other error
	// ends the node.
	ApplyRecord(history.Record) error
	// Restore takes over a snapshot, unless it is not ahead. history.ErrDiverged
	// and a damaged snapshot change nothing.
	Restore(io.Reader) error
}

// Standing is what this node knows as a voter. The zero Standing is a node
// that is none.
type Standing struct {
	// Fed: Raft brings the records now, so only marks are followed.
	Fed bool
	// Leader is who leads as far as Raft knows here.
	Leader ident.NodeID
	// Epoch counts how often the fleet was recovered, Term is of that epoch.
	Epoch, Term uint64
	// Index is the last committed entry of the Raft log.
	Index  uint64
	Voters []ident.NodeID
}

// Candidate is a node that may be followed.
type Candidate struct {
	ID    ident.NodeID
	Voter bool
}

// DefaultMaxChildren is how many followers a node serves.
const DefaultMaxChildren = 8

// Config is what a Service works with. Fields are required unless they say otherwise.
type Config struct {
	Self   ident.NodeID
	Link   Link
	Source Source
	Sink   Sink
	// Standing and StandingChanged say how this node stands among the voters;
	// the channel is closed at the next change. Fed may change unannounced.
	// Both nil: this node never votes.
	Standing        func() Standing
	StandingChanged func() <-chan struct{}
	// Candidates are the members that may be reached now, without those known
	// to be dead. It may list this node.
	Candidates func() []Candidate
	// MaxChildren is 0 for DefaultMaxChildren.
	MaxChildren int
	Log         *slog.Logger
}

// Service follows a parent and serves children.
type Service struct {
	cfg   Config
	board *board
	times times

	// strange: it was said that this node's log is no part of the fleet's; for Run.
	strange bool

	mu       sync.Mutex
	parent   ident.NodeID
	children map[ident.NodeID]*child
	// snapshots holds a token for each snapshot being sent.
	snapshots chan struct{}
}

// times are fixed in production and shorter in tests.
type times struct {
	// mark is how often the leader makes a mark; tick how often a parent with
	// nothing new says so.
	mark, tick time.Duration
	// silence is when a parent is left, keepAlive how often a child speaks and
	// childSilence when a child is left.
	silence, keepAlive, childSilence time.Duration
	// stall is how long one write may take, open how long opening a stream.
	stall, open time.Duration
	// stale is the age of marks at which a fresher parent is looked for, and
	// search how long to wait before looking again.
	stale, search time.Duration
	// retryLow and retryHigh bound the pause after nobody could be followed.
	retryLow, retryHigh time.Duration
}

var shippedTimes = times{
	mark: 5 * time.Second, tick: 6 * time.Second,
	silence: 12 * time.Second, keepAlive: 30 * time.Second, childSilence: 90 * time.Second,
	stall: 10 * time.Second, open: 5 * time.Second,
	stale: 20 * time.Second, search: 45 * time.Second,
	retryLow: 100 * time.Millisecond, retryHigh: 5 * time.Second,
}

// maxSnapshots is how many children are sent a snapshot at once.
const maxSnapshots = 2

// New returns a service; it follows nobody before Run, and serves at once.
func New(cfg Config) *Service {
	if cfg.MaxChildren == 0 {
		cfg.MaxChildren = DefaultMaxChildren
	}
	if cfg.Standing == nil {
		cfg.Standing = func() Standing { return Standing{} }
		cfg.StandingChanged = func() <-chan struct{} { return nil }
	}
	return &Service{cfg: cfg, board: newBoard(cfg.Self), times: shippedTimes, children: map[ident.NodeID]*child{},
		snapshots: make(chan struct{}, maxSnapshots)}
}

// Mark is how fresh this node's copy is: the youngest mark whose seq the copy
// has reached, and its age. Everything that the leader had decided that long ago
// is in the copy. Not ok: no such mark since the start.
func (s *Service) Mark() (Mark, time.Duration, bool) {
	m, ok := s.board.reached(s.cfg.Source.Cursor().Seq, time.Now())
	return m, time.Duration(m.AgeMillis) * time.Millisecond, ok
}

// Latest is the youngest mark heard, whether or not the copy has reached it:
// who leads, who votes.
func (s *Service) Latest() (Mark, time.Duration, bool) {
	m, ok := s.board.latest(time.Now())
	return m, time.Duration(m.AgeMillis) * time.Millisecond, ok
}

// Parent is who this node follows now.
func (s *Service) Parent() (ident.NodeID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parent, s.parent != ""
}

// Children are the nodes that follow this one for the log.
func (s *Service) Children() (ids []ident.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.children {
		if !c.marksOnly {
			ids = append(ids, id)
		}
	}
	return ids
}

// Changed gives a channel that is closed at the next change of the newest mark,
// the parent or the children. Take it before looking, wait, take a new one.
func (s *Service) Changed() <-chan struct{} { return s.board.next() }

func (s *Service) setParent(id ident.NodeID) {
	s.mu.Lock()
	changed := s.parent != id
	s.parent = id
	s.mu.Unlock()
	if changed {
		s.board.touch()
	}
}
