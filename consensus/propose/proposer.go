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
	pause time.Duration = 25 * time.Millisecond
	// catchUp is how long a receipt waits for this node to show the events.
	catchUp = 2 * time.Second
)

// Group is this node's seat among the voters.
type Group interface {
	// Offer has a batch decided if this node leads; else the error is a fault of
	// code "no_leader". If there is none, done is told once what became of it.
	Offer(b event.Batch, done func(replica.Outcome, error)) error
	// Leader is who leads as far as this node knows.
	Leader() (ident.NodeID, bool)
	// Accepts is nil if this node leads and has applied what was decided before (a
	// leader that has not would take a good person's token for a bad one), and else
	// the fault to refuse a proposal with.
	Accepts() error
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
	cfg     Config
	numbers window
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
		l.running.Wait()
	}
}

// Propose has drafts decided, all or none. It returns when a majority holds
// them on disk and, if that takes at most 2 s more, this node has applied them.
// Errors are *event.Fault; "unknown_outcome" means that they may still be
// decided, so look before proposing anew; with "busy", wait for
// RetryAfterMillis.
func (p *Proposer) Propose(ctx context.Context, drafts []event.Draft, by Authority) (Receipt, error) {
	w, err := p.Start(ctx, drafts, by)
	if err != nil {
		return Receipt{}, err
	}
	return w.Wait(ctx)
}

// Pending is a proposal under way.
type Pending struct {
	p      *Proposer
	ctx    context.Context
	until  time.Time
	q      request
	drafts []event.Draft
	// maybe: an earlier try may have got it decided; sent: the present one may.
	maybe, sent atomic.Bool
	done        chan struct{}
	// answer and fault belong to who closes done, and then to all.
	answer answer
	fault  *event.Fault
}

// Start is Propose that does not wait: many proposals can be under way without
// a goroutine for each. They are proposed in the order of calls, but may be
// decided in another when the leader changes or refuses one as "busy". ctx bounds
// the tries, 8 s do if it has no deadline. It waits while 1000 are under way, or
// more is to be sent than the leader takes. The drafts must not be changed any more.
func (p *Proposer) Start(ctx context.Context, drafts []event.Draft, by Authority) (*Pending, error) {
	size := 16
	for i := range drafts {
		size += len(drafts[i].Stream) + len(drafts[i].Type) + len(drafts[i].Cause) + len(drafts[i].Data) + 32
	}
	if len(by.Token) > maxToken || size > maxRequest-maxAnswer || len(drafts) > event.MaxDrafts {
		return nil, event.Refuse(event.CodeInvalid, "", "propose less at once", "the proposal cannot be sent (%d drafts, about %d bytes)", len(drafts), size)
	}
	n, fault := p.numbers.take(ctx)
	if fault != nil {
		return nil, fault
	}
	w := &Pending{p: p, ctx: ctx, until: time.Now().Add(patience), drafts: drafts, done: make(chan struct{}),
		q: request{Boot: p.cfg.Boot, N: n, Token: by.Token, Drafts: appendDrafts(make([]byte, 0, size), drafts)}}
	if deadline, ok := ctx.Deadline(); ok {
		w.until = deadline
	}
	leader, ok := p.cfg.Group.Leader()
	switch {
	case ctx.Err() != nil:
		w.settle(answer{}, expired(false))
	case ok && leader == p.cfg.Self:
		w.sent.Store(true)
		p.decide(new(event.Decoder), w.q, drafts, p.cfg.Self, func(a answer) { w.first(a, nil) })
	default:
		p.mu.Lock()
		l := p.line
		p.mu.Unlock()
		if ok && l != nil && l.to == leader && l.alive() {
			w.sent.Store(true)
			l.post(w.q, w.first)
			break
		}
		go w.persist(try{}) // ends with ctx, at the latest at until
	}
	return w, nil
}

