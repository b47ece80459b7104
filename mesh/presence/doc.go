// Package presence carries what robots say of themselves (telemetry, "I am
// here") to whoever is looking, and to nobody else. Data of kind "shared": it
// decides nothing, and any member could lie in it.
//
// # How it flows
//
// Nodes are joined by edges: a stream of "/skein/presence/1" that one side opens
// (SetUplinks) and the other accepts (Handle). The edges form any graph; here it
// is the follow tree plus the voters among themselves.
//
// A node with a viewer floods its interest over all edges: {origin, boot, n},
// again every 10 s with a higher n, forgotten 30 s after the origin sent it. The
// edge by which a node hears a new n first is its path to that origin. Reports
// go only along paths, so over a tree that spans the fleet and ends at the
// viewer, whatever loops the graph has. If a path breaks, another edge that
// brought the same n takes over at once; at worst the next renewal repairs it.
//
// Newest wins, for reports and interest alike, by (boot, n); what is not newer
// is dropped. That is what makes loops, reordering and repetition harmless.
//
// Ages are added up from the time spent at each hop, never from wall clocks; the
// time on the wire is not counted.
//
// # Bounds and policy
//
// An edge keeps, for each node, whether the newest report must still be sent:
// latest wins, so a slow edge skips old reports and never queues. One frame of
// at most 64 KiB every 250 ms for each edge and direction (256 KiB/s); a reader
// takes at most 20 frames a second. At most 4096 nodes (the stalest gives way),
// 1024 origins (one more is ignored), 64 accepted edges (one more is refused),
// 16 uplinks; 1 KiB of data a report; reports older than 5 minutes are dropped.
// Nothing at all is sent while nobody looks.
//
// # Order of use
//
// New, then Run in a goroutine; all other methods may be called from any
// goroutine before, during and after Run. Imported by the composer and by faces
// that show reports.
package presence
