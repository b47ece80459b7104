// Package raftgroup is the shell around hashicorp/raft: a voter's seat in the
// small group that decides for the fleet. It owns the streams to the other
// voters, group commit and membership. The log on disk is raftlog's, what an entry
// means is the Machine's business.
//
// # Ordering
//
// Bootstrap once in a fleet's life, on its founder, before New. New opens and
// checks the disk and speaks to nobody; Run takes part until its context ends;
// Handle may be called as soon as New has returned. The Machine must outlive Run
// and must not be fed by anyone else meanwhile. The link must outlive Run too:
// a leader that stops first hands over.
//
// # What an answer means
//
// Submit, Enqueue and Offer accept proposals on the leader only. An outcome is given
// after the entry was synced by a majority and applied here. A fault of code
// "no_leader" or "busy" means that the batch is not in the log and never will
// be from this call; "unknown_outcome" means that it may be, so it must be
// retried with the same producer.
//
// # When a disk fails
//
// After one failed or stalled write, or when an entry that raft needs cannot be read,
// the group is over: nothing it would say leaves the node any more, Run returns the
// error, and the process must end. A log that is damaged, gone or another node's is
// refused by New with what to do about it: see raftlog.Open.
//
// A disk that is nearly full is another thing: proposals are refused with "busy"
// and ReasonNoSpace, and all goes on when there is room again. A leader whose
// Machine fails hands over before Run ends.
//
// # Stopped nodes
//
// Recover replaces a log by one that begins behind the node's copy, with the node
// as its only voter. After a recovery Config.Epoch is higher, and voters of an
// older epoch are refused and fall silent. The log of a stopped node is read and
// converted by package raftlog.
//
// # Bounds
//
// Queue 4096 drafts (refused with "busy"), entry 512 drafts and 1 MiB, two
// entries in flight, entries that wait for the Machine 16 MiB and one message, 64
// incoming streams. The log is cut every 32 MiB of entries, and keeps 16 MiB of
// them at most.
//
// Only node (composition), sim and tests import raftgroup. It imports raftlog, and
// replica for the form of an entry and its outcome.
package raftgroup
