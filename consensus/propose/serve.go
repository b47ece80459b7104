package propose

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	// maxUnderWay is how many requests of one stream are being decided at once,
	// maxBytesUnderWay how many bytes of requests of all streams.
	maxUnderWay      = 1024
	maxBytesUnderWay = 32 << 20
)

// Handle serves a stream of Protocol that remote opened, until it ends, and
// closes it. remote is authenticated by the link.
func (p *Proposer) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	s := &served{p: p, from: remote, out: newOutbox(conn, func(error) { conn.Close() }), places: make(chan struct{}, maxUnderWay)}
	var writing sync.WaitGroup
	writing.Go(s.out.run)
	err := s.read(ctx, conn)
	p.cfg.Log.Debug("stream of proposals ended", "remote", remote, "error", err)
	cancel()
	stop()
	conn.Close()
	s.out.close()
	writing.Wait()
}

// served is a stream that another node opened.
type served struct {
	p    *Proposer
	from ident.NodeID
	out  *outbox
	// places holds a token for each request under way.
	places chan struct{}
	in     requests
	check  event.Decoder
}

// read takes requests until the stream ends. It neither waits for what becomes
// of one nor starts anything for it: who decides it answers.
func (s *served) read(ctx context.Context, conn net.Conn) error {
	in := bufio.NewReaderSize(conn, readBuffer)
	for {
		if in.Buffered() == 0 {
			if err := conn.SetReadDeadline(time.Now().Add(leaderTimeout)); err != nil {
				return err
			}
		}
		b, err := wire.ReadFrame(in, maxRequest)
		if err != nil {
			return err
		}
		q, drafts, err := s.in.decode(b)
		if err != nil {
			return err
		}
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		size := int64(len(b))
		if !s.p.bytes.TryAcquire(size) {
			if err := s.p.bytes.Acquire(ctx, size); err != nil {
				return err
			}
		}
		s.p.decide(&s.check, q, drafts, s.from, func(a answer) { s.answer(q.ID, size, a) })
	}
}

// answer is called once for each request.
func (s *served) answer(id uint64, size int64, a answer) {
	a.ID = id
	s.p.bytes.Release(size)
	<-s.places
	if a.Fault != nil && a.Fault.Code == event.CodeNoLeader {
		if leader, ok := s.p.cfg.Group.Leader(); ok && leader != s.p.cfg.Self {
			a.Leader = leader
		}
	}
	s.out.put(false, func(b []byte) []byte { return appendAnswer(b, &a) })
}

// decide runs at the leader: who speaks, is it well-formed, what becomes of it.
// done is called once, maybe before decide returns, and must be quick.
func (p *Proposer) decide(check *event.Decoder, q request, drafts []event.Draft, from ident.NodeID, done func(answer)) {
	if err := p.cfg.Group.Accepts(); err != nil {
		done(answerOf(replica.Outcome{}, err)) // say so before the token is judged by who should not
		return
	}
	actor := event.Actor{Kind: event.KindNode, ID: string(from)}
	if q.Token != "" {
		var err error
		if actor, err = p.cfg.Verify(q.Token); err != nil {
			done(answer{Fault: faultOf(err, event.CodeNotAllowed, "log in again", "the token is not valid")})
			return
		}
	}
	b := event.Batch{Producer: event.Producer{Node: from, Boot: q.Boot, N: q.N}, Actor: actor, Drafts: drafts}
	if err := check.Validate(&b); err != nil {
		done(answer{Fault: faultOf(err, event.CodeInvalid, "correct it", "the proposal is malformed")})
		return
	}
	if err := p.cfg.Group.Offer(b, func(o replica.Outcome, err error) { done(answerOf(o, err)) }); err != nil {
		done(answerOf(replica.Outcome{}, err))
	}
}

// answerOf puts an outcome into words.
func answerOf(o replica.Outcome, err error) answer {
	switch {
	case err != nil:
		return answer{Fault: faultOf(err, event.CodeUnknownOutcome, "try again", "the leader cannot tell what became of it")}
	case o.Err != nil:
		return answer{State: true, Fault: faultOf(o.Err, event.CodeConflict, "look at the state", "the state refuses it")}
	}
	return answer{First: o.First, Last: o.Last}
}

// faultOf is the fault in err, or a new one that says what err says.
func faultOf(err error, code event.Code, next, message string) *event.Fault {
	if fault, ok := event.FaultOf(err); ok {
		return fault
	}
	return event.Refuse(code, "", next, "%s", fmt.Sprintf("%s: %v", message, err))
}
