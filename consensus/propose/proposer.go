package propose

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"skein/consensus/event"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

const (
	// patience bounds a proposal whose context has no deadline.
	patience = 10 * time.Second
	// tryTimeout is how long one leader may take before it is asked again, or
	// another is: one that hangs must not hold a proposal for ever.
	tryTimeout = 2 * time.Second
	// pause is the wait before another try, unless the leader becomes known.
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

	mu   sync.Mutex
	line *line // to the present leader; nil when there is none
}

// New returns a Proposer.
func New(cfg Config) *Proposer { return &Proposer{cfg: cfg} }

// Close ends the stream to the leader; proposals under way go on with a new one.
func (p *Proposer) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.line != nil {
		p.line.close(net.ErrClosed)
		p.line = nil
	}
}

// Propose has drafts decided, all or none. It returns when a majority holds
// them on disk and, if that takes at most 2 s more, this node has applied them.
// Errors are *event.Fault; "unknown_outcome" means that they may still be
// decided, so look before proposing anew.
func (p *Proposer) Propose(ctx context.Context, drafts []event.Draft, by Authority) (Receipt, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	q := request{Boot: p.cfg.Boot, N: p.n.Add(1), Token: by.Token, Drafts: drafts}
	outcome, err := p.untilDecided(ctx, q)
	if err != nil {
		return Receipt{}, err
	}
	waitCtx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := p.cfg.Replica.Wait(waitCtx, outcome.Last); err != nil {
		p.cfg.Log.Debug("decided, but not yet shown here", "seq", outcome.Last, "err", err)
	}
	return Receipt{First: outcome.First, Last: outcome.Last, Cursor: p.cfg.Replica.Cursor()}, nil
}

// untilDecided tries leader after leader.
func (p *Proposer) untilDecided(ctx context.Context, q request) (replica.Outcome, error) {
	sent := false
	for {
		outcome, err := p.try(ctx, q)
		fault, isFault := event.FaultOf(err)
		switch {
		case err == nil:
			return outcome, nil
		case isFault && fault.Code == event.CodeNoLeader:
			// Certainly not decided by this try.
		case !isFault || fault.Code == event.CodeUnknownOutcome:
			sent = true
		default:
			return replica.Outcome{}, fault
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return replica.Outcome{}, expired(sent)
		}
	}
}

// expired is the fault of a proposal whose time is up.
func expired(sent bool) *event.Fault {
	if sent {
		return event.Refuse(event.CodeUnknownOutcome, "", "look whether it happened before you propose it anew",
			"time ran out before an answer came; it may still be decided")
	}
	return event.Refuse(event.CodeNoLeader, "", "try again; `skein status` shows whether enough voters are up",
		"no leader was found in time; nothing was decided")
}

var errNoLeader = event.Refuse(event.CodeNoLeader, "", "try again", "no leader is known")

// try puts the request to the present leader once.
func (p *Proposer) try(ctx context.Context, q request) (replica.Outcome, error) {
	leader, ok := p.cfg.Group.Leader()
	if !ok {
		return replica.Outcome{}, errNoLeader
	}
	if leader == p.cfg.Self {
		return p.decide(ctx, q, p.cfg.Self)
	}
	l, err := p.lineTo(ctx, leader)
	if err != nil {
		p.cfg.Log.Debug("leader not reached", "leader", leader, "err", err)
		return replica.Outcome{}, errNoLeader
	}
	tryCtx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	a, err := l.ask(tryCtx, q)
	if err != nil {
		return replica.Outcome{}, err
	}
	if a.Fault != nil {
		return replica.Outcome{}, a.Fault
	}
	return replica.Outcome{First: a.First, Last: a.Last}, nil
}

// decide runs at the leader: who speaks, is it well-formed, what becomes of it.
func (p *Proposer) decide(ctx context.Context, q request, from ident.NodeID) (replica.Outcome, error) {
	actor := event.Actor{Kind: event.KindNode, ID: string(from)}
	if q.Token != "" {
		var err error
		if actor, err = p.cfg.Verify(q.Token); err != nil {
			if fault, ok := event.FaultOf(err); ok {
				return replica.Outcome{}, fault
			}
			return replica.Outcome{}, event.Refuse(event.CodeNotAllowed, "", "log in again", "the token is not valid: %v", err)
		}
	}
	b := event.Batch{Producer: event.Producer{Node: from, Boot: q.Boot, N: q.N}, Actor: actor, Drafts: q.Drafts}
	if err := b.Validate(); err != nil {
		return replica.Outcome{}, err
	}
	outcome, err := p.cfg.Group.Submit(ctx, b)
	if err != nil {
		return replica.Outcome{}, err
	}
	return outcome, outcome.Err
}

// lineTo is the stream to the leader, opened if there is none.
func (p *Proposer) lineTo(ctx context.Context, leader ident.NodeID) (*line, error) {
	p.mu.Lock()
	if l := p.line; l != nil {
		if l.to == leader && l.alive() {
			p.mu.Unlock()
			return l, nil
		}
		l.close(errors.New("the leader has changed"))
		p.line = nil
	}
	p.mu.Unlock()
	conn, err := p.cfg.Open(ctx, leader)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.line; l != nil && l.to == leader && l.alive() {
		conn.Close() // another caller was faster
		return l, nil
	}
	p.line = newLine(leader, conn)
	return p.line, nil
}
