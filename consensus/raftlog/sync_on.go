//go:build !skein_nofsync

package raftlog

// noSync is false in every build that people run.
const noSync = false
