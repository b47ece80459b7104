package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
)

// Bounds of group commit.
const (
	// MaxQueued is the most drafts that wait for their turn.
	MaxQueued = 4096
	// MaxEntryDrafts and MaxEntryBytes bound one entry of the log; a batch is
	// never split, so an entry may exceed them by one batch alone in it.
	MaxEntryDrafts = event.MaxDrafts
	MaxEntryBytes  = 512 << 10
	// maxInFlight is how many entries are under way at once. Two keep the disk
	// and the network busy; more only make each wait longer.
	maxInFlight = 2
	// enqueueTimeout bounds the wait for raft's main loop.
	enqueueTimeout = 5 * time.Second
)

// queued is a batch on its way.
type queued struct {
	batch event.Batch
	size  int
	done  func(replica.Outcome, error)
}

// Pending is a batch on its way.
type Pending struct {
	done chan struct{}
	out  replica.Outcome
	err  error
}

// Wait gives what became of the batch: an outcome (whose Err is the state's own
// refusal) once it is durable and applied here, or a *event.Fault. When ctx ends
// first the fault is "unknown_outcome".
func (p *Pending) Wait(ctx context.Context) (replica.Outcome, error) {
	select {
	case <-p.done:
		return p.out, p.err
	case <-ctx.Done():
		return replica.Outcome{}, unknownOutcome(ctx.Err())
	}
}

func (p *Pending) settle(out replica.Outcome, err error) {
	p.out, p.err = out, err
	close(p.done)
}

func unknownOutcome(why error) *event.Fault {
	return event.Refuse(event.CodeUnknownOutcome, "", "retry with the same producer, or read before proposing anew",
		"the proposal may or may not have been decided: %v", why)
}

func noLeader() *event.Fault {
	return event.Refuse(event.CodeNoLeader, "", "ask the leader", "this node does not lead")
}

// queue holds batches until the coalescer takes them. It is bounded by drafts.
type queue struct {
	mu     sync.Mutex
	items  []queued
	drafts int
	closed bool
	wake   chan struct{}
	// spare is memory for items.
	spare []queued
	// entryTime is how long an entry takes, averaged.
	entryTime time.Duration
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), entryTime: 10 * time.Millisecond}
}

// put appends a batch, or refuses it with the time after which to retry.
func (q *queue) put(p queued) *event.Fault {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return noLeader()
	}
	if q.drafts+len(p.batch.Drafts) > MaxQueued {
		wait := q.entryTime * time.Duration(q.drafts/MaxEntryDrafts+1) / maxInFlight
		millis := min(max(wait.Milliseconds(), 10), 5000)
		f := event.Refuse(event.CodeBusy, "", fmt.Sprintf("retry after %d ms", millis), "the leader has %d proposals waiting", q.drafts)
		f.RetryAfterMillis = millis
		return f
	}
	q.items = append(q.items, p)
	q.drafts += len(p.batch.Drafts)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take removes what fits one entry; nil when nothing waits.
func (q *queue) take() []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, drafts, bytes := 0, 0, 0
	for i := range q.items {
		p := &q.items[i]
		drafts += len(p.batch.Drafts)
		bytes += p.size
		if n > 0 && (drafts > MaxEntryDrafts || bytes > MaxEntryBytes) {
			break
		}
		q.drafts -= len(p.batch.Drafts)
		n++
	}
	taken := q.items[:n:n]
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items, q.spare = q.spare, nil // what was taken comes back when it is settled
	}
	return taken
}

// reuse takes back the memory of what was taken and settled.
func (q *queue) reuse(taken []queued) {
	clear(taken)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare = taken[:0]
}

// shut refuses everything from now on and returns what was waiting.
func (q *queue) shut() []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	left := q.items
	q.items, q.drafts = nil, 0
	return left
}

func (q *queue) observe(took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entryTime += (took - q.entryTime) / 8
}

// sent is one entry under way.
type sent struct {
	batches []queued
	future  raft.ApplyFuture
	at      time.Time
}

// Offer accepts a batch for the next entry, in order of calls, and returns at
// once. If the error is nil, done is told what became of the batch: an outcome
// (whose Err is the state's own refusal) once it is durable and applied here, or a
// *event.Fault. It is called once, and must be quick: the batches behind wait for
// it. Faults are "no_leader" (not
// this node), "busy", and those of a batch that no entry may have (see
// event.Batch.CheckEnvelope; unknown types). It does not validate further: who
// proposes for others does, see event.Batch.Validate.
func (g *Group) Offer(b event.Batch, done func(replica.Outcome, error)) error {
	if !g.inOffice() {
		return noLeader()
	}
	if g.disk.NearlyFull() {
		return g.noSpace()
	}
	// What cannot be encoded would take the other batches of its entry with it.
	if fault := b.CheckEnvelope(); fault != nil {
		return fault
	}
	for i := range b.Drafts {
		if d := &b.Drafts[i]; !event.Known(d.Type, d.Schema) {
			_, fault := b.Decode(i)
			return fault
		}
	}
	if fault := g.queue.put(queued{b, b.Size(), done}); fault != nil {
		return fault
	}
	return nil
}

