//go:build skein_nofsync

package raftlog

// noSync makes a Raft log that a power cut tears: with it, the test of power cuts
// must fail, or it proves nothing. Nothing else may set the tag skein_nofsync.
const noSync = true
