// Package backup puts one node's copy of the log into one file, from which the
// fleet can be founded anew.
//
// # What is in the file
//
// A header that says whose log it is, who made the file and where it ends; the
// state before the first event, if the node does not hold the log from its
// start; every record that the node holds, in order; and a trailer with the
// SHA-256 of all of it, signed with the key of the node that made it. The
// signer's certificates are in the header and lead to the fleet's root key. No
// private key, gossip key or token is in it, because none is ever in the log.
//
// # What is checked on reading
//
// Every frame has a CRC-32C, and is refused before its content is taken when it
// is over its bound. The records must continue each other by the chain up to
// the place that the header names, the events must apply to the state, the state
// at the end must have the hash that the maker saw, and the signature must be of
// a node that this very log knows as a member. A file that was cut anywhere has
// no trailer, so it is refused: a stream that broke off is no backup.
//
// # Ordering
//
// [Maker.Write] fixes the end when it begins, so it ends also while the fleet
// writes, and holds up nobody: it reads the history as a follower does.
// [Save] writes beside the file that is wanted, syncs, reads everything back,
// and renames only then.
//
// # Bounds
//
// Header and trailer 64 KiB, state 256 MiB, records those of package history.
// Reading holds one record and the state in memory. A Maker writes one backup at
// a time.
//
// node makes backups, consensus/audit and node/rescue read them.
package backup
