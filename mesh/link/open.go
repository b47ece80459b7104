package link

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"

	"skein/mesh/ident"
)

// Errors of Open and OpenStranger, for errors.Is.
var (
	// ErrNotAdmitted: this node or the peer has no valid certificate of the fleet.
	ErrNotAdmitted = errors.New("not admitted")
	// ErrRefused: this node refuses the peer or the peer refuses this node,
	// because one of them has been revoked or has not said hello.
	ErrRefused = errors.New("refused")
	// ErrTurnedAway comes with ErrRefused when it is the peer that refuses this
	// node: it was revoked, or its certificate is not trusted any more.
	ErrTurnedAway = errors.New("turned away")
	// ErrUnreachable: no address is known, none answers, or what answers is not
	// that node. Trying again later is right.
	ErrUnreachable = errors.New("unreachable")
	// ErrUnsupported: the peer does not speak the protocol; its version is older
	// or newer, or it is still starting.
	ErrUnsupported = errors.New("protocol not supported")
	// ErrBusy: the peer is at a cap or limits the rate. Try again after a second.
	ErrBusy = errors.New("peer is busy")
)

var (
	// errGone: the connection died under the attempt; a new one may work.
	errGone = errors.New("connection lost")
	// errGated: the peer does not take this connection for verified, or refuses
	// this node. Hello will tell which.
	errGated = errors.New("the peer wants a hello first")
)

func protocolID(p Protocol) protocol.ID { return protocol.ID(p) }

// Open opens a stream of p to a member. It dials if there is no connection,
// without the swarm's back-off, and says hello if that has not been done. ctx
// bounds all of it (10 s if it has no deadline), not the stream.
func (h *Host) Open(ctx context.Context, id ident.NodeID, p Protocol) (*Stream, error) {
	s, err := h.open(ctx, id, p)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", p, id.Short(), err)
	}
	return s, nil
}

func (h *Host) open(ctx context.Context, id ident.NodeID, p Protocol) (*Stream, error) {
	if _, err := h.own(); err != nil {
		return nil, err
	}
	if err := h.welcome(id); err != nil {
		return nil, err
	}
	r := h.peers.find(id)
	if r == nil {
		return nil, fmt.Errorf("%w: no address of it is known yet", ErrUnreachable)
	}
	return h.attempts(ctx, r, p, h.memberConn)
}

// OpenStranger opens a stream of p, which must be a HandleOpen protocol there,
// to a node that need not be a member, from a node that need not be one. No
// certificates are exchanged; the stream is encrypted and leads to the holder
// of e.PublicKey, no more is known of it.
func (h *Host) OpenStranger(ctx context.Context, e ident.Endpoint, p Protocol) (*Stream, error) {
	h.Know(e)
	r := h.peers.find(e.ID)
	if r == nil {
		return nil, fmt.Errorf("open %s to %s: %w: its endpoint has no usable address", p, e.ID.Short(), ErrUnreachable)
	}
	s, err := h.attempts(ctx, r, p, h.anyConn)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", p, e.ID.Short(), err)
	}
	return s, nil
}

// attempts opens a stream on the connection that get gives, again while what it
// gives turns out to be dead: at most once for each connection a peer may have.
func (h *Host) attempts(ctx context.Context, r *remote, p Protocol,
	get func(context.Context, *remote) (*conn, bool, error),
) (*Stream, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	for left := h.limits.connsPerPeer; ; left-- {
		c, fresh, err := get(ctx, r)
		if err != nil {
			return nil, err
		}
		patience := reuseTimeout
		if fresh {
			patience = handshakeTimeout
		}
		raw, err := h.negotiate(ctx, c, p, patience)
		if err == nil {
			raw.SetProtocol(protocolID(p))
			return newStream(raw, c), nil
		}
		if errors.Is(err, errGated) {
			// The two sides may disagree: a hello that was answered, but whose answer
			// was not waited for, is complete on one side only.
			h.peers.unverify(c)
		} else if !errors.Is(err, errGone) {
			return nil, err
		}
		if fresh || left == 0 {
			return nil, err
		}
	}
}

