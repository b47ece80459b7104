package follow

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	// sendTimeout is how long a child may take nothing before it is cut.
	sendTimeout = 10 * time.Second
	// batchBytes is about how many bytes of records go into one frame.
	batchBytes = 256 << 10
	// pieceBytes is the size of the pieces of a whole state.
	pieceBytes = 256 << 10
)

// child is one stream to a child.
type child struct {
	conn net.Conn
	// next is the seq of the next record to send; 0 when it wants marks only.
	next uint64
}

// Handle serves a child's stream until it ends, and closes it. remote is
// authenticated by the link.
func (f *Follower) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err := f.serve(ctx, conn, remote)
	f.cfg.Log.Debug("child left", "child", remote, "err", err)
}

func (f *Follower) serve(ctx context.Context, conn net.Conn, remote ident.NodeID) error {
	if err := conn.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	var q request
	if err := wire.ReadJSON(conn, &q, maxRequest); err != nil {
		return err
	}
	c := &child{conn: conn}
	if turned, ok := f.admit(c, remote, q); !ok {
		return errors.Join(turned, writeJSON(conn, kindRefusal, turned))
	}
	defer f.release(c, remote)
	if !q.MarksOnly {
		if err := f.begin(c, q); err != nil {
			return err
		}
	}
	return f.feed(ctx, c, remote)
}

// admit takes the child, or says why not.
func (f *Follower) admit(c *child, remote ident.NodeID, q request) (refusal, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.mark.Path, remote) && len(f.mark.Path) > 0 && f.mark.Path[len(f.mark.Path)-1] != remote {
		return refusal{Why: "loop"}, false
	}
	if q.MarksOnly {
		return refusal{}, true // voters only, and they are few
	}
	if old := f.children[remote]; old != nil {
		old.conn.Close() // it has come again: its old stream is dead
	} else if len(f.children) >= f.cfg.Children {
		try := slices.Sorted(maps.Keys(f.children))
		return refusal{Why: "full", Try: try[:min(len(try), maxTry)]}, false
	}
	f.children[remote] = c
	return refusal{}, true
}

func (f *Follower) release(c *child, remote ident.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.children[remote] == c {
		delete(f.children, remote)
	}
}

// begin decides where the child's records start, and sends the whole state if
// they cannot start where it stands.
func (f *Follower) begin(c *child, q request) error {
	here := f.cfg.Source.Cursor()
	switch {
	case !q.Whole && q.Cursor.Seq > here.Seq && (q.Cursor.History == here.History || here.History == ""):
		turned := refusal{Why: "behind"}
		return errors.Join(turned, writeJSON(c.conn, kindRefusal, turned))
	case !q.Whole && f.continues(q.Cursor):
		c.next = q.Cursor.Seq + 1
		return nil
	}
	return f.sendState(c)
}

// continues reports whether the records after a cursor are held here.
func (f *Follower) continues(at event.Cursor) bool {
	if at.Seq > 0 && !f.cfg.Source.Held(at) {
		return false
	}
	_, ok := f.cfg.Source.Records(at.Seq+1, 1)
	return ok
}

// sendState sends the whole state; records go on after it. The state may be
// newer than the cursor noted before, and records that it includes already are
// skipped by the child.
func (f *Follower) sendState(c *child) error {
	c.next = f.cfg.Source.Cursor().Seq + 1
	if err := f.cfg.Source.Snapshot(&pieceWriter{c}); err != nil {
		return err
	}
	return c.send(kindEnd, nil)
}

// feed sends records and marks as they come.
func (f *Follower) feed(ctx context.Context, c *child, remote ident.NodeID) error {
	changed, release := f.cfg.Source.Subscribe()
	defer release()
	ticker := time.NewTicker(markEvery)
	defer ticker.Stop()
	for {
		f.mu.Lock()
		renewed := f.renewed
		m, ok := f.markNow()
		f.mu.Unlock()
		if ok {
			if slices.Contains(m.Path, remote) {
				return refusal{Why: "loop"}
			}
			if err := c.sendJSON(kindMark, m); err != nil {
				return err
			}
			ticker.Reset(markEvery)
		}
		if err := f.untilMark(ctx, c, changed, renewed, ticker.C); err != nil {
			return err
		}
	}
}

// untilMark sends records until it is time for a mark.
func (f *Follower) untilMark(ctx context.Context, c *child, changed, renewed <-chan struct{}, tick <-chan time.Time) error {
	for {
		if err := f.sendRecords(c); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-renewed:
			return nil
		case <-tick:
			return nil
		}
	}
}

func (f *Follower) sendRecords(c *child) error {
	for c.next > 0 && c.next <= f.cfg.Source.Cursor().Seq {
		records, ok := f.cfg.Source.Records(c.next, batchBytes)
		if !ok {
			return errors.New("the child fell behind what is held here")
		}
		if len(records) == 0 {
			return nil
		}
		if err := c.send(kindRecords, encodeRecords(records)); err != nil {
			return err
		}
		c.next = records[len(records)-1].Last() + 1
	}
	return nil
}

func (c *child) send(k kind, payload []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return writeFrame(c.conn, k, payload)
}

func (c *child) sendJSON(k kind, v any) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return writeJSON(c.conn, k, v)
}

// pieceWriter sends what is written to it as pieces of a state.
type pieceWriter struct{ c *child }

// Write implements io.Writer.
func (w *pieceWriter) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		piece := p[sent:min(len(p), sent+pieceBytes)]
		if err := w.c.send(kindState, piece); err != nil {
			return sent, err
		}
		sent += len(piece)
	}
	return sent, nil
}
