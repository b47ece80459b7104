package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skein/mesh/ident"
)

const (
	// maxIncoming bounds the streams that others hold open to this node: two or
	// three for each voter are used.
	maxIncoming = 64
	// maxPooled is how many idle streams to one voter are kept.
	maxPooled = 3
	// idleTimeout ends an incoming stream on which nothing was asked.
	idleTimeout = 2 * time.Minute
	// answerTimeout bounds one write of an answer.
	answerTimeout = 10 * time.Second
)

var (
	errLayerClosed = errors.New("raft streams are closed")
	errNotReached  = errors.New("voter cannot be reached")
)

// streams is raft's StreamLayer over the link. Addresses are node ids.
type streams struct {
	id      ident.NodeID
	link    Link
	failure *failure
	// epoch is this node's; newer is a later one that it met, 0 while it met none.
	epoch    uint64
	newer    atomic.Uint64
	ctx      context.Context
	cancel   context.CancelFunc
	incoming chan net.Conn
	// room answers whether this node's disk has some; outdated is told of a
	// later epoch.
	room     func() bool
	outdated func(remote ident.NodeID, epoch uint64)

	mu   sync.Mutex
	open map[*peerConn]struct{}
	// asked counts the streams that others opened.
	asked int
}

func newStreams(cfg Config, f *failure) *streams {
	ctx, cancel := context.WithCancel(context.Background())
	return &streams{id: cfg.ID, link: cfg.Link, epoch: cfg.Epoch, failure: f, ctx: ctx, cancel: cancel,
		incoming: make(chan net.Conn), open: map[*peerConn]struct{}{}}
}

// silent is why nothing may be said to other voters; nil while it may.
func (s *streams) silent() error {
	if s.newer.Load() != 0 {
		return errOutdated
	}
	return s.failure.silent()
}

// Dial implements raft.StreamLayer.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	conn, err := s.dial(ctx, ident.NodeID(address), purposeRaft)
	if err != nil {
		return nil, err
	}
	return s.track(conn, false)
}

// dial opens a stream and says what for. A raft stream of epoch 0 says nothing,
// as it was before there were epochs.
func (s *streams) dial(ctx context.Context, id ident.NodeID, purpose byte) (net.Conn, error) {
	if err := s.silent(); err != nil {
		return nil, err
	}
	conn, err := s.link.Open(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotReached, err)
	}
	if purpose == purposeRaft && s.epoch == 0 {
		return conn, nil
	}
	err = deadlineOf(ctx, conn)
	if _, werr := conn.Write(preface{purpose, s.epoch}.encode()); err != nil || werr != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", errNotReached, errors.Join(err, werr))
	}
	return conn, conn.SetDeadline(time.Time{})
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.incoming:
		return conn, nil
	case <-s.ctx.Done():
		return nil, errLayerClosed
	}
}

// Addr implements net.Listener: the node's id.
func (s *streams) Addr() net.Addr { return nodeAddr(s.id) }

// Close ends every stream, in use or not.
func (s *streams) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Conn.Close()
	}
	return nil
}

// serve hands a stream to raft and returns when it is over, or answers it if it
// is none of raft's.
func (s *streams) serve(ctx context.Context, conn net.Conn, remote ident.NodeID) error {
	c, err := s.track(conn, true)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Conn.Close() })
	p, err := c.readPreface()
	stop()
	switch {
	case err != nil:
		return err
	case p.epoch != s.epoch:
		c.refuse(p.epoch)
		if p.epoch > s.epoch {
			s.outdated(remote, p.epoch)
		}
		return fmt.Errorf("%s is of epoch %d, this node of %d", remote.Short(), p.epoch, s.epoch)
	case s.silent() != nil:
		return s.silent()
	case p.purpose == purposeRoom:
		return c.answerRoom(s.room())
	}
	select {
	case s.incoming <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errLayerClosed
	}
	select {
	case <-c.closed:
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return nil
}

func (s *streams) track(conn net.Conn, asked bool) (*peerConn, error) {
	c := &peerConn{Conn: conn, layer: s, asked: asked, closed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ctx.Err() != nil:
		conn.Close()
		return nil, errLayerClosed
	case asked && s.asked >= maxIncoming:
		conn.Close()
		return nil, fmt.Errorf("over %d raft streams are open", maxIncoming)
	case asked:
		s.asked++
	}
	s.open[c] = struct{}{}
	return c, nil
}

