// Package fleet is the decided state of a fleet: a pure function of the events
// of the log, in their order, and of nothing else.
//
// [State.Check] says what would become of a batch: every rule that depends on
// what was decided before lives here (a join token is used once, a revoked node
// never comes back, a robot goes offline only if it was online, …). [State.Apply]
// takes an event that was decided and never asks whether it was allowed.
//
// A [Tx] stages the changes of several batches beside the state, so that readers
// see either none or all of an entry, and so that the history can be written
// between the two. A batch is atomic: its earlier drafts count for its later
// ones, and a refused batch leaves no trace.
//
// Exactly-once: the state remembers which proposals (node, boot, n) it accepted,
// from the events alone, so that a state rebuilt from history equals one fed by
// Raft. It remembers a bounded number, evicted by sequence number; what it
// cannot know any more it answers with "unknown outcome", never with a guess.
//
// The fleet has a ceiling: what is of a higher [event.Level] is refused until the
// leader has raised it. A recovery ends a log whose voters are lost and goes on
// with one of its nodes.
//
// The package is pure: no clock, randomness, I/O, goroutines or locks; the
// caller locks. It imports only consensus/event and mesh/ident.
package fleet

// Bounds of the state. They are part of the rules: replicas must agree on them.
const (
	// MaxNodes is the most nodes ever admitted, revoked ones included.
	MaxNodes = 20000
	// MaxTokens is the most join tokens kept; expired ones make room.
	MaxTokens = 4096
	// MaxEnrolments is the most enrolment keys, revoked ones included.
	MaxEnrolments = 1024
	// MaxPersons is the most persons.
	MaxPersons = 1024
	// MaxGroups is the most groups, and in how many a robot may be.
	MaxGroups     = 1024
	MaxGroupsEach = 64
	// MaxVoters is the most voters.
	MaxVoters = 7
	// SessionWindow is how many proposals of one start of a node are remembered.
	SessionWindow = 1024
	// SessionHorizon is after how many events a proposal is forgotten.
	SessionHorizon = 65536
)
