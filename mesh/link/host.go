package link

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	muxyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-yamux/v5"
	ma "github.com/multiformats/go-multiaddr"

	"skein/mesh/ident"
)

// Config is what a Host needs. Functions are called from many goroutines and
// must answer at once.
type Config struct {
	Key  ident.Key
	Root ed25519.PublicKey
	// Listen: an unspecified or zero address listens on all, IPv4 and IPv6; port
	// 0 takes any free one.
	Listen netip.AddrPort
	// Chain is this node's certificate chain; nil while it is not admitted.
	Chain func() ident.Chain
	// Refused says why a node is not welcome (revoked), nil if it is. It is asked
	// at every stream, inbound and outbound. Nil refuses nobody.
	Refused func(ident.NodeID) error
	// Now is the wall clock that hello tells; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Host is the node's end of all its streams. All methods may be called from any
// goroutine.
type Host struct {
	cfg    Config
	limits limits
	id     ident.NodeID
	port   uint16

	swarm        *swarm.Swarm
	peers        *peerTable
	openVisitors *visitors

	handlersMu sync.RWMutex
	handlers   map[Protocol]handler

	ctx       context.Context
	cancel    context.CancelFunc
	runningMu sync.Mutex // orders enter with Close
	running   sync.WaitGroup
	closing   func() error
}

// ErrPortInUse: another program, or another skein, holds the link port.
var ErrPortInUse = errors.New("port is in use")

// New makes a host and listens at once. The caller must Close it.
func New(cfg Config) (*Host, error) { return newHost(cfg, shippedLimits()) }

func newHost(cfg Config, l limits) (*Host, error) {
	cfg = withDefaults(cfg)
	priv, err := crypto.UnmarshalEd25519PrivateKey(cfg.Key.Private())
	if err != nil {
		return nil, fmt.Errorf("start link: read node key: %w", err)
	}
	self, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("start link: read node key: %w", err)
	}
	store, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, fmt.Errorf("start link: %w", err)
	}
	h := &Host{
		cfg: cfg, limits: l, id: cfg.Key.ID(), handlers: make(map[Protocol]handler),
		peers:        newPeerTable(store, cfg.Key.ID(), l.known),
		openVisitors: newVisitors(openPerSecond, openBurst, l.openStreamsEach, l.openStreams, visitorsRemembered),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.closing = sync.OnceValue(func() error { return h.shutDown(store) })
	if err := store.AddPrivKey(self, priv); err != nil {
		return nil, errors.Join(fmt.Errorf("start link: %w", err), h.Close())
	}
	if h.swarm, err = h.assemble(self, priv, store); err != nil {
		return nil, errors.Join(fmt.Errorf("start link: %w", err), h.Close())
	}
	if h.port, err = h.listen(cfg.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("start link: %w", err), h.Close())
	}
	h.running.Go(h.reap)
	return h, nil
}

