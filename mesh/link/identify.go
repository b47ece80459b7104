package link

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/multiformats/go-multistream"

	"skein/mesh/ident"
)

// Identify asks who listens at an address of which nothing else is known, such
// as one that a person has typed: it does a handshake, reads the key that the
// other side proves, and hangs up. The endpoint has no other ports than the
// link's. Whether that node is one of the fleet is for OpenStranger's protocol
// to find out. ctx bounds it, and 10 s.
func (h *Host) Identify(ctx context.Context, at netip.AddrPort) (ident.Endpoint, error) {
	e, err := h.identify(ctx, at)
	if err != nil {
		return ident.Endpoint{}, fmt.Errorf("ask %s who it is: %w: %w", at, ErrUnreachable, err)
	}
	return e, nil
}

func (h *Host) identify(ctx context.Context, at netip.AddrPort) (ident.Endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout+handshakeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return ident.Endpoint{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return ident.Endpoint{}, err
	}
	if err := multistream.SelectProtoOrFail(noise.ID, conn); err != nil {
		return ident.Endpoint{}, fmt.Errorf("it is no skein node: %w", err)
	}
	priv, err := crypto.UnmarshalEd25519PrivateKey(h.cfg.Key.Private())
	if err != nil {
		return ident.Endpoint{}, err
	}
	transport, err := noise.New(noise.ID, priv, nil)
	if err != nil {
		return ident.Endpoint{}, err
	}
	anyone, err := transport.WithSessionOptions(noise.DisablePeerIDCheck())
	if err != nil {
		return ident.Endpoint{}, err
	}
	secure, err := anyone.SecureOutbound(ctx, conn, "")
	if err != nil {
		return ident.Endpoint{}, fmt.Errorf("handshake: %w", err)
	}
	raw, err := secure.RemotePublicKey().Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return ident.Endpoint{}, fmt.Errorf("its key is of another kind than a node's")
	}
	return ident.Endpoint{ID: ident.IDOf(raw), PublicKey: raw, Addrs: []netip.Addr{at.Addr().Unmap()}, LinkPort: at.Port()}, nil
}
