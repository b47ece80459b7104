// Package ident says who is who in a fleet: the node's key and the id derived
// from it, the fleet file that a robot image carries, one-time join tokens, and
// the certificates that let any node check any other without a server.
//
// A node is its ed25519 key. Its name, its addresses and the disk it runs from
// may all change; the id does not, because it is a hash of the public key.
//
// Trust is a chain: the fleet's root key signs the founder's certificate, a
// voter that may issue signs the certificate of whom it admits. A certificate
// says "was admitted"; it never says "is still welcome": revocations are in the
// replicated log and every check asks both.
//
// Every signature made here covers a domain tag first, so that bytes signed for
// one purpose are never valid for another. The package does no network I/O and
// may be imported by every other package.
package ident
