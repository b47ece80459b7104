package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"skein/mesh/ident"
)

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
	// Far less than the probe of the connection takes (35 s), on a busy machine too.
	if took := time.Since(start); took > reuseTimeout+10*time.Second {
		t.Fatalf("took %s", took)
	}
}
