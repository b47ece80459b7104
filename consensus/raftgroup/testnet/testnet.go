// Package testnet gives tests of the consensus shells real streams: TCP on the
// loopback interface between hosts of one process, with the node id of the other
// end known, as mesh/link gives it. Hosts can be killed, pairs of hosts cut (bytes
// vanish without an error, as when a cable is pulled) and healed, and what each
// host sends is counted.
//
// Only tests import it.
package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skein/mesh/ident"
)

// ID gives the i-th of a few valid node ids, which sort as their numbers do.
func ID(i int) ident.NodeID {
	return ident.NodeID(strings.Repeat("a", 22) + string(rune('a'+i/16)) + string(rune('a'+i%16)))
}

// Net is a set of hosts.
type Net struct {
	mu    sync.Mutex
	hosts map[ident.NodeID]*Host
	cut   map[[2]ident.NodeID]bool
}

// New returns a net without hosts.
func New() *Net {
	return &Net{hosts: map[ident.NodeID]*Host{}, cut: map[[2]ident.NodeID]bool{}}
}

// Handler serves a stream until it ends. It need not close conn.
type Handler func(ctx context.Context, conn net.Conn, remote ident.NodeID)

// Host is one node's network.
type Host struct {
	ID ident.NodeID

	net      *Net
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex
	handlers map[string]Handler
	conns    map[*conn]struct{}

	sentBytes, sentWrites atomic.Int64
}

// Start adds a host, or a new one in place of a killed one.
func (n *Net) Start(id ident.NodeID) (*Host, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Host{ID: id, net: n, listener: l, ctx: ctx, cancel: cancel, handlers: map[string]Handler{}, conns: map[*conn]struct{}{}}
	n.mu.Lock()
	n.hosts[id] = h
	n.mu.Unlock()
	h.running.Go(h.accept)
	return h, nil
}

// Kill ends the host as a power cut does: every stream breaks at once.
func (h *Host) Kill() {
	h.cancel()
	h.listener.Close()
	h.reset(func(*conn) bool { return true })
	h.running.Wait()
}

// Sent is what the host has written so far, without any protocol overhead.
func (h *Host) Sent() (bytes, writes int64) { return h.sentBytes.Load(), h.sentWrites.Load() }

// Handle serves the streams of a protocol.
func (h *Host) Handle(protocol string, serve Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handlers[protocol] = serve
}

// Link opens streams of one protocol.
func (h *Host) Link(protocol string) *Link { return &Link{h, protocol} }

// Link opens streams of one protocol.
type Link struct {
	host     *Host
	protocol string
}

// Open dials the host id. A host behind a cut does not answer.
func (l *Link) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	n := l.host.net
	n.mu.Lock()
	to, cut := n.hosts[id], n.cut[[2]ident.NodeID{l.host.ID, id}]
	n.mu.Unlock()
	if to == nil {
		return nil, fmt.Errorf("no host %s", id)
	}
	if cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(raw, "%s%-16s", l.host.ID, l.protocol); err != nil {
		raw.Close()
		return nil, err
	}
	return l.host.track(raw, id)
}

// Cut makes what a and b send to each other vanish, until Heal.
func (n *Net) Cut(a, b ident.NodeID) { n.set(a, b, true) }

// CutOneWay makes what from sends to to vanish.
func (n *Net) CutOneWay(from, to ident.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]ident.NodeID{from, to}] = true
}

// Isolate cuts id off from every other host.
func (n *Net) Isolate(id ident.NodeID) { n.each(id, n.Cut) }

// Join heals every cut around id.
func (n *Net) Join(id ident.NodeID) { n.each(id, n.Heal) }

func (n *Net) each(id ident.NodeID, do func(a, b ident.NodeID)) {
	n.mu.Lock()
	var others []ident.NodeID
	for other := range n.hosts {
		if other != id {
			others = append(others, other)
		}
	}
	n.mu.Unlock()
	for _, other := range others {
		do(id, other)
	}
}

// Heal ends a cut. Streams that lost bytes break.
func (n *Net) Heal(a, b ident.NodeID) {
	n.mu.Lock()
	hosts := []*Host{n.hosts[a], n.hosts[b]}
	n.mu.Unlock()
	n.set(a, b, false)
	for _, h := range hosts {
		if h != nil {
			h.reset(func(c *conn) bool { return c.lost.Load() && (c.remote == a || c.remote == b) })
		}
	}
}

func (n *Net) set(a, b ident.NodeID, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]ident.NodeID{a, b}], n.cut[[2]ident.NodeID{b, a}] = cut, cut
}

func (h *Host) accept() {
	for {
		raw, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.running.Go(func() { h.serve(raw) })
	}
}

// serve reads who opened which protocol and runs its handler.
func (h *Host) serve(raw net.Conn) {
	var hello [24 + 16]byte
	raw.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(raw, hello[:]); err != nil {
		raw.Close()
		return
	}
	raw.SetReadDeadline(time.Time{})
	h.mu.Lock()
	handler := h.handlers[strings.TrimSpace(string(hello[24:]))]
	h.mu.Unlock()
	c, err := h.track(raw, ident.NodeID(hello[:24]))
	if err != nil || handler == nil {
		raw.Close()
		return
	}
	defer c.Close()
	handler(h.ctx, c, c.remote)
}

func (h *Host) track(raw net.Conn, remote ident.NodeID) (*conn, error) {
	c := &conn{Conn: raw, host: h, remote: remote}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		raw.Close()
		return nil, errors.New("host was killed")
	}
	h.conns[c] = struct{}{}
	return c, nil
}

// reset breaks the streams that match.
func (h *Host) reset(match func(*conn) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if match(c) {
			c.Conn.(*net.TCPConn).SetLinger(0)
			c.Conn.Close()
		}
	}
}

type conn struct {
	net.Conn
	host   *Host
	remote ident.NodeID
	// lost: bytes have vanished, so the stream cannot go on after a heal.
	lost atomic.Bool
}

func (c *conn) Write(p []byte) (int, error) {
	n := c.host.net
	n.mu.Lock()
	cut := n.cut[[2]ident.NodeID{c.host.ID, c.remote}]
	n.mu.Unlock()
	if cut {
		c.lost.Store(true)
		return len(p), nil
	}
	c.host.sentBytes.Add(int64(len(p)))
	c.host.sentWrites.Add(1)
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.host.mu.Lock()
	delete(c.host.conns, c)
	c.host.mu.Unlock()
	return c.Conn.Close()
}
