package link

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"skein/mesh/ident"
)

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

func TestAnotherNodeAtTheAddressIsNotTaken(t *testing.T) {
	f := newFleet(t)
	a, b, moved := f.member(), f.member(), newKey(t)
	a.Know(ident.Endpoint{ID: moved.ID(), PublicKey: moved.Public(), Addrs: []netip.Addr{loopback}, LinkPort: b.Port()})
	if _, err := a.Open(ctxFor(t, 5*time.Second), moved.ID(), echoProtocol); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v", err)
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

// TestNewsOfAMember: what a node tells about itself arrives, also after it has
// changed; and the clocks are compared anew, while a jump of the own clock shows
// by itself.
func TestNewsOfAMember(t *testing.T) {
	f := newFleet(t)
	var level atomic.Uint64
	var ahead, other atomic.Int64
	level.Store(2)
	heard := make(chan Told, 8)
	own := f.member(func(cfg *Config, _ *limits) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		cfg.Heard = func(_ ident.NodeID, told Told) { heard <- told }
	})
	peer := f.member(func(cfg *Config, _ *limits) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(other.Load())) }
		cfg.Tell = func() Told { return Told{Level: level.Load(), Epoch: 7} }
	})
	near := func(what string, want time.Duration) {
		t.Helper()
		if got, ok := own.Skew(peer.ID()); !ok || (got-want).Abs() > 2*time.Second {
			t.Fatalf("%s: skew %v, %v; want about %v", what, got, ok, want)
		}
	}
	if err := own.Greet(ctxFor(t, 5*time.Second), peer.ID()); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("a node without address was greeted: %v", err)
	}
	own.Know(peer.endpoint())
	if err := own.Greet(ctxFor(t, 5*time.Second), peer.ID()); err != nil {
		t.Fatal(err)
	}
	if got, ok := own.Told(peer.ID()); !ok || got != (Told{2, 7}) || <-heard != got {
		t.Fatalf("told %+v, %v", got, ok)
	}
	if got, ok := peer.Told(own.ID()); !ok || got != (Told{}) {
		t.Fatalf("one that tells nothing told %+v, %v", got, ok)
	}
	near("at first", 0)
	ahead.Store(int64(time.Hour))
	near("own clock jumped", -time.Hour)
	level.Store(3)
	other.Store(int64(time.Hour))
	near("the other jumped, not asked yet", -time.Hour)
	if err := own.Greet(ctxFor(t, 5*time.Second), peer.ID()); err != nil {
		t.Fatal(err)
	}
	near("asked", 0)
	if got, _ := own.Told(peer.ID()); got.Level != 3 || len(own.swarm.Conns()) != 1 {
		t.Fatalf("told %+v over %d connections", got, len(own.swarm.Conns()))
	}
	peer.refuse(own.ID())
	if err := own.Greet(ctxFor(t, 5*time.Second), peer.ID()); !errors.Is(err, ErrRefused) {
		t.Fatalf("one that refuses was greeted: %v", err)
	}
}

// TestOlderGreetings: hello of the first builds has no news, and theirs does not
// mind ours.
func TestOlderGreetings(t *testing.T) {
	var g greeting
	if err := json.Unmarshal([]byte(`{"unixMillis":5}`), &g); err != nil || g.Told != (Told{}) {
		t.Fatalf("read %+v, %v", g, err)
	}
	b, err := json.Marshal(greeting{UnixMillis: 5, Told: Told{Level: 2}})
	if err != nil || string(b) != `{"unixMillis":5,"level":2}` {
		t.Fatalf("wrote %s, %v", b, err)
	}
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
	a.peers.endHello(c, &heard{})
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
	n.peers.endHello(c, &heard{})
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

// TestChainOfARevokedIssuerIsRefused: a certificate is worth what its issuers are.
func TestChainOfARevokedIssuerIsRefused(t *testing.T) {
	a, b := pair(t)
	a.cfg.Vouched = func(c ident.Chain) error {
		if c[0].Node() == b.ID() {
			return errors.New("its issuer was revoked")
		}
		return nil
	}
	_, err := b.Open(ctxFor(t, 5*time.Second), a.ID(), echoProtocol)
	if !errors.Is(err, ErrRefused) || !errors.Is(err, ErrTurnedAway) {
		t.Fatalf("turned away: %v, want ErrRefused and ErrTurnedAway", err)
	}
	if _, err := a.Open(ctxFor(t, 5*time.Second), b.ID(), echoProtocol); !errors.Is(err, ErrRefused) || errors.Is(err, ErrTurnedAway) {
		t.Fatalf("the other way: %v, want ErrRefused alone", err)
	}
}
