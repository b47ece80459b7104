package link

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	muxyamux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-yamux/v5"
	ma "github.com/multiformats/go-multiaddr"
)

// ErrPortInUse: another program, or another skein, holds the link port.
var ErrPortInUse = errors.New("port is in use")

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
	host   *Host
	closed *atomic.Bool // on purpose
}

// Listen implements transport.Transport.
func (t quietTransport) Listen(at ma.Multiaddr) (transport.Listener, error) {
	l, err := t.TcpTransport.Listen(at)
	if err != nil {
		return nil, err
	}
	return quietListener{l, t.host, new(atomic.Bool)}, nil
}

// Close implements transport.Listener.
func (l quietListener) Close() error {
	l.closed.Store(true)
	return l.Listener.Close()
}

// Accept implements transport.Listener.
func (l quietListener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		return c, nil
	}
	if !l.closed.Load() {
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
