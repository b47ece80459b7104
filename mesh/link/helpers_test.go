package link

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/mesh/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const echoProtocol Protocol = "/skein/test-echo/1"

var loopback = netip.MustParseAddr("127.0.0.1")

// fleet is a root key and what is needed to make nodes of it.
type fleet struct {
	t    *testing.T
	root ident.Key
}

func newFleet(t *testing.T) *fleet { return &fleet{t, newKey(t)} }

func newKey(t *testing.T) ident.Key {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// node is a host whose certificate and refusals the test may change.
type node struct {
	*Host
	t       *testing.T
	key     ident.Key
	chain   atomic.Pointer[ident.Chain]
	mu      sync.Mutex
	refused map[ident.NodeID]bool
}

func (n *node) refuse(id ident.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused[id] = true
}

func (n *node) isRefused(id ident.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refused[id] {
		return errors.New("revoked by an admin")
	}
	return nil
}

func (n *node) admit(root ident.Key) {
	chain := ident.NewChain(ident.FleetIDOf(root.Public()), n.key.Public(), false, time.Now(), root, nil)
	n.chain.Store(&chain)
}

func (n *node) endpoint() ident.Endpoint {
	return ident.Endpoint{ID: n.ID(), PublicKey: n.key.Public(), Addrs: []netip.Addr{loopback}, LinkPort: n.Port()}
}

type option func(*Config, *limits)

// stranger makes a host without certificate.
func (f *fleet) stranger(opts ...option) *node {
	f.t.Helper()
	n := &node{t: f.t, key: newKey(f.t), refused: make(map[ident.NodeID]bool)}
	empty := ident.Chain(nil)
	n.chain.Store(&empty)
	cfg := Config{
		Key: n.key, Root: f.root.Public(), Listen: netip.AddrPortFrom(loopback, 0),
		Chain: func() ident.Chain { return *n.chain.Load() }, Refused: n.isRefused,
	}
	l := shippedLimits()
	for _, o := range opts {
		o(&cfg, &l)
	}
	h, err := newHost(cfg, l)
	if err != nil {
		f.t.Fatal(err)
	}
	n.Host = h
	f.t.Cleanup(func() {
		if err := h.Close(); err != nil {
			f.t.Errorf("close: %v", err)
		}
	})
	return n
}

// member makes a host with a certificate that serves echoProtocol.
func (f *fleet) member(opts ...option) *node {
	f.t.Helper()
	n := f.stranger(opts...)
	n.admit(f.root)
	n.Handle(echoProtocol, echo)
	return n
}

func echo(_ context.Context, s *Stream) { io.Copy(s, s) }

// pair is two members that know each other.
func pair(t *testing.T) (a, b *node) {
	f := newFleet(t)
	a, b = f.member(), f.member()
	a.Know(b.endpoint())
	b.Know(a.endpoint())
	return a, b
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustOpen(t *testing.T, from *node, to ident.NodeID, p Protocol) *Stream {
	t.Helper()
	s, err := from.Open(ctxFor(t, 10*time.Second), to, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Reset() })
	return s
}

func mustEcho(t *testing.T, s net.Conn, text string) {
	t.Helper()
	s.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(s, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != text {
		t.Fatalf("echo: %q, %v", got, err)
	}
}

// eventually polls cond; the deadline is far beyond what a slow machine needs.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func knowing(n, of *node) *remote {
	n.Know(of.endpoint())
	return n.peers.find(of.ID())
}

// cable is a TCP relay that can be cut: bytes vanish and nobody is told.
type cable struct {
	t     *testing.T
	to    ident.Endpoint
	l     net.Listener
	bytes atomic.Int64
	mu    sync.Mutex
	cutAt *atomic.Bool // of the connections made since the last mend
	conns []net.Conn
}

func newCable(t *testing.T, to ident.Endpoint) *cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{t: t, to: to, l: l, cutAt: new(atomic.Bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", netip.AddrPortFrom(to.Addrs[0], to.LinkPort).String())
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			cut := c.cutAt
			c.conns = append(c.conns, in, out)
			c.mu.Unlock()
			wg.Go(func() { c.pump(in, out, cut) })
			wg.Go(func() { c.pump(out, in, cut) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		for _, conn := range c.conns {
			conn.Close()
		}
		c.mu.Unlock()
		wg.Wait()
	})
	return c
}

func (c *cable) pump(from, to net.Conn, cut *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.bytes.Add(int64(n))
		if cut.Load() {
			if err != nil {
				return
			}
			continue
		}
		if err != nil {
			to.Close()
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			from.Close()
			return
		}
	}
}

func (c *cable) endpoint() ident.Endpoint {
	e := c.to
	e.LinkPort = c.l.Addr().(*net.TCPAddr).AddrPort().Port()
	return e
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutAt.Store(true)
}

// mend lets new connections through; the old ones stay silent.
func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutAt = new(atomic.Bool)
}
