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
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-yamux/v5"

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
	// Vouched says why a chain that leads to Root is not trusted all the same,
	// because somebody in it was revoked; nil if it is. It is asked at hello. Nil
	// trusts every chain.
	Vouched func(ident.Chain) error
	// Tell is what hello tells others about this node; nil tells nothing.
	Tell func() Told
	// Heard is called after every hello with what the node told. It must not call
	// the Host.
	Heard func(ident.NodeID, Told)
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
	if cfg.Vouched == nil {
		cfg.Vouched = func(ident.Chain) error { return nil }
	}
	if cfg.Tell == nil {
		cfg.Tell = func() Told { return Told{} }
	}
	if cfg.Heard == nil {
		cfg.Heard = func(ident.NodeID, Told) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
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
// old one hangs silently. An address that was this node's own can be dialled from
// now on: it may be another's.
func (h *Host) Recheck() {
	h.swarm.ListenClose() // closes nothing; the swarm forgets which addresses are its own, which it remembers for a minute
	h.probe(h.peers.all())
}

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

// Skew is the node's wall clock minus this node's, by the newest hello of a
// connection that is still open; the error is at most the round trip. Since then
// the node's clock is taken to have run on as this node's monotonic one, so a
// jump of this node's own clock shows at once and one of the other at the next
// Greet.
func (h *Host) Skew(id ident.NodeID) (time.Duration, bool) {
	heard, ok := h.peers.heard(id)
	if !ok {
		return 0, false
	}
	return heard.clock.Add(time.Since(heard.at)).Sub(h.cfg.Now().Round(0)), true
}

// Told is what the node told about itself at that hello.
func (h *Host) Told(id ident.NodeID) (Told, bool) {
	heard, ok := h.peers.heard(id)
	return heard.told, ok
}

// Greet says hello to a member, over a new connection if there is none, so that
// Skew and Told are of now. ctx bounds it, 10 s if it has no deadline.
func (h *Host) Greet(ctx context.Context, id ident.NodeID) error {
	if err := h.greet(ctx, id); err != nil {
		return fmt.Errorf("say hello to %s: %w", id.Short(), err)
	}
	return nil
}

func (h *Host) greet(ctx context.Context, id ident.NodeID) error {
	if err := h.welcome(id); err != nil {
		return err
	}
	r := h.peers.find(id)
	if r == nil {
		return fmt.Errorf("%w: no address of it is known yet", ErrUnreachable)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	c, fresh, err := h.memberConn(ctx, r)
	if err != nil || fresh {
		return err
	}
	done, err := h.takeTurn(ctx, r)
	if err != nil {
		return err
	}
	defer done()
	return h.sayHello(ctx, c)
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
