package member

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/mesh/ident"
	"skein/mesh/keyring"
)

// TestMain: a node that has stopped leaves nothing running behind.
// A probe that is under way ends by itself, after seconds at most.
func TestMain(m *testing.M) {
	if spec := os.Getenv(nodeEnv); spec != "" {
		if err := runNode(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// newKey makes a key; start takes it, so that faults can know the node before.
func newKey(t *testing.T) ident.Key {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// faulty fleet: n nodes with faults in between, formed.
func newFaultyFleet(t *testing.T, n int, edit func(*Config)) (*testFleet, *faults) {
	t.Helper()
	f, lie := &testFleet{t: t, keys: firstKeys(t)}, newFaults()
	for range n {
		f.addFaulty(lie, edit)
	}
	formed(t, f)
	return f, lie
}

func (f *testFleet) addFaulty(lie *faults, edit func(*Config)) *testNode {
	key := newKey(f.t)
	return f.start(key, 1, func(c *Config) {
		lie.on(key)(c)
		if edit != nil {
			edit(c)
		}
	})
}

// quickly shortens what a test would wait for.
func quickly(c *Config) {
	c.Timings = DefaultTimings()
	c.Timings.RejoinMin, c.Timings.RejoinMax = 200*time.Millisecond, time.Second
}

func TestTwentyNodesHearOfANewOne(t *testing.T) {
	f := newFleet(t, 19, nil)
	formed(t, f)
	const rounds = 3
	var took []time.Duration
	for range rounds {
		start := time.Now()
		n := f.add(nil)
		if _, err := n.Join(t.Context(), []ident.Endpoint{f.nodes[0].endpoint()}); err != nil {
			t.Fatal(err)
		}
		whole(t, 10*time.Second, f.nodes)
		took = append(took, time.Since(start))
		n.stop()
		f.nodes = f.nodes[:19]
		whole(t, 10*time.Second, f.nodes)
	}
	slices.Sort(took)
	if median := took[rounds/2]; median > 700*time.Millisecond {
		t.Fatalf("a new node is listed by all 20 after %v, want at most 0.7 s", median)
	}
	t.Logf("a new node is listed by all 20 after %v", took)
}

func TestKilledNodeIsDeadAndStoppedOneHasLeft(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 5, nil)
	formed(t, f)
	killed, stopped, rest := f.nodes[3], f.nodes[4], f.nodes[:3]
	stopped.stop()
	for _, n := range rest {
		until(t, 2*time.Second, "the stopped node has left", func() bool { return n.sees(stopped.key.ID()) == Left })
	}
	killed.kill()
	for _, n := range rest {
		until(t, 10*time.Second, "the killed node is dead", func() bool { return n.sees(killed.key.ID()) == Dead })
		if got := n.sees(stopped.key.ID()); got != Left {
			t.Errorf("the stopped node is %q now", got)
		}
	}
	select {
	case <-rest[0].changes:
	default:
		t.Error("Changed was not called")
	}
}

func TestRestartedNodeIsTakenBackAtAnotherPort(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 4, nil)
	formed(t, f)
	old := f.nodes[3]
	was := old.Port()
	old.kill() // nobody has noticed when it is back
	f.nodes = f.nodes[:3]
	again := f.start(old.key, 2, nil)
	if again.Port() == was {
		t.Fatal("the test needs another port")
	}
	start := time.Now()
	if _, err := again.Join(t.Context(), []ident.Endpoint{f.nodes[0].endpoint()}); err != nil {
		t.Fatal(err)
	}
	for _, n := range f.nodes[:3] {
		until(t, 5*time.Second, "the node is alive at its new port", func() bool {
			i := slices.IndexFunc(n.Members(), func(m Member) bool { return m.ID == old.key.ID() })
			return i >= 0 && n.Members()[i].State == Alive && n.Members()[i].GossipPort == again.Port() && n.Members()[i].Boot == 2
		})
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("taken back after %v", took)
	}
}

func TestChangedPortsAreTold(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, nil)
	port := make(chan uint16, 1)
	port <- 2000
	n := f.add(func(c *Config) {
		c.Meta = func() Meta {
			p := <-port
			port <- p
			return Meta{LinkPort: 1000, HTTPPort: p, Boot: 1}
		}
	})
	formed(t, f)
	<-port
	port <- 3000
	until(t, 5*time.Second, "the new port is known", func() bool {
		i := slices.IndexFunc(f.nodes[0].Members(), func(m Member) bool { return m.ID == n.key.ID() })
		return i >= 0 && f.nodes[0].Members()[i].HTTPPort == 3000
	})
}

func TestRevokedNodeIsGoneAtOnceAndStaysOut(t *testing.T) {
	t.Parallel()
	hurry := func(c *Config) {
		quickly(c)
		c.Timings.KeyUse, c.Timings.KeyRetire = 500*time.Millisecond, 500*time.Millisecond
	}
	f := newFleet(t, 4, hurry)
	formed(t, f)
	bad, rest := f.nodes[3], f.nodes[:3]
	for _, n := range rest {
		n.mu.Lock()
		n.refused[bad.key.ID()] = true
		n.mu.Unlock()
		n.Refresh()
		if got := n.sees(bad.key.ID()); got != "" {
			t.Fatalf("a revoked node is still listed as %q", got)
		}
	}
	// It still has the gossip key and tries to come back, also as a new start.
	stay := func() {
		t.Helper()
		for _, n := range rest {
			if got := n.sees(bad.key.ID()); got != "" {
				t.Fatalf("a revoked node came back as %q", got)
			}
		}
	}
	for range 3 {
		bad.Join(t.Context(), []ident.Endpoint{rest[0].endpoint(), rest[1].endpoint()})
		stay()
	}
	again := f.start(bad.key, 2, hurry)
	again.Join(t.Context(), []ident.Endpoint{rest[0].endpoint()})
	stay()
	// The fleet changes its key, and it is alone.
	next := rest[0].ring.NewEpoch(2)
	for _, n := range rest {
		if err := n.ring.Set(next); err != nil {
			t.Fatal(err)
		}
	}
	until(t, 20*time.Second, "the revoked node hears nobody any more", func() bool { return len(bad.aliveIDs()) == 1 })
	stay()
	whole(t, time.Second, rest)
}

func TestWithoutTheGossipKeyNobodyGetsIn(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, nil)
	formed(t, f)
	other := newFleet(t, 1, nil) // same protocol, other key
	if n, err := other.nodes[0].Join(t.Context(), []ident.Endpoint{f.nodes[0].endpoint()}); err == nil {
		t.Fatalf("a node with another key reached %d members", n)
	}
	whole(t, time.Second, f.nodes)
}

