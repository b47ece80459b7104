// Package follow brings the log to nodes that do not vote, and to every node
// the leader's marks, which say how old what it shows is.
//
// # The tree
//
// A node follows one parent: a voter while one has room, else another follower,
// so that a leader serves few. A parent takes a bounded number of children and
// names them to whom it turns away. Marks carry the path they took; a node
// refuses a child that stands on its own path, and so no loop can feed itself.
// Voters get the log from Raft and follow the leader for its marks only.
//
// # Age
//
// Only the leader makes marks, every 5 s and whenever leader, term or voters
// change. Everybody else passes the newest on with its age, which grows by the
// time it was held, measured on each holder's monotonic clock; no wall clock is
// compared. So a chain of nodes that is cut off from the leader grows old
// together, however lively its members talk.
//
// # Ordering
//
// Records come in order, checked by the chain of hashes; one that does not
// continue this node's log is never applied. A child whose place in the log its
// parent no longer holds, or never held, gets the whole state.
//
// Bounds: frames up to 4 MiB, 8 children by default, a silent parent is left
// after 12 s, a child that takes nothing for 10 s is cut and may come back.
//
// It imports history for the form of a record. Only node (composition), sim
// and tests import it.
package follow
