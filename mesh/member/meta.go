package member

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"skein/mesh/ident"
)

// DomainMeta tags the signature over gossiped metadata.
const DomainMeta = "gossip-meta/1"

// MaxMetaAddrs bounds the addresses a node publishes.
const MaxMetaAddrs = 4

const (
	metaVersion   = 1
	metaFixed     = 2 + ed25519.PublicKeySize + 8 + 4 + 3*2 + 1
	metaMaxBytes  = metaFixed + MaxMetaAddrs*17 + ed25519.SignatureSize
	metaIsLeaving = 1
)

// errBadMeta: the bytes are no metadata, or not what its key signed.
var errBadMeta = errors.New("metadata of a member is not valid")

// statement is what a node says about itself. Its wire form is:
//
//	version  1 byte, 1
//	flags    1 byte, 1: the node is leaving on purpose
//	key      32 bytes, ed25519 public key; the id is its hash
//	boot     8 bytes, differs at every start of the node
//	n        4 bytes, from 1, rises with every change within a boot
//	ports    3 × 2 bytes: link, gossip, HTTP
//	addrs    1 byte count, then each: 1 byte length (4 or 16), the address
//	sig      64 bytes over all of the above, domain DomainMeta
//
// Numbers are big-endian. There is exactly one encoding of each statement.
type statement struct {
	endpoint ident.Endpoint
	boot     uint64
	n        uint32
	leaving  bool
}

// encode signs and encodes. Addresses beyond MaxMetaAddrs are left out.
func (st statement) encode(key ident.Key) []byte {
	addrs := st.endpoint.Addrs[:min(len(st.endpoint.Addrs), MaxMetaAddrs)]
	b := make([]byte, 0, metaMaxBytes)
	b = append(b, metaVersion, 0)
	if st.leaving {
		b[1] = metaIsLeaving
	}
	b = append(b, key.Public()...)
	b = binary.BigEndian.AppendUint64(b, st.boot)
	b = binary.BigEndian.AppendUint32(b, st.n)
	b = binary.BigEndian.AppendUint16(b, st.endpoint.LinkPort)
	b = binary.BigEndian.AppendUint16(b, st.endpoint.GossipPort)
	b = binary.BigEndian.AppendUint16(b, st.endpoint.HTTPPort)
	b = append(b, byte(len(addrs)))
	for _, a := range addrs {
		raw := a.Unmap().AsSlice()
		b = append(append(b, byte(len(raw))), raw...)
	}
	return append(b, key.Sign(DomainMeta, b)...)
}

// decodeStatement reads and verifies what encode wrote. Errors are errBadMeta.
func decodeStatement(b []byte) (statement, error) {
	if len(b) < metaFixed+ed25519.SignatureSize || len(b) > metaMaxBytes || b[0] != metaVersion || b[1]&^metaIsLeaving != 0 {
		return statement{}, fmt.Errorf("%w: %d bytes, or not of version %d", errBadMeta, len(b), metaVersion)
	}
	signed, sig := b[:len(b)-ed25519.SignatureSize], b[len(b)-ed25519.SignatureSize:]
	key := ed25519.PublicKey(bytes.Clone(b[2 : 2+ed25519.PublicKeySize]))
	rest := signed[2+ed25519.PublicKeySize:]
	st := statement{
		leaving: b[1] == metaIsLeaving,
		boot:    binary.BigEndian.Uint64(rest),
		n:       binary.BigEndian.Uint32(rest[8:]),
		endpoint: ident.Endpoint{
			ID:         ident.IDOf(key),
			PublicKey:  key,
			LinkPort:   binary.BigEndian.Uint16(rest[12:]),
			GossipPort: binary.BigEndian.Uint16(rest[14:]),
			HTTPPort:   binary.BigEndian.Uint16(rest[16:]),
		},
	}
	var err error
	if st.endpoint.Addrs, err = decodeAddrs(rest[18:]); err != nil {
		return statement{}, err
	}
	if st.endpoint.GossipPort == 0 || st.n == 0 {
		return statement{}, fmt.Errorf("%w: gossip port or counter is 0", errBadMeta)
	}
	if !ident.Verify(key, DomainMeta, signed, sig) {
		return statement{}, fmt.Errorf("%w: signature of %s does not match", errBadMeta, st.endpoint.ID.Short())
	}
	return st, nil
}

func decodeAddrs(b []byte) ([]netip.Addr, error) {
	count := int(b[0])
	b = b[1:]
	if count == 0 || count > MaxMetaAddrs {
		return nil, fmt.Errorf("%w: %d addresses, want 1 to %d", errBadMeta, count, MaxMetaAddrs)
	}
	addrs := make([]netip.Addr, 0, count)
	for range count {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return nil, fmt.Errorf("%w: it ends inside an address", errBadMeta)
		}
		a, ok := netip.AddrFromSlice(b[1 : 1+b[0]])
		if !ok || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("%w: %v is no address to send to", errBadMeta, a)
		}
		addrs = append(addrs, a)
		b = b[1+b[0]:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes follow the addresses", errBadMeta, len(b))
	}
	return addrs, nil
}
