package member

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"skein/mesh/ident"
)

// faults lie between the nodes of a fleet and their network. Each node sends
// through a faulty of its own.
type faults struct {
	packetLoss, streamLoss atomic.Int64 // per mille
	bytes                  atomic.Int64 // sent in packets, with IP and UDP headers

	mu    sync.Mutex
	sides map[string]int // by node name and by address; both sides of 0 hear all
	deaf  map[string]bool
}

func newFaults() *faults { return &faults{sides: map[string]int{}, deaf: map[string]bool{}} }

// on makes the faults apply to a node with this key.
func (f *faults) on(key ident.Key) func(*Config) {
	return func(c *Config) {
		c.wrap = func(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
			return &faulty{NodeAwareTransport: t, f: f, self: nameOf(key.ID())}
		}
	}
}

// part puts nodes on different sides; nothing passes between two sides.
func (f *faults) part(sides ...[]*testNode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.sides)
	for i, nodes := range sides {
		for _, n := range nodes {
			f.sides[nameOf(n.key.ID())] = i + 1
			f.sides[netip.AddrPortFrom(loopback.Addr(), n.Port()).String()] = i + 1
		}
	}
}

// mute drops packets (not streams) that go to a node.
func (f *faults) mute(n *testNode, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf[nameOf(n.key.ID())] = on
}

func (f *faults) parted(from string, to memberlist.Address) (all, packets bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	target := to.Name
	if target == "" {
		target = to.Addr
	}
	a, b := f.sides[from], f.sides[target]
	return a != 0 && b != 0 && a != b, f.deaf[target]
}

type faulty struct {
	memberlist.NodeAwareTransport
	f    *faults
	self string
}

func (t *faulty) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.f.bytes.Add(int64(len(b)) + 28)
	all, packets := t.f.parted(t.self, a)
	if all || packets || rand.Int64N(1000) < t.f.packetLoss.Load() {
		return time.Now(), nil
	}
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

func (t *faulty) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if all, _ := t.f.parted(t.self, a); all || rand.Int64N(1000) < t.f.streamLoss.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("lost")}
	}
	return t.NodeAwareTransport.DialAddressTimeout(a, timeout)
}
