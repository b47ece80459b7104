// Package propose gets events decided from any node: it takes drafts to the
// leader, wherever that is at the moment, and keeps at it over changes of
// leader until the drafts are decided, refused, or the caller's time is up.
//
// # Exactly once
//
// A proposal carries its producer: this node, this start of it, and a number
// that is used once. Every retry carries the same, and the replicated state
// gives a proposal that it accepted before the answer it gave the first time. So
// a lost answer is harmless; when time runs out after something was sent the
// fault is "unknown_outcome", and never a guess. For the same reason a refusal
// that did not come from the state (a token that has expired meanwhile, a full
// queue) does not end a proposal that an earlier try may have got decided.
//
// # Who proposes
//
// The leader decides who speaks. A node's proposal about itself is believed
// because its stream is authenticated: actor and producer are the stream's other
// end, whatever the message says. A person's token travels with the proposal and
// is verified at the leader. A node that does not lead refuses and never
// forwards further, so that proposals cannot go in circles.
//
// # The protocol
//
// propose/2 is one long-lived stream from a node to the leader with binary
// frames: see message.go. Requests carry an id and answers come in any order, so
// many proposals are under way on one stream. Start proposes without waiting.
//
// Bounds: 4 MiB a request, 1024 requests under way on a stream and 32 MiB of them
// on a node (beyond that the reader waits and the sender feels it), 1000 numbers
// of a proposer under way (beyond that Start waits), 1 minute until an unused
// stream is closed, 3 s for one try, 8 s for a proposal whose context has no
// deadline.
//
// Only node (composition), sim and tests import it.
package propose
