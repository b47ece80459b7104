// Package raftlog is one voter's Raft log on disk: entries, the values that raft
// keeps beside them (its term and vote), and its snapshots, in one directory. It
// finds damage before raft reads it, and refuses to go on after a failed write.
// What an entry means, and who votes, is not its business.
//
// # Use
//
// Open gives a Log, which is what raft itself works with: its raft.LogStore and
// raft.StableStore, and in Snapshots its raft.SnapshotStore. The log calls its
// owner back through Hooks, from the goroutine that writes; a hook must not write
// to the log. Nothing may use the log after Close.
//
// Convert, Entries, Replace and KindOf are for stopped nodes.
//
// # What is promised
//
// An entry or value is synced when the call that stored it returns without an
// error, and is read back as it was or not at all. After one failed write nothing
// is written any more (ErrFailed): what the disk holds is not known. A log that
// never held an entry keeps no vote. Below Config.ReserveBytes of free space
// entries of proposals are refused before a byte is written (ErrNoSpace), which
// harms nothing.
//
// A directory that is damaged, gone or another node's is refused by Open, with what
// to do about it.
//
// # Bounds
//
// Recent entries in memory: 4 MiB and 1024 entries. Four bytes of memory for each
// entry in the log. Two snapshots. A segment of raft-wal has 16 MiB.
//
// Package raftgroup imports raftlog, never the other way; node and node/rescue use
// it for the kind of a log and for those of stopped nodes.
package raftlog
