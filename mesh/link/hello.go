package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/network"

	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	helloProtocol Protocol = "/skein/hello/1"
	// helloMax is enough for ident.MaxChain certificates.
	helloMax = 16 << 10
	// reasonMax bounds what a peer's reason may put into our error, in bytes.
	reasonMax = 200
)

// Told is what members tell each other about themselves at hello. What it means
// is not this package's business. Builds that know less leave out, and ignore,
// what they do not know.
type Told struct {
	// Level is the newest level of event types that the node knows; 0 is none
	// told, which is what the first builds do.
	Level uint64 `json:"level,omitempty"`
	// Epoch counts how often the fleet was recovered, as far as the node knows.
	Epoch uint64 `json:"epoch,omitempty"`
}

// greeting is the one message of hello/1, sent by the opener and then by the
// answerer. Either a chain or a refusal, always the clock. Unknown fields are
// ignored, so what is new goes into a new field.
type greeting struct {
	Chain ident.Chain `json:"chain,omitempty"`
	// UnixMillis is the sender's wall clock.
	UnixMillis int64       `json:"unixMillis"`
	Refusal    refusalCode `json:"refusal,omitempty"`
	Reason     string      `json:"reason,omitempty"`
	Told
}

type refusalCode string

const (
	refusedNotAdmitted refusalCode = "not_admitted"
	refusedUnwelcome   refusalCode = "refused"
)

// readGreeting decodes and bounds, it does not verify.
func readGreeting(r io.Reader) (greeting, error) {
	var g greeting
	if err := wire.ReadJSON(r, &g, helloMax); err != nil {
		return greeting{}, fmt.Errorf("read hello: %w", err)
	}
	g.Reason = printable(g.Reason)
	return g, nil
}

// printable makes a peer's text safe for a log line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), reasonMax)], "")
}

// own is this node's greeting, or ErrNotAdmitted.
func (h *Host) own() (greeting, error) {
	chain := h.cfg.Chain()
	if len(chain) == 0 {
		return greeting{}, fmt.Errorf("%w: this node has not joined a fleet yet; run `skein join TOKEN` or give it a fleet file", ErrNotAdmitted)
	}
	return greeting{Chain: chain, UnixMillis: h.cfg.Now().UnixMilli(), Told: h.cfg.Tell()}, nil
}

// check decides whether the peer that showed chain is a welcome member.
func (h *Host) check(r *remote, chain ident.Chain) error {
	holder, err := chain.Verify(h.cfg.Root)
	if err != nil {
		return fmt.Errorf("%w: %s shows no certificate of this fleet: %w", ErrNotAdmitted, r.node.Short(), err)
	}
	if !bytes.Equal(holder.PublicKey, r.key) {
		return fmt.Errorf("%w: %s shows the certificate of %s", ErrNotAdmitted, r.node.Short(), holder.Node().Short())
	}
	if err := h.cfg.Vouched(chain); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRefused, r.node.Short(), err)
	}
	return h.welcome(r.node)
}

// welcome asks for revocations.
func (h *Host) welcome(id ident.NodeID) error {
	if err := h.cfg.Refused(id); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRefused, id.Short(), err)
	}
	return nil
}

// sayHello runs hello/1 as the opener. After it the connection is verified on
// both sides. The caller holds the node's turn.
func (h *Host) sayHello(ctx context.Context, c *conn) error {
	mine, err := h.own()
	if err != nil {
		return err
	}
	h.peers.beginHello(c)
	var brought *heard
	defer func() { h.peers.endHello(c, brought) }()

	raw, err := h.negotiate(ctx, c, helloProtocol, handshakeTimeout)
	if err != nil {
		return err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Reset() })
	defer stop()
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	start := time.Now()
	if err := wire.WriteJSON(raw, mine, helloMax); err != nil {
		return h.explain(ctx, c, "say hello", err)
	}
	answer, err := readGreeting(raw)
	if err != nil {
		return h.explain(ctx, c, "say hello", err)
	}
	if answer.Refusal != "" {
		return refusedByPeer(c.remote.node, answer)
	}
	if err := h.check(c.remote, answer.Chain); err != nil {
		raw.Reset()
		return err
	}
	// The peer looked at its clock in the middle of the round trip.
	brought = &heard{answer.Told, time.UnixMilli(answer.UnixMillis), start.Add(time.Since(start) / 2)}
	h.cfg.Heard(c.remote.node, answer.Told)
	return nil
}

func refusedByPeer(id ident.NodeID, g greeting) error {
	if g.Refusal == refusedNotAdmitted {
		return fmt.Errorf("%w: %s answers: %s", ErrNotAdmitted, id.Short(), g.Reason)
	}
	return fmt.Errorf("%w: %w by %s: %s", ErrRefused, ErrTurnedAway, id.Short(), g.Reason)
}

// answerHello runs hello/1 as the answerer. It marks the connection before it
// answers: the opener may use it the moment it has read the answer.
func (h *Host) answerHello(c *conn, raw network.Stream) {
	h.peers.beginHello(c)
	var brought *heard
	defer func() { h.peers.endHello(c, brought) }()

	theirs, err := readGreeting(raw)
	if err != nil {
		h.cfg.Log.Debug("hello not understood", "peer", c.remote.node, "err", err)
		raw.ResetWithError(network.StreamProtocolViolation)
		return
	}
	answer, err := h.own()
	if err == nil {
		err = h.check(c.remote, theirs.Chain)
	}
	if err != nil {
		h.cfg.Log.Debug("hello refused", "peer", c.remote.node, "err", err)
		answer = h.refusal(err)
	} else {
		brought = &heard{theirs.Told, time.UnixMilli(theirs.UnixMillis), time.Now()}
		h.peers.endHelloEarly(c, brought)
		h.cfg.Heard(c.remote.node, theirs.Told)
	}
	if err := wire.WriteJSON(raw, answer, helloMax); err != nil {
		h.cfg.Log.Debug("hello not answered", "peer", c.remote.node, "err", err)
	}
	raw.Close()
}

func (h *Host) refusal(err error) greeting {
	code := refusedNotAdmitted
	if errors.Is(err, ErrRefused) {
		code = refusedUnwelcome
	}
	return greeting{UnixMillis: h.cfg.Now().UnixMilli(), Refusal: code, Reason: printable(err.Error())}
}

func (t *peerTable) beginHello(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.hellos++
}

// endHello wakes those who wait in waitVerified.
func (t *peerTable) endHello(c *conn, brought *heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.hellos--
	t.settle(c, brought)
}

// endHelloEarly settles a hello that succeeded while its stream still runs.
func (t *peerTable) endHelloEarly(c *conn, brought *heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(c, brought)
}

// settle ends a hello; brought is nil if it failed.
func (t *peerTable) settle(c *conn, brought *heard) {
	if brought != nil && !c.verified {
		c.verified = true
		if scope, is := c.raw.Scope().(*connScope); is {
			scope.verified()
		}
	}
	if brought != nil {
		c.heard = *brought
	}
	close(c.settled)
	c.settled = make(chan struct{})
}

// unverify makes the next Open say hello on c again.
func (t *peerTable) unverify(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.verified = false
}

// waitVerified reports whether the connection has had its hello. One that is
// running is waited for: the peer may open a stream the moment it has sent its
// answer, before this side has read it.
func (t *peerTable) waitVerified(ctx context.Context, c *conn) bool {
	for {
		t.mu.Lock()
		verified, running, settled := c.verified, c.hellos > 0, c.settled
		t.mu.Unlock()
		if verified || !running {
			return verified
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return false
		}
	}
}
