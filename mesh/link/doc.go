// Package link is the node's one libp2p host: authenticated, encrypted,
// multiplexed streams to other nodes, one protocol id for each use.
//
// It is assembled by hand (swarm, TCP, Noise, yamux) because the ready-made
// constructor of libp2p triples the binary; nothing else of libp2p runs: no
// identify, no ping, no relay, no discovery.
//
// # Who may talk
//
// Noise proves that the other side holds its key; that alone opens nothing but
// the protocols given to HandleOpen. Every other protocol needs hello/1 first,
// once for each connection: both sides show their certificate chain, each checks
// it against the fleet's root and against the key that Noise proved. Refused is
// then asked again at every single stream, in both directions, so a revocation
// that has just been applied counts at once; Drop ends what is already open.
//
// # Ordering
//
// New listens at once, so register handlers directly after it: until then peers
// are told that the protocol is not spoken here. Chain may answer nil until the
// node has been admitted; OpenStranger works before that, Open does not.
// Close ends everything and waits for the handlers.
//
// # Bounds
//
// Connections, unverified connections, streams of a peer, known addresses and
// rates of strangers are all capped (see limits); what is over a cap is reset,
// never queued. A connection without streams is closed after idleTimeout, so
// that a node does not pay keep-alives to everyone it once spoke to.
//
// Shells may import link; pure packages may not.
package link
