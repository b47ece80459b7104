package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"go.uber.org/goleak"

	"skein/mesh/ident"
	"skein/mesh/wire"
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

func TestMembersTalkBothWaysOverOneConnection(t *testing.T) {
	a, b := pair(t)
	s := mustOpen(t, a, b.ID(), echoProtocol)
	mustEcho(t, s, "hello")
	if s.Remote() != b.ID() || !s.RemotePublicKey().Equal(b.key.Public()) {
		t.Fatalf("remote is %s", s.Remote())
	}
	back := mustOpen(t, b, a.ID(), echoProtocol)
	mustEcho(t, back, "and back")
	if n := len(b.swarm.Conns()); n != 1 {
		t.Fatalf("%d connections, want 1: the answerer may use the opener's", n)
	}
	if !slices.Equal(a.Connected(), []ident.NodeID{b.ID()}) || !slices.Equal(b.Connected(), []ident.NodeID{a.ID()}) {
		t.Fatalf("connected: %v and %v", a.Connected(), b.Connected())
	}
}

func TestStreamIsANetConn(t *testing.T) {
	a, b := pair(t)
	s := mustOpen(t, a, b.ID(), echoProtocol)
	if err := s.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Read(make([]byte, 1))
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("missed deadline gives %v", err)
	}
	s.SetReadDeadline(time.Time{})
	mustEcho(t, s, "still usable after a missed deadline")
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("after both closed: %v, want EOF", err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Fatal("write after CloseWrite succeeded")
	}
	if s.RemoteAddr().String() != net.JoinHostPort("127.0.0.1", fmt.Sprint(b.Port())) || s.LocalAddr() == nil {
		t.Fatalf("addresses: %v, %v", s.LocalAddr(), s.RemoteAddr())
	}
}

func TestReaderIsWokenWhenPeerDies(t *testing.T) {
	a, b := pair(t)
	s := mustOpen(t, a, b.ID(), echoProtocol)
	mustEcho(t, s, "x")
	read := make(chan error, 1)
	go func() {
		s.SetDeadline(time.Time{})
		_, err := s.Read(make([]byte, 1))
		read <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-read:
		if err == nil {
			t.Fatal("read succeeded")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("reader still waits")
	}
}

func TestStrangersReachOnlyOpenProtocols(t *testing.T) {
	f := newFleet(t)
	server, guest := f.member(), f.stranger()
	server.HandleOpen("/skein/test-open/1", echo)

	s, err := guest.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), "/skein/test-open/1")
	if err != nil {
		t.Fatal(err)
	}
	mustEcho(t, s, "knock")

	if _, err := guest.Open(ctxFor(t, 5*time.Second), server.ID(), echoProtocol); !errors.Is(err, ErrNotAdmitted) {
		t.Fatalf("Open without certificate: %v", err)
	}
	// The guest ignores its own rules and asks for a member protocol outright.
	if _, err := guest.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), echoProtocol); !errors.Is(err, ErrRefused) {
		t.Fatalf("member protocol without hello: %v", err)
	}
	if len(server.Connected()) != 0 {
		t.Fatal("a stranger counts as connected")
	}
	guest.admit(f.root)
	mustEcho(t, mustOpen(t, guest, server.ID(), echoProtocol), "joined, over the same connection")
	if n := len(server.swarm.Conns()); n != 1 {
		t.Fatalf("%d connections", n)
	}
}

