// Package history keeps the decided events on disk, in order, each provably
// after the one before.
//
// A [Log] is a directory of segment files of about 8 MB. A segment holds records;
// a [Record] is what one entry of the Raft log decided: one or more events with
// dense sequence numbers. Every record has a CRC-32C against damage. Every event
// is a link of a SHA-256 chain over the events' canonical bytes, so that two logs
// with the same hash at a sequence number are the same up to there, however
// they were cut into records.
//
// Appends go to the page cache. [Log.Sync] makes them durable, a full segment is
// made durable before the next one starts, and the Raft log or the peers hold
// what is not durable yet. So after a power cut [Open] cuts off whatever is broken
// behind the last position known to be durable, and refuses with [ErrDamaged]
// whatever is broken before it.
//
// One goroutine appends; any number read, and a reader never waits for an fsync.
// After a failed write or fsync the log refuses everything: what is on disk is
// then unknown and the process must end.
//
// Only consensus/replica opens logs; others may use Record.
package history
