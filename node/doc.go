// Package node puts a Skein node together and does nothing else: it opens the
// data directory, makes the parts, hands each the few functions it needs of the
// others, starts them in order and stops them in reverse.
//
// Order of start, and so the reverse order of stop: disk (key, membership, log)
// → link and gossip → following the log → a voter's seat → presence and
// telemetry → HTTP. A part may use what stands before it until its own end.
//
// Nothing here is shared between nodes: dozens run in one process (`skein dev`)
// with their own sockets, directories and keys. Only commands and sim may
// import this package.
package node