// memberConn returns a verified connection, newest first, or makes one.
// fresh: it was verified just now.
func (h *Host) memberConn(ctx context.Context, r *remote) (c *conn, fresh bool, err error) {
	if ready := h.peers.live(r, true); len(ready) > 0 {
		return ready[0], false, nil
	}
	done, err := h.takeTurn(ctx, r)
	if err != nil {
		return nil, false, err
	}
	defer done()
	if ready := h.peers.live(r, true); len(ready) > 0 {
		return ready[0], false, nil
	}
	for _, c := range h.peers.live(r, false) {
		err := h.sayHello(ctx, c)
		if err == nil {
			return c, true, nil
		}
		if !errors.Is(err, errGone) {
			return nil, false, err
		}
	}
	if c, err = h.dial(ctx, r); err != nil {
		return nil, false, err
	}
	if err := h.sayHello(ctx, c); err != nil {
		return nil, false, err
	}
	return c, true, nil
}

// anyConn returns a connection, verified or not, or makes one.
func (h *Host) anyConn(ctx context.Context, r *remote) (c *conn, fresh bool, err error) {
	existing := func() *conn {
		for _, verified := range []bool{true, false} {
			if ready := h.peers.live(r, verified); len(ready) > 0 {
				return ready[0]
			}
		}
		return nil
	}
	if c := existing(); c != nil {
		return c, false, nil
	}
	done, err := h.takeTurn(ctx, r)
	if err != nil {
		return nil, false, err
	}
	defer done()
	if c := existing(); c != nil {
		return c, false, nil
	}
	c, err = h.dial(ctx, r)
	return c, true, err
}

// takeTurn waits until nobody else dials or greets the same node.
func (h *Host) takeTurn(ctx context.Context, r *remote) (done func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: another attempt is still under way: %w", ErrUnreachable, ctx.Err())
	}
}

// dial makes a connection, trying the node's addresses side by side.
func (h *Host) dial(ctx context.Context, r *remote) (*conn, error) {
	// The swarm would refuse to dial an address that failed before, for up to
	// five minutes. Voters cannot wait for that, so each caller keeps its own
	// back-off; this context value is the swarm's way to skip its own.
	raw, err := h.swarm.DialPeer(network.WithForceDirectDial(ctx, "skein"), r.peer)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUnreachable, dialError(err))
	}
	// The swarm may give a connection that the peer has just opened and that it
	// is about to announce.
	h.connected(h.swarm, raw)
	if c := h.peers.connOf(raw); c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, errGone)
}

// dialError puts libp2p's several lines on one.
func dialError(err error) string {
	var all *swarm.DialError
	if !errors.As(err, &all) || len(all.DialErrors) == 0 {
		return strings.ReplaceAll(err.Error(), "\n", " ")
	}
	parts := make([]string, 0, len(all.DialErrors))
	for _, one := range all.DialErrors {
		where := one.Address.String()
		if addr, err := addrOf(one.Address); err == nil {
			where = addr.String()
		}
		parts = append(parts, where+": "+strings.ReplaceAll(one.Cause.Error(), "\n", " "))
	}
	return strings.Join(parts, "; ")
}

// negotiate opens a stream on c and selects p. An error is errGone if a new
// connection may do better; c has been closed then.
func (h *Host) negotiate(ctx context.Context, c *conn, p Protocol, patience time.Duration) (network.Stream, error) {
	own, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	raw, err := c.raw.NewStream(own)
	if err != nil {
		return nil, h.explain(ctx, c, "open stream", err)
	}
	stop := context.AfterFunc(own, func() { raw.Reset() })
	err = multistream.SelectProtoOrFail(p, raw)
	if !stop() && err == nil {
		err = own.Err()
	}
	if err != nil {
		raw.Reset()
		return nil, h.explain(ctx, c, "select protocol", err)
	}
	return raw, nil
}

// explain turns what went wrong on c into one of this package's errors, and
// closes c if it is of no more use. If ctx has ended the fault may be the
// caller's haste, so the connection stays.
func (h *Host) explain(ctx context.Context, c *conn, doing string, err error) error {
	var unknown multistream.ErrNotSupported[Protocol]
	var reset *network.StreamError
	switch {
	case errors.As(err, &unknown):
		return ErrUnsupported
	case errors.As(err, &reset) && reset.Remote && reset.ErrorCode == network.StreamGated:
		return fmt.Errorf("%w: %w", ErrRefused, errGated)
	case errors.As(err, &reset) && reset.Remote &&
		(reset.ErrorCode == network.StreamRateLimited || reset.ErrorCode == network.StreamResourceLimitExceeded):
		return ErrBusy
	case errors.As(err, &reset) && reset.Remote:
		return fmt.Errorf("%w: %s: the peer reset the stream", ErrUnreachable, doing)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, doing, ctx.Err())
	}
	c.raw.Close()
	return fmt.Errorf("%w: %w: %s: %w", ErrUnreachable, errGone, doing, err)
}
