package ws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"skein/node/gateway/view"
)

// timing is every wait of this package. Tests shorten some of them.
type timing struct {
	// beat is the time between ticks, pace the least between two looks at the fleet.
	beat, pace time.Duration
	// speak is how long a client may take to authenticate, and then to say what
	// it wants to watch.
	speak time.Duration
	// writing bounds one message to a client that does not read, catchUp the
	// time it takes to bring one to the present.
	writing, catchUp time.Duration
	// quiet is how long a node that is behind a client's cursor tries to catch
	// up before it says so.
	quiet time.Duration
	// goodbye bounds the end of all connections when the node stops.
	goodbye time.Duration
}

func shippedTiming() timing {
	return timing{
		beat: 2 * time.Second, pace: 250 * time.Millisecond, speak: 5 * time.Second,
		writing: 10 * time.Second, catchUp: 30 * time.Second, quiet: 2 * time.Second, goodbye: time.Second,
	}
}

const (
	// maxGap is how many events a client may have missed and still be resumed;
	// beyond it a snapshot is cheaper for everybody.
	maxGap = 4096
	// pageEvents is how many events are read at a time.
	pageEvents = 256
	// readTimeout bounds one reading of the log.
	readTimeout = 5 * time.Second
)

// The reasons for a reset, in the words that a page shows.
const (
	resetHistory   = "the fleet's history was replaced"
	resetDiverged  = "what this page was shown was not decided by the fleet"
	resetCompacted = "events in between are no longer held by this node"
	resetTooMany   = "too much happened in between"
)

// Fleet is what this node knows, ready to be shown.
type Fleet interface {
	// Look is one consistent picture. It answers at once.
	Look() view.Picture
	AsOf() view.AsOf
	// Watch says that somebody looks: until release, changed signals (coalesced)
	// that Look may show something new.
	Watch() (changed <-chan struct{}, release func())
}

// Events reads the log.
type Events interface {
	// Events returns at most limit events after seq since, oldest first.
	// compacted: some after since are no longer held here.
	Events(ctx context.Context, since uint64, fit view.EventFilter, limit int) (events []view.Event, compacted bool, err error)
}

// Past is what the fleet had decided.
type Past interface {
	// PictureAt is Look at a moment. Errors are *view.Problem where the moment is
	// to blame.
	PictureAt(ctx context.Context, at view.At) (view.Picture, error)
}

// hub looks at the fleet for all clients together. One goroutine runs it; all
// fields below mu belong to it.
type hub struct {
	fleet  Fleet
	events Events
	log    *slog.Logger
	timing
	// held reports whether a cursor is a place in this node's log.
	held func(view.Cursor) bool
	// onTick is called after each tick, without the lock.
	onTick func([]*client)
	calls
	fault string // the last complaint; of the running goroutine

	mu      sync.Mutex
	present int // clients that are authenticated, joined or not
	serving bool
	joined  map[*client]struct{}
	now     *picture      // nil while not serving
	next    chan struct{} // closed when now changes
	ring    ring
}

// calls wake the hub.
type calls struct {
	wake chan struct{} // somebody came while nobody was here
	poke chan struct{} // somebody wants a newer picture
}

func newHub(fleet Fleet, events Events, times timing, log *slog.Logger) *hub {
	return &hub{
		fleet: fleet, events: events, log: log, timing: times,
		calls:  calls{wake: make(chan struct{}, 1), poke: make(chan struct{}, 1)},
		joined: map[*client]struct{}{}, next: make(chan struct{}),
	}
}

// run serves whenever somebody is here, until ctx ends.
func (h *hub) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
			h.serve(ctx)
		}
	}
}

// enter and leave say that a client is here. While none is, nothing runs.
func (h *hub) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.present++
	if !h.serving {
		h.serving = true
		signal(h.wake)
	}
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.present--
	delete(h.joined, c)
}

// idle ends serving if nobody is here any more.
func (h *hub) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.present > 0 {
		return false
	}
	h.serving, h.now, h.ring = false, nil, ring{}
	return true
}

func (h *hub) serve(ctx context.Context) {
	changed, release := h.fleet.Watch()
	defer release()
	tick := time.NewTicker(h.beat)
	defer tick.Stop()
	// pace is armed after each look; until it fires, changes and pokes wait in
	// their channels.
	pace := time.NewTimer(h.pace)
	defer pace.Stop()
	h.advance(ctx)
	news, poke := (<-chan struct{})(nil), (<-chan struct{})(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
			news, poke = changed, h.poke
			continue
		case <-tick.C:
			if h.idle() {
				return
			}
			h.advance(ctx)
			h.tick()
		case <-news:
			h.advance(ctx)
		case <-poke:
			h.advance(ctx)
		}
		news, poke = nil, nil
		pace.Reset(h.pace)
	}
}

