package discover

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/mdns/v2"
	"golang.org/x/net/ipv4"

	"skein/mesh/ident"
)

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// loIndex is the index of lo in every network namespace.
const loIndex = 1

// sendRaw multicasts a packet on loopback as any other program could.
func sendRaw(t *testing.T, packets ...[]byte) {
	t.Helper()
	conn, err := openSocket(loIndex)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, p := range packets {
		if _, err := conn.WriteToUDPAddrPort(p, group); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNodesOfOneHostFindEachOtherAndNotAnotherFleet(t *testing.T) {
	a := onLoopback(t, geese(t), someone(t, 1000))
	b := onLoopback(t, geese(t), someone(t, 2000))
	x := onLoopback(t, swans(t), someone(t, 3000))
	y := onLoopback(t, swans(t), someone(t, 4000))
	meet(t, 5*time.Second, a, b)
	meet(t, 5*time.Second, x, y)
	newcomer := onLoopback(t, geese(t), ident.Endpoint{}) // looks, does not announce
	until(t, 5*time.Second, "a node that is not admitted finds the fleet", func() bool { return len(newcomer.ids()) == 2 })
	if e, _ := newcomer.has(a.self.ID); !e.Equal(a.self) {
		t.Fatalf("found %+v, want %+v", e, a.self)
	}
	meet(t, time.Second, a, b) // nobody has found the newcomer or a swan
}

func TestLateNodeIsFoundAndFindsAtOnce(t *testing.T) {
	var birds []*bird
	for i := range 5 {
		birds = append(birds, onLoopback(t, geese(t), someone(t, uint16(1000+i))))
	}
	meet(t, 5*time.Second, birds...)
	const rounds = 5
	slow := 0
	for i := range rounds {
		late := onLoopback(t, geese(t), someone(t, uint16(2000+i)))
		took := until(t, 5*time.Second, "the late node is found and finds", func() bool {
			return !slices.ContainsFunc(birds, func(b *bird) bool {
				_, found := b.has(late.self.ID)
				_, finds := late.has(b.self.ID)
				return !found || !finds
			})
		})
		t.Logf("took %v", took)
		if took > 500*time.Millisecond { // 0.2 s on a quiet machine
			slow++
		}
		late.stop()
	}
	if slow > rounds/2 { // a busy machine may be late once
		t.Fatalf("%d of %d meetings took more than 500 ms", slow, rounds)
	}
}

func TestNodeThatComesBackIsToldAgain(t *testing.T) {
	a := onLoopback(t, geese(t), someone(t, 1000))
	self := someone(t, 2000)
	b := onLoopback(t, geese(t), self)
	meet(t, 5*time.Second, a, b)
	b.stop()
	a.forget()
	b = onLoopback(t, geese(t), self)
	meet(t, 5*time.Second, a, b)
}

func TestChangeIsAnnounced(t *testing.T) {
	a := onLoopback(t, geese(t), someone(t, 1000))
	self := someone(t, 2000)
	later := self
	later.HTTPPort = 9999
	said := make(chan ident.Endpoint, 1)
	said <- self
	b := hatch(t, Config{Fleet: geese(t), Loopback: true, Self: func() ident.Endpoint {
		e := <-said
		said <- e
		return e
	}}, self, here)
	meet(t, 5*time.Second, a, b)
	<-said
	said <- later
	until(t, 5*time.Second, "the new port is known", func() bool { e, _ := a.has(self.ID); return e.Equal(later) })
}

func TestGoodbyeIsSaid(t *testing.T) {
	b := onLoopback(t, geese(t), someone(t, 1000))
	conn, err := openSocket(loIndex)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := onLoopback(t, geese(t), ident.Endpoint{})
	until(t, 5*time.Second, "b is found", func() bool { return len(a.ids()) == 1 })
	b.stop()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for buf := make([]byte, maxPacket); ; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("no goodbye: %v", err)
		}
		if msg, err := parse(buf[:n]); err == nil && len(msg.announced) == 1 && msg.announced[0].gone && msg.announced[0].node.ID == b.self.ID {
			return
		}
	}
}

