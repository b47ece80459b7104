// Package disk puts the whole program on trial with its disks: the power fails,
// a write fails or hangs, the disk is full or turns read-only, a byte in a file
// is not what was written. Every robot is a process with a disk of its own
// (package rig: ext4 on a loop device), and every fault is done by the kernel.
//
// It has only tests. Each lists what was acknowledged and compares; none counts.
// A test that draws lots prints its seed; SKEIN_SEED=n draws the same again.
// SKEIN_SOAK=1 makes the long counts.
package disk
