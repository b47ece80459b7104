package propose

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	// maxUnderWay is how many requests of one stream are being decided at once,
	// maxBytesUnderWay how many bytes of requests of all streams.
	maxUnderWay      = 256
	maxBytesUnderWay = 32 << 20
)

// Handle serves a stream of Protocol that remote opened, until it ends, and
// closes it. remote is authenticated by the link.
func (p *Proposer) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var underWay sync.WaitGroup
	defer func() {
		cancel() // before waiting: who still waits for a decision gives up
		underWay.Wait()
		stop()
		conn.Close()
	}()
	places := make(chan struct{}, maxUnderWay)
	var sendMu sync.Mutex
	for {
		b, err := readRequest(conn)
		if err != nil {
			p.cfg.Log.Debug("stream of proposals ended", "remote", remote, "error", err)
			return
		}
		q, drafts, err := decodeRequest(b)
		if err != nil {
			p.cfg.Log.Debug("unreadable proposal", "remote", remote, "error", err)
			return
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		size := int64(len(b))
		if p.bytes.Acquire(ctx, size) != nil {
			return
		}
		underWay.Go(func() {
			defer func() { p.bytes.Release(size); <-places }()
			a := p.answer(ctx, q, drafts, remote)
			sendMu.Lock()
			defer sendMu.Unlock()
			if err := sendAnswer(conn, a); err != nil {
				p.cfg.Log.Debug("answer to a proposal not delivered", "remote", remote, "error", err)
				conn.Close()
			}
		})
	}
}

func readRequest(conn net.Conn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(leaderTimeout)); err != nil {
		return nil, err
	}
	return wire.ReadFrame(conn, maxRequest)
}

func sendAnswer(conn net.Conn, a answer) error {
	b, err := encode(a)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return wire.WriteFrame(conn, b, maxAnswer)
}

// answer decides one request and puts the outcome into words.
func (p *Proposer) answer(ctx context.Context, q request, drafts []event.Draft, from ident.NodeID) answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := p.decide(ctx, q, drafts, from)
	a.ID = q.ID
	if a.Fault != nil && a.Fault.Code == event.CodeNoLeader {
		if leader, ok := p.cfg.Group.Leader(); ok && leader != p.cfg.Self {
			a.Leader = leader
		}
	}
	return a
}

// decide runs at the leader: who speaks, is it well-formed, what becomes of it.
func (p *Proposer) decide(ctx context.Context, q request, drafts []event.Draft, from ident.NodeID) answer {
	if leader, ok := p.cfg.Group.Leader(); !ok || leader != p.cfg.Self {
		return answer{Fault: errNoLeader} // say so before the token is judged by who should not
	}
	actor := event.Actor{Kind: event.KindNode, ID: string(from)}
	if q.Token != "" {
		var err error
		if actor, err = p.cfg.Verify(q.Token); err != nil {
			return answer{Fault: faultOf(err, event.CodeNotAllowed, "log in again", "the token is not valid")}
		}
	}
	b := event.Batch{Producer: event.Producer{Node: from, Boot: q.Boot, N: q.N}, Actor: actor, Drafts: drafts}
	if err := b.Validate(); err != nil {
		return answer{Fault: faultOf(err, event.CodeInvalid, "correct it", "the proposal is malformed")}
	}
	outcome, err := p.cfg.Group.Submit(ctx, b)
	if err != nil {
		return answer{Fault: faultOf(err, event.CodeUnknownOutcome, "try again", "the leader cannot tell what became of it")}
	}
	if outcome.Err != nil {
		return answer{State: true, Fault: faultOf(outcome.Err, event.CodeConflict, "look at the state", "the state refuses it")}
	}
	return answer{First: outcome.First, Last: outcome.Last}
}

// faultOf is the fault in err, or a new one that says what err says.
func faultOf(err error, code event.Code, next, message string) *event.Fault {
	if fault, ok := event.FaultOf(err); ok {
		return fault
	}
	return event.Refuse(code, "", next, "%s", fmt.Sprintf("%s: %v", message, err))
}