// TestIndependentResolverFindsNodes asks as another mDNS library does: from a
// port of its own, so that the answer must come to it alone.
func TestIndependentResolverFindsNodes(t *testing.T) {
	self := someone(t, 7781)
	b := onLoopback(t, geese(t), self)
	a := onLoopback(t, geese(t), someone(t, 1000))
	meet(t, 5*time.Second, a, b)
	socket, err := openSocket(loIndex)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := usablePorts(true, nil)
	if err != nil || len(lo) != 1 {
		t.Fatalf("loopback interfaces: %v, %v", lo, err)
	}
	resolver, err := mdns.NewServer(ipv4.NewPacketConn(socket), nil, mdns.WithIncludeLoopback(true), mdns.WithCacheRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	events := make(chan mdns.ServiceEvent, 64)
	resolver.OnServiceDiscovered(func(e mdns.ServiceEvent) {
		select {
		case events <- e:
		default:
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := resolver.Browse(ctx, "_skein._tcp"); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-events:
			if e.Instance.Instance != string(self.ID) {
				continue
			}
			if e.Instance.Port != 7781 || e.Addr != self.Addrs[0] || e.Instance.Host != string(self.ID)+".local." {
				t.Fatalf("resolved %+v", e)
			}
			return
		case <-ctx.Done():
			t.Fatal("another library does not find the node")
		}
	}
}

func TestNoiseFromTheLANDoesNoHarm(t *testing.T) {
	a := onLoopback(t, geese(t), someone(t, 1000))
	good := someone(t, 9)
	whole, err := encodeAnnouncement(good, fleetTag(geese(t)), good.Addrs, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		var noise [][]byte
		for range 50 {
			p := append([]byte(nil), whole[:rng.IntN(len(whole))]...)
			for range rng.IntN(8) {
				if len(p) > 0 {
					p[rng.IntN(len(p))] ^= byte(1 + rng.IntN(255))
				}
			}
			noise = append(noise, p)
		}
		sendRaw(t, noise...)
	}
	b := onLoopback(t, geese(t), someone(t, 2000))
	until(t, 5*time.Second, "both still work", func() bool {
		_, ab := a.has(b.self.ID)
		_, ba := b.has(a.self.ID)
		return ab && ba
	})
	for _, id := range a.ids() {
		if e, _ := a.has(id); !e.Valid() {
			t.Fatalf("took %+v", e)
		}
	}
}

func TestFloodOfMadeUpNodesIsBounded(t *testing.T) {
	a := onLoopback(t, geese(t), someone(t, 1000))
	start := time.Now()
	const flood = 3000
	packets := make([][]byte, 0, flood)
	for range flood {
		e := someone(t, 5)
		b, err := encodeAnnouncement(e, fleetTag(geese(t)), e.Addrs, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b)
	}
	for i := 0; i < flood; i += 100 {
		sendRaw(t, packets[i:i+100]...)
	}
	b := onLoopback(t, geese(t), someone(t, 2000))
	until(t, 10*time.Second, "a node is found after a flood", func() bool { _, ok := a.has(b.self.ID); return ok })
	a.mu.Lock()
	defer a.mu.Unlock()
	if most := foundBurst + int(foundPerSecond*(time.Since(start).Seconds()+1)); a.calls > most {
		t.Fatalf("Found was called %d times, at most %d were expected", a.calls, most)
	}
}

func TestAddressesThatNobodyCanHaveAreRefused(t *testing.T) {
	for _, c := range []struct {
		addr     string
		loopback bool
		want     bool
	}{
		{"10.0.0.1", false, true}, {"127.0.0.1", false, false}, {"224.0.0.1", false, false}, {"0.0.0.0", false, false},
		{"127.0.0.1", true, true}, {"10.0.0.1", true, false},
	} {
		if got := reachable(addrs(c.addr), c.loopback); got != c.want {
			t.Errorf("%s, loopback %v: %v, want %v", c.addr, c.loopback, got, c.want)
		}
	}
}
