// Package view holds what a node shows to people: the JSON bodies of the HTTP
// face. The REST and WebSocket servers encode these types, the command line
// decodes them, and the composer's adapter fills them from replica and mesh.
//
// They are plain data: no behaviour beyond small helpers and, for what many ask
// for, JSON that is made once (Kept, Row). A Picture
// and everything in it is immutable once it has been handed to a server; the
// adapter makes a new one for every look. Lists and maps are never null in JSON
// (Picture.Filled sees to it); what may be absent is a pointer and null.
//
// Times are wall clock, UTC, for people. Ages are milliseconds at the moment
// the answer was made; a reader adds its own elapsed time.
//
// Anyone may import it. It imports words only (mesh/ident, consensus/event,
// agent/telemetry's Sample).
package view

import (
	"time"

	"skein/agent/telemetry"
	"skein/mesh/ident"
)

// AsOf says how fresh an answer is and where it comes from.
type AsOf struct {
	// Read is the kind of read that it was.
	Read Read `json:"read"`
	// At is null for the present. Otherwise the answer is of the past: of what was
	// decided up to that moment, and nothing that is only heard.
	At     *Moment `json:"at"`
	Cursor Cursor  `json:"cursor"`
	// AgeMillis is the age of the newest word of the leader that this node has,
	// i.e. the answer is at most this much behind the leader. -1: never heard one.
	AgeMillis int64 `json:"ageMillis"`
	// Path is how the mark came here, leader first, this node last.
	Path []ident.NodeID `json:"path"`
	// Stale: the age is past the bound at which people should be warned.
	Stale bool `json:"stale"`
}

// NodeRef names a node for people.
type NodeRef struct {
	ID   ident.NodeID `json:"id"`
	Name string       `json:"name"`
}

// Voter is one member of the Raft group.
type Voter struct {
	ID   ident.NodeID `json:"id"`
	Name string       `json:"name"`
	// Reachable is this node's own opinion.
	Reachable bool `json:"reachable"`
}

// Fleet is the header of every page: who leads and how much may fail.
type Fleet struct {
	FleetID ident.FleetID `json:"fleetId"`
	Name    string        `json:"name"`
	// Leader is null while none is known.
	Leader *NodeRef `json:"leader"`
	Term   uint64   `json:"term"`
	Voters []Voter  `json:"voters"`
	// CanLose is how many more voters may fail before nothing can be decided;
	// CanLoseReason explains it in a sentence ("one voter only: …").
	CanLose       int    `json:"canLose"`
	CanLoseReason string `json:"canLoseReason"`
	// Members counts admitted nodes, Robots registered robots.
	Members int  `json:"members"`
	Robots  int  `json:"robots"`
	AsOf    AsOf `json:"asOf"`
}

// Status is what a robot's row says.
type Status string

// The robot statuses.
const (
	Online  Status = "online"
	Offline Status = "offline"
	Revoked Status = "revoked"
	Left    Status = "left"
)

// Role is a node's part in the Raft group.
type Role string

// The roles.
const (
	Leader   Role = "leader"
	VoterNow Role = "voter"
	Follower Role = "follower"
)

// Machine is what a robot said about itself when it registered.
type Machine struct {
	// Type is lekiwi, xlerobot or unknown.
	Type string `json:"type"`
	// Hostname is the name of its computer, "" if an older build registered it.
	Hostname string `json:"hostname"`
	// Version is that of its skein binary.
	Version string `json:"version"`
	Arch    string `json:"arch"`
	OS      string `json:"os"`
}

// Vote is a robot's standing towards the Raft group.
type Vote struct {
	Role Role `json:"role"`
	// VoterEligible: its own configuration offers it. VoterApproved: an admin agreed.
	VoterEligible bool `json:"voterEligible"`
	VoterApproved bool `json:"voterApproved"`
}

