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

// Offer implements propose.Group. Who expels nodes waits until Raft does not count
// on them any more.
func (d decider) Offer(batch event.Batch, done func(replica.Outcome, error)) error {
	expelled := expels(batch)
	if len(expelled) == 0 {
		return d.b.seat.Offer(batch, done)
	}
	if err := d.Accepts(); err != nil {
		return err
	}
	var verdict fleet.Verdict
	var refusal error
	now := d.b.seat.clock.now()
	d.b.store.View(func(s *fleet.State) { verdict, refusal = s.Check(batch, now) })
	switch {
	case refusal != nil: // nobody loses a vote for what is not allowed
		done(replica.Outcome{Err: refusal}, nil)
		return nil
	case verdict.Repeated:
		return d.b.seat.Offer(batch, done)
	}
	return d.b.lead.control.Dismiss(expelled, func(ctx context.Context) error {
		outcome, err := d.b.seat.submit(ctx, batch)
		done(outcome, err)
		return err
	}, func(err error) { done(replica.Outcome{}, err) })
}

// expels are the nodes that a batch takes the membership of.
func expels(b event.Batch) (ids []ident.NodeID) {
	for i := range b.Drafts {
		if d := &b.Drafts[i]; d.Type == event.TypeNodeLeft || d.Type == event.TypeNodeRevoked {
			ids = append(ids, ident.NodeID(event.Subject(d.Stream)))
		}
	}
	return ids
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
