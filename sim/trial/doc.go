// Package trial is the whole program put on trial: the built binary, one
// process a robot, on a LAN of its own (package rig), with nothing configured
// that a robot image would not have. Its helpers found fleets and ask them
// what they know; its tests and benchmarks are what "it works" means.
//
// Only tests and benchmarks may import it.
package trial