func TestHelloRefusesWhoIsNotOfThisFleet(t *testing.T) {
	f := newFleet(t)
	server := f.member()
	other := newFleet(t)
	founder := newKey(t)
	notIssuer := ident.NewChain(ident.FleetIDOf(f.root.Public()), founder.Public(), false, time.Now(), f.root, nil)
	thief := newKey(t)
	cases := map[string]func(n *node) ident.Chain{
		"another root": func(n *node) ident.Chain {
			return ident.NewChain(ident.FleetIDOf(other.root.Public()), n.key.Public(), true, time.Now(), other.root, nil)
		},
		"another root that claims this fleet": func(n *node) ident.Chain {
			return ident.NewChain(ident.FleetIDOf(f.root.Public()), n.key.Public(), true, time.Now(), other.root, nil)
		},
		"somebody else's certificate": func(*node) ident.Chain {
			return ident.NewChain(ident.FleetIDOf(f.root.Public()), thief.Public(), false, time.Now(), f.root, nil)
		},
		"issued by a member that may not issue": func(n *node) ident.Chain {
			return ident.NewChain(ident.FleetIDOf(f.root.Public()), n.key.Public(), false, time.Now(), founder, notIssuer)
		},
		"signature changed": func(n *node) ident.Chain {
			chain := ident.NewChain(ident.FleetIDOf(f.root.Public()), n.key.Public(), false, time.Now(), f.root, nil)
			chain[0].Signature[3] ^= 1
			return chain
		},
		"right granted to oneself": func(n *node) ident.Chain {
			chain := ident.NewChain(ident.FleetIDOf(f.root.Public()), n.key.Public(), false, time.Now(), f.root, nil)
			chain[0].MayIssue = true
			return chain
		},
	}
	for name, make := range cases {
		t.Run(name, func(t *testing.T) {
			guest := f.stranger()
			chain := make(guest)
			guest.chain.Store(&chain)
			guest.Know(server.endpoint())
			if _, err := guest.Open(ctxFor(t, 5*time.Second), server.ID(), echoProtocol); !errors.Is(err, ErrNotAdmitted) {
				t.Fatalf("got %v, want ErrNotAdmitted", err)
			}
			if len(server.Connected()) != 0 {
				t.Fatal("server counts it as a member")
			}
		})
	}
}

func TestOpenerRefusesAServerOfAnotherFleet(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	guest := f.member()
	// It accepts anyone of fleet f but holds a certificate of another fleet.
	impostor := f.member()
	impostor.admit(other.root)
	guest.Know(impostor.endpoint())
	if _, err := guest.Open(ctxFor(t, 5*time.Second), impostor.ID(), echoProtocol); !errors.Is(err, ErrNotAdmitted) {
		t.Fatalf("got %v, want ErrNotAdmitted", err)
	}
	// The impostor has verified the guest and may believe that it can speak to it.
	impostor.Know(guest.endpoint())
	if s, err := impostor.Open(ctxFor(t, 5*time.Second), guest.ID(), echoProtocol); err == nil {
		s.Reset()
		t.Fatal("the impostor opened a stream")
	}
	if len(guest.Connected()) != 0 {
		t.Fatal("guest counts it as a member")
	}
}

func TestRevokedIsRefusedAtEveryStreamBothWays(t *testing.T) {
	a, b := pair(t)
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "welcome")
	b.refuse(a.ID())
	if _, err := a.Open(ctxFor(t, 5*time.Second), b.ID(), echoProtocol); !errors.Is(err, ErrRefused) {
		t.Fatalf("inbound on the verified connection: %v, want ErrRefused", err)
	}
	if _, err := b.Open(ctxFor(t, 5*time.Second), a.ID(), echoProtocol); !errors.Is(err, ErrRefused) {
		t.Fatalf("outbound on the verified connection: %v, want ErrRefused", err)
	}
	b.Drop(a.ID())
	eventually(t, "connection is gone", func() bool { return len(a.swarm.Conns()) == 0 })
	if _, err := a.Open(ctxFor(t, 5*time.Second), b.ID(), echoProtocol); !errors.Is(err, ErrRefused) {
		t.Fatalf("on a new connection: %v, want ErrRefused", err)
	}
	if len(b.Connected()) != 0 {
		t.Fatal("hello was granted to a revoked node")
	}
}

func TestDropEndsOpenStreams(t *testing.T) {
	a, b := pair(t)
	s := mustOpen(t, a, b.ID(), echoProtocol)
	mustEcho(t, s, "x")
	s.SetDeadline(time.Now().Add(5 * time.Second))
	b.Drop(a.ID())
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("stream lives on: %v", err)
	}
}

func TestUnknownProtocolAndUnknownNode(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Open(ctxFor(t, 5*time.Second), b.ID(), "/skein/nothing/1"); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("unknown protocol: %v", err)
	}
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "the connection is none the worse")
	nobody := newKey(t)
	if _, err := a.Open(ctxFor(t, 5*time.Second), nobody.ID(), echoProtocol); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("unknown node: %v", err)
	}
}

