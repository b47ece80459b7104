package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"skein/mesh/ident"
	"skein/mesh/keyring"
)

const (
	// pollEvery is how often a node looks whether its own addresses, its Meta or
	// the verdicts of Refused have changed. It costs about 0.01 % of a core, and
	// must be well below the time after which the silence at an old address makes
	// others take the node for dead, which is 1.7 s at the least.
	pollEvery = time.Second
	// updateWait bounds the wait for an update to have been passed on, and each
	// of the two steps of leaving.
	updateWait = 500 * time.Millisecond
	// streamTimeout bounds a contact with another node.
	streamTimeout = 4 * time.Second
	// packetBytes keeps a packet whole on any link, tunnels included.
	packetBytes = 1200
	// settle is the time after start in which others may still repeat what an
	// earlier boot of this node said.
	settle = time.Minute
)

// Config is what a Service needs. Key, Bind, Meta and Ring are required.
type Config struct {
	Key ident.Key
	// Bind is the UDP and TCP address of gossip. An unspecified address listens
	// on all interfaces and follows them; port 0 takes a free one.
	Bind netip.AddrPort
	// Advertise, if set and its result valid, is the one address to tell others.
	// It is asked every second.
	Advertise func() netip.Addr
	// Interfaces restricts and orders the interfaces whose addresses are told to
	// others when Bind is unspecified; empty means all but virtual ones.
	Interfaces []string
	// Meta is asked every second for what else to tell.
	Meta func() Meta
	Ring *keyring.Ring
	// Refused says why a node is not welcome; nil means that it is. It is called
	// often and under locks: it must be quick and must not call this package.
	Refused func(ident.NodeID) error
	// Known lists nodes to look for as long as they are not alive members.
	Known func() []ident.Endpoint
	// Changed is called from Run when Members may give another answer. Several
	// changes may come as one call.
	Changed func()
	Log     *slog.Logger
	// Timings: the zero value means DefaultTimings.
	Timings Timings
	// wrap, if set, comes between memberlist and the network. Tests lose packets
	// with it.
	wrap func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
}

// Meta is what a node tells others about itself besides its addresses.
type Meta struct {
	LinkPort, HTTPPort uint16
	// Boot must differ at every start of the node; not 0.
	Boot uint64
}

// Timings are the periods of gossip. DESIGN.md has the measurements behind the
// defaults.
type Timings struct {
	// Probe is the time between probes, and how long a probe waits before it has
	// failed; ProbeTimeout how long it waits before it asks others to try.
	Probe, ProbeTimeout time.Duration
	// Gossip is the time between rounds of passing news on (nothing is sent
	// when there is none), PushPull that between exchanges of whole lists.
	Gossip, PushPull time.Duration
	// RejoinMin and RejoinMax bound the waits between attempts to find nodes.
	RejoinMin, RejoinMax time.Duration
	// KeyUse is the time from accepting a new key to using it, KeyRetire that
	// from using it to dropping the older ones.
	KeyUse, KeyRetire time.Duration
}

// DefaultTimings are for a LAN of 5 to 100 robots.
func DefaultTimings() Timings {
	return Timings{
		Probe:        850 * time.Millisecond,
		ProbeTimeout: 300 * time.Millisecond,
		Gossip:       100 * time.Millisecond,
		PushPull:     15 * time.Minute,
		RejoinMin:    time.Second,
		RejoinMax:    30 * time.Second,
		KeyUse:       3 * time.Second,
		KeyRetire:    15 * time.Second,
	}
}

// Service is this node's part in the mesh's membership.
type Service struct {
	cfg   Config
	log   *slog.Logger
	born  time.Time
	table *table
	net   *transport
	list  *memberlist.Memberlist
	keys  *memberlist.Keyring
	wake  chan struct{} // rejoin: do not wait any longer
	moved chan struct{} // Run: look at the addresses now
	stray chan struct{} // catchUp: news has gone to where this node was

	endMu sync.Mutex // memberlist panics when told to leave after its end
	ended bool

	mu   sync.Mutex
	self statement // what this node says about itself
	raw  []byte    // its signed form
}

