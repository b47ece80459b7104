package ident

import (
	"crypto/ed25519"
	"net/netip"
	"slices"
)

// Endpoint is where a node was last said to be. It is a hint of kind "shared":
// the handshake with PublicKey is the proof.
type Endpoint struct {
	ID        NodeID            `json:"id"`
	PublicKey ed25519.PublicKey `json:"publicKey"`
	// Addrs are the node's addresses, most useful first. At most MaxAddrs.
	Addrs []netip.Addr `json:"addrs"`
	// LinkPort is the TCP port of authenticated streams, GossipPort the TCP and
	// UDP port of memberlist, HTTPPort that of console and REST (0: none).
	LinkPort   uint16 `json:"linkPort"`
	GossipPort uint16 `json:"gossipPort"`
	HTTPPort   uint16 `json:"httpPort"`
}

// MaxAddrs bounds Endpoint.Addrs.
const MaxAddrs = 8

// Valid reports whether id and key belong together and there is an address to try.
func (e Endpoint) Valid() bool {
	return len(e.PublicKey) == ed25519.PublicKeySize && IDOf(e.PublicKey) == e.ID &&
		len(e.Addrs) > 0 && len(e.Addrs) <= MaxAddrs && e.LinkPort != 0
}

// Equal reports whether both say the same.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.ID == o.ID && slices.Equal(e.Addrs, o.Addrs) &&
		e.LinkPort == o.LinkPort && e.GossipPort == o.GossipPort && e.HTTPPort == o.HTTPPort
}
