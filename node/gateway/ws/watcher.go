package ws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"skein/consensus/replica"
	"skein/consensus/watch"
	"skein/node/gateway/auth"
	"skein/node/gateway/exact"
	"skein/node/gateway/view"
)

// EventsSubprotocol is what a watcher of events has to offer.
const EventsSubprotocol = "skein.events.v1"

// watcherMessage is what a watcher may say: auth with Token, then watch.
type watcherMessage struct {
	Type  string `json:"type"`
	Token string `json:"token"`
	view.WatchRequest
}

// Bounds of a watch request.
const (
	maxSeq    = 1<<53 - 1
	maxFilter = 256
)

func decodeWatcher(text []byte, want string) (watcherMessage, error) {
	var m watcherMessage
	if err := exact.Decode(text, &m); err != nil {
		return m, err
	}
	if m.Type != want {
		return m, fmt.Errorf("a message of type %s is expected, not %.20q", want, m.Type)
	}
	if c := m.Cursor; c != nil && (c.History == "" || len(c.History) > maxHistoryName || len(c.Hash) > maxHistoryName || c.Seq > maxSeq) {
		return m, errors.New("watch has a cursor that no node gave")
	}
	if m.Since != nil && (m.Cursor != nil || *m.Since > maxSeq) {
		return m, fmt.Errorf("watch takes a cursor or since, an event's number up to %d", uint64(maxSeq))
	}
	f := m.Filter
	if len(f.Stream) > maxFilter || len(f.Type) > maxFilter || len(f.Actor) > maxFilter {
		return m, fmt.Errorf("watch has a filter of more than %d bytes", maxFilter)
	}
	return m, nil
}

// place is where to begin; nil is the present.
func (m watcherMessage) place() *view.Cursor {
	if m.Since != nil {
		return &view.Cursor{Seq: *m.Since}
	}
	return m.Cursor
}

func (m watcherMessage) filter() replica.Filter {
	f := replica.Filter{Stream: m.Filter.Stream, Type: m.Filter.Type, Actor: m.Filter.Actor}
	if m.Filter.From != nil {
		f.From = *m.Filter.From
	}
	if m.Filter.Until != nil {
		f.Until = *m.Filter.Until
	}
	return f
}

// watcher is one connection that events go to. One goroutine serves it.
type watcher struct {
	conn *websocket.Conn
	timing
	who auth.Principal
	// checked is when who was last known to be good.
	checked time.Time
	// reading waits for what nobody should say, and notices that the client goes.
	reading sync.WaitGroup
}

// Watch serves the WebSocket of events.
func (s *Server) Watch(w http.ResponseWriter, r *http.Request) {
	conn, raw := s.accept(w, r, EventsSubprotocol)
	if conn == nil {
		return
	}
	defer conn.CloseNow()
	c := &watcher{conn: conn, timing: s.hub.timing}
	if !s.addWatcher(c, raw.conn) {
		return
	}
	defer s.removeWatcher(c)
	// The request's context ends with the handler only; a hijacked connection is
	// watched by reading from it.
	ctx := context.WithoutCancel(r.Context())
	if end := c.serve(ctx, s); end != nil {
		s.cfg.Metrics.GetOrCreateCounter(`skein_event_watchers_closed_total{code="` + end.code + `"}`).Inc()
		c.close(ctx, end)
	}
	conn.CloseNow()
	c.reading.Wait()
}

func (s *Server) addWatcher(c *watcher, conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.watchers[c] = conn
	s.handlers.Add(1)
	return true
}

func (s *Server) removeWatcher(c *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, c)
	s.handlers.Done()
}

// serve speaks the protocol to its end: why this side ends it, or nil when the
// connection is gone.
func (c *watcher) serve(ctx context.Context, s *Server) *ending {
	m, end := c.expect(ctx, "auth")
	if end != nil || m.Type == "" {
		return end
	}
	if end := c.admit(ctx, s, m.Token); end != nil {
		return end
	}
	if m, end = c.expect(ctx, "watch"); end != nil || m.Type == "" {
		return end
	}
	w := s.feed.Watch(m.place(), m.filter())
	defer w.Close()
	hello := view.WatchFrame{Type: view.WatchWelcome, Node: &view.NodeRef{ID: s.cfg.Self, Name: s.nameOfSelf()}, Cursor: w.Cursor()}
	if c.write(ctx, hello) != nil {
		return nil
	}
	here, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	c.reading.Go(func() {
		err := errors.New("after its request a watcher has nothing to say")
		if _, _, gone := c.conn.Read(ctx); gone != nil {
			err = nil
		}
		leave(err)
	})
	end = c.pump(ctx, here, s, w)
	if said := context.Cause(here); end == nil && said != nil && !errors.Is(said, context.Canceled) {
		return endBadWatch(said)
	}
	return end
}