// New binds the port and starts gossip. Errors: ErrNoKeys, a port in use, or a
// Config that lacks something.
func New(cfg Config) (*Service, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	keys, err := newKeyring(cfg.Ring.Current())
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:   cfg,
		log:   cfg.Log,
		born:  time.Now(),
		table: newTable(cfg.Key.ID(), cfg.Refused),
		keys:  keys,
		wake:  make(chan struct{}, 1),
		moved: make(chan struct{}, 1),
		stray: make(chan struct{}, 1),
	}
	s.table.foreign = s.warnForeign()
	if s.net, err = newTransport(cfg.Bind, s.table); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("gossip port %d is in use by another program; stop it, or set another gossip port: %w", cfg.Bind.Port(), err)
		}
		return nil, fmt.Errorf("open gossip port on %s: %w", cfg.Bind, err)
	}
	s.restate(false)
	if s.list, err = memberlist.Create(s.memberlistConfig()); err != nil {
		return nil, errors.Join(fmt.Errorf("start gossip: %w", err), s.net.Shutdown())
	}
	return s, nil
}

func (c *Config) complete() error {
	if c.Meta == nil || c.Ring == nil || !c.Bind.IsValid() || c.Meta().Boot == 0 {
		return errors.New("member.Config needs Key, Bind, Ring and a Meta with a Boot")
	}
	if c.Refused == nil {
		c.Refused = func(ident.NodeID) error { return nil }
	}
	if c.Known == nil {
		c.Known = func() []ident.Endpoint { return nil }
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Timings == (Timings{}) {
		c.Timings = DefaultTimings()
	}
	if c.wrap == nil {
		c.wrap = func(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport { return t }
	}
	return nil
}

func (s *Service) memberlistConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = s.table.self
	c.Transport = s.cfg.wrap(s.net)
	c.BindPort, c.AdvertisePort = 0, 0 // see placeAddr
	c.Keyring = s.keys
	c.Delegate = delegate{s}
	c.Events = s.table
	c.Alive = s.table
	c.Logger = quiet(s.log)
	c.TCPTimeout = streamTimeout
	c.UDPBufferSize = packetBytes
	c.ProbeInterval = s.cfg.Timings.Probe
	c.ProbeTimeout = s.cfg.Timings.ProbeTimeout
	c.GossipInterval = s.cfg.Timings.Gossip
	c.PushPullInterval = s.cfg.Timings.PushPull
	// A node that failed a probe (its own, three by way of others, one over TCP)
	// has Probe × log10(nodes), at least Probe, to contradict.
	c.SuspicionMult = 1
	c.SuspicionMaxTimeoutMult = 1
	// News costs only when there is any, so it is passed on more often than by
	// default: with RetransmitMult 4, one join in 70 did not reach some node.
	c.GossipNodes = 4
	c.RetransmitMult = 8
	// Signatures and keys do not compress, and the compressor takes 64 KB a packet.
	c.EnableCompression = false
	c.DNSConfigPath = ""
	return c
}

// Port is the port that gossip listens on.
func (s *Service) Port() uint16 { return s.net.port() }

// Members lists this node and all it knows of, ordered by id, without refused
// ones. Dead and Left ones stay for 24 h.
func (s *Service) Members() []Member { return s.table.members() }

// Refresh asks Config.Refused about every member again. Call it when the answer
// may have changed: a node that is refused now is gone from Members at once and
// gets no more packets. Without the call it takes up to a second.
func (s *Service) Refresh() { s.table.refresh() }

// AddressChanged makes Run look at this machine's addresses at once, and look
// for missing members. Run notices by itself within a second.
func (s *Service) AddressChanged() { signal(s.moved) }

// Seek makes Run look for Known nodes that are missing without waiting for the
// next round.
func (s *Service) Seek() { signal(s.wake) }

// Run keeps the node in touch until ctx ends; then it leaves and closes. It
// returns nil. A ctx with a cause of its own ends it as a crash would: without
// a goodbye.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.rejoin(ctx) })
	wg.Go(func() { s.catchUp(ctx) })
	wg.Go(func() { s.followKeys(ctx) })
	defer wg.Wait()
	defer s.Close() // first, so that a contact under way ends now
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-s.table.changed:
			s.cfg.Changed()
		case <-poll.C:
			s.table.refresh()
			s.update(false)
		case <-s.moved:
			s.update(false)
			s.Seek()
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				s.leave()
			}
			return nil
		}
	}
}

