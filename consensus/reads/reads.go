// Package reads says how fresh a read may be and makes it so: before a question
// is answered from this node's copy, Await brings the copy up to what the level
// asks for.
//
// # How
//
// The leader shows that it leads, to a majority (linearizable) or by a lease that
// such a majority gave it a moment ago (leased), and says how far its copy is.
// Another node asks it for that and waits until its own copy is as far. Leader,
// majority and copy can each be slow or gone: every read has a deadline.
//
// Questions that come while one is under way wait for the next, which answers
// all of them: neither the leader's majority nor its stream carries more than one
// question at a time for each level and node.
//
// # The protocol
//
// read/1 is one long-lived stream from a reader to the leader for each level:
// a question, an answer, and again, as JSON frames. Every member may ask.
//
// Bounds: 4 KiB a frame, 1.5 s for one try, 5 s for a read without a deadline,
// one minute until an unused stream is closed.
//
// Only node (composition), sim and tests import it.
package reads

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Protocol is the id of the streams from a reader to the leader.
const Protocol = "/skein/read/1"

// CodeTimeout: the copy was not brought up to date within the deadline.
const CodeTimeout event.Code = "timeout"

// Level is how fresh an answer must be.
type Level string

// The levels.
const (
	// Local: the copy as it is, with its age.
	Local Level = "local"
	// Leased: the same as Linearizable, as long as clocks run at about the same
	// speed: the leader vouches without asking anybody while its lease holds.
	Leased Level = "leased"
	// Linearizable: everything that was decided before the question, shown by a
	// majority.
	Linearizable Level = "linearizable"
)

// ParseLevel reads a level; "" is Local. The error is a fault of code "invalid".
func ParseLevel(text string) (Level, error) {
	switch l := Level(text); l {
	case "":
		return Local, nil
	case Local, Leased, Linearizable:
		return l, nil
	}
	return "", noLevel(text)
}

func noLevel(text string) *event.Fault {
	return event.Refuse(event.CodeInvalid, "", `use "local", "leased" or "linearizable"`, "there is no read level %q", text)
}

// Answer labels a read.
type Answer struct {
	Level Level `json:"level"`
	// Cursor is where the copy was, at least, when Await returned.
	Cursor event.Cursor `json:"cursor"`
	// Age bounds how old the answer is: everything that was decided that long
	// ago is in the copy. Negative: not known.
	Age time.Duration `json:"age"`
	// Leader vouches for it; "" when nobody does.
	Leader ident.NodeID `json:"leader,omitempty"`
}

// Seat is this node's place among the voters. On a node without one only Leader
// knows something, and the others say no.
type Seat interface {
	// Leader is who leads as far as this node knows.
	Leader() (ident.NodeID, bool)
	// VerifyLeader asks a majority whether this node still leads.
	VerifyLeader(ctx context.Context) error
	// Leased reports whether this node leads and nobody else can yet, judged by
	// when a majority last said so.
	Leased() bool
}

// Replica is this node's copy of the log.
type Replica interface {
	Wait(ctx context.Context, seq uint64) error
	Cursor() event.Cursor
}

// Config is what a Service works with. All fields are required.
type Config struct {
	Self    ident.NodeID
	Seat    Seat
	Replica Replica
	// Age is how old the copy is at most, and by whose word; false when no word
	// has come yet.
	Age func() (age time.Duration, leader ident.NodeID, known bool)
	// Open opens a stream of Protocol to a member.
	Open func(ctx context.Context, id ident.NodeID) (net.Conn, error)
	Log  *slog.Logger
}

const (
	// patience bounds a read whose context has no deadline.
	patience = 5 * time.Second
	// tryTimeout is how long one leader may take before another try.
	tryTimeout = 1500 * time.Millisecond
	// pause is the wait before another try.
	pause = 25 * time.Millisecond
)

