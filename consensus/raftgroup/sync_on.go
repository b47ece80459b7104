//go:build !skein_nofsync

package raftgroup

// noSync is false in every build that people run.
const noSync = false
