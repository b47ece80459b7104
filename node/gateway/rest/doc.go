// Package rest serves the HTTP questions and requests of a node: what the fleet
// looks like, the log, and the few things a person may ask for.
//
// It is a face: it decides nothing and stores nothing. What it shows it takes
// from a Fleet (ready-made view structs), what is asked for goes to a Proposer
// with the caller's token, which the leader verifies once more.
//
// Every request under /api/v1 but the login itself needs a token of a person
// who may read, or must come over the control socket (package auth has the
// rules). Authentication comes before the input is looked at. Every error
// answer is a view.Problem, application/problem+json (RFC 9457).
//
// Every answer is of what this node knows (asOf says how old that is); nothing
// here waits for the leader but a proposal. Input is bounded by operation:
// 1.2 MB for proposals, 8 KB else; an answer with events stops at 4 MB and says
// that there is more.
//
// The framework's package-level hooks are left alone, because many nodes share
// one process: errors are turned into Problems by a transformer of this
// instance. Imported by the gateway only.
package rest
