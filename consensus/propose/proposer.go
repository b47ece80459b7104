package propose

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"skein/consensus/event"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

const (
	// patience bounds a proposal whose context has no deadline. It is shorter than
	// the 10 s that a command waits for its answer, so that the answer is "no
	// leader" and not silence.
	patience = 8 * time.Second
	// tryTimeout is how long one leader may take before it is asked again, or
	// another is: one that hangs must not hold a proposal for ever.
	tryTimeout = 3 * time.Second
	// pause is the wait before another try, unless another leader was named.
	pause = 25 * time.Millisecond
	// catchUp is how long a receipt waits for this node to show the events.
	catchUp = 2 * time.Second
)

// Group is this node's seat among the voters.
type Group interface {
	// Submit decides a batch if this node leads; else a fault of code "no_leader".
	Submit(ctx context.Context, b event.Batch) (replica.Outcome, error)
	// Leader is who leads as far as this node knows.
	Leader() (ident.NodeID, bool)
}

// Replica is this node's copy of the log.
type Replica interface {
	Wait(ctx context.Context, seq uint64) error
	Cursor() event.Cursor
}

// Config is what a Proposer works with. All fields are required.
type Config struct {
	Self ident.NodeID
	// Boot is higher at each start of the node.
	Boot    uint64
	Group   Group
	Replica Replica
	// Open opens a stream of Protocol to a member.
	Open func(ctx context.Context, id ident.NodeID) (net.Conn, error)
	// Verify says who a person's token names. It is asked at the leader only;
	// its errors are faults of code "not_allowed".
	Verify func(token string) (event.Actor, error)
	Log    *slog.Logger
}

// Authority is in whose name something is proposed. The zero Authority is this
// node's own, for what a node may say about itself.
type Authority struct {
	// Token is a person's.
	Token string
}

// Receipt says which events a proposal became.
type Receipt struct {
	First, Last uint64
	// Cursor is where this node is: at Last or later, unless it fell behind.
	Cursor event.Cursor
}

// Proposer takes proposals to the leader. Safe for concurrent use.
type Proposer struct {
	cfg Config
	n   atomic.Uint64
	// bytes bounds the requests of others that are under way here.
	bytes *semaphore.Weighted

	// opening holds a token while a stream is being opened.
	opening chan struct{}

	mu     sync.Mutex
	line   *line // to the present leader; nil when there is none
	closed bool
}

// New returns a Proposer.
func New(cfg Config) *Proposer {
	return &Proposer{cfg: cfg, bytes: semaphore.NewWeighted(maxBytesUnderWay), opening: make(chan struct{}, 1)}
}

// Close ends the stream to the leader; proposals from here on, and those under
// way that need the stream, find no leader.
func (p *Proposer) Close() {
	p.mu.Lock()
	p.closed = true
	l := p.line
	p.line = nil
	p.mu.Unlock()
	if l != nil {
		l.close(net.ErrClosed)
		<-l.gone
	}
}

// Propose has drafts decided, all or none. It returns when a majority holds
// them on disk and, if that takes at most 2 s more, this node has applied them.
// Errors are *event.Fault; "unknown_outcome" means that they may still be
// decided, so look before proposing anew; with "busy", wait for
// RetryAfterMillis.
func (p *Proposer) Propose(ctx context.Context, drafts []event.Draft, by Authority) (Receipt, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	encoded, err := encode(drafts)
	if err != nil || len(encoded) > maxRequest-maxAnswer {
		return Receipt{}, event.Refuse(event.CodeInvalid, "", "propose less at once, with data that is JSON",
			"the proposal cannot be sent (%d bytes encoded, %v)", len(encoded), err)
	}
	q := request{Boot: p.cfg.Boot, N: p.n.Add(1), Token: by.Token, Drafts: encoded}
	a, fault := p.untilDecided(ctx, q, drafts)
	if fault != nil {
		return Receipt{}, fault
	}
	waitCtx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := p.cfg.Replica.Wait(waitCtx, a.Last); err != nil {
		p.cfg.Log.Debug("decided, but not yet shown here", "seq", a.Last, "error", err)
	}
	return Receipt{First: a.First, Last: a.Last, Cursor: p.cfg.Replica.Cursor()}, nil
}

// untilDecided tries leader after leader.
func (p *Proposer) untilDecided(ctx context.Context, q request, drafts []event.Draft) (answer, *event.Fault) {
	var (
		maybe bool // an earlier try may have got it decided
		hint  ident.NodeID
	)
	for {
		a, err := p.try(ctx, q, drafts, hint)
		if err == nil && a.Fault == nil {
			return a, nil
		}
		wait := time.Duration(pause)
		switch {
		case err != nil || a.Fault.Code == event.CodeUnknownOutcome && !a.State:
			maybe = true
		case a.Fault.Code == event.CodeNoLeader:
			// Certainly not decided by this try.
		case a.State || !maybe:
			return answer{}, a.Fault
		default:
			wait = max(wait, time.Duration(a.Fault.RetryAfterMillis)*time.Millisecond)
		}
		if a.Leader != "" && hint == "" {
			hint = a.Leader // ask there at once, but only once before the next pause
			continue
		}
		hint = ""
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return answer{}, expired(maybe)
		}
	}
}

// expired is the fault of a proposal whose time is up.
func expired(maybe bool) *event.Fault {
	if maybe {
		return event.Refuse(event.CodeUnknownOutcome, "", "look whether it happened before you propose it anew",
			"time ran out before an answer came; it may still be decided")
	}
	return event.Refuse(event.CodeNoLeader, "", "try again; `skein status` shows whether enough voters are up",
		"no leader was found in time; nothing was decided")
}

var errNoLeader = event.Refuse(event.CodeNoLeader, "", "try again", "no leader is known")

// try puts the request to the present leader once, or to hint if that is set.
// An error means that it is not known what became of it.
func (p *Proposer) try(ctx context.Context, q request, drafts []event.Draft, hint ident.NodeID) (answer, error) {
	leader, ok := hint, hint != ""
	if !ok {
		leader, ok = p.cfg.Group.Leader()
	}
	if !ok {
		return answer{Fault: errNoLeader}, nil
	}
	if leader == p.cfg.Self {
		return p.decide(ctx, q, drafts, p.cfg.Self), nil
	}
	l, err := p.lineTo(ctx, leader)
	if err != nil {
		p.cfg.Log.Debug("leader not reached", "leader", leader, "error", err)
		return answer{Fault: errNoLeader}, nil
	}
	return l.ask(ctx, q)
}

var errLeaderChanged = errors.New("the leader has changed")

// lineTo is the stream to the leader, opened if there is none.
func (p *Proposer) lineTo(ctx context.Context, leader ident.NodeID) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	l, closed := p.line, p.closed
	p.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case l != nil && l.to == leader && l.alive():
		return l, nil
	case l != nil:
		l.close(errLeaderChanged)
	}
	conn, err := p.cfg.Open(ctx, leader)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	p.line = newLine(leader, conn)
	return p.line, nil
}
