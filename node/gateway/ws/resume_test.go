package ws

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"skein/mesh/ident"
	"skein/node/gateway/view"
)

func idOf(i int) ident.NodeID { return ident.NodeID(fmt.Sprintf("robot%03d", i)) }

// follower is what a page of the console does with messages: the simplest
// thing that is right. It is the judge of every test here.
type follower struct {
	cursor view.Cursor
	seen   []uint64
	robots map[ident.NodeID]view.Robot
	resets []string
	behind bool
	err    error
}

func (f *follower) failf(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

func (f *follower) take(m said) {
	switch m.Type {
	case "snapshot":
		if m.Cursor.Seq < f.cursor.Seq && !m.Reset {
			f.failf("a snapshot went back from %d to %d", f.cursor.Seq, m.Cursor.Seq)
		}
		if m.Reset {
			f.resets = append(f.resets, m.Reason)
			f.seen = nil
		}
		f.cursor, f.behind = m.Cursor, false
		f.all(m.Robots)
	case "resumed":
		if m.Cursor.Seq != f.cursor.Seq {
			f.failf("resumed at %d, not where the page was, %d", m.Cursor.Seq, f.cursor.Seq)
		}
		f.behind = false
		f.all(m.Robots)
	case "events":
		for _, e := range m.Events {
			if e.Seq != f.cursor.Seq+1 {
				f.failf("event %d came after event %d", e.Seq, f.cursor.Seq)
			}
			f.cursor.Seq = e.Seq
			f.seen = append(f.seen, e.Seq)
		}
		if m.Cursor.Seq != f.cursor.Seq || m.Cursor.History != f.cursor.History {
			f.failf("the cursor %+v is not after the last event, %d", m.Cursor, f.cursor.Seq)
		}
		f.cursor = m.Cursor
	case "robots":
		if f.behind {
			f.failf("robots came while the node was behind")
		}
		for _, r := range m.Changed {
			f.robots[r.ID] = r
		}
		for _, id := range m.Removed {
			delete(f.robots, id)
		}
	case "tick":
		if !f.behind && m.Cursor.Seq != f.cursor.Seq {
			f.failf("tick says %d, the page has %d", m.Cursor.Seq, f.cursor.Seq)
		}
	case "behind":
		f.behind = true
	case "error":
		f.failf("error %s: %s", m.Code, m.Message)
	}
}

func (f *follower) all(robots []view.Robot) {
	f.robots = map[ident.NodeID]view.Robot{}
	for _, r := range robots {
		f.robots[r.ID] = r
	}
}

// follow connects the follower to a node, where it was or anew, and reads until
// it is told to stop by done.
func (f *follower) follow(n *node, done func(*follower) bool) {
	n.t.Helper()
	p := n.open()
	defer p.conn.CloseNow()
	if f.cursor.History == "" {
		p.watch(nil, 10)
	} else {
		p.watch(&f.cursor, 10)
	}
	for f.err == nil && !done(f) {
		m, err := p.read()
		if err != nil {
			n.t.Fatalf("after %d: %v", f.cursor.Seq, err)
		}
		f.take(m)
	}
	if f.err != nil {
		n.t.Fatal(f.err)
	}
}

func reaches(seq uint64) func(*follower) bool {
	return func(f *follower) bool { return f.cursor.Seq >= seq && !f.behind }
}

func TestResumeAtAnotherNode(t *testing.T) {
	for _, missed := range []int{0, 1, 7, maxRing - 1, maxRing, maxRing + 1, maxRing + pageEvents, maxGap} {
		t.Run(fmt.Sprint(missed), func(t *testing.T) {
			r := newStock() // both nodes have the whole log
			r.decide(20, 0)
			a, b := newNode(t, r, quickTiming()), newNode(t, r, quickTiming())
			var f follower
			f.follow(a, reaches(20))
			r.hear("x", 1)
			r.decide(missed, 10)
			f.follow(b, func(f *follower) bool { return f.cursor.Seq == uint64(20+missed) && len(f.robots) == 1 })
			if len(f.seen) != missed || len(f.resets) != 0 {
				t.Fatalf("saw %d events and resets %v, want %d events", len(f.seen), f.resets, missed)
			}
		})
	}
}

// The largest events fill chunk, ring and queue bounds by bytes, not by count.
func TestResumeOverLargeEvents(t *testing.T) {
	r := newStock()
	r.decide(1, 0)
	n := newNode(t, r, quickTiming())
	var f follower
	f.follow(n, reaches(1))
	r.decide(300, 16<<10)
	f.follow(n, reaches(301))
	if len(f.seen) != 300 {
		t.Fatalf("saw %d events", len(f.seen))
	}
}

func TestWhatCannotBeContinuedIsReset(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*stock)
		cursor  view.Cursor
		reason  string
	}{
		"another history":         {func(*stock) {}, view.Cursor{History: "h0", Seq: 3, Hash: "x"}, resetHistory},
		"another history, ahead":  {func(*stock) {}, view.Cursor{History: "h0", Seq: 3000, Hash: "x"}, resetHistory},
		"same seq, another chain": {func(*stock) {}, view.Cursor{History: "h1", Seq: 50, Hash: "forked"}, resetDiverged},
		"old seq, another chain":  {func(*stock) {}, view.Cursor{History: "h1", Seq: 7, Hash: "forked"}, resetDiverged},
		"compacted, with a hash":  {func(r *stock) { r.held = 30 }, view.Cursor{History: "h1", Seq: 3, Hash: hashAt("h1", 3)}, resetCompacted},
		"compacted":               {func(r *stock) { r.held = 30 }, view.Cursor{History: "h1", Seq: 3}, resetCompacted},
		"all compacted":           {func(r *stock) { r.held = 50 }, view.Cursor{History: "h1", Seq: 3}, resetCompacted},
		"too far behind":          {func(r *stock) { r.append(maxGap, 0) }, view.Cursor{History: "h1", Seq: 49}, resetTooMany},
	} {
		t.Run(name, func(t *testing.T) {
			r := newStock()
			r.decide(50, 0)
			c.prepare(r)
			p := newNode(t, r, quickTiming()).open()
			p.watch(&c.cursor, 5)
			m := p.next()
			for m.Type != "snapshot" {
				if m.Type == "events" {
					t.Fatalf("events before the reset: %+v", m)
				}
				m = p.next()
			}
			if !m.Reset || m.Reason != c.reason || m.Cursor.Seq != uint64(len(r.events)) {
				t.Fatalf("snapshot with reset %v, reason %q, cursor %+v; want %q", m.Reset, m.Reason, m.Cursor, c.reason)
			}
			r.decide(1, 0) // and it goes on from there
			if m := p.until("events"); len(m.Events) != 1 {
				t.Fatalf("events %+v", m)
			}
		})
	}
}