// expect reads one message, which has to come soon. No type: the connection is
// gone, or was closed for being late.
func (c *watcher) expect(ctx context.Context, want string) (watcherMessage, *ending) {
	told := make(chan struct{})
	// A read cannot be given up without the connection, so it is closed under it.
	late := time.AfterFunc(c.speak, func() {
		defer close(told)
		c.close(ctx, endTooLate)
	})
	kind, text, err := c.conn.Read(ctx)
	if !late.Stop() {
		<-told
		return watcherMessage{}, nil
	}
	switch {
	case err != nil:
		return watcherMessage{}, nil
	case kind != websocket.MessageText:
		return watcherMessage{}, endBadWatch(errors.New("the protocol has text messages only"))
	}
	m, err := decodeWatcher(text, want)
	if err != nil {
		return watcherMessage{}, endBadWatch(err)
	}
	return m, nil
}

func (c *watcher) admit(ctx context.Context, s *Server, token string) *ending {
	c.checked = time.Now()
	if token == "" && auth.IsLocal(ctx) {
		c.who = auth.Principal{Local: true}
		return nil
	}
	who, err := s.cfg.Gate.Verify(token)
	switch {
	case err != nil:
		return endUnauthenticated(err)
	case !who.MayRead():
		return endNoRead
	}
	c.who = who
	return nil
}

// pump sends frames, and a tick when there are none, until here ends.
func (c *watcher) pump(ctx, here context.Context, s *Server, w *watch.Watcher) *ending {
	for {
		frame, err := c.next(here, s, w)
		if here.Err() != nil {
			return nil
		}
		if err != nil {
			return endUnauthenticated(err)
		}
		if c.write(ctx, frame) != nil {
			return nil
		}
		if frame.Type == view.WatchCut {
			return &ending{websocket.StatusTryAgainLater, "cut", frame.Reason, "go on from the cursor, here or at another node"}
		}
	}
}

// next is the next frame or a tick. Its error is of the token.
func (c *watcher) next(ctx context.Context, s *Server, w *watch.Watcher) (view.WatchFrame, error) {
	if now := time.Now(); !c.who.Local && now.Sub(c.checked) >= c.beat {
		if err := s.cfg.Gate.Still(c.who); err != nil {
			return view.WatchFrame{}, err
		}
		c.checked = now
	}
	waiting, cancel := context.WithTimeout(ctx, c.beat)
	defer cancel()
	f, err := w.Next(waiting)
	if err != nil {
		asOf := s.cfg.Fleet.AsOf()
		return view.WatchFrame{Type: view.WatchTick, Cursor: w.Cursor(), AgeMillis: &asOf.AgeMillis, Stale: asOf.Stale}, nil
	}
	return view.WatchFrame{Type: string(f.Kind), Events: f.Events, Cursor: f.Cursor, Kept: f.Kept, By: f.By, Reason: f.Reason}, nil
}

func (c *watcher) write(ctx context.Context, message any) error {
	ctx, cancel := context.WithTimeout(ctx, c.writing)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageText, view.Encode(message))
}

// close says why, but for a cut, which was a frame already.
func (c *watcher) close(ctx context.Context, end *ending) {
	if end.code != "cut" && c.write(ctx, errorMessage{"error", end.code, end.message, end.next}) != nil {
		return
	}
	c.conn.Close(end.status, end.code)
}

func endBadWatch(err error) *ending {
	return &ending{websocket.StatusPolicyViolation, "invalid", err.Error(),
		nextOf(err, `connect again; send {"type":"auth","token":…} and then one {"type":"watch"}, as text`)}
}

func (s *Server) nameOfSelf() string {
	p := &picture{Picture: s.cfg.Fleet.Look()}
	return s.self(p).Name
}
