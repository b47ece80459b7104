// Package backfill fetches the log's past for a voter whose copy began with a
// snapshot. The state needs no past, but questions about it, audits and backups
// do, and a fleet whose voters were replaced one by one would lose it.
//
// A node with a gap asks one peer after the other for the records before it,
// newest first, so that what it holds is always one whole piece up to the
// present. Every piece ends with a hash that the node knows, so it does not
// matter who sends it: the chain proves all of it. A piece is durable before the
// next is asked for; whatever ends a session, the next goes on from there.
//
// # Order and priority
//
// Nothing waits for it. It has a stream of its own and who serves takes its time:
// 4 MiB a second, to one node at a time, so that consensus on the same wire is
// not held up.
//
// # Bounds
//
// 8 MiB and one record (4 MiB) a piece in memory at each end, one stream served,
// one followed.
//
// Only node (composition), sim and tests import it.
package backfill
