package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"skein/consensus/fleet"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/mesh/member"
	"skein/node/rescue"
)

// checkpointEvery is how often the log's past is looked at also when nothing is
// new, so that its age counts in an idle fleet too.
const checkpointEvery = time.Hour

// keepHistory keeps the log's past within its bounds.
func (b *body) keepHistory(ctx context.Context) error {
	ticker := time.NewTicker(checkpointEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := b.store.Checkpoint(); err != nil {
			return fmt.Errorf("write a checkpoint: %w", err)
		}
	}
}

// compareClocks compares the voters' clocks while this node leads.
func (b *body) compareClocks(ctx context.Context) error {
	leading := func() bool { _, yes := b.seat.Leading(); return yes }
	return b.seat.clock.keep(ctx, leading, b.seat.Changed)
}

// pastLink opens the streams of back-fill.
type pastLink struct{ host *link.Host }

// Open implements backfill.Link.
func (l pastLink) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	return l.host.Open(ctx, id, pastProtocol)
}

// havePast are whom to ask for the log's past: voters, who keep it, the leader
// last of them because it has enough to do, and then everybody who is alive.
func (b *body) havePast() (ids []ident.NodeID) {
	b.store.View(func(s *fleet.State) { ids = slices.Clone(s.Voters()) })
	if leader, ok := b.leader(); ok {
		if i := slices.Index(ids, leader); i >= 0 {
			ids = append(slices.Delete(ids, i, i+1), leader)
		}
	}
	for _, m := range b.mesh.gossip.Members() {
		if m.State == member.Alive && len(ids) < maxCandidates && !slices.Contains(ids, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// knownMembers are those that this node knows how to reach, also before it has
// heard of any: the voters first.
func (b *body) knownMembers() (ids []ident.NodeID) {
	b.store.View(func(s *fleet.State) { ids = slices.Clone(s.Voters()) })
	for _, e := range b.self.book.All() {
		if !slices.Contains(ids, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

const (
	// tellEvery is how often a voter of a fleet that was recovered looks for members
	// that may not know of it, and tellAtOnce how many it tells then.
	tellEvery  = 3 * time.Second
	tellAtOnce = 8
	// tellTimeout bounds one of them.
	tellTimeout = 3 * time.Second
)

// tellEpoch says hello once to every member, and again when it has restarted, if
// the fleet was ever recovered: voters that were given up may be among them, and
// nothing else would make them and this node speak to each other.
func (b *body) tellEpoch(ctx context.Context) error {
	told := map[ident.NodeID]uint64{} // the boot that was told
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, seated := b.seat.status(); !seated || b.seat.epoch() == 0 {
			continue
		}
		left := tellAtOnce
		for _, m := range b.mesh.gossip.Members() {
			if m.State != member.Alive || m.ID == b.self.key.ID() || told[m.ID] == m.Boot || left == 0 {
				continue
			}
			left--
			greetCtx, cancel := context.WithTimeout(ctx, tellTimeout)
			if b.host.Greet(greetCtx, m.ID) == nil {
				told[m.ID] = m.Boot
			}
			cancel()
		}
	}
}

// serveChain tells how far this node's copy of the log is.
func (b *body) serveChain(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	err := rescue.ServeChain(ctx, conn, remote, rescue.ServeConfig{Chain: b.store, Leader: func() (ident.NodeID, time.Duration, bool) {
		m, age, ok := b.follower.Latest()
		return m.Leader, age, ok && m.Leader != ""
	}})
	if err != nil && ctx.Err() == nil {
		b.self.log.Debug("question about the log not answered", "remote", remote, "err", err)
	}
}