// Close stops gossip without saying goodbye, as a crash would. Run does it too;
// it is for a Service that is not run.
func (s *Service) Close() error {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	s.ended = true
	return s.list.Shutdown()
}

// leave tells others that this node stops on purpose.
func (s *Service) leave() {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.ended {
		return
	}
	s.update(true)
	if err := s.list.Leave(updateWait); err != nil {
		s.log.Debug("leaving was not passed on in time", "error", err)
	}
}

// update tells others if what this node says about itself has changed.
func (s *Service) update(leaving bool) {
	changed, moved := s.restate(leaving)
	if !changed {
		return
	}
	if err := s.list.UpdateNode(updateWait); err != nil {
		s.log.Debug("update was not passed on in time", "error", err)
	}
	if moved {
		signal(s.stray)
	}
	s.Seek()
}

// restate makes a new statement if anything in it has changed; moved: this node
// has other addresses than before.
func (s *Service) restate(leaving bool) (changed, moved bool) {
	meta := s.cfg.Meta()
	addrs := s.addresses()
	s.mu.Lock()
	defer s.mu.Unlock()
	next := statement{
		endpoint: ident.Endpoint{
			ID:         s.cfg.Key.ID(),
			PublicKey:  s.cfg.Key.Public(),
			Addrs:      addrs,
			LinkPort:   meta.LinkPort,
			GossipPort: s.Port(),
			HTTPPort:   meta.HTTPPort,
		},
		boot:    meta.Boot,
		n:       s.self.n + 1,
		leaving: leaving,
	}
	if s.raw != nil && next.endpoint.Equal(s.self.endpoint) && next.boot == s.self.boot && next.leaving == s.self.leaving {
		return false, false
	}
	if moved = s.raw != nil && !slices.Equal(addrs, s.self.endpoint.Addrs); moved {
		s.log.Info("address changed", "from", s.self.endpoint.Addrs, "to", addrs)
	}
	s.self, s.raw = next, next.encode(s.cfg.Key)
	return true, moved
}

// addresses are those at which others reach this node, at most MaxMetaAddrs.
func (s *Service) addresses() []netip.Addr {
	if s.cfg.Advertise != nil {
		if a := s.cfg.Advertise(); a.IsValid() {
			return []netip.Addr{a}
		}
	}
	bound := s.cfg.Bind.Addr()
	if !bound.IsUnspecified() {
		return []netip.Addr{bound}
	}
	prefixes, err := localPrefixes(s.cfg.Interfaces)
	if err != nil {
		s.log.Debug("cannot list interfaces", "error", err)
	}
	prefixes = slices.DeleteFunc(prefixes, func(p netip.Prefix) bool { return bound.Is4() && !p.Addr().Is4() })
	s.net.home.Store(&prefixes)
	addrs := make([]netip.Addr, 0, MaxMetaAddrs)
	for _, p := range prefixes[:min(len(prefixes), MaxMetaAddrs)] {
		addrs = append(addrs, p.Addr())
	}
	if len(addrs) == 0 { // no network yet: nobody can hear this anyway
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return addrs
}

// warnForeign gives a function that tells, once a minute at most, that another
// machine runs with this node's key. memberlist's lock is held when it is called.
func (s *Service) warnForeign() func(statement) {
	var last time.Time
	return func(st statement) {
		now := time.Now()
		if now.Sub(s.born) < settle || now.Sub(last) < time.Minute {
			return
		}
		last = now
		s.log.Warn("another machine uses this node's key; give each robot its own data directory",
			"addresses", st.endpoint.Addrs, "boot", st.boot)
	}
}

// delegate gives memberlist this node's metadata. It uses none of memberlist's
// own messages.
type delegate struct{ s *Service }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.s.raw
}

// NotifyMsg implements memberlist.Delegate.
func (delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (delegate) MergeRemoteState([]byte, bool) {}