func TestACursorThatIsJustHeldIsNotReset(t *testing.T) {
	r := newStock()
	r.decide(50, 0)
	r.held = 30
	var f follower
	f.cursor = view.Cursor{History: "h1", Seq: 30}
	f.follow(newNode(t, r, quickTiming()), reaches(50))
	if len(f.resets) != 0 || len(f.seen) != 20 {
		t.Fatalf("resets %v, %d events", f.resets, len(f.seen))
	}
}

// The node that a page moves to has not yet seen what the page has.
func TestANodeThatIsBehind(t *testing.T) {
	r := newStock()
	r.decide(10, 0)
	r.hear("old", 1)
	times := quickTiming()
	n := newNode(t, r, times)
	p := n.open()
	began := time.Now()
	p.watch(&view.Cursor{History: "h1", Seq: 13, Hash: hashAt("h1", 13)}, 100)
	m := p.next()
	if m.Type != "behind" || m.By != 3 {
		t.Fatalf("got %+v, want behind by 3", m)
	}
	if d := time.Since(began); d < times.quiet {
		t.Fatalf("said so after %v, want %v of trying first", d, times.quiet)
	}
	if m = p.next(); m.Type != "tick" || m.Cursor.Seq != 10 {
		t.Fatalf("got %+v, want a tick that says where the node is", m)
	}
	r.decide(1, 0)
	r.hear("old", 2)
	for m.Type != "behind" || m.By != 2 {
		if m = p.next(); m.Type != "behind" && m.Type != "tick" {
			t.Fatalf("got %+v while behind", m)
		}
	}
	r.decide(4, 0)
	m = p.until("resumed")
	if m.Cursor.Seq != 13 || len(m.Robots) != 1 || m.Robots[0].Telemetry.Load1 != 2 {
		t.Fatalf("resumed %+v", m)
	}
	if m = p.until("events"); m.Events[0].Seq != 14 {
		t.Fatalf("events %+v, want 14 first: 11 to 13 were seen at another node", m)
	}
}

