package node

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"

	"skein/agent/telemetry"
	"skein/consensus/fleet"
	"skein/consensus/replica"
	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/keyring"
	"skein/mesh/link"
	"skein/mesh/member"
	"skein/mesh/presence"
)

const (
	keysProtocol     link.Protocol = keyring.Protocol
	presenceProtocol link.Protocol = presence.Protocol
	// fetchAgain is the wait after a round of asking for gossip keys in vain,
	// fetchTimeout bounds one question.
	fetchAgain   = 2 * time.Second
	fetchTimeout = 3 * time.Second
)

// mesh is how the node finds, hears and reaches the others.
type mesh struct {
	self     *self
	host     *link.Host
	trust    *trust
	store    *replica.Replica
	finder   *discover.Service // nil when mDNS is off
	gossip   *member.Service
	presence *presence.Service
	sampler  *telemetry.Sampler
	// httpPort is that of the face, which listens before the mesh starts.
	httpPort uint16
	// addrs are this node's own, as note saw them last.
	addrs []netip.Addr
	// moved is told when members have come, gone or changed address.
	moved chan struct{}
}

func newMesh(s *self, host *link.Host, trust *trust, store *replica.Replica, httpPort uint16) (*mesh, error) {
	m := &mesh{self: s, host: host, trust: trust, store: store, httpPort: httpPort, moved: make(chan struct{}, 1)}
	for _, e := range s.book.All() {
		host.Know(e)
	}
	m.presence = presence.New(presence.Config{
		Self: s.key.ID(), Boot: s.boot, Log: s.log,
		Open: func(ctx context.Context, id ident.NodeID) (presence.Stream, error) {
			return host.Open(ctx, id, presenceProtocol)
		},
	})
	host.Handle(presenceProtocol, func(ctx context.Context, st *link.Stream) { m.presence.Handle(ctx, st) })
	host.Handle(keysProtocol, func(ctx context.Context, st *link.Stream) {
		defer st.Close()
		if !trust.member(st.Remote()) {
			s.log.Debug("gossip keys refused to a node that the log does not know", "peer", st.Remote())
			return
		}
		if err := s.ring.Serve(ctx, st); err != nil {
			s.log.Debug("gossip keys not handed out", "peer", st.Remote(), "err", err)
		}
	})
	reader, err := telemetry.New(telemetry.Config{DataDir: s.dir.Path()}, time.Now())
	if err != nil {
		return nil, err
	}
	m.sampler = telemetry.NewSampler(reader, m.presence, s.log)
	m.gossip, err = member.New(member.Config{
		Key: s.key, Bind: m.bind(s.cfg.Mesh.GossipPort), Interfaces: s.cfg.Mesh.Interfaces, Ring: s.ring, Log: s.log,
		Meta:    func() member.Meta { return member.Meta{LinkPort: host.Port(), HTTPPort: httpPort, Boot: s.boot} },
		Refused: trust.refused,
		Known:   s.book.All,
		Changed: m.membersChanged,
	})
	if err != nil || !s.cfg.Mesh.MDNS {
		return m, err
	}
	m.finder, err = discover.New(s.discovery(s.member.Load().Fleet(), m.endpoint, m.found))
	if err != nil {
		return nil, errors.Join(err, m.gossip.Close())
	}
	return m, nil
}

