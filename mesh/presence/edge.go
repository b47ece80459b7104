package presence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"skein/mesh/ident"
)

const (
	// frameEvery is the least time between two frames of an edge.
	frameEvery = 250 * time.Millisecond
	// readEvery slows a peer that sends faster than it should.
	readEvery = 50 * time.Millisecond
	// writeTimeout is when an edge that takes nothing is given up.
	writeTimeout = 10 * time.Second
	acceptedMax  = 64
)

// Stream is what an edge needs of an authenticated stream; *link.Stream is one.
type Stream interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
	// Remote is the node at the other end.
	Remote() ident.NodeID
}

// errTooManyEdges: the peer should choose another parent.
var errTooManyEdges = errors.New("too many edges")

// edge is one stream to a neighbour and what must still be sent by it. All but
// the constant fields is guarded by Service.mu.
type edge struct {
	stream   Stream
	remote   ident.NodeID
	accepted bool
	cancel   context.CancelFunc
	wake     chan struct{} // room for one: the writer has something to do

	// leads is to how many origins this edge is the path.
	leads int
	// asks are the origins whose interest must be passed on.
	asks map[ident.NodeID]struct{}
	// queue are the nodes whose newest report must be sent, oldest wish first;
	// queued is the same as a set, sent what the peer has already.
	queue  []ident.NodeID
	queued map[ident.NodeID]struct{}
	sent   map[ident.NodeID]version
}

func newEdge(s Stream, accepted bool, cancel context.CancelFunc) *edge {
	return &edge{
		stream: s, remote: s.Remote(), accepted: accepted, cancel: cancel, wake: make(chan struct{}, 1),
		asks: make(map[ident.NodeID]struct{}), queued: make(map[ident.NodeID]struct{}),
		sent: make(map[ident.NodeID]version),
	}
}

func (e *edge) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// ask: the peer must hear of origin's interest.
func (e *edge) ask(origin ident.NodeID) {
	e.asks[origin] = struct{}{}
	e.poke()
}

// unask: the peer must not hear it, because it is the one that brought it.
func (e *edge) unask(origin ident.NodeID) { delete(e.asks, origin) }

// lead counts origins to which this edge is the path. Without any, nothing is sent.
func (e *edge) lead(by int) {
	if e.leads += by; e.leads == 0 {
		e.queue = nil
		clear(e.queued)
	}
}

// tell: the peer must hear the node's newest report, which is v or later.
func (e *edge) tell(node ident.NodeID, v version) {
	if _, is := e.queued[node]; is || !v.newerThan(e.sent[node]) {
		return
	}
	e.queued[node] = struct{}{}
	e.queue = append(e.queue, node)
	e.poke()
}

// has: the peer has this version; it sent it.
func (e *edge) has(node ident.NodeID, v version) {
	if v.newerThan(e.sent[node]) {
		e.sent[node] = v
	}
}

// Handle serves an edge that a neighbour has opened, until it ends. The caller
// has checked that the neighbour is a member.
func (s *Service) Handle(ctx context.Context, st Stream) {
	if err := s.serve(ctx, st, true); err != nil {
		s.cfg.Log.Debug("presence edge ended", "peer", st.Remote(), "err", err)
	}
}

// serve runs an edge until ctx or the service or the stream ends.
func (s *Service) serve(ctx context.Context, st Stream, accepted bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer st.Close()
	e := newEdge(st, accepted, cancel)
	if err := s.attach(e); err != nil {
		return err
	}
	defer s.detach(e)
	stop := context.AfterFunc(ctx, func() { st.Close() })
	defer stop()
	var writer sync.WaitGroup
	var writeErr error
	writer.Go(func() {
		writeErr = s.write(ctx, e)
		cancel()
	})
	readErr := s.read(ctx, e)
	cancel()
	writer.Wait()
	if writeErr != nil {
		return writeErr
	}
	return readErr
}

func (s *Service) attach(e *edge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errors.New("presence has ended")
	}
	if e.accepted {
		count := 0
		for other := range s.state.edges {
			if other.accepted && other.remote == e.remote {
				other.cancel() // the neighbour started anew and forgot this one
			} else if other.accepted {
				count++
			}
		}
		if count >= acceptedMax {
			return fmt.Errorf("%w: %d are open already", errTooManyEdges, count)
		}
	}
	s.state.attach(e, time.Now())
	return nil
}

func (s *Service) detach(e *edge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.detach(e, time.Now())
	raise(s.retime)
}

// write sends what is due, one frame each frameEvery at most.
func (s *Service) write(ctx context.Context, e *edge) error {
	for more := false; ; {
		if !more {
			select {
			case <-e.wake:
			case <-ctx.Done():
				return nil
			}
		}
		s.mu.Lock()
		var f frame
		f, more = s.state.collect(e, time.Now())
		s.mu.Unlock()
		if len(f.Interests) == 0 && len(f.Reports) == 0 {
			continue
		}
		if err := e.stream.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		if err := writeFrame(e.stream, f); err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		if !pause(ctx, frameEvery) {
			return nil
		}
	}
}

// read takes what the peer sends. An idle edge is silent, so there is no deadline.
func (s *Service) read(ctx context.Context, e *edge) error {
	for {
		f, err := readFrame(e.stream)
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		s.hear(e, f)
		if !pause(ctx, readEvery) {
			return nil
		}
	}
}

// pause waits; it is false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