func TestANodeThatCatchesUpAtOnceIsNotCalledBehind(t *testing.T) {
	r := newStock()
	r.decide(10, 0)
	times := quickTiming()
	times.quiet = patience
	n := newNode(t, r, times)
	p := n.open()
	p.watch(&view.Cursor{History: "h1", Seq: 11}, 0)
	r.decide(1, 0)
	if m := p.next(); m.Type != "resumed" {
		t.Fatalf("got %+v", m)
	}
}

func TestTheHistoryIsReplacedWhileSomebodyWatches(t *testing.T) {
	r := newStock()
	r.decide(10, 0)
	n := newNode(t, r, quickTiming())
	p, ahead := n.open(), n.open()
	p.watch(nil, 5)
	p.until("snapshot")
	ahead.watch(&view.Cursor{History: "h1", Seq: 99}, 5)
	ahead.until("behind")
	r.change(func() {
		r.history, r.events = "h2", nil
		r.append(3, 0)
	})
	for _, page := range []*page{p, ahead} {
		m := page.until("snapshot")
		if !m.Reset || m.Reason != resetHistory || m.Cursor.History != "h2" || len(m.Events) != 3 {
			t.Fatalf("got %+v", m)
		}
	}
	r.decide(1, 0)
	if m := p.until("events"); m.Events[0].Seq != 4 {
		t.Fatalf("got %+v", m)
	}
}

// A follower that was away installs a snapshot: a gap in its log while pages watch.
func TestAGapWhileSomebodyWatches(t *testing.T) {
	r := newStock()
	r.decide(10, 0)
	n := newNode(t, r, quickTiming())
	p := n.open()
	p.watch(nil, 5)
	p.until("snapshot")
	r.change(func() {
		r.append(50, 0)
		r.held = 40
	})
	m := p.until("snapshot")
	if !m.Reset || m.Reason != resetCompacted || m.Cursor.Seq != 60 {
		t.Fatalf("got %+v", m)
	}
	r.change(func() { r.append(maxGap+1, 0) })
	if m = p.until("snapshot"); m.Reason != resetTooMany {
		t.Fatalf("got %+v", m)
	}
}

func TestAViewThatGoesBackIsNotShown(t *testing.T) {
	r := newStock()
	r.decide(10, 0)
	n := newNode(t, r, quickTiming())
	var f follower
	f.follow(n, reaches(10))
	p := n.open()
	p.watch(&f.cursor, 0)
	p.until("resumed")
	looks := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.looks
	}
	r.change(func() { r.events = r.events[:5] })
	before := looks()
	eventually(t, "the hub has looked", func() bool { return looks() > before+2 })
	r.change(func() { r.append(7, 0) })
	for {
		m := p.next()
		f.take(m)
		if f.err != nil {
			t.Fatal(f.err)
		}
		if len(f.resets) != 0 {
			t.Fatalf("reset: %v", f.resets)
		}
		if f.cursor.Seq == 12 {
			return
		}
	}
}

// While the log cannot be read, pages keep what they have; then it goes on.
func TestALogThatFails(t *testing.T) {
	r := newStock()
	r.decide(10, 0)
	n := newNode(t, r, quickTiming())
	p := n.open()
	p.watch(nil, 0)
	var f follower
	f.take(p.until("snapshot"))
	r.change(func() {
		r.readErr = errDisk
		r.append(3, 0)
	})
	eventually(t, "the failure is noticed", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.looks > 5
	})
	r.change(func() { r.readErr = nil })
	for f.cursor.Seq < 13 {
		f.take(p.next())
	}
	if f.err != nil || len(f.resets) != 0 {
		t.Fatalf("%v, resets %v", f.err, f.resets)
	}
}

