package fleet

import (
	"strings"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// nodeOf is the id that e's stream has.
func nodeOf(e *event.Event) ident.NodeID { return ident.NodeID(event.Subject(e.Stream)) }

// own is an id to keep: one that is not a part of an event's text.
func own(id ident.NodeID) ident.NodeID { return ident.NodeID(strings.Clone(string(id))) }

// member finds the node that e is about and refuses when it is none of the fleet's.
func (tx *Tx) member(e *event.Event) (*Node, *event.Fault) {
	n := tx.nodes.get(nodeOf(e))
	switch {
	case n == nil:
		return nil, event.Refuse(event.CodeNotFound, "", "see `skein node list`", "there is no node %s", nodeOf(e))
	case n.Revoked:
		return nil, event.Refuse(event.CodeConflict, event.ReasonRevoked, "a revoked node never comes back; join with a new key", "node %s was revoked", n.ID)
	case n.Left:
		return nil, conflict("it has to join again", "node %s left the fleet", n.ID)
	}
	return n, nil
}

// mayAdmit: a credential is good, and the key was never revoked.
func (tx *Tx) mayAdmit(e *event.Event, p *event.NodeAdmitted) *event.Fault {
	n := tx.nodes.get(nodeOf(e))
	switch {
	case n == nil && tx.nodes.count() >= MaxNodes:
		return full("nodes", MaxNodes)
	case n != nil && n.Revoked:
		return event.Refuse(event.CodeNotAllowed, event.ReasonRevoked, "join with a new key", "node %s was revoked", n.ID)
	case n != nil && !n.Left:
		return event.Refuse(event.CodeConflict, event.ReasonAlreadyAdmitted, "nothing needs to be done", "node %s is a member already", n.ID)
	}
	switch p.By {
	case event.ByToken:
		return tx.mayUseToken(e, p.Ref)
	case event.ByEnrolment:
		return tx.mayUseEnrolment(ident.NodeID(p.Ref))
	}
	if e.Actor.Kind != event.KindGenesis && e.Actor.Kind != event.KindRecovery {
		return event.Refuse(event.CodeNotAllowed, "", "use an enrolment key or a token", "only the founder is admitted by genesis")
	}
	return nil
}

func (tx *Tx) mayUseToken(e *event.Event, hash string) *event.Fault {
	const next = "make a new one with `skein token create`"
	t := tx.tokens.get(hash)
	switch {
	case t == nil:
		return event.Refuse(event.CodeNotAllowed, event.ReasonTokenUnknown, next, "the fleet does not know this join token")
	case t.UsedBy != "":
		return event.Refuse(event.CodeNotAllowed, event.ReasonTokenUsed, next, "this join token was used by node %s", t.UsedBy.Short())
	case t.expired(e.Time):
		return event.Refuse(event.CodeNotAllowed, event.ReasonTokenExpired, next, "this join token expired at %s", t.ExpiresAt.Format("2006-01-02 15:04:05 MST"))
	}
	return nil
}

func (tx *Tx) mayUseEnrolment(id ident.NodeID) *event.Fault {
	k := tx.enrolments.get(id)
	switch {
	case k == nil:
		return event.Refuse(event.CodeNotAllowed, event.ReasonEnrolmentUnknown, "put this fleet's file on the robot", "the fleet does not know enrolment key %s", id.Short())
	case k.Revoked:
		return event.Refuse(event.CodeNotAllowed, event.ReasonEnrolmentRevoked, "put the new fleet file on the robot, or use a token", "enrolment key %s was revoked", id.Short())
	}
	return nil
}

// admit makes the node a member. One that comes back starts without its old
// roles, except that a vote the leader has not taken yet is still a fact.
func (tx *Tx) admit(e *event.Event, p *event.NodeAdmitted) *event.Fault {
	n := &Node{ID: own(nodeOf(e)), PublicKey: p.PublicKey, Name: p.Name, AdmittedAt: e.Time, By: p.By, Ref: p.Ref}
	if old := tx.nodes.get(n.ID); old != nil {
		n.Voter = old.Voter
	}
	tx.nodes.put(n.ID, n)
	if p.By != event.ByToken {
		return nil
	}
	return edit(&tx.tokens, p.Ref, func(t *Token) { t.UsedBy = n.ID })
}

// othersVote counts the voters that are members, but for id.
func (tx *Tx) othersVote(id ident.NodeID) int {
	count := 0
	tx.nodes.each(func(other ident.NodeID, n *Node) {
		if other != id && n.Voter && n.Member() {
			count++
		}
	})
	return count
}

// notLastVoter refuses what would leave the fleet unable to decide anything.
func (tx *Tx) notLastVoter(n *Node) *event.Fault {
	if n.Voter && tx.othersVote(n.ID) == 0 {
		return conflict("make another node a voter first", "node %s is the fleet's only voter", n.ID)
	}
	return nil
}

func (tx *Tx) mayRevokeNode(e *event.Event) *event.Fault {
	n := tx.nodes.get(nodeOf(e))
	switch {
	case n == nil:
		return event.Refuse(event.CodeNotFound, "", "see `skein node list`", "there is no node %s", nodeOf(e))
	case n.Revoked:
		return noChange("node %s is revoked already", n.ID)
	}
	return tx.notLastVoter(n)
}

func (tx *Tx) mayLeave(e *event.Event) *event.Fault {
	n, fault := tx.member(e)
	if fault != nil {
		return fault
	}
	return tx.notLastVoter(n)
}

// endMembership marks the node as gone. Its vote stays until the leader took it.
func (tx *Tx) endMembership(e *event.Event, mark func(*Node)) *event.Fault {
	id := nodeOf(e)
	f := *tx.fleet
	f.GossipExposed = true
	tx.fleet = &f
	if r := tx.robots.get(id); r != nil && r.Online {
		if fault := tx.turn(e, false); fault != nil {
			return fault
		}
	}
	return edit(&tx.nodes, id, func(n *Node) {
		n.VoterEligible, n.VoterApproved = false, false
		mark(n)
	})
}

func (tx *Tx) mayBeEligible(e *event.Event, p *event.VoterEligible) *event.Fault {
	n, fault := tx.member(e)
	if fault == nil && n.VoterEligible == p.Eligible {
		fault = noChange("node %s said so already", n.ID)
	}
	return fault
}

func (tx *Tx) mayApproveVoter(e *event.Event) *event.Fault {
	n, fault := tx.member(e)
	switch {
	case fault != nil:
		return fault
	case !n.VoterEligible:
		return conflict("set `voter = true` in its configuration first", "node %s does not want to vote", n.ID)
	case n.VoterApproved:
		return noChange("node %s is approved already", n.ID)
	}
	return nil
}

func (tx *Tx) mayWithdrawVoter(e *event.Event) *event.Fault {
	n, fault := tx.member(e)
	switch {
	case fault != nil:
		return fault
	case !n.VoterApproved:
		return noChange("node %s is not approved", n.ID)
	}
	return tx.notLastVoter(n)
}

func (tx *Tx) mayAddVoter(e *event.Event) *event.Fault {
	n, fault := tx.member(e)
	switch {
	case fault != nil:
		return fault
	case n.Voter:
		return noChange("node %s is a voter already", n.ID)
	case !n.VoterEligible || !n.VoterApproved:
		return conflict("approve it with `skein node approve`", "node %s is not both willing and approved to vote", n.ID)
	case tx.voters() >= MaxVoters:
		return full("voters", MaxVoters)
	}
	return nil
}

func (tx *Tx) voters() int {
	count := 0
	tx.nodes.each(func(_ ident.NodeID, n *Node) {
		if n.Voter {
			count++
		}
	})
	return count
}

// mayRemoveVoter: also of a node that was revoked or left, which is the usual reason.
func (tx *Tx) mayRemoveVoter(e *event.Event) *event.Fault {
	n := tx.nodes.get(nodeOf(e))
	switch {
	case n == nil:
		return event.Refuse(event.CodeNotFound, "", "see `skein node list`", "there is no node %s", nodeOf(e))
	case !n.Voter:
		return noChange("node %s is no voter", n.ID)
	}
	return tx.notLastVoter(n)
}