// Wait gives what became of the proposal: see Propose.
func (w *Pending) Wait(ctx context.Context) (Receipt, error) {
	timer := time.NewTimer(time.Until(w.until))
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
		return w.give()
	case <-ctx.Done():
		return w.give()
	}
	if w.fault != nil {
		return Receipt{}, w.fault
	}
	a := w.answer
	if cursor := w.p.cfg.Replica.Cursor(); cursor.Seq >= a.Last {
		return Receipt{First: a.First, Last: a.Last, Cursor: cursor}, nil
	}
	waitCtx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := w.p.cfg.Replica.Wait(waitCtx, a.Last); err != nil {
		w.p.cfg.Log.Debug("decided, but not yet shown here", "seq", a.Last, "error", err)
	}
	return Receipt{First: a.First, Last: a.Last, Cursor: w.p.cfg.Replica.Cursor()}, nil
}

// give ends the waiting for a proposal that is still under way.
func (w *Pending) give() (Receipt, error) {
	select {
	case <-w.done:
		if w.fault == nil {
			return Receipt{First: w.answer.First, Last: w.answer.Last, Cursor: w.p.cfg.Replica.Cursor()}, nil
		}
		return Receipt{}, w.fault
	default:
		return Receipt{}, expired(w.maybe.Load() || w.sent.Load())
	}
}

func (w *Pending) settle(a answer, fault *event.Fault) {
	w.answer, w.fault = a, fault
	close(w.done)
	w.p.numbers.settle(w.q.N)
}

// first is told what became of the first try, which needs no goroutine of its own.
func (w *Pending) first(a answer, err error) {
	next, decided := w.judge(a, err)
	if !decided {
		go w.persist(next) // ends with ctx, at the latest at until
	}
}

// try is what is known before a try.
type try struct {
	// wait is how long to wait before it.
	wait time.Duration
	// hint is whom to ask; "" is whom this node takes for the leader.
	hint ident.NodeID
}

// judge settles the proposal if a try has decided it, or says how to go on.
func (w *Pending) judge(a answer, err error) (next try, decided bool) {
	next.wait = pause
	defer w.sent.Store(false)
	switch {
	case err == nil && a.Fault == nil:
		w.settle(a, nil)
		return next, true
	case err != nil || a.Fault.Code == event.CodeUnknownOutcome && !a.State:
		w.maybe.Store(true)
	case a.Fault.Code == event.CodeNoLeader:
		// Certainly not decided by this try.
	case a.State || !w.maybe.Load():
		w.settle(answer{}, a.Fault)
		return next, true
	default:
		next.wait = max(next.wait, time.Duration(a.Fault.RetryAfterMillis)*time.Millisecond)
	}
	if a.Leader != "" {
		next = try{hint: a.Leader} // ask there at once
	}
	return next, false
}

// persist tries leader after leader.
func (w *Pending) persist(next try) {
	ctx, cancel := context.WithDeadline(w.ctx, w.until)
	defer cancel()
	hinted := false
	for {
		if hinted && next.hint != "" {
			next = try{wait: pause} // only once before the next pause: they may name each other
		}
		hinted = next.hint != ""
		timer := time.NewTimer(next.wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			w.settle(answer{}, expired(w.maybe.Load()))
			return
		}
		a, err := w.try(ctx, next.hint)
		var decided bool
		if next, decided = w.judge(a, err); decided {
			return
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
func (w *Pending) try(ctx context.Context, hint ident.NodeID) (answer, error) {
	p := w.p
	leader, ok := hint, hint != ""
	if !ok {
		leader, ok = p.cfg.Group.Leader()
	}
	if !ok {
		return answer{Fault: errNoLeader}, nil
	}
	if leader == p.cfg.Self {
		got := make(chan answer, 1)
		w.sent.Store(true)
		p.decide(new(event.Decoder), w.q, w.drafts, p.cfg.Self, func(a answer) { got <- a })
		select {
		case a := <-got:
			return a, nil
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
	l, err := p.lineTo(ctx, leader)
	if err != nil {
		p.cfg.Log.Debug("leader not reached", "leader", leader, "error", err)
		return answer{Fault: errNoLeader}, nil
	}
	w.sent.Store(true)
	return l.ask(ctx, w.q)
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
