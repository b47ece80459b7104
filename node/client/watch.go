package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"skein/node/gateway/view"
)

const (
	eventsSubprotocol = "skein.events.v1"
	// maxFrameBytes bounds one frame: a record of the log as JSON, and room.
	maxFrameBytes = 16 << 20
	// watchSilence is how long a node may say nothing: it ticks every 2 s.
	watchSilence = 15 * time.Second
	// dialWatch bounds connecting and logging in at one node.
	dialWatch = 10 * time.Second
	// The pause before another try grows from firstPause to maxPause while nothing
	// new comes.
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
)

// Watching is what Watch is given.
type Watching struct {
	view.WatchRequest
	// Each is called with every frame but the welcome; its error ends the watch.
	// After a cut the next node goes on from the frame's cursor.
	Each func(view.WatchFrame) error
	// Lost, if not nil, is told why the watch moves on to another node.
	Lost func(error)
}

// Watch follows the log over the loss of nodes: from one address to the next, at
// the cursor of the last frame. Where events cannot be given, a frame says so
// (compacted, reset). It returns Each's error, a *view.Problem that no other
// node would judge otherwise, or ctx's error.
func (c *Client) Watch(ctx context.Context, w Watching) error {
	c.mu.Lock()
	at := c.first
	c.mu.Unlock()
	pause := time.Duration(firstPause)
	for renewed := false; ; at = (at + 1) % len(c.endpoints) {
		p := &pilgrim{client: c, from: c.endpoints[at], Watching: &w, alone: len(c.endpoints) == 1}
		err := p.watch(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if own, is := errors.AsType[*eachError](err); is {
			return own.error
		}
		refused, is := errors.AsType[*view.Problem](err)
		switch {
		case is && refused.Status == http.StatusUnauthorized && c.identity == nil:
			return ErrNoIdentity
		case is && refused.Status == http.StatusUnauthorized && !renewed:
			renewed = true // the issuer of the token may be no voter any more
			c.forgetToken(p.token)
		case is && refused.Status < 500, errors.Is(err, ErrNotSkein):
			return err
		}
		if w.Lost != nil {
			w.Lost(err)
		}
		if p.moved {
			pause, renewed = firstPause, false
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// eachError is an error of Each.
type eachError struct{ error }

// errLagging: the node is behind, or cut off from the fleet, and there are others.
var errLagging = errors.New("this node is not up to date")

// pilgrim is the part of a watch that is at one node.
type pilgrim struct {
	client *Client
	from   endpoint
	*Watching
	// alone: there is no other node to try.
	alone bool
	// moved: events came from this node.
	moved bool
	token string
}

func (p *pilgrim) watch(ctx context.Context) error {
	conn, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for {
		f, err := p.read(ctx, conn)
		if err != nil {
			return err
		}
		switch f.Type {
		case view.WatchWelcome:
			p.goOn(f.Cursor)
			continue
		case view.WatchError:
			return refusalOf(f, conn)
		}
		p.goOn(f.Cursor)
		p.moved = p.moved || f.Type == view.WatchEvents
		if err := p.Each(f); err != nil {
			return &eachError{err}
		}
		switch {
		case f.Type == view.WatchCut:
			return fmt.Errorf("%s ended the watch: %s", p.from.shown, f.Reason)
		case !p.alone && (f.Type == view.WatchBehind || f.Type == view.WatchTick && f.Stale):
			return fmt.Errorf("%s: %w", p.from.shown, errLagging)
		}
	}
}

// goOn notes where to go on.
func (p *pilgrim) goOn(at view.Cursor) {
	p.Since, p.Cursor = nil, &at
	if at.History == "" { // nothing is decided there yet
		p.Since, p.Cursor = &at.Seq, nil
	}
}

// open connects, logs in and asks.
func (p *pilgrim) open(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWatch)
	defer cancel()
	if p.client.identity != nil && !p.client.local {
		var err error
		if p.token, err = p.client.token(ctx); err != nil {
			return nil, err
		}
	}
	conn, resp, err := websocket.Dial(ctx, p.from.base+"/api/v1/watch", &websocket.DialOptions{HTTPClient: p.from.http, Subprotocols: []string{eventsSubprotocol}})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%w: %s answered %s; is its version the same as `skein version`?", ErrNotSkein, p.from.shown, resp.Status)
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, p.from.shown, withoutAddress(err))
	}
	conn.SetReadLimit(maxFrameBytes)
	type auth struct {
		Type  string `json:"type"`
		Token string `json:"token"`
	}
	type ask struct {
		Type string `json:"type"`
		view.WatchRequest
	}
	for _, message := range []any{auth{"auth", p.token}, ask{"watch", p.WatchRequest}} {
		text, err := json.Marshal(message)
		if err == nil {
			err = conn.Write(ctx, websocket.MessageText, text)
		}
		if err != nil {
			conn.CloseNow()
			return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, p.from.shown, err)
		}
	}
	return conn, nil
}

func (p *pilgrim) read(ctx context.Context, conn *websocket.Conn) (f view.WatchFrame, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchSilence)
	defer cancel()
	_, text, err := conn.Read(ctx)
	if err != nil {
		return f, fmt.Errorf("%w at %s: %w", ErrUnreachable, p.from.shown, err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("%w: %s sent a message of another kind: %w; is its version the same as `skein version`?", ErrNotSkein, p.from.shown, err)
	}
	return f, nil
}

// refusalOf is the Problem that an error frame stands for.
func refusalOf(f view.WatchFrame, conn *websocket.Conn) error {
	status := map[string]int{"unauthenticated": http.StatusUnauthorized, "not_allowed": http.StatusForbidden, "invalid": http.StatusUnprocessableEntity}[f.Code]
	if status == 0 {
		status = http.StatusServiceUnavailable
	}
	conn.CloseNow()
	return &view.Problem{Title: http.StatusText(status), Status: status, Code: f.Code, Detail: f.Message, Next: f.Next}
}
