// Package live runs a whole fleet in one process: real nodes over real sockets,
// each with its own directory, keys and ports, sharing nothing but the code.
// It is what `skein dev` starts.
//
// The fleet is founded, joined and approved as any fleet is: robot-1 by
// `skein fleet init`, the others with its fleet file over mDNS, the voters by
// the admin over REST. Nothing here reaches into a node.
//
// Robots can be killed, started again and added while it runs, through a
// control socket in the fleet's folder (`skein dev kill NAME`).
package live
