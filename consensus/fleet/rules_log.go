package fleet

import (
	"skein/consensus/event"
	"skein/mesh/ident"
)

// Rules about the log itself: which event types may be used, what of it is
// sealed, and how it goes on after its voters were lost.

func (tx *Tx) mayRaiseCeiling(p *event.CeilingRaised) *event.Fault {
	if have := tx.fleet.ceiling(); p.Level <= have {
		return noChange("the fleet is at level %d already, and never goes back", have)
	}
	return nil
}

// maySeal: the place is in the past, after the one that was sealed before, and
// signed by the node whose leadership proposes it. Whether the hash is that of
// the chain cannot be told from the state; `skein audit verify` does.
func (tx *Tx) maySeal(e *event.Event, p *event.LogSealed) *event.Fault {
	if p.Seq > tx.seq {
		return conflict("seal what has happened", "event %d is not decided yet, the log ends at %d", p.Seq, tx.seq)
	}
	if last := tx.fleet.Seal; last != nil && p.Seq <= last.Seq {
		return noChange("the log is sealed up to event %d already", last.Seq)
	}
	n := tx.nodes.get(ident.NodeID(e.Actor.ID))
	if n == nil || !p.Signed(tx.fleet.History, n.PublicKey) {
		return event.Refuse(event.CodeNotAllowed, "", "sign with the leader's node key; see event.Seal",
			"the seal of event %d is not signed by node %s", p.Seq, e.Actor.ID)
	}
	return nil
}

func (tx *Tx) seal(e *event.Event, p *event.LogSealed) {
	f := *tx.fleet
	f.Seal = &Seal{Seq: p.Seq, Hash: p.Hash, By: own(ident.NodeID(e.Actor.ID)), Signature: p.Signature, History: f.History}
	tx.fleet = &f
}

// mayRecover: by a member, at the log's end, under a new name. A node that is
// none, because the fleet is restored on a new computer, admits itself earlier in
// the same batch.
func (tx *Tx) mayRecover(e *event.Event, p *event.LogRecovered) *event.Fault {
	if n := tx.nodes.get(ident.NodeID(e.Actor.ID)); n == nil || !n.Member() {
		return event.Refuse(event.CodeNotAllowed, "", "recover on a member of the fleet", "node %s is not a member of this fleet", e.Actor.ID)
	}
	switch {
	case p.History == tx.fleet.History:
		return conflict("give the log a new name", "the log is called %s already", p.History)
	case p.Seq != tx.start:
		return conflict("recover where the log ends", "the log ends at event %d, not %d", tx.start, p.Seq)
	}
	return nil
}

// recover goes on with the actor's node as the only voter. What the others were
// approved for is for an admin to decide anew.
func (tx *Tx) recover(e *event.Event, p *event.LogRecovered) *event.Fault {
	f := *tx.fleet
	f.History = p.History
	f.Recoveries++
	// Lost voters know the gossip keys, and a node that was restored may have lost them.
	f.GossipExposed = true
	tx.fleet = &f
	self := ident.NodeID(e.Actor.ID)
	var others []ident.NodeID
	tx.nodes.each(func(id ident.NodeID, n *Node) {
		if id != self && (n.Voter || n.VoterApproved) {
			others = append(others, id)
		}
	})
	for _, id := range others {
		if fault := edit(&tx.nodes, id, func(n *Node) { n.Voter, n.VoterApproved = false, false }); fault != nil {
			return fault
		}
	}
	return edit(&tx.nodes, self, func(n *Node) { n.Voter, n.VoterApproved, n.VoterEligible = true, true, true })
}
