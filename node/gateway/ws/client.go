package ws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

// client is one connection. Its handler goroutine reads, another writes, a
// third brings it to the present and then ends.
type client struct {
	conn  *websocket.Conn
	queue *queue
	timing
	// wantEvents is set before the hub sees the client and never changed.
	wantEvents int
	who        auth.Principal
}

// read gives the next message of the protocol, or why there is none: an ending
// to say, or nil if the connection is gone.
func (c *client) read(ctx context.Context) (clientMessage, *ending) {
	kind, text, err := c.conn.Read(ctx)
	if err != nil {
		return clientMessage{}, nil
	}
	if kind != websocket.MessageText {
		return clientMessage{}, endBadMessage(errors.New("the protocol has text messages only"))
	}
	m, err := decodeClient(text)
	if err != nil {
		return clientMessage{}, endBadMessage(err)
	}
	return m, nil
}

// expect reads the next message and wants it to be of a type, soon.
func (c *client) expect(ctx context.Context, what string) (clientMessage, *ending) {
	late := time.AfterFunc(c.speak, func() { c.queue.finish(endTooLate) })
	defer late.Stop()
	m, end := c.read(ctx)
	if end == nil && m.Type != "" && m.Type != what {
		return clientMessage{}, endBadMessage(errors.New("a " + what + " message is expected, not " + m.Type))
	}
	return m, end
}

// write sends what is queued until the client is finished or gone.
func (c *client) write(ctx context.Context) *ending {
	for {
		message, end := c.queue.pop(ctx)
		switch {
		case end != nil:
			c.close(ctx, end)
			return end
		case message == nil:
			c.conn.CloseNow()
			return nil
		}
		if err := c.writeOne(ctx, message); err != nil {
			c.conn.CloseNow()
			return nil
		}
	}
}

func (c *client) writeOne(ctx context.Context, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.writing)
	defer cancel()
	return c.conn.Write(ctx, websocket.MessageText, message)
}

func (c *client) close(ctx context.Context, end *ending) {
	if c.writeOne(ctx, end.encoded()) != nil {
		c.conn.CloseNow()
		return
	}
	c.conn.Close(end.status, end.code)
}

// run speaks the protocol until the connection ends.
func (c *client) run(ctx context.Context, s *Server) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() {
		end := c.write(ctx)
		s.count(end)
		cancel()
	})
	defer parts.Wait()
	defer cancel()

	m, end := c.expect(ctx, "auth")
	if end == nil && m.Type == "" {
		return
	}
	if end == nil {
		end = c.admit(s, m.Token)
	}
	if end != nil {
		c.sayAndWait(ctx, end)
		return
	}
	s.hub.enter()
	defer s.hub.leave(c)
	s.watch(ctx, c)
}

func (c *client) admit(s *Server, token string) *ending {
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

// sayAndWait finishes the client and waits until it has been told.
func (c *client) sayAndWait(ctx context.Context, end *ending) {
	c.queue.finish(end)
	// The reader has to go on for the close handshake; what it reads is dropped.
	for {
		if _, _, err := c.conn.Read(ctx); err != nil {
			return
		}
	}
}

// watch welcomes an authenticated client and serves what it asks for. When it
// returns, nothing joins the client to the hub any more.
func (s *Server) watch(ctx context.Context, c *client) {
	ctx, cancel := context.WithCancel(ctx)
	var attaching sync.WaitGroup
	defer attaching.Wait()
	defer cancel()
	p, err := s.hub.fresh(ctx)
	if err != nil {
		return
	}
	c.queue.push(view.Encode(welcomeMessage{"welcome", s.self(p), p.fleet(), c.who.Person, p.peers()}))
	m, end := c.expect(ctx, "watch")
	if end == nil && m.Type == "" {
		return
	}
	if end != nil {
		c.sayAndWait(ctx, end)
		return
	}
	c.wantEvents = *m.Events
	cursor := m.Cursor
	attaching.Go(func() { s.attach(ctx, c, cursor) })
	for m, end = c.read(ctx); end == nil && m.Type == "at"; m, end = c.read(ctx) {
		s.past(ctx, c, m.At)
	}
	if end == nil && m.Type != "" {
		end = endBadMessage(errors.New("only one watch is possible on a connection"))
	}
	if end != nil {
		c.sayAndWait(ctx, end)
	}
}

// pastTimeout bounds the look at one past moment.
const pastTimeout = 5 * time.Second

// past shows a client the fleet as it was at a moment. What is live goes on
// beside it. Moments are looked at one after the other, so that nobody makes
// this node rebuild many at once.
func (s *Server) past(ctx context.Context, c *client, moment string) {
	ctx, cancel := context.WithTimeout(ctx, pastTimeout)
	defer cancel()
	message := pastMessage{Type: "past", At: moment}
	p, err := s.pictureAt(ctx, moment)
	if err == nil {
		message.Fleet, message.Robots = &p.Fleet, p.Robots
	} else if message.Problem, _ = asProblem(err); message.Problem == nil {
		s.cfg.Log.Warn("past moment could not be shown", "at", moment, "err", err)
		message.Problem = &view.Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "this node cannot look at that moment now", Next: "try again, or at another node"}
	}
	if !c.queue.push(view.Encode(message)) {
		c.queue.finish(endTooSlow)
	}
}

func (s *Server) pictureAt(ctx context.Context, moment string) (view.Picture, error) {
	at, err := view.ParseAt(moment)
	if err != nil {
		return view.Picture{}, &view.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Detail: fmt.Sprintf("%q %v", moment, err), Next: "correct it and ask again"}
	}
	p, err := s.cfg.Past.PictureAt(ctx, at)
	return p.Filled(), err
}

func (s *Server) attach(ctx context.Context, c *client, cursor *view.Cursor) {
	err := s.hub.attach(ctx, c, cursor)
	if err == nil || ctx.Err() != nil {
		return
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		s.cfg.Log.Warn("console client could not be caught up", "person", c.who.Person, "err", err)
	}
	c.queue.finish(endTooSlow)
}