func TestDialFailureIsQuickAndNeverBackedOff(t *testing.T) {
	f := newFleet(t)
	a, gone := f.member(), f.member()
	at := gone.endpoint()
	a.Know(at)
	gone.Close()
	for range 5 {
		start := time.Now()
		if _, err := a.Open(ctxFor(t, 5*time.Second), gone.ID(), echoProtocol); !errors.Is(err, ErrUnreachable) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Fatalf("refusal took %s", took)
		}
	}
	// The same node comes back at the same address: the very next try must reach it.
	back, err := newHost(Config{
		Key: gone.key, Root: f.root.Public(), Listen: netip.AddrPortFrom(loopback, at.LinkPort),
		Chain: func() ident.Chain { return *gone.chain.Load() },
	}, shippedLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	back.Handle(echoProtocol, echo)
	mustEcho(t, mustOpen(t, a, gone.ID(), echoProtocol), "back")
}

func TestSilentAddressTimesOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, ghost := f.member(), newKey(t)
	// It accepts TCP and never says a word.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	a.Know(ident.Endpoint{
		ID: ghost.ID(), PublicKey: ghost.Public(), Addrs: []netip.Addr{loopback},
		LinkPort: silent.Addr().(*net.TCPAddr).AddrPort().Port(),
	})
	start := time.Now()
	if _, err := a.Open(t.Context(), ghost.ID(), echoProtocol); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > dialTimeout+2*time.Second {
		t.Fatalf("took %s", took)
	}
}

func TestOneGoodAddressAmongBadOnes(t *testing.T) {
	f := newFleet(t)
	a, b := f.member(), f.member()
	e := b.endpoint()
	e.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("fe80::1"), netip.IPv4Unspecified(), loopback}
	a.Know(e)
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "found")
}

func TestAnotherNodeAtTheAddressIsNotTaken(t *testing.T) {
	f := newFleet(t)
	a, b, moved := f.member(), f.member(), newKey(t)
	a.Know(ident.Endpoint{ID: moved.ID(), PublicKey: moved.Public(), Addrs: []netip.Addr{loopback}, LinkPort: b.Port()})
	if _, err := a.Open(ctxFor(t, 5*time.Second), moved.ID(), echoProtocol); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestNodeThatMovedIsFoundAtItsNewAddress(t *testing.T) {
	f := newFleet(t)
	a, b := f.member(), f.member()
	a.Know(b.endpoint())
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "before")
	b.Close()
	again, err := newHost(Config{
		Key: b.key, Root: f.root.Public(), Listen: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), 0),
		Chain: func() ident.Chain { return *b.chain.Load() },
	}, shippedLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	again.Handle(echoProtocol, echo)
	e := b.endpoint()
	e.Addrs, e.LinkPort = []netip.Addr{netip.MustParseAddr("127.0.0.2")}, again.Port()
	a.Know(e)
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "after")
}

func TestManyOpenAtOnceShareAConnection(t *testing.T) {
	a, b := pair(t)
	var wg sync.WaitGroup
	for i := range 40 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		wg.Go(func() {
			s, err := from.Open(ctxFor(t, 10*time.Second), to.ID(), echoProtocol)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			mustEcho(t, s, fmt.Sprint(i))
		})
	}
	wg.Wait()
	if n := len(a.swarm.Conns()); n > 2 {
		t.Fatalf("%d connections; simultaneous dials make at most one from each side", n)
	}
}

func TestStreamsOfAPeerAreCapped(t *testing.T) {
	f := newFleet(t)
	const most = 5
	a, b := f.member(), f.member(func(_ *Config, l *limits) { l.streamsPerPeer = most })
	a.Know(b.endpoint())
	mustOpen(t, a, b.ID(), echoProtocol).Close()
	eventually(t, "hello and the first stream have ended", func() bool {
		b.peers.mu.Lock()
		defer b.peers.mu.Unlock()
		return b.peers.byNode[a.ID()].streams == 0
	})
	var open []*Stream
	for range most {
		s := mustOpen(t, a, b.ID(), echoProtocol)
		mustEcho(t, s, "x")
		open = append(open, s)
	}
	if _, err := a.Open(ctxFor(t, 5*time.Second), b.ID(), echoProtocol); !errors.Is(err, ErrBusy) {
		t.Fatalf("one over the cap: %v, want ErrBusy", err)
	}
	mustEcho(t, open[0], "those below the cap live")
	open[0].Close()
	eventually(t, "a closed stream makes room", func() bool {
		s, err := a.Open(ctxFor(t, 5*time.Second), b.ID(), echoProtocol)
		if err == nil {
			s.Close()
		}
		return err == nil
	})
}

