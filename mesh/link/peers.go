package link

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"skein/mesh/ident"
)

// peerTable knows the other nodes: their addresses and the connections that are
// open to them. It holds a node while it has an address or a connection; over
// the cap the longest untouched one without connection is forgotten.
type peerTable struct {
	store peerstore.Peerstore
	self  ident.NodeID
	max   int

	mu              sync.Mutex
	byPeer          map[peer.ID]*remote
	byNode          map[ident.NodeID]*remote
	touches         uint64
	strangerStreams int
}

// remote is one other node.
type remote struct {
	peer peer.ID
	node ident.NodeID
	key  ed25519.PublicKey
	// turn has room for one: at most one dial or hello at a time to this node.
	turn chan struct{}

	// The rest is guarded by peerTable.mu.
	conns   []*conn // oldest first
	streams int     // open inbound streams
	addrs   []ma.Multiaddr
	touched uint64
}

// conn is one TCP connection.
type conn struct {
	raw    network.Conn
	remote *remote
	opened time.Time

	// The rest is guarded by peerTable.mu.
	verified  bool
	hellos    int           // running now, either side's
	settled   chan struct{} // closed, and made anew, when a hello ends
	heard     heard
	idleSince time.Time
}

// heard is what the newest hello of a connection brought.
type heard struct {
	told Told
	// clock is what the peer's wall clock showed at the moment at, which is of
	// this node's monotonic clock.
	clock, at time.Time
}

func newPeerTable(store peerstore.Peerstore, self ident.NodeID, max int) *peerTable {
	return &peerTable{
		store: store, self: self, max: max,
		byPeer: make(map[peer.ID]*remote), byNode: make(map[ident.NodeID]*remote),
	}
}

// peerIDOf is libp2p's name for the holder of key.
func peerIDOf(key ed25519.PublicKey) (peer.ID, error) {
	k, err := crypto.UnmarshalEd25519PublicKey(key)
	if err != nil {
		return "", fmt.Errorf("read public key: %w", err)
	}
	return peer.IDFromPublicKey(k)
}

// entry finds or makes the record of a node. The caller holds mu.
func (t *peerTable) entry(p peer.ID, key ed25519.PublicKey) *remote {
	r := t.byPeer[p]
	if r == nil {
		if len(t.byPeer) >= t.max {
			t.forgetOldest()
		}
		r = &remote{peer: p, node: ident.IDOf(key), key: key, turn: make(chan struct{}, 1)}
		t.byPeer[p], t.byNode[r.node] = r, r
	}
	t.touches++
	r.touched = t.touches
	return r
}

func (t *peerTable) forgetOldest() {
	var oldest *remote
	for _, r := range t.byPeer {
		if len(r.conns) == 0 && (oldest == nil || r.touched < oldest.touched) {
			oldest = r
		}
	}
	if oldest != nil {
		t.forget(oldest)
	}
}

// forget drops the record and what libp2p keeps of it. The caller holds mu.
func (t *peerTable) forget(r *remote) {
	delete(t.byPeer, r.peer)
	delete(t.byNode, r.node)
	t.store.ClearAddrs(r.peer)
	t.store.RemovePeer(r.peer)
}

// know sets the addresses of a node and returns its open connections if the
// addresses changed: those may lead to where it no longer is.
func (t *peerTable) know(e ident.Endpoint) []*conn {
	p, err := peerIDOf(e.PublicKey)
	if err != nil || e.ID == t.self {
		return nil
	}
	addrs := multiaddrs(e)
	if len(addrs) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.entry(p, slices.Clone(e.PublicKey))
	if slices.EqualFunc(r.addrs, addrs, ma.Multiaddr.Equal) {
		return nil
	}
	first := r.addrs == nil
	r.addrs = addrs
	t.store.ClearAddrs(p)
	t.store.AddAddrs(p, addrs, peerstore.PermanentAddrTTL)
	if first {
		return nil
	}
	return slices.Clone(r.conns)
}

// multiaddrs are the endpoint's dialable addresses, sorted: their order means
// nothing to the swarm. IPv6 link-local ones are left out: libp2p does not dial
// them.
func multiaddrs(e ident.Endpoint) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range e.Addrs {
		a = a.Unmap()
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() {
			continue
		}
		if m, err := tcpMultiaddr(netip.AddrPortFrom(a, e.LinkPort)); err == nil {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, ma.Multiaddr.Compare)
	return slices.CompactFunc(out, ma.Multiaddr.Equal)
}

