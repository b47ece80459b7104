// Package rescue is what a person does by hand to a node that is stopped: bring
// a fleet back that has lost most of its voters, found it again from a backup,
// give a node with a damaged copy a new one, move its Raft log to another kind
// of store.
//
// Every operation takes the lock of the data directory, so it refuses a node
// that runs. It looks at everything before it changes anything, and asks the
// nodes that it can reach how far their logs are (chain/1, served by every
// node that runs) before it decides something that cannot be taken back. What
// it takes away it moves aside and never deletes.
//
// Order of a recovery: look (read only) → ask → the person confirms → the
// replica gets its log.recovered, durably → the Raft log is made anew. A crash
// in between leaves a node that refuses to start, or one that never leads; the
// same command again finishes what was begun.
//
// Bounds: 1024 known nodes are asked, 16 at a time, 4 s each; a message of
// chain/1 has at most 64 KiB, a record 4 MiB.
//
// node serves chain/1 with this package; node/cmd/skein and sim call the rest.
package rescue
