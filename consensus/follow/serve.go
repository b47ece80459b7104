package follow

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// child is one node that follows this one.
type child struct {
	id        ident.NodeID
	marksOnly bool
	conn      net.Conn
	times     times
	// next is the event that it needs next.
	next uint64
	// told is the last mark it was sent in full.
	told Mark
}

// Handle serves the stream of a child, until it ends, and closes it. remote is
// authenticated by the link.
func (s *Service) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	r := &wireReader{conn, s.times.open}
	f, err := readFrame(r, wire.MaxControl)
	if err != nil || f.kind != kindRequest {
		s.cfg.Log.Debug("unreadable request to follow", "remote", remote, "error", err)
		return
	}
	c := &child{id: remote, marksOnly: f.request.MarksOnly, conn: conn, times: s.times, next: f.request.Cursor.Seq + 1}
	if refused := s.take(c, f.request); refused != nil {
		if b, err := jsonFrame(kindRefusal, refused); err == nil {
			c.send(b) // it is being turned away: whether it hears why does not matter
		}
		return
	}
	defer s.leave(c)
	go func() { // ends with the stream, which is closed below
		defer cancel()
		c.listen()
	}()
	if err := s.push(ctx, c, f.request.Snapshot); err != nil && ctx.Err() == nil {
		s.cfg.Log.Debug("child lost", "child", remote, "error", err)
	}
}

// take accepts a child or says why not. A child that comes back replaces itself.
func (s *Service) take(c *child, q request) *refusal {
	switch {
	case c.id == s.cfg.Self || s.board.onPath(c.id):
		return &refusal{Reason: reasonLoop}
	case s.board.depth() >= maxPath:
		return &refusal{Reason: reasonDeep}
	case !s.fits(q.Cursor):
		return &refusal{Reason: reasonHistory}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.children[c.id]
	var others []ident.NodeID
	for id, o := range s.children {
		if o.marksOnly == c.marksOnly && o != old {
			others = append(others, id)
		}
	}
	switch {
	case s.parent == c.id:
		return &refusal{Reason: reasonLoop}
	case len(others) >= s.cfg.MaxChildren:
		return &refusal{Reason: reasonFull, Try: others[:min(len(others), maxVoters)]}
	case old != nil:
		old.conn.Close()
	}
	s.children[c.id] = c
	return nil
}

// fits reports whether a child's log may go on with this one. The names of the
// two differ when the fleet was recovered or restored in between; then the child's
// must be a part of this one, by the chain, which does not begin anew.
func (s *Service) fits(child event.Cursor) bool {
	own := s.cfg.Source.Cursor()
	if own.History == "" || child.History == "" || own.History == child.History {
		return true
	}
	return child.Seq <= own.Seq && s.cfg.Source.Held(event.Cursor{History: own.History, Seq: child.Seq, Hash: child.Hash})
}

func (s *Service) leave(c *child) {
	s.mu.Lock()
	mine := s.children[c.id] == c
	if mine {
		delete(s.children, c.id)
	}
	s.mu.Unlock()
	if mine {
		s.board.touch()
	}
}

// push sends marks, and records as they come, until the stream breaks.
func (s *Service) push(ctx context.Context, c *child, snapshotFirst bool) error {
	s.board.touch()
	changed, release := s.cfg.Source.Subscribe()
	defer release()
	timer := time.NewTimer(c.times.tick)
	defer timer.Stop()
	for {
		marks := s.board.next()
		if err := c.sendMark(s.board.latest(time.Now())); err != nil {
			return err
		}
		timer.Reset(c.times.tick)
		if snapshotFirst && !c.marksOnly {
			if err := s.sendSnapshot(ctx, c); err != nil {
				return err
			}
			snapshotFirst = false
		}
		for idle := true; idle; {
			more, err := s.sendRecords(ctx, c)
			if err != nil {
				return err
			}
			if more {
				break
			}
			select {
			case <-changed:
			case <-marks:
				idle = false
			case <-timer.C:
				idle = false
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// sendRecords sends what the child lacks, but for a while only, so that marks
// are not held up by a long way to catch up: more says that there is more.
func (s *Service) sendRecords(ctx context.Context, c *child) (more bool, err error) {
	if c.marksOnly {
		return false, nil
	}
	until := time.Now().Add(c.times.mark)
	for time.Now().Before(until) && ctx.Err() == nil {
		records, ok := s.cfg.Source.Records(c.next, chunkBytes)
		if !ok {
			if err := s.sendSnapshot(ctx, c); err != nil {
				return false, err
			}
			continue
		}
		if len(records) == 0 {
			return false, nil
		}
		for _, frame := range recordFrames(records) {
			if err := c.send(frame); err != nil {
				return false, err
			}
		}
		c.next = records[len(records)-1].Last() + 1
	}
	return true, ctx.Err()
}

// sendSnapshot sends the whole state.
func (s *Service) sendSnapshot(ctx context.Context, c *child) error {
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// The snapshot may be newer than this; what is sent again is skipped.
	next := s.cfg.Source.Cursor().Seq + 1
	if err := s.cfg.Source.Snapshot(chunks{c}); err != nil {
		return fmt.Errorf("send snapshot: %w", err)
	}
	c.next = next
	return c.send([]byte{byte(kindEnd)})
}

// chunks cuts a snapshot into frames.
type chunks struct{ child *child }

// Write implements io.Writer.
func (w chunks) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, chunkBytes) {
		if err := w.child.send(append([]byte{byte(kindChunk)}, piece...)); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// sendMark sends a mark, in short if the child knows all but its progress.
func (c *child) sendMark(m Mark, ok bool) error {
	if !ok {
		return c.send([]byte{byte(kindNoMark)})
	}
	if c.told.Leader != "" && m.sameFacts(c.told) {
		return c.send(tickFrame(m))
	}
	b, err := jsonFrame(kindMark, m)
	if err != nil {
		return err
	}
	c.told = m
	return c.send(b)
}

func (c *child) send(frame []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.times.stall)); err != nil {
		return err
	}
	return wire.WriteFrame(c.conn, frame, maxFrame)
}

// listen returns when the child is gone: its stream ended or it was silent.
func (c *child) listen() {
	r := &wireReader{c.conn, c.times.childSilence}
	for {
		if f, err := readFrame(r, wire.MaxControl); err != nil || f.kind != kindKeepAlive {
			return
		}
	}
}

// wireReader gives every read of a stream its own deadline, so that a large
// message may take its time as long as it moves.
type wireReader struct {
	conn  net.Conn
	quiet time.Duration
}

// Read implements io.Reader.
func (r *wireReader) Read(p []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(r.quiet)); err != nil {
		return 0, err
	}
	return r.conn.Read(p)
}
