// Package audit reads all that a node keeps of the log, or a backup of it, and
// says whether it is what was decided: every byte, every link of the chain,
// every checkpoint, every seal.
//
// It does not open the replica and changes nothing, so it may look at a node
// that is stopped, damaged or running. It has its own reading of the files: a
// fault in package history must not hide from the audit of what history wrote.
//
// # What each check proves
//
// A CRC-32C finds a changed byte. The chain finds an event that was changed,
// removed or put in with its checksum made right. Replaying the events finds a
// checkpoint that says something else than the log. A seal, signed by the leader
// of its time with a key that the log itself names, finds a past that was
// written anew with a chain of its own: up to [Report.SealedSeq] nobody but
// that leader could have done it. What comes after the newest seal is proved by
// the chain alone: compare its hash with that of another node.
//
// # Order
//
// Checkpoints are listed before segments, so that what they promise is there to
// be found. Events are checked in order; after damage the audit goes on at the
// next segment, and with the state of the next checkpoint.
//
// # Bounds
//
// Memory: one state, 16 records, 65,536 hashes for the seals, one state for
// each checkpoint as it is compared. At most 100 findings are kept, all are
// counted.
//
// node/rescue and commands import it.
package audit