func TestStrangersAreCappedAndEnd(t *testing.T) {
	f := newFleet(t)
	const most = 3
	server := f.member(func(_ *Config, l *limits) {
		l.strangers, l.strangerIdle, l.reapEvery = most, time.Hour, 20*time.Millisecond
	})
	server.HandleOpen("/skein/test-open/1", echo)
	var guests []*node
	for range most {
		g := f.stranger()
		guests = append(guests, g)
		s, err := g.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), "/skein/test-open/1")
		if err != nil {
			t.Fatal(err)
		}
		mustEcho(t, s, "x")
	}
	one := f.stranger()
	if _, err := one.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), "/skein/test-open/1"); err == nil {
		t.Fatal("a stranger over the cap came in")
	}
	// A guest that becomes a member gives its place back.
	guests[0].admit(f.root)
	mustEcho(t, mustOpen(t, guests[0], server.ID(), echoProtocol), "member now")
	s, err := one.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), "/skein/test-open/1")
	if err != nil {
		t.Fatal(err)
	}
	mustEcho(t, s, "in at last")
}

func TestIdleConnectionsAreClosedAndReopenedOnDemand(t *testing.T) {
	f := newFleet(t)
	quick := func(_ *Config, l *limits) {
		l.idle, l.strangerIdle, l.reapEvery = 100*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond
	}
	a, b := f.member(quick), f.member(quick)
	a.Know(b.endpoint())
	s := mustOpen(t, a, b.ID(), echoProtocol)
	for range 10 {
		mustEcho(t, s, "a stream in use keeps the connection")
		time.Sleep(20 * time.Millisecond) // longer than idle in all: the pace of use, not a wait for luck
	}
	s.Close()
	eventually(t, "idle connection closes", func() bool { return len(a.swarm.Conns())+len(b.swarm.Conns()) == 0 })
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "again")

	guest := f.stranger()
	if _, err := guest.dial(ctxFor(t, 5*time.Second), knowing(guest, b)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a stranger that says nothing is closed", func() bool { return len(guest.swarm.Conns()) == 0 })
}

func knowing(n, of *node) *remote {
	n.Know(of.endpoint())
	return n.peers.find(of.ID())
}

func TestOldestConnectionOfAPeerGivesWay(t *testing.T) {
	f := newFleet(t)
	server := f.member(func(_ *Config, l *limits) { l.connsPerPeer = 2 })
	key := newKey(t)
	// Three lives of one node that each lost power: the server sees no end of them.
	for life := range 3 {
		chain := ident.NewChain(ident.FleetIDOf(f.root.Public()), key.Public(), false, time.Now(), f.root, nil)
		h, err := New(Config{
			Key: key, Root: f.root.Public(), Listen: netip.AddrPortFrom(loopback, 0),
			Chain: func() ident.Chain { return chain },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		h.Know(server.endpoint())
		if _, err := h.Open(ctxFor(t, 5*time.Second), server.ID(), echoProtocol); err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
	}
	eventually(t, "two connections are left", func() bool { return len(server.swarm.Conns()) == 2 })
}

func TestOpenProtocolIsBoundedInBytesAndTime(t *testing.T) {
	f := newFleet(t)
	server, guest := f.member(), f.stranger()
	result := make(chan error, 1)
	server.HandleOpen("/skein/test-open/1", func(ctx context.Context, s *Stream) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		_, err := io.Copy(io.Discard, s)
		result <- err
	})
	s, err := guest.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), "/skein/test-open/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, openReadMax+1)); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, wire.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
}

func TestSkewIsToldBothWays(t *testing.T) {
	f := newFleet(t)
	ahead := func(cfg *Config, _ *limits) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Hour) }
	}
	a, b := f.member(), f.member(ahead)
	a.Know(b.endpoint())
	if _, ok := a.Skew(b.ID()); ok {
		t.Fatal("skew of a node never met")
	}
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "x")
	near := func(got, want time.Duration) bool { return (got - want).Abs() < 2*time.Second }
	if got, ok := a.Skew(b.ID()); !ok || !near(got, time.Hour) {
		t.Fatalf("a sees %v, %v", got, ok)
	}
	if got, ok := b.Skew(a.ID()); !ok || !near(got, -time.Hour) {
		t.Fatalf("b sees %v, %v", got, ok)
	}
}

