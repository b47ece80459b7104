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
	// GossipExposed: somebody who knows the gossip keys was revoked, left or was
	// lost in a recovery since they were last rotated.
	GossipExposed bool `json:"gossipExposed,omitempty"`
	// Ceiling is up to which level event types may be proposed; 0 stands for 1.
	Ceiling uint64 `json:"ceiling,omitempty"`
	// Recoveries counts how often the fleet lost its voters and was recovered.
	Recoveries uint64 `json:"recoveries,omitempty"`
	// Seal is the newest of the log's seals; nil before the first.
	Seal *Seal `json:"seal,omitempty"`
}

// Seal is a place in the log whose hash a leader signed. See event.LogSealed.
type Seal struct {
	Seq uint64 `json:"seq"`
	// Hash is the chain's after Seq, in hex.
	Hash string `json:"hash"`
	// By is the leader whose node key signed it.
	By        ident.NodeID `json:"by"`
	Signature []byte       `json:"signature"`
	// History is the name of the log at that time.
	History string `json:"history"`
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
	// Registered is what the robot itself said last.
	Registered Registered `json:"registered"`
	// Lifecycle is what the robot may be used for.
	Lifecycle Lifecycle `json:"lifecycle,omitzero"`
	// Deployed is the newest deployment onto the robot; zero before the first.
	Deployed Deployed `json:"deployed,omitzero"`
}

// Registered is the part of a registration that persons may override, and the
// name of the robot's computer.
type Registered struct {
	Name     string          `json:"name"`
	Type     event.RobotType `json:"type"`
	Hostname string          `json:"hostname,omitempty"`
}

// Stage is where a robot is in its life.
type Stage string

// The stages of a robot's life.
const (
	// Discovered: registered, and nothing more. Every robot starts so.
	Discovered Stage = "discovered"
	// Provisioning: being made ready.
	Provisioning Stage = "provisioning"
	// Ready: may be put to work.
	Ready Stage = "ready"
	// Active: at work.
	Active Stage = "active"
	// Maintenance: in somebody's hands.
	Maintenance Stage = "maintenance"
	// Offline: failed, not too often, and expected back. It does not mean that the
	// robot is not heard: see Robot.Online.
	Offline Stage = "offline"
	// Failed: needs to be made ready again.
	Failed Stage = "failed"
	// Retired: out of service until it registers anew.
	Retired Stage = "retired"
)

// Lifecycle is where a robot is in its life. rules_life.go has the transitions.
type Lifecycle struct {
	// State is never "".
	State Stage `json:"state"`
	// Since is when it got there; zero for a robot that is where it began.
	Since time.Time `json:"since,omitzero"`
	// Failures counts failures since the robot last did its work in good order:
	// was deactivated, came back from maintenance, or began anew.
	Failures uint64 `json:"failures,omitempty"`
	// LastFailure is the newest failure, also after it was overcome.
	LastFailure Failure `json:"lastFailure,omitzero"`
}

// IsZero reports whether nothing has happened yet; then it is not encoded, so
// that states without it have the form that older builds read.
func (l Lifecycle) IsZero() bool {
	return l == Lifecycle{} || l == Lifecycle{State: Discovered}
}

// Deployable reports whether the robot may get a new version now.
func (l Lifecycle) Deployable() bool { return l.State == Ready || l.State == Active }

// Failure is what went wrong.
type Failure struct {
	Message string            `json:"message"`
	Code    string            `json:"code,omitempty"`
	Kind    event.FailureKind `json:"kind"`
	At      time.Time         `json:"at"`
}

// DeploymentStatus is how far a deployment is on one robot.
type DeploymentStatus string

// The statuses of a deployment on a robot.
const (
	DeploymentRunning   DeploymentStatus = "running"
	DeploymentCompleted DeploymentStatus = "completed"
	DeploymentFailed    DeploymentStatus = "failed"
)

// Deployed is a deployment onto one robot.
type Deployed struct {
	// Deployment names it.
	Deployment string           `json:"deployment"`
	Version    string           `json:"version"`
	Status     DeploymentStatus `json:"status"`
	// Since is when it got that status.
	Since time.Time `json:"since"`
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
