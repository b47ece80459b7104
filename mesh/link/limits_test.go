package link

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/mesh/wire"
)

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

func TestIdleTrafficOfAConnection(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 35 s, one keep-alive and a bit")
	}
	f := newFleet(t)
	a, b := f.member(), f.member()
	cable := newCable(t, b.endpoint())
	a.Know(cable.endpoint())
	mustEcho(t, mustOpen(t, a, b.ID(), echoProtocol), "x")
	before := cable.bytes.Load()
	time.Sleep(35 * time.Second)
	each := float64(cable.bytes.Load()-before) / 2 / 35
	t.Logf("payload bytes a second each way: %.2f", each)
	if each > 10 {
		t.Fatalf("%.1f B/s", each)
	}
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