// bind is the address that a port listens on.
func (m *mesh) bind(port uint16) netip.AddrPort {
	if m.self.cfg.Mesh.Loopback {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

// endpoint is where this node is, for mDNS, which knows the addresses itself.
func (m *mesh) endpoint() ident.Endpoint {
	return ident.Endpoint{
		ID: m.self.key.ID(), PublicKey: m.self.key.Public(),
		LinkPort: m.host.Port(), GossipPort: m.gossip.Port(), HTTPPort: m.httpPort,
	}
}

// found takes a hint from mDNS. What gossip says, signed, goes before it.
func (m *mesh) found(e ident.Endpoint) {
	if e.ID == m.self.key.ID() || m.trust.refused(e.ID) != nil || m.alive(e.ID) {
		return
	}
	m.host.Know(e)
	m.self.book.Put(e)
	m.gossip.Seek()
}

// membersChanged is called by gossip.
func (m *mesh) membersChanged() {
	select {
	case m.moved <- struct{}{}:
	default:
	}
}

// note keeps what gossip says of others: in the address book for the next
// start, in the host for the next stream. When this node's own address has
// changed, streams from the old one hang, and are found out.
func (m *mesh) note() {
	for _, other := range m.gossip.Members() {
		if other.ID == m.self.key.ID() {
			if len(m.addrs) > 0 && !slices.Equal(m.addrs, other.Addrs) {
				m.self.log.Info("this robot has a new address", "addrs", other.Addrs)
				m.host.Recheck()
			}
			m.addrs = slices.Clone(other.Addrs)
			continue
		}
		if other.State == member.Alive && other.Valid() {
			m.host.Know(other.Endpoint)
			m.self.book.Put(other.Endpoint)
		}
	}
}

// alive is gossip's hint about a node.
func (m *mesh) alive(id ident.NodeID) bool {
	i := slices.IndexFunc(m.gossip.Members(), func(o member.Member) bool { return o.ID == id })
	return i >= 0 && m.gossip.Members()[i].State == member.Alive
}

// Alive implements control.Mesh.
func (m *mesh) Alive(id ident.NodeID) bool { return m.alive(id) }

// Reach implements control.Mesh: a stream opens, so the node is there.
func (m *mesh) Reach(ctx context.Context, id ident.NodeID) error {
	st, err := m.host.Open(ctx, id, keysProtocol)
	if err != nil {
		return err
	}
	return st.Close()
}

// Level implements control.Mesh.
func (m *mesh) Level(id ident.NodeID) (uint64, bool) {
	told, ok := m.host.Told(id)
	return told.Level, ok
}

// GossipEpoch implements control.Mesh.
func (m *mesh) GossipEpoch() uint64 { return m.self.ring.Current().Epoch }

// NewGossipKey implements control.Mesh.
func (m *mesh) NewGossipKey(epoch uint64) error {
	return m.self.ring.Set(m.self.ring.NewEpoch(epoch))
}

// runSampler feeds presence with this machine's telemetry.
func (m *mesh) runSampler(ctx context.Context) error {
	return m.sampler.Run(ctx, func(s telemetry.Sample) {
		data, err := json.Marshal(s)
		if err == nil {
			err = m.presence.Publish(data)
		}
		if err != nil {
			m.self.log.Warn("telemetry not published", "err", err)
		}
	})
}

// keepKeys fetches the gossip keys of the epoch that the log names, from any
// member that has them. The log never holds a key.
func (m *mesh) keepKeys(ctx context.Context) error {
	changed, release := m.store.Subscribe()
	defer release()
	for {
		wake, again := changed, (<-chan time.Time)(nil)
		if want := m.wantedEpoch(); want > m.self.ring.Current().Epoch && !m.fetchKeys(ctx, want) {
			wake, again = nil, time.After(fetchAgain) // not at every change: the log is busy
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-again:
		}
	}
}

func (m *mesh) wantedEpoch() (epoch uint64) {
	m.store.View(func(s *fleet.State) { epoch = s.GossipEpoch() })
	return epoch
}

// fetchKeys asks voters first, then everybody; true when the ring is current.
func (m *mesh) fetchKeys(ctx context.Context, want uint64) bool {
	var voters []ident.NodeID
	m.store.View(func(s *fleet.State) { voters = s.Voters() })
	ids := slices.Clone(voters)
	for _, other := range m.gossip.Members() {
		if other.State == member.Alive && !slices.Contains(voters, other.ID) {
			ids = append(ids, other.ID)
		}
	}
	for _, id := range ids {
		if id == m.self.key.ID() {
			continue
		}
		keys, err := m.askKeys(ctx, id)
		if err == nil && keys.Epoch >= want {
			if err = m.self.ring.Set(keys); err == nil {
				m.self.log.Info("gossip keys renewed", "epoch", keys.Epoch, "from", id)
				return true
			}
		}
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			m.self.log.Debug("no gossip keys from peer", "peer", id, "err", err)
		}
	}
	return false
}

func (m *mesh) askKeys(ctx context.Context, id ident.NodeID) (keyring.Keys, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	st, err := m.host.Open(ctx, id, keysProtocol)
	if err != nil {
		return keyring.Keys{}, err
	}
	defer st.Close()
	return keyring.Fetch(ctx, st)
}
