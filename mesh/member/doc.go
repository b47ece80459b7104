// Package member keeps the list of who is in the mesh right now: a wrapper of
// hashicorp/memberlist in which a node's identity is its key and its address is
// a detail that may change at any time.
//
// What it says is of kind "shared": hints. A member shown as Dead is one that
// could not be reached by gossip; nothing decided may follow from it.
//
// Every node publishes signed metadata: its public key, addresses and ports,
// the boot and a counter that rises with each change. Others take it only if
// the signature is right, the id belongs to the key, it is not older than what
// they have of the same boot, and Config.Refused has nothing against the node.
// The addresses that packets go to come from that metadata alone.
//
// Life: New binds the port and starts gossip; Run follows address changes, key
// changes and lost nodes until its context ends, then leaves and closes. The
// other methods may be called at any time between, from any goroutine, but not
// from inside Config.Refused, Config.Meta or Config.Known.
//
// Limits: 4096 nodes in the list; of those that are gone at most 1024, for 24 h;
// 512 bytes of metadata and 4 addresses a node; 64 inbound streams at once; 1200
// bytes a packet.
//
// It imports ident and keyring. Only node (composition), sim and tests import it.
package member