func TestSplitHealsWithoutHelp(t *testing.T) {
	t.Parallel()
	f, lie := newFaultyFleet(t, 8, quickly)
	one, other := f.nodes[:4], f.nodes[4:]
	everybodyKnowsEverybody(f)
	lie.part(one, other)
	whole(t, 15*time.Second, one)
	whole(t, 15*time.Second, other)
	lie.part()
	start := time.Now()
	whole(t, 15*time.Second, f.nodes)
	t.Logf("whole again %v after healing", time.Since(start))
}

func TestLonelyNodeFindsBackByWhatItKnows(t *testing.T) {
	t.Parallel()
	f, lie := newFaultyFleet(t, 4, quickly)
	alone, rest := f.nodes[3], f.nodes[:3]
	alone.mu.Lock()
	alone.known = []ident.Endpoint{rest[1].endpoint()} // and the others know nothing
	alone.mu.Unlock()
	lie.part(rest, f.nodes[3:])
	whole(t, 15*time.Second, rest)
	until(t, 15*time.Second, "the node is alone", func() bool { return len(alone.aliveIDs()) == 1 })
	lie.part()
	whole(t, 15*time.Second, f.nodes)
}

// TestHalvesThatNeverMetGrowTogether: as after a power cut, when nobody's list
// or gossip leads to the others, only what one node knows.
func TestHalvesThatNeverMetGrowTogether(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 6, quickly)
	one, other := f.nodes[:3], f.nodes[3:]
	for _, half := range [][]*testNode{one, other} {
		for _, n := range half[1:] {
			if _, err := n.Join(t.Context(), []ident.Endpoint{half[0].endpoint()}); err != nil {
				t.Fatal(err)
			}
		}
		whole(t, 10*time.Second, half)
	}
	knowing := one[2]
	knowing.mu.Lock()
	knowing.known = []ident.Endpoint{other[1].endpoint()}
	knowing.mu.Unlock()
	knowing.Seek()
	whole(t, 10*time.Second, f.nodes)
}

func everybodyKnowsEverybody(f *testFleet) {
	var all []ident.Endpoint
	for _, n := range f.nodes {
		all = append(all, n.endpoint())
	}
	for _, n := range f.nodes {
		n.mu.Lock()
		n.known = all
		n.mu.Unlock()
	}
}