// TestPagesThatMove is the judge of the whole: pages that connect, break off
// and move between two nodes, one of which lags, while the fleet changes. Each
// event is seen once, in order; what is shown in the end is what there is.
func TestPagesThatMove(t *testing.T) {
	const total = 4000
	ahead, lagging := newStock(), newStock()
	nodes := []*node{newNode(t, ahead, quickTiming()), newNode(t, lagging, quickTiming())}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)

	var world sync.WaitGroup
	world.Go(func() { // the fleet decides; the second replica follows in steps
		random := rand.New(rand.NewPCG(seed, 0))
		for done := 0; done < total; {
			n := min(1+random.IntN(40), total-done)
			ahead.decide(n, random.IntN(300))
			done += n
			ahead.hear(idOf(random.IntN(30)), float64(done))
			if random.IntN(3) == 0 || done == total {
				lagging.change(func() {
					ahead.mu.Lock()
					defer ahead.mu.Unlock()
					lagging.events = append(lagging.events[:len(lagging.events):len(lagging.events)], ahead.events[len(lagging.events):]...)
					maps.Copy(lagging.robots, ahead.robots)
				})
			}
			time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
		}
	})
	for i := range 8 {
		world.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i+1)))
			var f follower
			for f.cursor.Seq < total {
				stay := random.IntN(40)
				f.follow(nodes[random.IntN(2)], func(f *follower) bool {
					stay--
					return stay < 0 || f.cursor.Seq >= total
				})
			}
			if len(f.resets) != 0 {
				t.Errorf("page %d was reset: %v", i, f.resets)
			}
			f.follow(nodes[i%2], func(f *follower) bool {
				return len(f.robots) == len(ahead.robots) && sameLoads(f.robots, ahead)
			})
		})
	}
	world.Wait()
}

func sameLoads(shown map[ident.NodeID]view.Robot, r *stock) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, x := range r.robots {
		if shown[id].Telemetry == nil || shown[id].Telemetry.Load1 != x.Telemetry.Load1 {
			return false
		}
	}
	return true
}

// A page that stops reading is told so and cut; the others notice nothing.
func TestASlowPageIsCut(t *testing.T) {
	r := newStock()
	r.decide(1, 0)
	n := newNode(t, r, quickTiming())
	slow, good := n.open(), n.open()
	slow.watch(nil, 0)
	good.watch(nil, 0)
	slow.until("snapshot")
	var f follower
	f.take(good.until("snapshot"))

	closed := func() uint64 { return n.server.ends("too_slow").Get() }
	queued := func() bool { // the hub has let go of the slow one
		n.server.hub.mu.Lock()
		defer n.server.hub.mu.Unlock()
		return len(n.server.hub.joined) == 1
	}
	for want := uint64(1); !queued(); {
		r.decide(20, 16<<10)
		want += 20
		for f.cursor.Seq < want {
			f.take(good.next())
		}
		if f.err != nil {
			t.Fatal(f.err)
		}
		if want > 20_000 {
			t.Fatal("a page that reads nothing is never cut")
		}
	}
	slow.closed(websocket.StatusTryAgainLater, "too_slow")
	eventually(t, "it is counted", func() bool { return closed() == 1 })
	r.decide(1, 0)
	if m := good.until("events"); len(m.Events) != 1 {
		t.Fatalf("got %+v", m)
	}
}

// Only the age of news growing is no news; the same news heard again is.
func TestAgesAreNotSent(t *testing.T) {
	r := newStock()
	for i := range 20 {
		r.hear(idOf(i), 1)
	}
	times := quickTiming()
	times.pace = time.Millisecond
	n := newNode(t, r, times)
	p := n.open()
	p.watch(nil, 0)
	p.until("snapshot")
	for ticks := 0; ticks < 5; {
		switch m := p.next(); m.Type {
		case "tick":
			ticks++
		default:
			t.Fatalf("got %+v of a fleet in which nothing happens", m)
		}
	}
	r.change(func() {
		x := r.robots[idOf(3)]
		x.heard = x.heard.Add(sameNews + 400*time.Millisecond)
		r.robots[idOf(3)] = x
	})
	m := p.until("robots")
	if len(m.Changed) != 1 || m.Changed[0].ID != idOf(3) {
		t.Fatalf("got %+v", m)
	}
}

