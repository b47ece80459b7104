package presence

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/mesh/ident"
	"skein/mesh/link"
)

// TestOverRealStreams is the one test on sockets and real time: three nodes, of
// which the viewer has no edge to the robot it looks at.
func TestOverRealStreams(t *testing.T) {
	defer goleak.VerifyNone(t)
	root, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	hosts, services, at := make([]*link.Host, 3), make([]*Service, 3), make([]ident.Endpoint, 3)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, len(hosts))
	for i := range hosts {
		hosts[i], at[i] = linkHost(t, root)
		services[i] = New(Config{Self: hosts[i].ID(), Boot: 1, Open: func(ctx context.Context, id ident.NodeID) (Stream, error) {
			return hosts[i].Open(ctx, id, Protocol)
		}})
		hosts[i].Handle(Protocol, func(ctx context.Context, s *link.Stream) { services[i].Handle(ctx, s) })
		go func() { ended <- services[i].Run(ctx) }()
	}
	for i := 1; i < len(hosts); i++ {
		hosts[i].Know(at[i-1])
		services[i].SetUplinks([]ident.NodeID{hosts[i-1].ID()})
	}
	defer services[2].Watch()()
	if err := services[0].Publish(text(0, 1)); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for string(services[2].Reports()[hosts[0].ID()].Data) != string(text(0, 1)) {
		select {
		case <-services[2].Changed():
		case <-deadline:
			t.Fatal("the report did not arrive")
		}
	}
	cancel()
	for range hosts {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, h := range hosts {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func linkHost(t *testing.T, root ident.Key) (*link.Host, ident.Endpoint) {
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	chain := ident.NewChain(ident.FleetIDOf(root.Public()), key.Public(), false, time.Now(), root, nil)
	h, err := link.New(link.Config{
		Key: key, Root: root.Public(), Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Chain: func() ident.Chain { return chain },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, ident.Endpoint{
		ID: h.ID(), PublicKey: key.Public(), Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, LinkPort: h.Port(),
	}
}