func tcpMultiaddr(at netip.AddrPort) (ma.Multiaddr, error) {
	family := "ip4"
	if at.Addr().Is6() {
		family = "ip6"
	}
	return ma.NewMultiaddr(fmt.Sprintf("/%s/%s/tcp/%d", family, at.Addr().WithZone(""), at.Port()))
}

// find returns the node's record, nil if it is neither known nor connected.
func (t *peerTable) find(id ident.NodeID) *remote {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byNode[id]
}

// heard is what the newest hello with a node brought that is still connected.
func (t *peerTable) heard(id ident.NodeID) (heard, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.byNode[id]
	if r == nil {
		return heard{}, false
	}
	var newest heard
	found := false
	for _, c := range r.conns {
		if c.verified && (!found || c.heard.at.After(newest.at)) {
			newest, found = c.heard, true
		}
	}
	return newest, found
}

// opened records a connection, unless it is recorded or closed already; the
// swarm announces the end of every other one later. It returns one to close: the
// oldest of a peer that has too many.
func (t *peerTable) opened(raw network.Conn, perPeer int) (surplus *conn, err error) {
	key, err := raw.RemotePublicKey().Raw()
	if err != nil {
		return nil, fmt.Errorf("read peer's key: %w", err)
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if raw.IsClosed() {
		return nil, nil
	}
	r := t.entry(raw.RemotePeer(), key)
	if slices.ContainsFunc(r.conns, func(c *conn) bool { return c.raw == raw }) {
		return nil, nil
	}
	r.conns = append(r.conns, &conn{raw: raw, remote: r, opened: now, idleSince: now, settled: make(chan struct{})})
	if len(r.conns) > perPeer {
		return r.conns[0], nil
	}
	return nil, nil
}

// closed forgets a connection, and its node too if no address of it is known.
func (t *peerTable) closed(raw network.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.byPeer[raw.RemotePeer()]
	if r == nil {
		return
	}
	r.conns = slices.DeleteFunc(r.conns, func(c *conn) bool { return c.raw == raw })
	if len(r.conns) == 0 && r.addrs == nil {
		t.forget(r)
	}
}

// connOf finds the record of a connection; nil when it has just closed.
func (t *peerTable) connOf(raw network.Conn) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.byPeer[raw.RemotePeer()]
	if r == nil {
		return nil
	}
	for _, c := range r.conns {
		if c.raw == raw {
			return c
		}
	}
	return nil
}

// live lists the node's usable connections, newest first: after a crash the
// older ones are ghosts.
func (t *peerTable) live(r *remote, verified bool) []*conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*conn
	for _, c := range slices.Backward(r.conns) {
		if c.verified == verified && !c.raw.IsClosed() {
			out = append(out, c)
		}
	}
	return out
}

// all lists every connection.
func (t *peerTable) all() []*conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*conn
	for _, r := range t.byPeer {
		out = append(out, r.conns...)
	}
	return out
}

// enterStream counts an inbound stream, or refuses it.
func (t *peerTable) enterStream(p peer.ID, l limits) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.byPeer[p]
	if r == nil {
		return nil, errTooMany
	}
	stranger := !slices.ContainsFunc(r.conns, func(c *conn) bool { return c.verified })
	most := l.streamsPerPeer
	if stranger {
		most = l.streamsPerStranger
	}
	if r.streams >= most || stranger && t.strangerStreams >= l.strangerStreams {
		return nil, fmt.Errorf("%w: %d streams from %s", errTooMany, r.streams, r.node.Short())
	}
	r.streams++
	if stranger {
		t.strangerStreams++
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		r.streams--
		if stranger {
			t.strangerStreams--
		}
	}, nil
}

// idle lists connections that have been without streams for too long.
func (t *peerTable) idle(now time.Time, l limits) []*conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*conn
	for _, r := range t.byPeer {
		for _, c := range r.conns {
			if c.raw.Stat().NumStreams > 0 || c.hellos > 0 {
				c.idleSince = now
			}
			quiet, life := now.Sub(c.idleSince), now.Sub(c.opened)
			if c.verified && quiet >= l.idle || !c.verified && (quiet >= l.strangerIdle || life >= l.strangerLife) {
				out = append(out, c)
			}
		}
	}
	return out
}
