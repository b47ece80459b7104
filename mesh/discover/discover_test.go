package discover

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pion/mdns/v2"

	"skein/mesh/ident"
)

func someone(t *testing.T, port uint16) ident.Endpoint {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return ident.Endpoint{ID: key.ID(), PublicKey: key.Public(), Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		LinkPort: port, GossipPort: port + 1, HTTPPort: port + 2}
}

// start runs a service on loopback and returns what it finds.
func start(t *testing.T, fleet ident.FleetID, self ident.Endpoint) <-chan ident.Endpoint {
	t.Helper()
	found := make(chan ident.Endpoint, 64)
	s, err := New(Config{Self: func() ident.Endpoint { return self }, Fleet: fleet, Loopback: true, Log: slog.New(slog.DiscardHandler),
		Found: func(e ident.Endpoint) {
			select {
			case found <- e:
			default:
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return found
}

func await(t *testing.T, found <-chan ident.Endpoint, want ident.Endpoint) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-found:
			if e.ID == want.ID {
				if !e.Equal(want) {
					t.Fatalf("found %+v, want %+v", e, want)
				}
				return
			}
			t.Fatalf("found %s, which is of another fleet or the node itself", e.ID)
		case <-deadline:
			t.Fatalf("%s was not found", want.ID)
		}
	}
}

func TestNodesOfOneHostFindEachOtherAndNotAnotherFleet(t *testing.T) {
	geese, swans := ident.FleetID("geese"), ident.FleetID("swans")
	a, b, other := someone(t, 1000), someone(t, 2000), someone(t, 3000)
	start(t, swans, other)
	foundByA := start(t, geese, a)
	foundByB := start(t, geese, b)
	await(t, foundByA, b)
	await(t, foundByB, a)
	newcomer := start(t, geese, ident.Endpoint{}) // looks, does not answer
	for range 2 {
		if e := <-newcomer; e.ID != a.ID && e.ID != b.ID {
			t.Fatalf("newcomer found %s", e.ID)
		}
	}
}

func TestBookSurvivesAndIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	quiet := slog.New(slog.DiscardHandler)
	b, err := OpenBook(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	last := ident.Endpoint{}
	for i := range MaxPeers + 10 {
		last = someone(t, uint16(1000+i))
		b.Put(last)
	}
	if n := len(b.All()); n != MaxPeers {
		t.Fatalf("book has %d peers, want at most %d", n, MaxPeers)
	}
	b.Forget(last.ID)
	keep := b.All()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenBook(path, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.All(); len(got) != len(keep) || !got[0].Equal(keep[0]) {
		t.Fatalf("after a restart: %d peers, want %d", len(got), len(keep))
	}
}

func TestDamagedBookIsAnEmptyOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := OpenBook(path, slog.New(slog.DiscardHandler))
	if err != nil || len(b.All()) != 0 {
		t.Fatalf("got %d peers, err %v", len(b.All()), err)
	}
}

// FuzzParse: whatever the LAN says, what comes out is valid or refused.
func FuzzParse(f *testing.F) {
	f.Add("id", "1", "filterfilter", "key", "1", "2", "10.0.0.1", uint16(7781))
	f.Fuzz(func(t *testing.T, id, v, filter, key, gossip, http, addr string, port uint16) {
		ip, _ := netip.ParseAddr(addr)
		e, ok := parse(mdns.ServiceEvent{Addr: ip, Instance: mdns.ServiceInstance{Instance: id, Port: port, Text: []mdns.TXTEntry{
			text("v", v), text("f", filter), text("k", key), text("g", gossip), text("h", http)}}}, "filterfilter")
		if ok && (!e.Valid() || filter != "filterfilter") {
			t.Fatalf("accepted %+v of %q", e, filter)
		}
	})
}
