// Package history keeps the decided events on disk, in order, each provably
// after the one before, and finds them again.
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
// Questions are answered by an index of each segment, of package index: beside the
// segment, or in memory for the one that is appended to. An index is derived. One
// that is missing or damaged is made anew by the first [Log.Query] that needs it.
//
// The front of the log moves too. Retention drops the oldest segments; a log that
// began behind a snapshot has a gap before it ([Log.Gap]), which [Log.Backfill]
// fills from newer to older, checked by the chain.
//
// One goroutine appends; any number read, and a reader never waits for an fsync.
// After a failed write or fsync the log refuses everything: what is on disk is
// then unknown and the process must end. A full disk during Backfill is no such
// failure.
//
// Bounds: a record has 4 MiB and 512 events, a query gives 10,000 events, a
// back-fill takes 16 MiB at a time. In memory are, for each segment, about 6 KiB of
// marks and at most 4 KiB of what is in its index, and the index of the current
// segment, about 40 bytes an event.
//
// Only consensus/replica opens logs; others may use Record and Walk.
package history
