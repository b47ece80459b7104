package link

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Time bounds. They are for a LAN; a Wi-Fi stall of two seconds is survived.
const (
	// dialTimeout bounds TCP, Noise and muxer together, for each address.
	dialTimeout = 5 * time.Second
	// handshakeTimeout bounds protocol selection and hello, each side.
	handshakeTimeout = 5 * time.Second
	// reuseTimeout bounds protocol selection on a connection that was there
	// before. A silent one is closed then and dialled anew: its other end is
	// gone or moved.
	reuseTimeout = 3 * time.Second
	// openTimeout bounds Open when the caller sets no deadline.
	openTimeout = 10 * time.Second
	// openServeTimeout bounds a stream of HandleOpen from first to last byte.
	openServeTimeout = 30 * time.Second
	// closeTimeout is how long Close waits for handlers.
	closeTimeout = 5 * time.Second
	// keepAliveInterval is how often a silent connection is probed; one that
	// does not answer within probeTimeout is closed.
	keepAliveInterval = 30 * time.Second
	probeTimeout      = 5 * time.Second
)

// openReadMax bounds what is read from a stream of HandleOpen, in bytes.
const openReadMax = 64 << 10

// limits are the caps of one host. Policy for all: over the cap is refused with
// a reset, nothing waits in a queue.
type limits struct {
	// inbound is the most connections that others may have opened to here.
	inbound int
	// strangers is the most of those without a hello, in all and for each
	// address (loopback: only in all).
	strangers, strangersEach int
	// connsPerPeer: one more closes the oldest; a crashed peer leaves ghosts.
	connsPerPeer int
	// streamsPerPeer is the most streams one member may have opened to here;
	// streamsPerStranger is that of one without hello, strangerStreams of all of
	// them together. An unread stream holds at most 256 KiB.
	streamsPerPeer, streamsPerStranger, strangerStreams int
	// known is the most nodes whose addresses are remembered.
	known int
	// openStreams is the most HandleOpen streams served at once, in all and for
	// each address.
	openStreams, openStreamsEach int
	// idle closes a verified connection without streams, strangerIdle one
	// without hello; strangerLife is the longest a connection lives without.
	idle, strangerIdle, strangerLife time.Duration
	// reapEvery is how often idleness is looked at.
	reapEvery time.Duration
}

func shippedLimits() limits {
	return limits{
		inbound:   1024,
		strangers: 128, strangersEach: 16,
		connsPerPeer:   4,
		streamsPerPeer: 256, streamsPerStranger: 4, strangerStreams: 64,
		known:       4096,
		openStreams: 32, openStreamsEach: 4,
		idle: 2 * time.Minute, strangerIdle: 10 * time.Second, strangerLife: time.Minute,
		reapEvery: 5 * time.Second,
	}
}

// Rates of strangers, per address and second, and how many may come at once.
const (
	acceptsPerSecond, acceptsBurst = 20, 40
	openPerSecond, openBurst       = 2, 10
	visitorsRemembered             = 1024
)

// Why the gatekeeper said no; the swarm logs it at debug level only.
var (
	errTooMany = errors.New("too many connections or streams")
	errWrongID = errors.New("peer id is not of an ed25519 key")
)

// gatekeeper counts connections and streams for the swarm. It implements
// network.ResourceManager because that is the only place that sees a connection
// before its handshake and again at its end.
type gatekeeper struct {
	network.NullResourceManager
	limits    limits
	peers     *peerTable
	strangers *visitors

	mu      sync.Mutex
	inbound int
}

func newGatekeeper(l limits, peers *peerTable) *gatekeeper {
	return &gatekeeper{
		limits:    l,
		peers:     peers,
		strangers: newVisitors(acceptsPerSecond, acceptsBurst, l.strangersEach, l.strangers, visitorsRemembered),
	}
}

// OpenConnection implements network.ResourceManager.
func (g *gatekeeper) OpenConnection(dir network.Direction, _ bool, at ma.Multiaddr) (network.ConnManagementScope, error) {
	if dir != network.DirInbound {
		return &connScope{}, nil
	}
	addr, err := addrOf(at)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inbound >= g.limits.inbound {
		return nil, fmt.Errorf("%w: %d inbound connections", errTooMany, g.inbound)
	}
	settle := g.strangers.enter(addr, time.Now())
	if settle == nil {
		return nil, fmt.Errorf("%w: unverified connections from %s", errTooMany, addr)
	}
	g.inbound++
	return &connScope{settle: settle, done: sync.OnceFunc(g.left)}, nil
}

func (g *gatekeeper) left() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inbound--
}

// OpenStream implements network.ResourceManager.
func (g *gatekeeper) OpenStream(p peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	if dir != network.DirInbound {
		return &streamScope{}, nil
	}
	release, err := g.peers.enterStream(p, g.limits)
	if err != nil {
		return nil, err
	}
	return &streamScope{release: sync.OnceFunc(release)}, nil
}

// connScope is what the swarm holds for one connection.
type connScope struct {
	network.NullScope
	// settle ends the time as a stranger, done that as a connection; nil for
	// outbound ones. libp2p may call Done twice, hence OnceFunc.
	settle, done func()
	peer         network.PeerScope
}

// PeerScope is nil until the handshake has told who it is; libp2p then calls SetPeer.
func (s *connScope) PeerScope() network.PeerScope { return s.peer }

// SetPeer refuses identities that are not ed25519 keys: nobody else can be a node.
func (s *connScope) SetPeer(p peer.ID) error {
	key, err := p.ExtractPublicKey()
	if err != nil || key.Type() != crypto.Ed25519 {
		return errWrongID
	}
	s.peer = &network.NullScope{}
	return nil
}

// Done implements network.ConnManagementScope.
func (s *connScope) Done() {
	s.verified()
	if s.done != nil {
		s.done()
	}
}

// verified: the connection no longer counts as a stranger's.
func (s *connScope) verified() {
	if s.settle != nil {
		s.settle()
	}
}

type streamScope struct {
	network.NullScope
	release func()
}

// Done implements network.StreamManagementScope.
func (s *streamScope) Done() {
	if s.release != nil {
		s.release()
	}
}

func addrOf(at ma.Multiaddr) (netip.Addr, error) {
	ip, err := manet.ToIP(at)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read peer address %s: %w", at, err)
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap(), nil
}
