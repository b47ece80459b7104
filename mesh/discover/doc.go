// Package discover finds the nodes of a fleet on the local network by mDNS and
// DNS-SD, and remembers where they were.
//
// A member answers questions for _skein._tcp with its node id, its public key,
// its ports and a hash of its fleet's id. The hash is a filter that keeps two
// fleets on one LAN apart; it is no proof. Whatever is found here is a hint of
// kind "shared": the handshake of package link decides who it really is.
//
// Questions are asked often at first and ever more seldom, down to one in two
// minutes: once nodes have met, gossip keeps them together. A node asks on every
// usable interface, follows interfaces as they come, go and change address, and
// may share a host, or a process, with other nodes and with avahi.
//
// It imports words only (ident). Only node (composition), sim and tests import it.
package discover
