package ident

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// FleetID names a fleet: a hash of its root public key, encoded like a NodeID.
type FleetID string

// FleetIDOf derives the fleet's id from its root public key.
func FleetIDOf(root ed25519.PublicKey) FleetID { return FleetID(IDOf(root)) }

// MaxChain is the most certificates a chain may have. Every voter that was
// admitted by another voter adds one; a fleet that reaches the bound re-signs
// with its root key.
const MaxChain = 16

const domainCertificate = "certificate/1"

// Errors of a chain that does not prove membership.
var (
	// ErrNotOfFleet: the chain does not lead to this fleet's root.
	ErrNotOfFleet = errors.New("certificate is not of this fleet")
	// ErrBadCertificate: a certificate in the chain is malformed or its signature is wrong.
	ErrBadCertificate = errors.New("certificate is not valid")
)

// Certificate says that the holder of PublicKey was admitted to Fleet.
type Certificate struct {
	Fleet     FleetID           `json:"fleet"`
	PublicKey ed25519.PublicKey `json:"publicKey"`
	// MayIssue: the holder may sign certificates of others. Voters have it.
	MayIssue bool `json:"mayIssue,omitempty"`
	// IssuedAt is the issuer's wall clock, for people; no check depends on it,
	// because a robot's clock may not be set when it starts.
	IssuedAt time.Time `json:"issuedAt"`
	// Issuer is the key that signed: the next in the chain, or the root.
	Issuer    ed25519.PublicKey `json:"issuer"`
	Signature []byte            `json:"signature"`
}

// Node is the id of the certificate's holder.
func (c Certificate) Node() NodeID { return IDOf(c.PublicKey) }

// signedBytes is the canonical form: fixed order, length-prefixed.
func (c Certificate) signedBytes() []byte {
	var b []byte
	put := func(p []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	put([]byte(c.Fleet))
	put(c.PublicKey)
	put([]byte{boolByte(c.MayIssue)})
	put(binary.BigEndian.AppendUint64(nil, uint64(c.IssuedAt.UnixMilli())))
	put(c.Issuer)
	return b
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// Chain proves membership: the holder's certificate first, then its issuer's,
// up to one that the root signed. At most MaxChain long.
type Chain []Certificate

// NewChain issues a certificate for subject, signed by issuer, whose own chain
// is above. A nil above means that issuer is the fleet's root key.
func NewChain(fleet FleetID, subject ed25519.PublicKey, mayIssue bool, now time.Time, issuer Key, above Chain) Chain {
	c := Certificate{
		Fleet:     fleet,
		PublicKey: subject,
		MayIssue:  mayIssue,
		IssuedAt:  now.UTC().Truncate(time.Millisecond),
		Issuer:    issuer.Public(),
	}
	c.Signature = issuer.Sign(domainCertificate, c.signedBytes())
	return append(Chain{c}, above...)
}

// Verify checks every link up to root and returns the holder's certificate.
// It does not know about revocations: ask the replicated state as well.
func (ch Chain) Verify(root ed25519.PublicKey) (Certificate, error) {
	if len(ch) == 0 || len(ch) > MaxChain {
		return Certificate{}, fmt.Errorf("%w: chain has %d certificates, want 1 to %d", ErrBadCertificate, len(ch), MaxChain)
	}
	fleet := FleetIDOf(root)
	for i, c := range ch {
		issuer := root
		if i+1 < len(ch) {
			if !ch[i+1].MayIssue {
				return Certificate{}, fmt.Errorf("%w: %s may not issue", ErrBadCertificate, ch[i+1].Node().Short())
			}
			issuer = ch[i+1].PublicKey
		}
		if c.Fleet != fleet || i+1 == len(ch) && !bytes.Equal(c.Issuer, root) {
			return Certificate{}, fmt.Errorf("%w: it is of fleet %.24q, this is %s", ErrNotOfFleet, c.Fleet, fleet)
		}
		if len(c.PublicKey) != ed25519.PublicKeySize || !bytes.Equal(c.Issuer, issuer) ||
			!Verify(issuer, domainCertificate, c.signedBytes(), c.Signature) {
			return Certificate{}, fmt.Errorf("%w: link %d of %d", ErrBadCertificate, i+1, len(ch))
		}
	}
	return ch[0], nil
}