// fleetWithOneThatMissedNews is a fleet that one has joined of whom one node
// has not heard. An exchange of lists that happens just then may tell it all
// the same; then another fleet is made.
func fleetWithOneThatMissedNews(t *testing.T) (f *testFleet, lie *faults, deaf *testNode) {
	t.Helper()
	for range 5 {
		f, lie = newFaultyFleet(t, 3, nil)
		deaf = f.nodes[2]
		lie.mute(deaf, true)
		late := f.addFaulty(lie, nil)
		if _, err := late.Join(t.Context(), []ident.Endpoint{f.nodes[0].endpoint()}); err != nil {
			t.Fatal(err)
		}
		settled(t, lie, 3*len(f.nodes)) // probes of the deaf one go on by other ways
		if deaf.sees(late.key.ID()) == "" {
			return f, lie, deaf
		}
	}
	t.Fatal("the deaf node always heard of it by a stream")
	return nil, nil, nil
}

// TestMissedNewsIsCaughtUp: a node that no packet reached while another joined
// hears of it as soon as that one probes it, and not at the next exchange of
// lists, which is minutes away.
func TestMissedNewsIsCaughtUp(t *testing.T) {
	t.Parallel()
	f, lie, deaf := fleetWithOneThatMissedNews(t)
	lie.mute(deaf, false)
	start := time.Now()
	whole(t, 15*time.Second, f.nodes)
	t.Logf("caught up after %v", time.Since(start))
}

func TestLostPacketsKillNobody(t *testing.T) {
	t.Parallel()
	f, lie := newFaultyFleet(t, 10, nil)
	lie.packetLoss.Store(100)
	lie.streamLoss.Store(350) // what 10 % do to the packets of an exchange
	const window, tries = 12 * time.Second, 3
	for range tries { // a machine too busy to answer in time may look like a death
		lost, end := 0, time.Now().Add(window)
		for time.Now().Before(end) {
			for _, n := range f.nodes {
				lost = max(lost, len(f.nodes)-len(n.aliveIDs()))
			}
			time.Sleep(20 * time.Millisecond)
		}
		if lost == 0 {
			return
		}
		t.Logf("with 10 %% of packets lost a node took %d of %d for dead", lost, len(f.nodes))
	}
	t.Fatal("lost packets make nodes look dead all the time")
}

// TestIdleTraffic holds the budget: 260 bytes a second and node, of which 12 are
// for the exchange of lists each 15 minutes, which this test does not wait for.
func TestIdleTraffic(t *testing.T) {
	f, lie := newFaultyFleet(t, 20, nil)
	settled(t, lie, len(f.nodes))
	const tries = 5
	window := 8 * DefaultTimings().Probe // all nodes probe at once here
	best := 0.0
	for range tries { // on a busy machine probes are late, and then there are more
		before := lie.bytes.Load()
		time.Sleep(window)
		rate := float64(lie.bytes.Load()-before) / window.Seconds() / float64(len(f.nodes))
		t.Logf("%.0f B/s a node", rate)
		if rate < 100 {
			t.Fatalf("an idle node sends %.0f B/s: too few to be true", rate)
		}
		if best == 0 || rate < best {
			best = rate
		}
		if best <= 248 {
			return
		}
	}
	t.Fatalf("an idle node sends %.0f B/s, the budget is 248", best)
}

