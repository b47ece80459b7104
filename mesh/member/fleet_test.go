package member

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/mesh/keyring"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// testNode is one node of a fleet on loopback.
type testNode struct {
	*Service
	key    ident.Key
	ring   *keyring.Ring
	boot   uint64
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	refused map[ident.NodeID]bool
	known   []ident.Endpoint
	changes chan struct{}
}

// testFleet shares one gossip key; its nodes share nothing else.
type testFleet struct {
	t     *testing.T
	keys  keyring.Keys
	nodes []*testNode
	// running are all that were ever started.
	running []*testNode
}

func newFleet(t *testing.T, n int, edit func(*Config)) *testFleet {
	t.Helper()
	f := &testFleet{t: t, keys: firstKeys(t)}
	for range n {
		f.add(edit)
	}
	return f
}

func firstKeys(t *testing.T) keyring.Keys {
	t.Helper()
	r, err := keyring.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return r.NewEpoch(1)
}

func (f *testFleet) add(edit func(*Config)) *testNode {
	f.t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	return f.start(key, 1, edit)
}

// start starts a node with the given key and boot on its own disk.
func (f *testFleet) start(key ident.Key, boot uint64, edit func(*Config)) *testNode {
	f.t.Helper()
	ring, err := keyring.Open(filepath.Join(f.t.TempDir(), "keys"))
	if err == nil {
		err = ring.Set(f.keys)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	n := &testNode{key: key, ring: ring, boot: boot, refused: map[ident.NodeID]bool{}, changes: make(chan struct{}, 1), done: make(chan struct{})}
	cfg := Config{
		Key:     key,
		Bind:    loopback,
		Ring:    ring,
		Meta:    func() Meta { return Meta{LinkPort: 1000, HTTPPort: 2000, Boot: boot} },
		Refused: n.refuse,
		Known:   n.knows,
		Changed: func() { signal(n.changes) },
		Log:     slog.New(slog.NewTextHandler(f.t.Output(), nil)),
	}
	if edit != nil {
		edit(&cfg)
	}
	if n.Service, err = New(cfg); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.done)
		n.Run(ctx)
	}()
	f.nodes = append(f.nodes, n)
	if f.running = append(f.running, n); len(f.running) == 1 {
		f.t.Cleanup(f.stopAll)
	}
	return n
}

// stopAll stops at once what would take a second each.
func (f *testFleet) stopAll() {
	for _, n := range f.running {
		n.cancel()
	}
	for _, n := range f.running {
		<-n.done
	}
}

var errRevoked = errors.New("revoked")

func (n *testNode) refuse(id ident.NodeID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refused[id] {
		return errRevoked
	}
	return nil
}

func (n *testNode) knows() []ident.Endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.known)
}

func (n *testNode) endpoint() ident.Endpoint {
	n.Service.mu.Lock()
	defer n.Service.mu.Unlock()
	return n.self.endpoint
}

// stop leaves and waits for the end. kill ends without a word.
func (n *testNode) stop() { n.cancel(); <-n.done }

func (n *testNode) kill() {
	n.Close()
	n.stop()
}

// sees says which state id has in n's list; "" if it is not in it.
func (n *testNode) sees(id ident.NodeID) State {
	for _, m := range n.Members() {
		if m.ID == id {
			return m.State
		}
	}
	return ""
}

func (n *testNode) aliveIDs() []ident.NodeID {
	var ids []ident.NodeID
	for _, m := range n.Members() {
		if m.State == Alive {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// until polls a condition for as long as a deadline allows.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}

// whole waits until every given node lists exactly the given nodes as alive.
func whole(t *testing.T, limit time.Duration, nodes []*testNode) {
	t.Helper()
	want := make([]ident.NodeID, 0, len(nodes))
	for _, n := range nodes {
		want = append(want, n.key.ID())
	}
	slices.Sort(want)
	until(t, limit, "all nodes list each other", func() bool {
		return !slices.ContainsFunc(nodes, func(n *testNode) bool { return !slices.Equal(n.aliveIDs(), want) })
	})
}

// formed joins every node to the first.
func formed(t *testing.T, f *testFleet) {
	t.Helper()
	for _, n := range f.nodes[1:] {
		if _, err := n.Join(t.Context(), []ident.Endpoint{f.nodes[0].endpoint()}); err != nil {
			t.Fatal(err)
		}
	}
	whole(t, 10*time.Second, f.nodes)
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// settled waits until only probes are sent: no news is on its way any more.
func settled(t *testing.T, lie *faults, nodes int) {
	t.Helper()
	const window = time.Second
	since, before := time.Now(), lie.bytes.Load()
	until(t, 20*time.Second, "the news is old", func() bool {
		if time.Since(since) < window {
			return false
		}
		rate := float64(lie.bytes.Load()-before) / time.Since(since).Seconds()
		since, before = time.Now(), lie.bytes.Load()
		return rate < 280*float64(nodes)
	})
}
