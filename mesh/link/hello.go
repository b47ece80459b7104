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

// greeting is the one message of hello/1, sent by the opener and then by the
// answerer. Either a chain or a refusal, always the clock.
type greeting struct {
	Chain ident.Chain `json:"chain,omitempty"`
	// UnixMillis is the sender's wall clock.
	UnixMillis int64       `json:"unixMillis"`
	Refusal    refusalCode `json:"refusal,omitempty"`
	Reason     string      `json:"reason,omitempty"`
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
	return greeting{Chain: chain, UnixMillis: h.cfg.Now().UnixMilli()}, nil
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
	ok, skew := false, time.Duration(0)
	defer func() { h.peers.endHello(c, ok, skew) }()

	raw, err := h.negotiate(ctx, c, helloProtocol, handshakeTimeout)
	if err != nil {
		return err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Reset() })
	defer stop()
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	sent, start := h.cfg.Now(), time.Now()
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
	// Half the round trip lies between the peer's clock and the answer's arrival.
	skew = time.UnixMilli(answer.UnixMillis).Sub(sent.Add(time.Since(start) / 2))
	ok = true
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
	ok, skew := false, time.Duration(0)
	defer func() { h.peers.endHello(c, ok, skew) }()

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
		skew, ok = time.UnixMilli(theirs.UnixMillis).Sub(h.cfg.Now()), true
		h.peers.endHelloEarly(c, skew)
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
func (t *peerTable) endHello(c *conn, ok bool, skew time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.hellos--
	t.settle(c, ok, skew)
}

// endHelloEarly settles a hello that succeeded while its stream still runs.
func (t *peerTable) endHelloEarly(c *conn, skew time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(c, true, skew)
}

func (t *peerTable) settle(c *conn, ok bool, skew time.Duration) {
	if ok && !c.verified {
		c.verified = true
		if scope, is := c.raw.Scope().(*connScope); is {
			scope.verified()
		}
	}
	if ok {
		c.skew = skew
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
