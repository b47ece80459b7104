// Package follow brings the decided log to nodes that do not vote, and tells
// every node how fresh its copy is.
//
// # The tree
//
// A node follows one parent, which may be a voter or another follower, and
// serves a few children itself. A child sends its cursor once; the parent sends
// whole records from there on, or a snapshot first when it no longer holds them,
// and then each record as it is decided. Records are checked by the chain, so
// whichever parent they come from, none is applied twice or out of order.
// Voters get the log from Raft and follow the leader for its marks only.
//
// # Marks
//
// The leader originates a [Mark] every 5 s and at every change of leader, term or
// voters. A mark says "my log ended at seq when I made this". Each hop passes it
// on at once and adds the time that it held it; no wall clock takes part. So the
// age of a mark is never understated by more than the time on the wires, and in
// a ring that lost its leader it only grows. A mark carries the path it took; a
// node that finds itself on it leaves its parent.
//
// A mark counts for a node's own copy only once that copy holds the mark's seq:
// see Service.Mark. For finding the leader the newest one counts: Service.Latest.
//
// # Bounds
//
// 8 children and as many voters that want marks only, paths of 16 nodes, frames
// of little over 4 MiB, two snapshots sent at once, 12 s of silence before a
// parent is left, 90 s before a child is. A child that takes no bytes for 10 s
// is cut off; it comes back with its cursor.
//
// Only node (composition), sim and tests import it.
package follow