// Service brings reads to their level. Safe for concurrent use.
type Service struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	// verify shows that this node leads; ask asks the leader, level by level.
	verify rounds[struct{}]
	ask    map[Level]*asker

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// New returns a Service. Close ends it.
func New(cfg Config) *Service {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{cfg: cfg, ctx: ctx, cancel: cancel, ask: map[Level]*asker{}}
	for _, level := range []Level{Leased, Linearizable} {
		s.ask[level] = &asker{service: s, level: level}
	}
	return s
}

// Close ends the streams to the leader; reads that need one find no leader.
func (s *Service) Close() {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	for _, a := range s.ask {
		a.drop()
	}
}

// start runs fn, unless the Service is closed.
func (s *Service) start(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Go(fn)
	return true
}

// Await returns when this node's copy is as fresh as level asks for. A ctx
// without a deadline gets one of 5 s. Errors are *event.Fault: "no_leader" when
// nobody could vouch, CodeTimeout when the copy did not catch up in time,
// "invalid" for a level that does not exist.
func (s *Service) Await(ctx context.Context, level Level) (Answer, error) {
	switch level {
	case Local:
		return s.local(), nil
	case Leased, Linearizable:
	default:
		return Answer{}, noLevel(string(level))
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	began := time.Now()
	var last error
	for {
		v, err := s.vouched(ctx, level)
		if err == nil {
			err = s.reach(ctx, v.Cursor)
		}
		if err == nil {
			return Answer{Level: level, Cursor: s.cfg.Replica.Cursor(), Age: time.Since(began), Leader: v.Leader}, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // what came after the deadline is a consequence of it
		}
		select {
		case <-ctx.Done():
			return Answer{}, expired(last)
		case <-s.ctx.Done():
			return Answer{}, noLeader("this node is being stopped")
		case <-time.After(pause):
		}
	}
}

// local is the copy as it is.
func (s *Service) local() Answer {
	a := Answer{Level: Local, Age: -1}
	if age, leader, known := s.cfg.Age(); known {
		a.Age, a.Leader = age, leader
	}
	a.Cursor = s.cfg.Replica.Cursor() // after the age: it can only be newer
	return a
}

// vouched is where a copy must be to have everything that was decided before now.
func (s *Service) vouched(ctx context.Context, level Level) (verdict, error) {
	if leader, ok := s.cfg.Seat.Leader(); ok && leader == s.cfg.Self {
		return s.vouch(ctx, level)
	}
	return s.ask[level].rounds.do(ctx, s, s.ask[level].once)
}

// vouch is asked of the leader. The cursor is taken after the leader has shown
// that it leads; whatever any leader acknowledged before the question was
// applied here before that.
func (s *Service) vouch(ctx context.Context, level Level) (verdict, error) {
	if level == Linearizable || !s.cfg.Seat.Leased() {
		_, err := s.verify.do(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.cfg.Seat.VerifyLeader(ctx) })
		if err != nil {
			return verdict{}, err
		}
	}
	return verdict{Cursor: s.cfg.Replica.Cursor(), Leader: s.cfg.Self}, nil
}

var errBehind = errors.New("this node's copy has not caught up")

// reach waits until the copy here has everything up to c.
func (s *Service) reach(ctx context.Context, c event.Cursor) error {
	if err := s.cfg.Replica.Wait(ctx, c.Seq); err != nil {
		return errors.Join(errBehind, err)
	}
	if own := s.cfg.Replica.Cursor(); own.History != c.History {
		return errors.Join(errBehind, errors.New("it is of history "+own.History+", the leader's of "+c.History))
	}
	return nil
}

// expired is the fault of a read whose time is up.
func expired(why error) *event.Fault {
	if errors.Is(why, errBehind) {
		return event.Refuse(CodeTimeout, "", "ask another node, or read what is here with the level local", "not in time: %v", why)
	}
	if fault, ok := event.FaultOf(why); ok && fault.Code == event.CodeNoLeader {
		return fault // it says so already
	}
	return noLeader(why.Error())
}

func noLeader(why string) *event.Fault {
	return event.Refuse(event.CodeNoLeader, "", "try again, or read what is here with the level local", "nobody could vouch for the newest state: %s", why)
}
