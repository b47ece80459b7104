// Package replica is a node's own copy of the log and of the state it decided.
// Voters feed it from Raft, other nodes from a peer; both arrive at the same
// bytes.
//
// Order of an entry: every batch is checked against the state and against the
// batches before it; its events get their sequence numbers; they are appended to
// the history; the state changes at once; the Observer and whoever waits are
// told. A reader sees an entry wholly or not at all, and never waits for the disk.
//
// Applying is for one goroutine at a time. An error of ApplyEntry, ApplyRecord,
// Backfill or Restore other than ErrDiverged and history.ErrNoSpace means that this
// copy can no longer be trusted to go on: every later call fails too and the node
// must end.
//
// Files: the history (see package history), and beside it checkpoints of the
// state. A checkpoint is written after the history is durable up to it, and
// replaces nothing until it is durable itself. Opening takes the newest good
// checkpoint and replays the history after it. The newest two always stay; older
// ones, up to 64 and 64 MiB, thinned evenly, make past states quick: StateAt
// replays from the one before.
//
// A node that does not vote keeps a bounded tail of the history; a voter may bound
// it by size and age. Older events are ErrCompacted. After Restore the history
// begins anew behind an explicit gap, which Backfill fills, beside everything else.
//
// The package imports consensus/event, fleet and history, and mesh/ident for
// durable files. Shells above import it; it starts one goroutine at a time, to
// write a checkpoint, which Close waits for.
package replica