// advance looks at the fleet and tells the joined clients what changed.
func (h *hub) advance(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	next := newPicture(h.fleet.Look(), time.Now())
	prev, _ := h.current()
	var messages [][]byte
	events, reason, err := h.between(ctx, prev, next)
	switch {
	case err != nil:
		// Clients keep what they have; the next look tries again.
		h.complain(err)
		signal(h.poke)
		return
	case prev != nil && reason == "":
		messages = append(chunks(events, next.cursor()), between(prev, next).messages(next)...)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if prev == nil || reason != "" {
		h.ring = ring{}
	}
	h.ring.add(events)
	h.now = next
	close(h.next)
	h.next = make(chan struct{})
	for c := range h.joined {
		if reason != "" {
			messages = [][]byte{next.snapshot(h.ring.last(c.wantEvents), reason)}
		}
		h.send(c, messages...)
	}
}

// complain logs a failing log when it begins, not at every look.
func (h *hub) complain(err error) {
	if text := err.Error(); text != h.fault {
		h.fault = text
		h.log.Warn("console cannot be brought up to date", "err", err)
	}
}

// errBackwards: a look was older than the one before. It is not shown.
var errBackwards = errors.New("the node's view went back in time")

// between reads the events that lead from prev to next. A reason means that
// they cannot be continued; events are then, as for no prev, the newest.
func (h *hub) between(ctx context.Context, prev, next *picture) ([]encodedEvent, string, error) {
	to := next.cursor()
	newest := to.Seq - min(to.Seq, maxRing)
	if prev == nil {
		events, _, err := h.read(ctx, newest, to.Seq)
		return events, "", err
	}
	from := prev.cursor()
	reason := ""
	switch {
	case from.History != to.History:
		reason = resetHistory
	case to.Seq < from.Seq:
		return nil, "", fmt.Errorf("%w: from event %d to %d", errBackwards, from.Seq, to.Seq)
	case to.Seq-from.Seq > maxGap:
		reason = resetTooMany
	default:
		events, compacted, err := h.read(ctx, from.Seq, to.Seq)
		if !compacted || err != nil {
			return events, "", err
		}
		reason = resetCompacted
	}
	events, _, err := h.read(ctx, newest, to.Seq)
	return events, reason, err
}

// read returns the events after since up to seq to, all of them; or, if
// compacted, those that are left, without a hole before to.
func (h *hub) read(ctx context.Context, since, to uint64) ([]encodedEvent, bool, error) {
	var out []encodedEvent
	compacted := false
	for since < to {
		page, gap, err := h.events.Events(ctx, since, view.EventFilter{}, int(min(pageEvents, to-since)))
		if err != nil {
			return nil, false, fmt.Errorf("read events after %d: %w", since, err)
		}
		if gap {
			out, compacted = nil, true
		}
		if len(page) == 0 {
			if compacted {
				break // nothing of it is left
			}
			return nil, false, fmt.Errorf("read events after %d: the log ends there, the state is at %d", since, to)
		}
		for _, e := range page {
			if e.Seq <= to {
				out = append(out, encodedEvent{e.Seq, view.Encode(e)})
			}
		}
		since = page[len(page)-1].Seq
	}
	return out, compacted, nil
}

// send queues messages for a joined client, or cuts it off. Callers hold mu.
func (h *hub) send(c *client, messages ...[]byte) {
	if !c.queue.push(messages...) {
		delete(h.joined, c)
		c.queue.finish(endTooSlow)
	}
}

func (h *hub) tick() {
	h.mu.Lock()
	clients := make([]*client, 0, len(h.joined))
	if h.now != nil {
		message := h.now.tick()
		for c := range h.joined {
			h.send(c, message)
			clients = append(clients, c)
		}
	}
	h.mu.Unlock()
	h.onTick(clients)
}

// current is the newest picture, nil if there is none yet, and a channel that
// is closed when there is a newer one.
func (h *hub) current() (*picture, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now, h.next
}

// fresh waits for a picture that was at most one pace old when it was asked for.
// Not when it is returned: on a machine so busy that a look takes longer than a
// pace, that would be never.
func (h *hub) fresh(ctx context.Context) (*picture, error) {
	oldest := time.Now().Add(-h.pace)
	for {
		p, next := h.current()
		if p != nil && !p.at.Before(oldest) {
			return p, nil
		}
		signal(h.poke)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-next:
		}
	}
}