// Robot is one row of the fleet table. Embedded structs are flat in JSON.
type Robot struct {
	ID   ident.NodeID `json:"id"`
	Name string       `json:"name"`
	Machine
	Status      Status    `json:"status"`
	StatusSince time.Time `json:"statusSince"`
	Vote
	Life
	Labels map[string]string `json:"labels"`
	Groups []string          `json:"groups"`
	// HTTP is the address of its own face, "http://ip:port", or "" if unknown.
	HTTP string `json:"http"`
	// Telemetry is the newest sample heard, null if none.
	Telemetry *telemetry.Sample `json:"telemetry"`
	// HeardAgeMillis is the age of that news, null if never heard.
	HeardAgeMillis *int64 `json:"heardAgeMillis"`
}

// Robots is the answer of GET /api/v1/robots.
type Robots struct {
	Robots []Robot `json:"robots"`
	AsOf   AsOf    `json:"asOf"`
}

// State is what gossip says of a node. It is a hint, never a decision.
type State string

// The gossip states.
const (
	Alive   State = "alive"
	Suspect State = "suspect"
	Dead    State = "dead"
	Gone    State = "left"
	Unknown State = "unknown"
)

// Node is one admitted node as membership sees it.
type Node struct {
	ID    ident.NodeID `json:"id"`
	Name  string       `json:"name"`
	Role  Role         `json:"role"`
	State State        `json:"state"`
	// Version is that of its skein binary, as far as its robot has registered.
	Version string `json:"version"`
	// Addrs are IP addresses without port, most useful first.
	Addrs      []string  `json:"addrs"`
	LinkPort   uint16    `json:"linkPort"`
	GossipPort uint16    `json:"gossipPort"`
	HTTPPort   uint16    `json:"httpPort"`
	AdmittedAt time.Time `json:"admittedAt"`
	// By is how it was admitted: genesis, enrolment or token.
	By      string `json:"by"`
	Revoked bool   `json:"revoked"`
	// ClockSkewMillis is its wall clock minus ours, null if never compared.
	ClockSkewMillis *int64 `json:"clockSkewMillis"`
}

// Nodes is the answer of GET /api/v1/nodes.
type Nodes struct {
	Nodes []Node `json:"nodes"`
	AsOf  AsOf   `json:"asOf"`
}

// Raft is this node's part in consensus, for operators and tests.
type Raft struct {
	Node ident.NodeID `json:"node"`
	// State is leader, candidate, follower (voters), or follows (a non-voter).
	State  string       `json:"state"`
	Leader ident.NodeID `json:"leader"`
	Term   uint64       `json:"term"`
	// Indexes are of the Raft log; on a non-voter only AppliedIndex is known.
	LastIndex    uint64         `json:"lastIndex"`
	CommitIndex  uint64         `json:"commitIndex"`
	AppliedIndex uint64         `json:"appliedIndex"`
	Voters       []ident.NodeID `json:"voters"`
	Nonvoters    []ident.NodeID `json:"nonvoters"`
	// LastContactMillis is since the leader was last heard by Raft; -1 unknown.
	LastContactMillis int64  `json:"lastContactMillis"`
	StateHash         string `json:"stateHash"`
	// NoSpace: this voter's disk is nearly full, so it accepts no new events.
	NoSpace bool `json:"noSpace"`
	// Follow is null on a node that follows nobody.
	Follow *Follow `json:"follow"`
}

// Follow is where a non-voter gets the log from.
type Follow struct {
	Parent        ident.NodeID   `json:"parent"`
	Path          []ident.NodeID `json:"path"`
	MarkAgeMillis int64          `json:"markAgeMillis"`
}

// Peer is another node whose face a page may move to.
type Peer struct {
	ID   ident.NodeID `json:"id"`
	Name string       `json:"name"`
	// HTTP is "http://ip:port".
	HTTP string `json:"http"`
}

// Picture is one consistent look at the fleet: Robots is the state exactly at
// Fleet.AsOf.Cursor. Robots are sorted by name, then id; Peers likewise.
type Picture struct {
	Fleet  Fleet
	Robots []Robot
	Peers  []Peer
}
