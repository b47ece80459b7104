package discover

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"skein/mesh/ident"
)

// someone makes a valid endpoint of a new node on loopback.
func someone(t testing.TB, port uint16) ident.Endpoint {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return ident.Endpoint{ID: key.ID(), PublicKey: key.Public(), Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		LinkPort: port, GossipPort: port + 1, HTTPPort: port + 2}
}

// geese and swans are two fleets that share the test's LAN.
func geese(t testing.TB) ident.FleetID { return ident.FleetID("geese of " + t.Name()) }
func swans(t testing.TB) ident.FleetID { return ident.FleetID("swans of " + t.Name()) }

// bird is a running Service and what it has found.
type bird struct {
	self ident.Endpoint
	stop func() // says goodbye and waits for the end

	mu    sync.Mutex
	found map[ident.NodeID]ident.Endpoint
	calls int
}

// hatch runs a service until the test or stop ends it. in runs it somewhere
// else than on this thread's network.
func hatch(t *testing.T, cfg Config, self ident.Endpoint, in func(func() error) error) *bird {
	t.Helper()
	b := &bird{self: self, found: make(map[ident.NodeID]ident.Endpoint)}
	if cfg.Self == nil {
		cfg.Self = func() ident.Endpoint { return self }
	}
	cfg.Found = func(e ident.Endpoint) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.found[e.ID] = e
		b.calls++
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- in(func() error { return s.Run(ctx) }) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// here runs a service on this machine's own network.
func here(run func() error) error { return run() }

// onLoopback hatches a bird as `skein dev` does.
func onLoopback(t *testing.T, fleet ident.FleetID, self ident.Endpoint) *bird {
	t.Helper()
	return hatch(t, Config{Fleet: fleet, Loopback: true}, self, here)
}

func (b *bird) has(id ident.NodeID) (ident.Endpoint, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.found[id]
	return e, ok
}

func (b *bird) ids() []ident.NodeID {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]ident.NodeID, 0, len(b.found))
	for id := range b.found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// forget empties the list of what was found.
func (b *bird) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.found)
}

// until waits for a condition and returns how long that took.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("after %v still not: %s", limit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(start)
}

// meet waits until each of the birds has found exactly the others.
func meet(t *testing.T, limit time.Duration, birds ...*bird) time.Duration {
	t.Helper()
	return until(t, limit, "all find each other and nobody else", func() bool {
		for _, b := range birds {
			var want []ident.NodeID
			for _, o := range birds {
				if o != b {
					want = append(want, o.self.ID)
				}
			}
			slices.Sort(want)
			if !slices.Equal(b.ids(), want) {
				return false
			}
		}
		return true
	})
}
