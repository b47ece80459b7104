// Package discover finds the robots of a fleet on the local network without any
// address being configured, and remembers on disk where robots were.
//
// Service announces this node by multicast DNS and DNS-SD (RFC 6762, RFC 6763)
// as an instance of "_skein._tcp" and tells of others of the same fleet. Book is
// the memory. Both deal in ident.Endpoint, data of kind "shared": a hint where a
// node may be reached. Anyone on the network can announce anything; the
// handshake of mesh/link is the proof.
//
// On the wire a node is one packet:
//
//	_skein._tcp.local.         PTR  <nodeid>._skein._tcp.local.
//	<nodeid>._skein._tcp.local. SRV  <nodeid>.local. port = LinkPort
//	<nodeid>._skein._tcp.local. TXT  v=1 f=<fleet tag> k=<public key> g=<gossip port> h=<HTTP port>
//	<nodeid>.local.            A    one for each IPv4 address of the interface it leaves by
//
// The fleet tag is a hash of the fleet id; announcements with another one are
// ignored.
//
// A node that is not admitted yet only looks: Config.Self then has no id.
//
// Order: New, then Run for as long as the node lives. Config.Found is called
// from Run's goroutine, may name the same node again and again, and must not
// block.
//
// Limits: IPv4 only; 16 interfaces; 1024 nodes remembered; 50 calls of Found a
// second; 5 announcements a second on each interface, however often it is asked.
//
// It imports words only (ident). Only node (composition), sim and tests import it.
package discover
