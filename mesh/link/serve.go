package link

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multistream"
)

// Protocol names one use of a stream, with its version: "/skein/follow/1".
type Protocol string

// handler serves one protocol.
type handler struct {
	fn func(ctx context.Context, s *Stream)
	// open: strangers may come.
	open bool
}

// Handle serves p for members: peers whose certificate has been checked and who
// are not refused at this moment. fn runs in a goroutine of its own for each
// stream; ctx ends with the host. When fn returns the stream is closed, unless
// fn called Keep. A second Handle of the same p replaces the first.
func (h *Host) Handle(p Protocol, fn func(ctx context.Context, s *Stream)) {
	h.setHandler(p, handler{fn: fn})
}

// HandleOpen serves p for anyone, a stranger included: only the protocol to join
// is for that. Streams are rate limited and counted for each remote address,
// carry at most 64 KiB from the peer and live at most 30 s; ctx ends then.
func (h *Host) HandleOpen(p Protocol, fn func(ctx context.Context, s *Stream)) {
	h.setHandler(p, handler{fn: fn, open: true})
}

func (h *Host) setHandler(p Protocol, with handler) {
	h.handlersMu.Lock()
	defer h.handlersMu.Unlock()
	h.handlers[p] = with
}

func (h *Host) handler(p Protocol) (handler, bool) {
	h.handlersMu.RLock()
	defer h.handlersMu.RUnlock()
	found, ok := h.handlers[p]
	return found, ok
}

// admitted is a protocol that the opener may use now.
type admitted struct {
	protocol Protocol
	handler  handler
	// leave ends the visit of an open protocol; nil for the others.
	leave func()
}

// onStream is called by the swarm, in a goroutine of its own, for each inbound stream.
func (h *Host) onStream(raw network.Stream) {
	if !h.enter() {
		raw.ResetWithError(network.StreamShutdown)
		return
	}
	defer h.running.Done()
	c := h.peers.connOf(raw.Conn())
	if c == nil {
		raw.Reset()
		return
	}
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	to, err := h.agree(c, raw)
	if to.leave != nil {
		defer to.leave()
	}
	if err != nil {
		h.cfg.Log.Debug("stream not begun", "peer", c.remote.node, "err", err)
		raw.Reset()
		return
	}
	if to.protocol == helloProtocol {
		h.answerHello(c, raw)
		return
	}
	raw.SetProtocol(protocolID(to.protocol))
	s := newStream(raw, c)
	if !to.handler.open {
		raw.SetDeadline(time.Time{})
		run(h.ctx, to.handler, s)
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, openServeTimeout)
	defer cancel()
	raw.SetDeadline(time.Now().Add(openServeTimeout))
	s.budget.Store(openReadMax)
	run(ctx, to.handler, s)
}

// agree settles a protocol with the opener. One that it may not use now is
// answered with a reset whose code says why, and not with "not spoken here", so
// that its error is the right one. to.leave may be set even with an error.
func (h *Host) agree(c *conn, raw network.Stream) (to admitted, err error) {
	ctx, cancel := context.WithTimeout(h.ctx, handshakeTimeout)
	defer cancel()
	mux := multistream.NewMultistreamMuxer[Protocol]()
	mux.AddHandlerWithFunc("", func(p Protocol) bool {
		found, ok := h.handler(p)
		switch {
		case p == helloProtocol:
			return true
		case !ok:
			return false
		case found.open:
			if to.leave == nil {
				to.leave = h.visit(raw)
			}
			if to.leave == nil {
				raw.ResetWithError(network.StreamRateLimited)
				return false
			}
		case !h.peers.waitVerified(ctx, c) || h.welcome(c.remote.node) != nil:
			raw.ResetWithError(network.StreamGated)
			return false
		}
		to.handler = found
		return true
	}, nil)
	to.protocol, _, err = mux.Negotiate(raw)
	return to, err
}

// visit counts a stream of an open protocol; nil if the peer's address is over a cap.
func (h *Host) visit(raw network.Stream) (leave func()) {
	addr, err := addrOf(raw.Conn().RemoteMultiaddr())
	if err != nil {
		return nil
	}
	return h.openVisitors.enter(addr, time.Now())
}

func run(ctx context.Context, serve handler, s *Stream) {
	serve.fn(ctx, s)
	if !s.kept.Load() {
		s.Close()
	}
}