func TestPortInUse(t *testing.T) {
	f := newFleet(t)
	a := f.member()
	for _, addr := range []netip.Addr{loopback, netip.IPv4Unspecified(), {}} {
		_, err := New(Config{Key: newKey(t), Root: f.root.Public(), Listen: netip.AddrPortFrom(addr, a.Port())})
		if !errors.Is(err, ErrPortInUse) {
			t.Fatalf("listen on %v: %v", addr, err)
		}
	}
}

func TestListensOnAllAddressesWithOnePort(t *testing.T) {
	f := newFleet(t)
	a := f.member()
	b := f.member(func(cfg *Config, _ *limits) { cfg.Listen = netip.AddrPort{} })
	for _, to := range []string{"127.0.0.1", "::1"} {
		if probe, err := net.Listen("tcp", net.JoinHostPort(to, "0")); err != nil {
			t.Logf("skipped %s: %v", to, err)
			continue
		} else {
			probe.Close()
		}
		e := b.endpoint()
		e.Addrs = []netip.Addr{netip.MustParseAddr(to)}
		a.Know(e)
		mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), to)
		a.Drop(b.ID())
	}
}

func TestCloseEndsHandlersAndIsIdempotent(t *testing.T) {
	a, b := pair(t)
	ended := make(chan struct{})
	b.Handle("/skein/test-wait/1", func(ctx context.Context, s *Stream) {
		s.Write([]byte("k"))
		<-ctx.Done()
		close(ended)
	})
	s := mustOpen(t, a, b.ID(), "/skein/test-wait/1")
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Fatal("Close did not wait for the handler")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), a.ID(), echoProtocol); err == nil {
		t.Fatal("Open on a closed host succeeded")
	}
}

func TestKeepLeavesTheStreamOpen(t *testing.T) {
	a, b := pair(t)
	kept := make(chan *Stream, 1)
	b.Handle("/skein/test-keep/1", func(_ context.Context, s *Stream) {
		s.Keep()
		kept <- s
	})
	b.Handle("/skein/test-return/1", func(context.Context, *Stream) {})
	s := mustOpen(t, a, b.ID(), "/skein/test-keep/1")
	go echo(t.Context(), <-kept)
	mustEcho(t, s, "kept")
	s.Reset()
	closed := mustOpen(t, a, b.ID(), "/skein/test-return/1")
	closed.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := closed.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("a handler that returns leaves %v, want EOF", err)
	}
}

func TestProbeClosesASilentConnection(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.member(), f.member()
	cable := newCable(t, b.endpoint())
	a.Know(cable.endpoint())
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "through the cable")
	cable.cut()
	a.Know(b.endpoint())
	eventually(t, "the old connection is noticed to be dead", func() bool { return len(a.swarm.Conns()) == 0 })
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "at the new address")
}

func TestOpenGetsPastASilentConnection(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	a, b := f.member(), f.member()
	cable := newCable(t, b.endpoint())
	a.Know(cable.endpoint())
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "through the cable")
	cable.cut()
	cable.mend()
	start := time.Now()
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "on a new connection")
	if took := time.Since(start); took > reuseTimeout+2*time.Second {
		t.Fatalf("took %s", took)
	}
}

func TestIdleTrafficOfAConnection(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 65 s")
	}
	f := newFleet(t)
	a, b := f.member(), f.member()
	cable := newCable(t, b.endpoint())
	a.Know(cable.endpoint())
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "x")
	before := cable.bytes.Load()
	time.Sleep(65 * time.Second)
	each := float64(cable.bytes.Load()-before) / 2 / 65
	t.Logf("payload bytes a second each way: %.2f", each)
	if each > 10 {
		t.Fatalf("%.1f B/s", each)
	}
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

func TestGarbageHelloIsRefused(t *testing.T) {
	f := newFleet(t)
	server := f.member()
	long, _ := json.Marshal(greeting{Reason: string(make([]byte, helloMax))})
	for name, payload := range map[string][]byte{
		"no frame":      []byte("GET / HTTP/1.1\r\n\r\n"),
		"length 2 GiB":  {0x7f, 0xff, 0xff, 0xff},
		"not JSON":      {0, 0, 0, 2, '{', '{'},
		"oversize":      append([]byte{0, 0, 0x80, 0}, long...),
		"empty":         {0, 0, 0, 2, '{', '}'},
		"endless chain": endlessChain(),
	} {
		t.Run(name, func(t *testing.T) {
			guest := f.stranger()
			c, err := guest.dial(ctxFor(t, 5*time.Second), knowing(guest, server))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := guest.negotiate(ctxFor(t, 5*time.Second), c, helloProtocol, handshakeTimeout)
			if err != nil {
				t.Fatal(err)
			}
			raw.Write(payload)
			raw.SetDeadline(time.Now().Add(10 * time.Second))
			answer, err := readGreeting(raw)
			if err == nil && answer.Refusal == "" {
				t.Fatal("garbage was answered with a certificate")
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("no answer at all")
			}
			if len(server.Connected()) != 0 {
				t.Fatal("garbage made a member")
			}
		})
	}
}

