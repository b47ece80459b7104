// Package change puts the whole program on trial while what is around it
// changes: addresses, clocks, builds and members, under load; and while fleets
// come to be on a LAN that is in pieces. Every robot is a process on a host of its own
// (package rig).
//
// It has only tests. Each lists what was acknowledged and compares; none counts.
package change
