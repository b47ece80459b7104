package ws

import (
	"context"
	"errors"
	"time"

	"skein/node/gateway/view"
)

// attach brings a client to the present and joins it to the hub, which feeds it
// from then on. It returns early, with ctx's error, if the client goes away.
func (h *hub) attach(ctx context.Context, c *client, cursor *view.Cursor) error {
	if cursor == nil {
		return h.join(ctx, c, "")
	}
	if _, err := h.fresh(ctx); err != nil {
		return err
	}
	p, err := h.reach(ctx, c, *cursor)
	if err != nil {
		return err
	}
	now := p.cursor()
	switch {
	case now.History != cursor.History:
		return h.join(ctx, c, resetHistory)
	case now.Seq-cursor.Seq > maxGap:
		return h.join(ctx, c, resetTooMany)
	case cursor.Hash == "" || cursor.Seq == 0 || h.held(*cursor):
		return h.resume(ctx, c, p, *cursor)
	}
	// Another chain led there, or it is not held any more: the log knows which.
	if _, compacted, err := h.events.Events(ctx, cursor.Seq, view.EventFilter{}, 1); err != nil || compacted {
		return errors.Join(err, h.join(ctx, c, resetCompacted))
	}
	return h.join(ctx, c, resetDiverged)
}

// join gives the client a whole picture, with a reason as a reset.
func (h *hub) join(ctx context.Context, c *client, reason string) error {
	if _, err := h.fresh(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined[c] = struct{}{}
	h.send(c, h.now.snapshot(h.ring.last(c.wantEvents), reason))
	return nil
}

// reach waits until this node has come to the client's cursor, or to another
// history. Meanwhile the client is told how far behind this node is.
func (h *hub) reach(ctx context.Context, c *client, cursor view.Cursor) (*picture, error) {
	say := time.NewTimer(h.quiet)
	defer say.Stop()
	for {
		p, next := h.current()
		if p != nil && (p.cursor().History != cursor.History || p.cursor().Seq >= cursor.Seq) {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-next:
		case <-say.C:
			if p != nil && !c.queue.push(view.Encode(behindMessage{"behind", cursor.Seq - p.cursor().Seq}), p.tick()) {
				c.queue.finish(endTooSlow)
			}
			say.Reset(h.beat)
		}
	}
}

// resume continues a client at its cursor: what p shows, then the events since,
// from the log until the ring has the rest, then the hub.
func (h *hub) resume(ctx context.Context, c *client, p *picture, cursor view.Cursor) error {
	ctx, cancel := context.WithTimeout(ctx, h.catchUp)
	defer cancel()
	if err := c.queue.pushWait(ctx, view.Encode(resumedMessage{"resumed", cursor, p.fleet(), p.robots()})); err != nil {
		return err
	}
	at := cursor
	for {
		done, reset := h.joinAt(c, p, at)
		if reset != "" {
			return h.join(ctx, c, reset)
		}
		if done {
			return nil
		}
		page, compacted, err := h.events.Events(ctx, at.Seq, view.EventFilter{}, pageEvents)
		if err != nil {
			return err
		}
		if compacted {
			return h.join(ctx, c, resetCompacted)
		}
		if len(page) == 0 {
			// The hub knows of later events than the log gives: wait for its next look.
			if _, err := h.fresh(ctx); err != nil {
				return err
			}
			continue
		}
		at.Seq, at.Hash = page[len(page)-1].Seq, ""
		for _, message := range chunks(encodeEvents(page), at) {
			if err := c.queue.pushWait(ctx, message); err != nil {
				return err
			}
		}
	}
}

// joinAt joins a client that has picture p and all events up to at, if the rest
// is in the ring and small; else it reports false, or why it cannot go on.
func (h *hub) joinAt(c *client, p *picture, at view.Cursor) (joined bool, reset string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil || h.now.cursor().History != at.History {
		return false, resetHistory
	}
	var messages [][]byte
	if end := h.now.cursor(); end.Seq > at.Seq {
		events, held := h.ring.after(at.Seq)
		size := 0
		for _, e := range events {
			size += len(e.text)
		}
		if !held || size > maxChunkBytes {
			return false, ""
		}
		messages = chunks(events, end)
	}
	h.joined[c] = struct{}{}
	h.send(c, append(messages, between(p, h.now).messages(h.now)...)...)
	return true, ""
}
