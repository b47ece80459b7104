package fleet

import (
	"crypto/ed25519"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Every value that State hands out is immutable: a change replaces it. It may be
// kept after the lock under which it was read is gone, and its maps and slices
// must not be written to.

// Fleet is what the fleet as a whole is. It is of kind "decided", like all below.
type Fleet struct {
	Name string `json:"name"`
	// Root is the key to which every certificate chains.
	Root ed25519.PublicKey `json:"root"`
	// History names the log.
	History   string    `json:"history"`
	CreatedAt time.Time `json:"createdAt"`
	// GossipEpoch is the newest generation of gossip keys; 0 before the first rotation.
	GossipEpoch uint64 `json:"gossipEpoch"`
	// GossipExposed: somebody who knows the gossip keys was revoked or left since
	// they were last rotated.
	GossipExposed bool `json:"gossipExposed,omitempty"`
}

// Node is a member of the fleet, or was.
type Node struct {
	ID         ident.NodeID      `json:"id"`
	PublicKey  ed25519.PublicKey `json:"publicKey"`
	Name       string            `json:"name"`
	AdmittedAt time.Time         `json:"admittedAt"`
	By         event.Admission   `json:"by"`
	// Ref is the enrolment key's id or the token's hash it joined with.
	Ref string `json:"ref,omitempty"`
	// Revoked: expelled for good. Left: went by itself and may come back.
	Revoked bool `json:"revoked,omitempty"`
	Left    bool `json:"left,omitempty"`
	// VoterEligible: its configuration lets it vote. VoterApproved: an admin wants
	// it to; implies VoterEligible. Voter: the leader made it one; it stays so
	// until the leader has removed it, even when revoked meanwhile.
	VoterEligible bool `json:"voterEligible,omitempty"`
	VoterApproved bool `json:"voterApproved,omitempty"`
	Voter         bool `json:"voter,omitempty"`
}

// Member reports whether the node belongs to the fleet now.
func (n Node) Member() bool { return !n.Revoked && !n.Left }

// Robot is the robot that a node is.
type Robot struct {
	ID      ident.NodeID    `json:"id"`
	Name    string          `json:"name"`
	Type    event.RobotType `json:"type"`
	Version string          `json:"version"`
	Arch    string          `json:"arch"`
	OS      string          `json:"os"`
	// Labels has at most event.MaxLabels entries. Groups is sorted.
	Labels map[string]string `json:"labels,omitempty"`
	Groups []string          `json:"groups,omitempty"`
	// Online is the fleet's decision, changed at most every few minutes; live
	// status is presence. StatusSince is when it last changed.
	Online      bool      `json:"online,omitempty"`
	StatusSince time.Time `json:"statusSince"`
	// OfflineAt is when it was last decided to be offline; zero if never.
	OfflineAt    time.Time `json:"offlineAt,omitzero"`
	RegisteredAt time.Time `json:"registeredAt"`
	// Registered is what the robot's own configuration said last.
	Registered Registered `json:"registered"`
}

// Registered is the part of a registration that persons may override.
type Registered struct {
	Name string          `json:"name"`
	Type event.RobotType `json:"type"`
}

// Token admits one node once.
type Token struct {
	Hash      string    `json:"hash"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// UsedBy is the node that joined with it; "" while unused.
	UsedBy ident.NodeID `json:"usedBy,omitempty"`
}

// Enrolment is a key whose holders may join.
type Enrolment struct {
	ID        ident.NodeID      `json:"id"`
	PublicKey ed25519.PublicKey `json:"publicKey"`
	Revoked   bool              `json:"revoked,omitempty"`
}

// Person may act on the fleet.
type Person struct {
	Name      string            `json:"name"`
	PublicKey ed25519.PublicKey `json:"publicKey"`
	// Scopes are what the person may do; see event.ScopeViewer and its like.
	Scopes []string `json:"scopes"`
}

// Group is a named set of robots.
type Group struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"createdAt"`
	// Robots is sorted.
	Robots []ident.NodeID `json:"robots,omitempty"`
}
