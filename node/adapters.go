package node

import (
	"context"
	"encoding/json"
	"net"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/mesh/member"
	"skein/mesh/presence"
)

// The types below give a part the view of another that it asks for.

type presenceReport = presence.Report

// decider is the seat as propose sees it: who leads is also known from marks.
type decider struct{ b *body }

// Offer implements propose.Group.
func (d decider) Offer(batch event.Batch, done func(replica.Outcome, error)) error {
	return d.b.seat.Offer(batch, done)
}

// Leader implements propose.Group.
func (d decider) Leader() (ident.NodeID, bool) { return d.b.leader() }

// Accepts implements propose.Group.
func (d decider) Accepts() error { return d.b.seat.Accepts() }

// followLink opens the streams of following, and learns from how that goes
// whether this node is still welcome.
type followLink struct{ b *body }

// Open implements follow.Link.
func (l followLink) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	st, err := l.b.host.Open(ctx, id, followProtocol)
	l.b.met(id, err)
	if err != nil {
		return nil, err
	}
	return st, nil
}

// met notes how a member answered, and ends a node that others turn away for so
// long that it must have been expelled without hearing of it.
func (b *body) met(id ident.NodeID, err error) {
	if expelled := b.trust.met(id, err); expelled != nil {
		b.end(expelled)
	}
}

// registry is the fleet as admission sees it.
type registry struct{ b *body }

// View implements admission.Fleet.
func (r registry) View(f func(*fleet.State)) { r.b.store.View(f) }

// Leader implements admission.Fleet.
func (r registry) Leader() (ident.NodeID, bool) { return r.b.leader() }

// Record implements admission.Fleet.
func (r registry) Record(ctx context.Context, drafts ...event.Draft) error {
	return r.b.seat.Record(ctx, drafts...)
}

// Voters implements admission.Fleet: this node and the voters, where gossip
// last heard them.
func (r registry) Voters() (out []ident.Endpoint) {
	voters := map[ident.NodeID]bool{r.b.self.key.ID(): true}
	r.b.store.View(func(s *fleet.State) {
		for _, id := range s.Voters() {
			voters[id] = true
		}
	})
	for _, m := range r.b.mesh.gossip.Members() {
		if voters[m.ID] && m.State == member.Alive && m.Valid() {
			out = append(out, m.Endpoint)
		}
	}
	return out
}

// admissionLink opens admission's streams.
type admissionLink struct{ host *link.Host }

// Open implements admission.Link.
func (l admissionLink) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	return l.host.Open(ctx, id, admissionProtocol)
}

// gossipKeys are what a newcomer gets.
func (b *body) gossipKeys() (json.RawMessage, error) { return json.Marshal(b.self.ring.Current()) }
