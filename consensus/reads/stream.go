package reads

import (
	"context"
	"errors"
	"net"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	// maxFrame bounds a question and an answer.
	maxFrame = 4 << 10
	// unusedTimeout ends a stream on which nothing is asked. The leader waits a
	// little longer, so that it is the reader who closes.
	unusedTimeout = time.Minute
	leaderTimeout = unusedTimeout + 30*time.Second
)

// question is all that a reader says.
type question struct {
	Level Level `json:"level"`
}

// verdict is what the leader answers: a cursor, or a fault.
type verdict struct {
	Cursor event.Cursor `json:"cursor"`
	// Leader vouches; in a refusal it is who leads instead.
	Leader ident.NodeID `json:"leader,omitempty"`
	Fault  *event.Fault `json:"fault,omitempty"`
}

// asker asks the leader, one question at a time.
type asker struct {
	service *Service
	level   Level
	rounds  rounds[verdict]
	// to, conn and used are the stream; they belong to the round that runs.
	to   ident.NodeID
	conn net.Conn
	used time.Time
}

// once puts one question to whom this node takes for the leader, and if that one
// names another, to that.
func (a *asker) once(ctx context.Context) (verdict, error) {
	leader, ok := a.service.cfg.Seat.Leader()
	if !ok {
		return verdict{}, noLeader("no leader is known")
	}
	v, err := a.put(ctx, leader)
	if err == nil && v.Fault != nil && v.Leader != "" && v.Leader != leader && v.Leader != a.service.cfg.Self {
		v, err = a.put(ctx, v.Leader)
	}
	if err != nil {
		return verdict{}, noLeader(err.Error())
	}
	if v.Fault != nil {
		return verdict{}, v.Fault
	}
	return v, nil
}

// put asks one node. A stream that was used before may have gone stale: one that
// fails is opened anew.
func (a *asker) put(ctx context.Context, to ident.NodeID) (verdict, error) {
	fresh := false
	if a.conn != nil && (a.to != to || time.Since(a.used) > unusedTimeout) {
		a.drop()
	}
	for {
		if a.conn == nil {
			conn, err := a.service.cfg.Open(ctx, to)
			if err != nil {
				return verdict{}, err
			}
			a.conn, a.to, fresh = conn, to, true
		}
		v, err := a.exchange(ctx)
		if err == nil {
			a.used = time.Now()
			return v, nil
		}
		a.drop()
		if fresh || ctx.Err() != nil {
			return verdict{}, err
		}
	}
}

func (a *asker) exchange(ctx context.Context) (v verdict, err error) {
	conn := a.conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return v, err
		}
	}
	if err := wire.WriteJSON(conn, question{a.level}, maxFrame); err != nil {
		return v, err
	}
	if err := wire.ReadJSON(conn, &v, maxFrame); err != nil {
		return v, err
	}
	if !stop() {
		return v, errors.Join(context.Cause(ctx), net.ErrClosed)
	}
	return v, nil
}

// drop closes the stream.
func (a *asker) drop() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// Handle serves a stream of Protocol that remote opened, until it ends, and
// closes it.
func (s *Service) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	end := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer end()
	for {
		if err := s.serveOne(ctx, conn); err != nil {
			s.cfg.Log.Debug("stream of reads ended", "remote", remote, "error", err)
			return
		}
	}
}

func (s *Service) serveOne(ctx context.Context, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(leaderTimeout)); err != nil {
		return err
	}
	var q question
	if err := wire.ReadJSON(conn, &q, maxFrame); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * tryTimeout)); err != nil {
		return err
	}
	return wire.WriteJSON(conn, s.answer(ctx, q), maxFrame)
}

// answer is given by whoever is asked.
func (s *Service) answer(ctx context.Context, q question) verdict {
	leader, known := s.cfg.Seat.Leader()
	switch {
	case q.Level != Leased && q.Level != Linearizable:
		return verdict{Fault: noLevel(string(q.Level))}
	case !known:
		return verdict{Fault: noLeader("no leader is known")}
	case leader != s.cfg.Self:
		return verdict{Fault: noLeader("the node that was asked does not lead"), Leader: leader}
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	v, err := s.vouch(ctx, q.Level)
	if err == nil {
		return v
	}
	if fault, ok := event.FaultOf(err); ok {
		return verdict{Fault: fault}
	}
	return verdict{Fault: noLeader(err.Error())}
}