func TestLooksArePaced(t *testing.T) {
	r := newStock()
	times := shippedTiming()
	n := newNode(t, r, times)
	p := n.open()
	p.watch(nil, 0)
	p.until("snapshot")
	looks := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.looks
	}
	before, began := looks(), time.Now()
	for i := 0; time.Since(began) < time.Second; i++ {
		r.hear(idOf(i%10), float64(i))
		time.Sleep(time.Millisecond)
	}
	if n := looks() - before; n < 1 || n > 7 {
		t.Fatalf("%d looks in a second of a thousand changes, want about 4", n)
	}
}

// The same bytes go to all.
func TestAMessageIsEncodedOnce(t *testing.T) {
	r := newStock()
	r.decide(3, 0)
	n := newNode(t, r, quickTiming())
	h := n.server.hub
	h.enter()
	pages := []*client{{queue: newQueue()}, {queue: newQueue()}}
	for _, c := range pages {
		defer h.leave(c)
		if err := h.attach(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.enter() // leave is called twice above
	r.decide(1, 0)
	next := func(c *client) []byte {
		for {
			m, _ := c.queue.pop(t.Context())
			if strings.HasPrefix(string(m), `{"type":"events"`) {
				return m
			}
		}
	}
	a, b := next(pages[0]), next(pages[1])
	if &a[0] != &b[0] {
		t.Fatal("each client has its own copy of a message")
	}
}

// What changed while a client was being caught up is not lost on it.
func TestJoiningBringsWhatChangedMeanwhile(t *testing.T) {
	r := newStock()
	r.decide(3, 0)
	r.hear("a", 1)
	h := newNode(t, r, quickTiming()).server.hub
	h.enter()
	c := &client{queue: newQueue()}
	defer h.leave(c)
	p, err := h.fresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := p.cursor()
	r.hear("a", 2)
	r.decide(1, 0)
	eventually(t, "the hub has moved on", func() bool { now, _ := h.current(); return now.cursor().Seq == 4 })
	if joined, reset := h.joinAt(c, p, at); !joined || reset != "" {
		t.Fatalf("joined %v, reset %q", joined, reset)
	}
	for _, want := range []string{`{"type":"events","events":[{"seq":4`, `{"type":"robots","changed":[{"id":"a"`} {
		if m, _ := c.queue.pop(t.Context()); !strings.HasPrefix(string(m), want) {
			t.Fatalf("got %s, want %s", m, want)
		}
	}
}

// The log may be ahead of the state that is shown, and may have a gap.
func TestReadingTheLog(t *testing.T) {
	r := newStock()
	r.decide(100, 0)
	r.held = 40
	h := newHub(r, r, quickTiming(), nil)
	events, compacted, err := h.read(t.Context(), 5, 60)
	if err != nil || !compacted || len(events) != 20 || events[0].seq != 41 || events[19].seq != 60 {
		t.Fatalf("%d events, compacted %v, %v", len(events), compacted, err)
	}
	events, compacted, err = h.read(t.Context(), 45, 60)
	if err != nil || compacted || len(events) != 15 {
		t.Fatalf("%d events, compacted %v, %v", len(events), compacted, err)
	}
	if _, _, err = h.read(t.Context(), 90, 101); err == nil {
		t.Fatal("the log ends before the state and nobody noticed")
	}
}

// A node that needs longer to bring its pages up to date than looks are apart,
// while there is always something new, is slow and not stuck.
func TestASlowNodeStillServes(t *testing.T) {
	r := newStock()
	r.decide(3, 0)
	times := quickTiming()
	times.pace = time.Millisecond
	r.slow = 50 * times.pace
	n := newNode(t, r, times)
	stop := make(chan struct{})
	var fleet sync.WaitGroup
	fleet.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				r.decide(1, 0)
			}
		}
	})
	defer fleet.Wait()
	defer close(stop)
	var f follower
	f.follow(n, reaches(20))
	f.follow(n, reaches(f.cursor.Seq+20))
}