func (s *streams) forget(c *peerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if c.asked {
		s.asked--
	}
}

// peerConn is one stream to another voter.
type peerConn struct {
	net.Conn
	layer *streams
	asked bool
	// first is what was read to see what the stream is for, and is raft's.
	first  []byte
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn. Raft sets deadlines where it asks, not where it
// answers; those are set here.
func (c *peerConn) Read(p []byte) (int, error) {
	if c.asked {
		if err := c.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
			return 0, err
		}
	}
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn. A node whose disk failed says nothing any more.
func (c *peerConn) Write(p []byte) (int, error) {
	if err := c.layer.silent(); err != nil {
		return 0, err
	}
	if c.asked {
		if err := c.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *peerConn) Close() (err error) {
	c.once.Do(func() {
		c.layer.forget(c)
		err = c.Conn.Close()
		close(c.closed)
	})
	return err
}

// RemoteAddr implements net.Conn; raft only logs it.
func (c *peerConn) RemoteAddr() net.Addr {
	if a := c.Conn.RemoteAddr(); a != nil {
		return a
	}
	return nodeAddr("")
}

// nodeAddr is a node id as a net.Addr.
type nodeAddr ident.NodeID

// Network implements net.Addr.
func (nodeAddr) Network() string { return "skein" }

func (a nodeAddr) String() string { return string(a) }

// transport is raft's network transport with three additions: a request for a
// vote does not fail because a kept stream has gone stale, the leader can tell one
// follower at once how far the log is committed, and no snapshot is installed of
// what the log holds.
type transport struct {
	*raft.NetworkTransport
	id      ident.NodeID
	streams *streams
	// sifted are the requests for raft: see sift.
	sifted chan raft.RPC
	once   sync.Once
	closed chan struct{}
}

// newTransport asks others; raft gets their requests while sift runs.
func newTransport(s *streams, rpc time.Duration, log hclog.Logger) *transport {
	return &transport{id: s.id, streams: s, sifted: make(chan raft.RPC), closed: make(chan struct{}),
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, MaxPool: maxPooled, Timeout: rpc, Logger: log,
		})}
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.streams.heed(id, again(func() error { return t.NetworkTransport.RequestVote(id, to, args, resp) }))
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.streams.heed(id, again(func() error { return t.NetworkTransport.RequestPreVote(id, to, args, resp) }))
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.streams.heed(id, t.NetworkTransport.AppendEntries(id, to, args, resp))
}

// again repeats a request while it fails at once: each failure uses up one
// stale stream of the pool, and then a new one is opened. A refusal or a
// timeout is not repeated, for raft will ask anew.
func again(request func() error) (err error) {
	const atOnce = 100 * time.Millisecond
	for range maxPooled + 1 {
		began := time.Now()
		err = request()
		if _, _, refused := refusedBy(err); refused || err == nil || errors.Is(err, errNotReached) || time.Since(began) > atOnce {
			return err
		}
	}
	return err
}

// tellCommitted tells a follower that the log is committed up to index, whose
// entry has entryTerm, and reports whether the follower holds that entry. The
// caller was the leader of term, in which the entry was committed.
//
// It is an ordinary empty AppendEntries, which raft itself sends only every
// CommitTimeout. It is right at any time in any order: the follower checks the
// term and that its log has this entry, and commits nothing beyond it.
func (t *transport) tellCommitted(to raft.ServerID, term, index, entryTerm uint64) (holds bool, err error) {
	return t.appendNothing(to, raft.AppendEntriesRequest{Term: term, PrevLogEntry: index, PrevLogTerm: entryTerm, LeaderCommitIndex: index})
}

// acknowledged asks a voter whether it knows of no later term than term, in
// which the caller leads. It is an ordinary heartbeat, which needs no disk.
func (t *transport) acknowledged(to raft.ServerID, term uint64) (yes bool, err error) {
	return t.appendNothing(to, raft.AppendEntriesRequest{Term: term})
}

func (t *transport) appendNothing(to raft.ServerID, req raft.AppendEntriesRequest) (accepted bool, err error) {
	self := []byte(t.id)
	req.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self}
	var resp raft.AppendEntriesResponse
	err = again(func() error { return t.AppendEntries(to, raft.ServerAddress(to), &req, &resp) })
	return err == nil && resp.Success && resp.Term == req.Term, err
}