func withDefaults(cfg Config) Config {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Refused == nil {
		cfg.Refused = func(ident.NodeID) error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// assemble builds the swarm: TCP, then Noise, then yamux.
func (h *Host) assemble(self peer.ID, priv crypto.PrivKey, store peerstore.Peerstore) (*swarm.Swarm, error) {
	gate := newGatekeeper(h.limits, h.peers)
	muxers := []upgrader.StreamMuxer{{ID: muxyamux.ID, Muxer: (*muxyamux.Transport)(yamuxConfig(h.limits))}}
	secure, err := noise.New(noise.ID, priv, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{secure}, muxers, nil, gate, nil, upgrader.WithAcceptTimeout(handshakeTimeout))
	if err != nil {
		return nil, err
	}
	// Without SO_REUSEPORT: with it two nodes could listen on one port and
	// neither would notice.
	tcpOnly, err := tcp.NewTCPTransport(up, gate, nil, tcp.DisableReuseport(), tcp.WithConnectionTimeout(dialTimeout))
	if err != nil {
		return nil, err
	}
	// An own event bus without metrics: the default ones are global to the
	// process. No black hole counters: on a LAN whose robots are off, most dials
	// fail, and that says nothing about the next one.
	s, err := swarm.NewSwarm(self, store, eventbus.NewBus(),
		swarm.WithResourceManager(gate),
		swarm.WithDialTimeout(dialTimeout), swarm.WithDialTimeoutLocal(dialTimeout),
		swarm.WithUDPBlackHoleSuccessCounter(nil), swarm.WithIPv6BlackHoleSuccessCounter(nil))
	if err != nil {
		return nil, err
	}
	s.Notify(&network.NotifyBundle{ConnectedF: h.connected, DisconnectedF: h.disconnected})
	s.SetStreamHandler(h.onStream)
	if err := s.AddTransport(quietTransport{tcpOnly, h}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// quietTransport is TCP whose listeners end as the swarm expects it. Without it
// the swarm writes an error to stderr at about every tenth shutdown.
type quietTransport struct {
	*tcp.TcpTransport
	host *Host
}

type quietListener struct {
	transport.Listener
	host *Host
}

// Listen implements transport.Transport.
func (t quietTransport) Listen(at ma.Multiaddr) (transport.Listener, error) {
	l, err := t.TcpTransport.Listen(at)
	if err != nil {
		return nil, err
	}
	return quietListener{l, t.host}, nil
}

// Accept implements transport.Listener.
func (l quietListener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		return c, nil
	}
	if l.host.ctx.Err() == nil && !errors.Is(err, transport.ErrListenerClosed) {
		l.host.cfg.Log.Error("link stopped listening; restart the node", "addr", l.Multiaddr().String(), "err", err)
	}
	return nil, transport.ErrListenerClosed
}

// yamuxConfig keeps an idle connection at about 5 bytes a second each way.
func yamuxConfig(l limits) *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = true
	c.KeepAliveInterval = keepAliveInterval
	c.ConnectionWriteTimeout = probeTimeout
	// Only the growth of windows uses the round-trip time; the first measurement
	// is made when the connection opens.
	c.MeasureRTTInterval = time.Hour
	c.MaxStreamWindowSize = 1 << 20
	// The gatekeeper counts exactly; this bounds what it has not seen yet.
	c.MaxIncomingStreams = uint32(l.streamsPerPeer) * 2
	c.LogOutput = io.Discard
	c.ReadBufSize = 0 // Noise buffers
	return c
}

// listen binds one port for IPv4 and IPv6, or the one address asked for.
func (h *Host) listen(at netip.AddrPort) (uint16, error) {
	if at.Addr().IsValid() && !at.Addr().IsUnspecified() {
		return h.listenOn(at)
	}
	const tries = 8 // a free port of IPv4 may be taken on IPv6
	var err error
	for range tries {
		var port uint16
		if port, err = h.listenOn(netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())); err != nil {
			return 0, err
		}
		_, err = h.listenOn(netip.AddrPortFrom(netip.IPv6Unspecified(), port))
		if err == nil {
			return port, nil
		}
		if !errors.Is(err, ErrPortInUse) {
			h.cfg.Log.Debug("no IPv6 here", "err", err)
			return port, nil
		}
		if at.Port() != 0 {
			return 0, err
		}
		h.swarm.ListenClose(h.swarm.ListenAddresses()...)
	}
	return 0, err
}

func (h *Host) listenOn(at netip.AddrPort) (uint16, error) {
	m, err := tcpMultiaddr(at)
	if err != nil {
		return 0, fmt.Errorf("listen on %s: %w", at, err)
	}
	before := len(h.swarm.ListenAddresses())
	err = h.swarm.AddListenAddr(m)
	if errors.Is(err, syscall.EADDRINUSE) {
		return 0, fmt.Errorf("listen on %s: %w: stop the program that holds it (`ss -ltnp sport = :%d` shows it) or set another mesh.link_port",
			at, ErrPortInUse, at.Port())
	}
	if err != nil {
		return 0, fmt.Errorf("listen on %s: %w; check the listen address and mesh.link_port in the configuration", at, err)
	}
	if at.Port() != 0 {
		return at.Port(), nil
	}
	return portOf(h.swarm.ListenAddresses(), before)
}

func portOf(listening []ma.Multiaddr, before int) (uint16, error) {
	if len(listening) != before+1 {
		return 0, errors.New("listening address is missing")
	}
	for _, m := range listening {
		text, err := m.ValueForProtocol(ma.P_TCP)
		if err != nil {
			continue
		}
		at, err := netip.ParseAddrPort("0.0.0.0:" + text)
		if err == nil {
			return at.Port(), nil
		}
	}
	return 0, errors.New("listening address has no port")
}

// Port is the TCP port that is listened on.
func (h *Host) Port() uint16 { return h.port }

// ID is this node.
func (h *Host) ID() ident.NodeID { return h.id }

// Know says where a node is. It replaces what was known of it; an endpoint that
// is not Valid is ignored. If the addresses are new, connections to the old ones
// are probed and closed if nothing answers.
func (h *Host) Know(e ident.Endpoint) {
	if !e.Valid() {
		h.cfg.Log.Debug("endpoint ignored", "peer", e.ID)
		return
	}
	h.probe(h.peers.know(e))
}

// Recheck probes every connection and closes those that do not answer within
// 5 s. Call it when this node's own address has changed: what was open from the
// old one hangs silently.
func (h *Host) Recheck() { h.probe(h.peers.all()) }

func (h *Host) probe(conns []*conn) {
	for _, c := range conns {
		var session *yamux.Session
		if !c.raw.As(&session) || !h.enter() {
			continue
		}
		go func() {
			defer h.running.Done()
			if _, err := session.Ping(); err != nil {
				h.cfg.Log.Info("silent connection closed", "peer", c.remote.node, "err", err)
				c.raw.Close()
			}
		}()
	}
}

// Drop closes all connections and streams with a node now. Whether it may come
// back is up to Config.Refused.
func (h *Host) Drop(id ident.NodeID) {
	if r := h.peers.find(id); r != nil {
		h.swarm.ClosePeer(r.peer)
	}
}

// Connected lists the nodes with a verified connection, in no order.
func (h *Host) Connected() []ident.NodeID {
	h.peers.mu.Lock()
	defer h.peers.mu.Unlock()
	var out []ident.NodeID
	for _, r := range h.peers.byPeer {
		for _, c := range r.conns {
			if c.verified {
				out = append(out, r.node)
				break
			}
		}
	}
	return out
}

// Skew is the node's wall clock minus this node's, as told at the newest hello
// of a connection that is still open; the error is at most the round trip.
func (h *Host) Skew(id ident.NodeID) (time.Duration, bool) {
	r := h.peers.find(id)
	if r == nil {
		return 0, false
	}
	h.peers.mu.Lock()
	defer h.peers.mu.Unlock()
	for i := len(r.conns) - 1; i >= 0; i-- {
		if r.conns[i].verified {
			return r.conns[i].skew, true
		}
	}
	return 0, false
}

func (h *Host) connected(_ network.Network, raw network.Conn) {
	surplus, err := h.peers.opened(raw, h.limits.connsPerPeer)
	if err != nil {
		h.cfg.Log.Debug("connection refused", "err", err)
		raw.Close()
		return
	}
	if surplus != nil {
		surplus.raw.Close()
	}
}

func (h *Host) disconnected(_ network.Network, raw network.Conn) { h.peers.closed(raw) }

// reap closes idle connections until the host closes.
func (h *Host) reap() {
	ticker := time.NewTicker(h.limits.reapEvery)
	defer ticker.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-ticker.C:
			for _, c := range h.peers.idle(now, h.limits) {
				c.raw.Close()
			}
		}
	}
}

// enter counts one more goroutine, unless the host is closing.
func (h *Host) enter() bool {
	h.runningMu.Lock()
	defer h.runningMu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.running.Add(1)
	return true
}

// Close ends all streams and connections, stops listening and waits up to 5 s
// for handlers to return.
func (h *Host) Close() error { return h.closing() }

func (h *Host) shutDown(store io.Closer) error {
	h.runningMu.Lock()
	h.cancel()
	h.runningMu.Unlock()
	var errs []error
	if h.swarm != nil {
		errs = append(errs, h.swarm.Close())
	}
	errs = append(errs, store.Close())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.running.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(closeTimeout):
		errs = append(errs, fmt.Errorf("close link: handlers still run after %s; they must return when their context ends", closeTimeout))
	}
	return errors.Join(errs...)
}