func TestRotationOfKeysLosesNobody(t *testing.T) {
	t.Parallel()
	times := DefaultTimings()
	times.KeyUse, times.KeyRetire = time.Second, 2*time.Second
	times.RejoinMin, times.RejoinMax = 200*time.Millisecond, time.Second
	hurry := func(c *Config) { c.Timings = times }
	f, lie := newFaultyFleet(t, 5, hurry)
	everybodyKnowsEverybody(f)
	away, rest := f.nodes[4], f.nodes[:4]
	lie.part(rest, f.nodes[4:])
	whole(t, 15*time.Second, rest)
	until(t, 15*time.Second, "the one that is away is alone", func() bool { return len(away.aliveIDs()) == 1 })

	next := rest[0].ring.NewEpoch(2)
	for _, n := range rest { // each fetches the key at a time of its own
		if err := n.ring.Set(next); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if got := len(n.aliveIDs()); got != 4 {
				t.Fatalf("a node lists %d of 4 during the rotation", got)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	f.keys = next
	joining := f.start(newKey(t), 1, hurry)
	if _, err := joining.Join(t.Context(), []ident.Endpoint{rest[1].endpoint()}); err != nil {
		t.Fatal(err)
	}
	now := append(slices.Clone(rest), joining)
	whole(t, 10*time.Second, now)
	for _, n := range now {
		until(t, 10*time.Second, "the old key is dropped, on disk too", func() bool {
			return len(n.keys.GetKeys()) == 1 && len(n.ring.Current().Previous) == 0
		})
	}
	whole(t, time.Second, now)

	lie.part() // the one that was away has the old key only
	if n, err := away.Join(t.Context(), []ident.Endpoint{rest[0].endpoint()}); err == nil {
		t.Fatalf("the old key still reaches %d members", n)
	}
	if err := away.ring.Set(next); err != nil { // what keys/1 gives it
		t.Fatal(err)
	}
	whole(t, 15*time.Second, f.nodes)
}

func TestKeysChangeInSteps(t *testing.T) {
	t.Parallel()
	times := DefaultTimings()
	times.KeyUse, times.KeyRetire = time.Second, time.Second
	n := newFleet(t, 1, func(c *Config) { c.Timings = times }).nodes[0]
	old, next := n.ring.Current().Primary, n.ring.NewEpoch(2)
	holds := func(keys ...[]byte) func() bool {
		return func() bool { return slices.EqualFunc(n.keys.GetKeys(), keys, bytes.Equal) }
	}
	start := time.Now()
	if err := n.ring.Set(next); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the new key is accepted, the old one used", holds(old, next.Primary))
	until(t, 5*time.Second, "the new key is used, the old one accepted", holds(next.Primary, old))
	used := time.Since(start)
	until(t, 5*time.Second, "the old key is dropped", holds(next.Primary))
	if dropped := time.Since(start); used < times.KeyUse || dropped-used < times.KeyRetire/2 {
		t.Fatalf("used after %v, old one dropped after %v", used, dropped)
	}
}

func TestTwoRotationsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, nil)
	formed(t, f)
	for epoch := uint64(2); epoch <= 5; epoch++ {
		k := f.nodes[0].ring.NewEpoch(epoch)
		for _, n := range f.nodes {
			if err := n.ring.Set(k); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The key in use is none of those that are still accepted.
	until(t, 2*time.Second, "a key that all accept is used", func() bool {
		k := f.nodes[0].ring.Current()
		accepted := append(k.Previous, k.Primary)
		return !slices.ContainsFunc(f.nodes, func(n *testNode) bool {
			return !slices.ContainsFunc(accepted, func(key []byte) bool { return bytes.Equal(key, n.keys.GetPrimaryKey()) })
		})
	})
	whole(t, 5*time.Second, f.nodes)
}

func TestNoiseAndPiledUpStreamsDoNoHarm(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, nil)
	formed(t, f)
	to := f.nodes[0].endpoint()
	addr := netip.AddrPortFrom(to.Addrs[0], to.GossipPort).String()
	udp, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i := range 2000 {
		udp.Write(make([]byte, i%1400))
	}
	var open []net.Conn
	for range 4 * maxInboundStreams {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	until(t, streamTimeout/2, "streams over the bound are closed", func() bool {
		closed := 0
		for _, c := range open {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			var none net.Error
			if _, err := c.Read(make([]byte, 1)); err != nil && (!errors.As(err, &none) || !none.Timeout()) {
				closed++
			}
		}
		return closed >= 3*maxInboundStreams
	})
	for _, c := range open {
		c.Close()
	}
	n := f.add(nil)
	until(t, 10*time.Second, "a new node gets in again", func() bool {
		_, err := n.Join(t.Context(), []ident.Endpoint{to})
		return err == nil
	})
	whole(t, 10*time.Second, f.nodes)
}

func TestStopIsQuickWhileAContactHangs(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, e := someone(t, "127.0.0.1")
	e.endpoint.GossipPort = uint16(silent.Addr().(*net.TCPAddr).Port)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.nodes[0].Join(t.Context(), []ident.Endpoint{e.endpoint})
	}()
	c, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	f.nodes[0].stop()
	<-done
	if took := time.Since(start); took > streamTimeout/2 {
		t.Fatalf("stopping took %v", took)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	ring, err := keyring.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Key: newKey(t), Bind: loopback, Ring: ring, Meta: func() Meta { return Meta{Boot: 1} }}
	if _, err := New(cfg); !errors.Is(err, ErrNoKeys) {
		t.Errorf("without keys: %v, want ErrNoKeys", err)
	}
	if err := ring.Set(ring.NewEpoch(1)); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.Bind = addrPort(taken.Addr().String())
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), portText(cfg.Bind.Port())) {
		t.Errorf("port taken: %v", err)
	}
	cfg.Meta = func() Meta { return Meta{} }
	if _, err := New(cfg); err == nil {
		t.Error("a boot of 0 was accepted")
	}
}

func TestAdvertiseIsToldAlone(t *testing.T) {
	want := ips("10.9.8.7")[0]
	f := newFleet(t, 1, func(c *Config) { c.Advertise = func() netip.Addr { return want } })
	if got := f.nodes[0].endpoint().Addrs; len(got) != 1 || got[0] != want {
		t.Fatalf("tells %v, want %v", got, want)
	}
}