func endlessChain() []byte {
	g := greeting{Chain: make(ident.Chain, ident.MaxChain+1)}
	text, _ := json.Marshal(g)
	return append([]byte{0, 0, byte(len(text) >> 8), byte(len(text))}, text...)
}

func TestSlowHelloIsCutOff(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	server, guest := f.member(), f.stranger()
	c, err := guest.dial(ctxFor(t, 5*time.Second), knowing(guest, server))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := guest.negotiate(ctxFor(t, 5*time.Second), c, helloProtocol, handshakeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	raw.Write([]byte{0, 0, 0}) // and then nothing
	raw.SetDeadline(time.Now().Add(handshakeTimeout + 5*time.Second))
	var reset *network.StreamError
	if _, err := raw.Read(make([]byte, 1)); !errors.As(err, &reset) || !reset.Remote {
		t.Fatalf("got %v, want a reset", err)
	}
}

func TestMemberStreamWaitsForARunningHello(t *testing.T) {
	a, b := pair(t)
	r := knowing(a, b)
	c, err := a.dial(ctxFor(t, 5*time.Second), r)
	if err != nil {
		t.Fatal(err)
	}
	// a is in the middle of its hello when b, which has already verified a,
	// opens a stream to it.
	a.peers.beginHello(c)
	eventually(t, "b sees the connection", func() bool { return len(b.peers.all()) == 1 })
	verifyByHand(b)
	opened := make(chan error, 1)
	go func() {
		s, err := b.Open(ctxFor(t, 5*time.Second), a.ID(), echoProtocol)
		if err == nil {
			s.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	a.peers.endHello(c, true, 0)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestHelloThatIsCompleteOnOneSideIsRepaired(t *testing.T) {
	a, b := pair(t)
	if _, err := a.dial(ctxFor(t, 5*time.Second), knowing(a, b)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b sees the connection", func() bool { return len(b.peers.all()) == 1 })
	verifyByHand(b) // a's caller gave up before it had b's answer
	mustEcho(t, mustOpen(t, b, a.ID(), echoProtocol), "hello again")
	if len(a.swarm.Conns()) != 1 || len(a.Connected()) != 1 {
		t.Fatalf("%d connections", len(a.swarm.Conns()))
	}
	// If the peer does refuse, the repair ends and says so.
	a.refuse(b.ID())
	if _, err := b.Open(ctxFor(t, 5*time.Second), a.ID(), echoProtocol); !errors.Is(err, ErrRefused) {
		t.Fatalf("got %v", err)
	}
}

// verifyByHand makes n take its one connection for verified.
func verifyByHand(n *node) {
	c := n.peers.all()[0]
	n.peers.beginHello(c)
	n.peers.endHello(c, true, 0)
}

func TestKnownAddressesAreBounded(t *testing.T) {
	f := newFleet(t)
	a := f.member(func(_ *Config, l *limits) { l.known = 3 })
	b := f.member()
	a.Know(b.endpoint())
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "x")
	var keys []ident.Key
	for range 10 {
		k := newKey(t)
		keys = append(keys, k)
		a.Know(ident.Endpoint{ID: k.ID(), PublicKey: k.Public(), Addrs: []netip.Addr{loopback}, LinkPort: 1})
	}
	if n := len(a.peers.byPeer); n != 3 {
		t.Fatalf("%d nodes known, want 3", n)
	}
	if a.peers.find(b.ID()) == nil {
		t.Fatal("a connected node was forgotten")
	}
	if a.peers.find(keys[9].ID()) == nil || a.peers.find(keys[0].ID()) != nil {
		t.Fatal("the oldest must go, the newest must stay")
	}
	if n := len(a.peers.store.PeersWithAddrs()); n > 3 {
		t.Fatalf("libp2p's store still has %d", n)
	}
}

func TestStrangersLeaveNothingBehind(t *testing.T) {
	f := newFleet(t)
	server := f.member()
	server.HandleOpen("/skein/test-open/1", echo)
	for range 5 {
		g := f.stranger()
		if _, err := g.OpenStranger(ctxFor(t, 5*time.Second), server.endpoint(), "/skein/test-open/1"); err != nil {
			t.Fatal(err)
		}
		g.Close()
	}
	eventually(t, "all are forgotten", func() bool {
		server.peers.mu.Lock()
		n := len(server.peers.byPeer) + server.peers.strangerStreams
		server.peers.mu.Unlock()
		return n == 0 && len(server.peers.store.PeersWithKeys()) == 1
	})
}

func TestEndpointsThatLieAreIgnored(t *testing.T) {
	f := newFleet(t)
	a, b, c := f.member(), f.member(), f.member()
	e := b.endpoint()
	e.PublicKey = c.key.Public() // b's id with c's key
	a.Know(e)
	if a.peers.find(b.ID()) != nil || a.peers.find(c.ID()) != nil {
		t.Fatal("believed")
	}
	a.Know(a.endpoint())
	if a.peers.find(a.ID()) != nil {
		t.Fatal("knows itself as a peer")
	}
	if _, err := a.OpenStranger(t.Context(), ident.Endpoint{ID: b.ID(), PublicKey: ed25519.PublicKey("short")}, echoProtocol); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
}

func TestLoopbackTotalIsUnderThePerAddressRules(t *testing.T) {
	now := time.Now()
	v := newVisitors(1, 3, 2, 5, 3)
	lan := netip.MustParseAddr("192.0.2.1")
	first, second := v.enter(lan, now), v.enter(lan, now)
	if first == nil || second == nil || v.enter(lan, now) != nil {
		t.Fatal("two at once, no third")
	}
	first()
	first() // leaving twice counts once
	third := v.enter(lan, now)
	if third == nil || v.enter(lan, now) != nil {
		t.Fatal("one has left, so one may come")
	}
	third()
	if v.enter(lan, now) != nil {
		t.Fatal("the burst of three is used up")
	}
	if v.enter(lan, now.Add(time.Second)) == nil {
		t.Fatal("the bucket fills by one a second")
	}
	for range 3 {
		if v.enter(loopback, now) == nil {
			t.Fatal("loopback is bound by the total only")
		}
	}
	if v.enter(loopback, now) != nil || v.enter(netip.MustParseAddr("192.0.2.2"), now) != nil {
		t.Fatal("five in all")
	}
}

func TestVisitorsForgetTheLeastRecentThatIsGone(t *testing.T) {
	now := time.Now()
	v := newVisitors(1, 1, 9, 99, 3)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	v.enter(at(1), now) // stays
	for i := 2; i < 50; i++ {
		leave := v.enter(at(i), now)
		if leave == nil {
			t.Fatalf("address %d refused", i)
		}
		leave()
	}
	if len(v.byAddr) != 3 || v.recent.Len() != 3 {
		t.Fatalf("%d remembered, want 3", len(v.byAddr))
	}
	if v.byAddr[at(1)] == nil {
		t.Fatal("one that is active was forgotten")
	}
	if v.enter(at(49), now) != nil {
		t.Fatal("a remembered address got a new burst")
	}
}

func TestVisitorsWithOneIPv6NetworkAreOne(t *testing.T) {
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:2")
	if visitorKey(a) != visitorKey(b) || visitorKey(a) == visitorKey(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Fatal("a /64 is one visitor")
	}
	if visitorKey(netip.MustParseAddr("::ffff:192.0.2.1")) != netip.MustParseAddr("192.0.2.1") {
		t.Fatal("mapped IPv4 is IPv4")
	}
}

func FuzzReadGreeting(f *testing.F) {
	for _, g := range []greeting{{}, {UnixMillis: 1, Refusal: refusedNotAdmitted, Reason: "x\x00\nñ"}, {Chain: make(ident.Chain, 2)}} {
		text, _ := json.Marshal(g)
		f.Add(append([]byte{0, 0, byte(len(text) >> 8), byte(len(text))}, text...))
	}
	root, _ := ident.NewKey()
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := readGreeting(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(g.Reason) > reasonMax {
			t.Fatalf("reason of %d bytes", len(g.Reason))
		}
		if _, err := g.Chain.Verify(root.Public()); err == nil {
			t.Fatal("a chain verified under a root that signed nothing")
		}
	})
}
