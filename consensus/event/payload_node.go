package event

import (
	"crypto/ed25519"

	"skein/mesh/ident"
)

// Admission is how a node proved that it may join.
type Admission string

// The ways to join.
const (
	// ByGenesis: founded with the fleet.
	ByGenesis Admission = "genesis"
	// ByEnrolment: signed with the enrolment key of a fleet file.
	ByEnrolment Admission = "enrolment"
	// ByToken: had a one-time token.
	ByToken Admission = "token"
)

// NodeAdmitted makes a node a member of the fleet.
type NodeAdmitted struct {
	// PublicKey hashes to the stream's id.
	PublicKey ed25519.PublicKey
	// Name is for people; names need not be unique.
	Name string
	By   Admission
	// Ref is the enrolment key's id or the token's hash; "" with ByGenesis.
	Ref string
}

func (e *NodeAdmitted) fields(c *codec) {
	c.key("publicKey", &e.PublicKey)
	c.requireID("publicKey", e.PublicKey)
	text(c, "name", &e.Name, ruleName)
	text(c, "by", &e.By, ruleAdmission)
	optional(c, "ref", &e.Ref, ruleID)
	c.require((e.By == ByGenesis) == (e.Ref == ""), "ref", "does not fit to by",
		"give the enrolment's id or the token's hash, and nothing for genesis")
}

// Draft proposes the event.
func (e NodeAdmitted) Draft() Draft {
	return draft(TypeNodeAdmitted, NodeStream(ident.IDOf(e.PublicKey)), &e)
}

// NodeRevoked expels a node for good: its key is never admitted again.
type NodeRevoked struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *NodeRevoked) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event.
func (e NodeRevoked) Draft(id ident.NodeID) Draft {
	return draft(TypeNodeRevoked, NodeStream(id), &e)
}

// NodeLeft says that a node left of its own will. It may be admitted again.
type NodeLeft struct{}

func (e *NodeLeft) fields(*codec) {}

// Draft proposes the event.
func (e NodeLeft) Draft(id ident.NodeID) Draft { return draft(TypeNodeLeft, NodeStream(id), &e) }

// VoterEligible says whether a node is willing and fit to vote, from its
// configuration. A node that no longer is also loses its approval.
type VoterEligible struct{ Eligible bool }

func (e *VoterEligible) fields(c *codec) {
	c.flag("eligible", &e.Eligible, "whether the node's configuration lets it vote")
}

// Draft proposes the event.
func (e VoterEligible) Draft(id ident.NodeID) Draft {
	return draft(TypeVoterEligible, NodeStream(id), &e)
}

// VoterApproved says that an admin wants the node as a voter.
type VoterApproved struct{}

func (e *VoterApproved) fields(*codec) {}

// Draft proposes the event.
func (e VoterApproved) Draft(id ident.NodeID) Draft {
	return draft(TypeVoterApproved, NodeStream(id), &e)
}

// VoterWithdrawn takes an approval back.
type VoterWithdrawn struct{}

func (e *VoterWithdrawn) fields(*codec) {}

// Draft proposes the event.
func (e VoterWithdrawn) Draft(id ident.NodeID) Draft {
	return draft(TypeVoterWithdrawn, NodeStream(id), &e)
}

// VoterAdded records that the leader made the node a voter.
type VoterAdded struct{}

func (e *VoterAdded) fields(*codec) {}

// Draft proposes the event.
func (e VoterAdded) Draft(id ident.NodeID) Draft { return draft(TypeVoterAdded, NodeStream(id), &e) }

// VoterRemoved records that the leader took the vote from the node.
type VoterRemoved struct{}

func (e *VoterRemoved) fields(*codec) {}

// Draft proposes the event.
func (e VoterRemoved) Draft(id ident.NodeID) Draft {
	return draft(TypeVoterRemoved, NodeStream(id), &e)
}