// Enqueue is Offer for who wants to wait later.
func (g *Group) Enqueue(b event.Batch) (*Pending, error) {
	p := &Pending{done: make(chan struct{})}
	if err := g.Offer(b, p.settle); err != nil {
		return nil, err
	}
	return p, nil
}

// Submit enqueues a batch and waits for it: see Enqueue and Pending.Wait.
func (g *Group) Submit(ctx context.Context, b event.Batch) (replica.Outcome, error) {
	p, err := g.Enqueue(b)
	if err != nil {
		return replica.Outcome{}, err
	}
	return p.Wait(ctx)
}

// coalesce makes entries of what waits, as soon as one may be under way. It
// needs no timer: while entries are under way, more batches gather.
func (g *Group) coalesce(ctx context.Context, r *raft.Raft, underWay chan<- sent) {
	defer close(underWay)
	var clock int64
	for {
		select {
		case <-g.queue.wake:
		case <-ctx.Done():
			return
		}
		for {
			batches := g.queue.take()
			if len(batches) == 0 {
				break
			}
			if g.disk.LookAtDisk() {
				settleAll(batches, g.noSpace()) // raft would step down
				continue
			}
			s := sent{batches: batches, at: time.Now()}
			g.teller.sending.Add(1)
			clock = max(clock, g.cfg.Now().UnixMilli()) // never back while this node leads
			s.future = apply(r, clock, batches)
			select {
			case underWay <- s:
			case <-ctx.Done():
				g.lose(s, ctx.Err())
				return
			}
		}
	}
}

// apply hands one entry to raft.
func apply(r *raft.Raft, timeMillis int64, batches []queued) raft.ApplyFuture {
	entry := replica.Entry{TimeMillis: timeMillis, Batches: make([]event.Batch, 0, len(batches))}
	for _, p := range batches {
		entry.Batches = append(entry.Batches, p.batch)
	}
	data, err := replica.EncodeEntry(entry)
	if err != nil {
		return refused{event.Refuse(event.CodeInvalid, "", "propose less at once", "the proposals cannot be encoded: %v", err)}
	}
	return r.Apply(data, enqueueTimeout)
}

// refused is a future of what never reached raft.
type refused struct{ error }

func (f refused) Error() error  { return f.error }
func (f refused) Response() any { return nil }
func (f refused) Index() uint64 { return 0 }

// deliver gives every batch its outcome, entry by entry.
func (g *Group) deliver(ctx context.Context, underWay <-chan sent) {
	for s := range underWay {
		answered := make(chan error, 1)
		go func() { answered <- s.future.Error() }()
		select {
		case err := <-answered:
			g.settle(s, err)
		case <-ctx.Done():
			g.lose(s, raft.ErrRaftShutdown)
		}
	}
}

// settle tells who waits for an entry what became of it.
func (g *Group) settle(s sent, err error) {
	g.teller.sending.Add(-1)
	if failed := g.failure.get(); failed != nil && err == nil {
		err = failed // never acknowledge after a failure
	}
	switch {
	case errors.Is(err, raftlog.ErrNoSpace): // raft stored nothing and sent nothing
		settleAll(s.batches, g.noSpace())
		return
	case err != nil:
		settleAll(s.batches, faultOf(err))
		return
	}
	a := s.future.Response().(applied)
	if a.err == nil && len(a.outcomes) != len(s.batches) {
		a.err = fmt.Errorf("machine gave %d outcomes for %d batches", len(a.outcomes), len(s.batches))
	}
	if a.err != nil {
		settleAll(s.batches, unknownOutcome(a.err))
		return
	}
	g.queue.observe(time.Since(s.at))
	g.tellLater(committed{term: a.term, index: s.future.Index(), entryTerm: a.term})
	for i, p := range s.batches {
		p.done(a.outcomes[i], nil)
	}
	g.queue.reuse(s.batches)
}

// lose settles an entry whose fate is not known.
func (g *Group) lose(s sent, why error) {
	g.teller.sending.Add(-1)
	settleAll(s.batches, unknownOutcome(why))
}

func settleAll(batches []queued, fault *event.Fault) {
	for _, p := range batches {
		p.done(replica.Outcome{}, fault)
	}
}

// faultOf sorts raft's errors by whether the entry can be in the log.
func faultOf(err error) *event.Fault {
	if fault, ok := event.FaultOf(err); ok {
		return fault
	}
	for _, never := range []error{raft.ErrNotLeader, raft.ErrEnqueueTimeout, raft.ErrLeadershipTransferInProgress} {
		if errors.Is(err, never) {
			return noLeader()
		}
	}
	return unknownOutcome(err)
}
