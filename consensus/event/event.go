package event

import (
	"encoding/json"
	"time"

	"skein/mesh/ident"
)

// Event is a fact of the replicated log. It is of kind "decided".
type Event struct {
	// Seq is the position in the log: 1, 2, 3, … without a hole. Order is Seq alone.
	Seq uint64 `json:"seq"`
	// Time is the leader's wall clock in UTC with milliseconds, for people and for
	// the expiry of tokens. It may go back when the leader changes.
	Time time.Time `json:"time"`
	// Stream is what the event is about, for example "robot/<node id>".
	Stream string `json:"stream"`
	// Version counts the events of the stream: 1, 2, 3, … without a hole.
	Version uint64 `json:"version"`
	// Type is one of the catalogue, for example "robot.registered".
	Type string `json:"type"`
	// Schema is the version of the type's data, from 1.
	Schema uint64 `json:"schema"`
	// Actor is on whose authority it happened.
	Actor Actor `json:"actor"`
	// Cause is what made the proposer act, free text for people. May be empty.
	Cause string `json:"cause,omitempty"`
	// Producer identifies the proposal. Zero for the first batch of a fleet.
	Producer Producer `json:"producer,omitzero"`
	// Data is the payload in canonical JSON. Decode gives it its type.
	Data json.RawMessage `json:"data"`
}

// Kind says what sort of actor stands behind an event.
type Kind string

// The kinds of actors.
const (
	// KindNode is a node that speaks about itself; its id was proved by its stream.
	KindNode Kind = "node"
	// KindPerson is a person whose token the leader verified.
	KindPerson Kind = "person"
	// KindLeader is a controller that runs on the leader.
	KindLeader Kind = "leader"
	// KindGenesis is who founds the fleet. Only the first batch of a log has it.
	KindGenesis Kind = "genesis"
	// KindRecovery is who replaces the lost voters of a fleet, on a stopped node
	// whose id it has. It is never accepted from the network.
	KindRecovery Kind = "recovery"
)

// Scopes of persons. None implies another.
const (
	ScopeViewer   = "viewer"
	ScopeOperator = "operator"
	ScopeAdmin    = "admin"
)

// Actor is on whose authority a batch is proposed. Who fills it in has verified it.
type Actor struct {
	Kind Kind `json:"kind"`
	// ID is a person's name, otherwise a node id.
	ID string `json:"id"`
	// Scopes are what the person's token allows. Empty for other kinds.
	Scopes []string `json:"scopes,omitempty"`
}

// Producer makes retries safe: the same producer is applied at most once.
type Producer struct {
	// Node is the node that numbered the proposal.
	Node ident.NodeID `json:"node"`
	// Boot grows with every start of that node and never goes back.
	Boot uint64 `json:"boot"`
	// N counts that start's proposals from 1.
	N uint64 `json:"n"`
}

// Draft is an event that somebody proposes.
type Draft struct {
	Stream string `json:"stream"`
	Type   string `json:"type"`
	// Schema is the version of the data's form. 0 means 1.
	Schema uint64          `json:"schema,omitempty"`
	Data   json.RawMessage `json:"data"`
	// Expect is the version the stream must have before this draft (0: no event
	// yet). Nil accepts any.
	Expect *uint64 `json:"expect,omitempty"`
	Cause  string  `json:"cause,omitempty"`
}

// At returns the draft with an expected version of its stream.
func (d Draft) At(version uint64) Draft {
	d.Expect = &version
	return d
}

// Batch is applied as a whole or not at all.
type Batch struct {
	Producer Producer `json:"producer"`
	Actor    Actor    `json:"actor"`
	Drafts   []Draft  `json:"drafts"`
}

// Size is what the batch counts towards MaxBatchBytes: the bytes of its
// variable parts. Who packs batches into one entry adds them up.
func (b Batch) Size() int {
	n := len(b.Producer.Node) + len(b.Actor.ID)
	for _, d := range b.Drafts {
		n += len(d.Stream) + len(d.Type) + len(d.Data) + len(d.Cause)
	}
	return n
}

// Cursor is a place in the log that any replica can compare with its own.
type Cursor struct {
	// History names the log. It changes when a fleet is recovered or restored.
	History string `json:"history"`
	// Seq is the last event that is included; 0 before the first.
	Seq uint64 `json:"seq"`
	// Hash is the chain's hash after Seq, in hex: 64 digits.
	Hash string `json:"hash"`
}
