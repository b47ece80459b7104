package propose

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// maxUnderWay is how many requests of one stream are being decided at once.
const maxUnderWay = 256

// Handle serves a stream of Protocol that remote opened, until it ends, and
// closes it. remote is authenticated by the link.
func (p *Proposer) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	defer cancel() // before waiting: who still waits for a decision gives up
	places := make(chan struct{}, maxUnderWay)
	var sendMu sync.Mutex
	for {
		q, err := readRequest(conn)
		if err != nil {
			p.cfg.Log.Debug("stream of proposals ended", "peer", remote, "err", err)
			return
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		underWay.Go(func() {
			defer func() { <-places }()
			a := p.answer(ctx, q, remote)
			sendMu.Lock()
			defer sendMu.Unlock()
			if conn.SetWriteDeadline(time.Now().Add(sendTimeout)) != nil || wire.WriteJSON(conn, a, maxAnswer) != nil {
				conn.Close()
			}
		})
	}
}

// answer decides one forwarded request. A node that is not the leader says so
// and never forwards further, so that proposals cannot go in circles.
func (p *Proposer) answer(ctx context.Context, q request, remote ident.NodeID) answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	outcome, err := p.decide(ctx, q, remote)
	if err == nil {
		return answer{ID: q.ID, First: outcome.First, Last: outcome.Last}
	}
	fault, ok := event.FaultOf(err)
	if !ok {
		fault = event.Refuse(event.CodeUnknownOutcome, "", "try again", "the leader could not tell what became of it: %v", err)
		if errors.Is(err, context.Canceled) {
			fault.Message = "the leader stopped before it was decided"
		}
	}
	return answer{ID: q.ID, Fault: fault}
}
