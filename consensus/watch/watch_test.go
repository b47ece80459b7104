package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
)

func TestFromTheBeginningAndOn(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	l.decide(40, 5, 200)
	n.applyAll()
	w := n.hub.Watch(&event.Cursor{}, replica.Filter{})
	defer w.Close()
	s := &seen{t: t}
	s.until(w, n.store.Cursor().Seq)
	if s.cursor != n.store.Cursor() {
		t.Errorf("at %+v, the log is at %+v", s.cursor, n.store.Cursor())
	}
	l.decide(3, 1, 10)
	n.applyAll()
	s.until(w, n.store.Cursor().Seq)
	if s.cursor != n.store.Cursor() || !n.store.Held(s.cursor) {
		t.Errorf("at %+v, the log is at %+v", s.cursor, n.store.Cursor())
	}
}

// Every cursor of a frame is a place that any node can check and go on at.
func TestEveryCursorIsAPlace(t *testing.T) {
	l := newFleetLog()
	a, b := newNode(t, l, replica.Options{}, small()), newNode(t, l, replica.Options{}, small())
	l.decide(60, 7, 100)
	a.applyAll()
	b.applyAll()
	w := a.hub.Watch(&event.Cursor{}, replica.Filter{})
	defer w.Close()
	for end := b.store.Cursor().Seq; w.Cursor().Seq < end; {
		if f := next(t, w); !b.store.Held(f.Cursor) {
			t.Fatalf("%+v is no place of the other node", f.Cursor)
		}
	}
}

func TestNoCursorIsThePresent(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	n.applyAll()
	w := n.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	if w.Cursor() != n.store.Cursor() {
		t.Fatalf("begins at %+v, the log is at %+v", w.Cursor(), n.store.Cursor())
	}
	s := &seen{t: t, cursor: w.Cursor()}
	l.decide(2, 2, 10)
	n.applyAll()
	s.until(w, n.store.Cursor().Seq)
}

// A filter leaves events out, and the cursor moves over them.
func TestFilter(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	l.decide(50, 4, 100)
	n.applyAll()
	w := n.hub.Watch(&event.Cursor{}, replica.Filter{Type: "robot.labels_changed"})
	defer w.Close()
	got := 0
	for got < 200 {
		f := next(t, w)
		if f.Kind != Events {
			t.Fatalf("got %+v", f)
		}
		for _, e := range f.Events {
			if e.Type != event.TypeRobotLabelsChanged {
				t.Fatalf("event %s passed", e.Type)
			}
			got++
		}
	}
	none := n.hub.Watch(&event.Cursor{}, replica.Filter{Type: "token."})
	defer none.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := none.Next(ctx); ended <- err }()
	eventually(t, "the cursor moves over what is left out", func() bool { return none.Cursor() == n.store.Cursor() })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Next that is given up while it waits loses nothing.
func TestGivenUpNextLosesNothing(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	n.applyAll()
	w := n.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	s := &seen{t: t, cursor: w.Cursor()}
	var feeding sync.WaitGroup
	defer feeding.Wait()
	feeding.Go(func() {
		for range 200 {
			l.decide(1, 1, 10)
			n.applyAll()
		}
	})
	end := s.cursor.Seq + 200
	for s.cursor.Seq < end {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Microsecond)
		if f, err := w.Next(ctx); err == nil {
			s.add(f)
		}
		cancel()
	}
}

// A node that is behind the cursor says so, again and again, and never goes back.
// TestEmptyCopy: a node that has just been started has no history yet, which is
// not another one.
func TestEmptyCopy(t *testing.T) {
	l := newFleetLog()
	ahead, empty := newNode(t, l, replica.Options{}, small()), newNode(t, l, replica.Options{}, small())
	l.decide(3, 3, 10)
	ahead.applyAll()
	at := ahead.store.Cursor()
	w := empty.hub.Watch(&at, replica.Filter{})
	defer w.Close()
	if f := next(t, w); f.Kind != Behind || f.By != at.Seq || f.Cursor != at {
		t.Fatalf("got %+v", f)
	}
}

func TestBehind(t *testing.T) {
	l := newFleetLog()
	ahead, behind := newNode(t, l, replica.Options{}, small()), newNode(t, l, replica.Options{}, small())
	l.decide(10, 3, 10)
	ahead.applyAll()
	behind.apply(4)
	at := ahead.store.Cursor()
	w := behind.hub.Watch(&at, replica.Filter{})
	defer w.Close()
	for range 2 {
		if f := next(t, w); f.Kind != Behind || f.By != at.Seq-behind.store.Cursor().Seq || f.Cursor != at {
			t.Fatalf("got %+v", f)
		}
	}
	behind.apply(2)
	eventually(t, "it says that it is less behind", func() bool {
		f := next(t, w)
		return f.Kind == Behind && f.By == at.Seq-behind.store.Cursor().Seq
	})
	behind.applyAll()
	l.decide(1, 1, 10)
	behind.applyAll()
	f := next(t, w)
	for f.Kind == Behind {
		f = next(t, w)
	}
	(&seen{t: t, cursor: at}).add(f)
}

// A cursor that no majority decided is told from a good one, wherever it stands.
func TestDivergedCursorIsReset(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	l.decide(10, 3, 10)
	n.applyAll()
	for _, seq := range []uint64{9, n.store.Cursor().Seq} {
		strange := event.Cursor{History: n.store.Cursor().History, Seq: seq, Hash: "ab" + n.store.Cursor().Hash[2:]}
		w := n.hub.Watch(&strange, replica.Filter{})
		if f := next(t, w); f.Kind != Reset || f.Kept || f.Cursor != n.store.Cursor() || f.Reason == "" {
			t.Errorf("at %d: got %+v", seq, f)
		}
		w.Close()
	}
}

// Events that are not held any more are an explicit gap, then it goes on with
// the first that is.
func TestCompacted(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{TailBytes: 64 << 10}, small())
	l.decide(400, 5, 200)
	n.applyAll()
	if err := n.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if n.store.First() < 100 {
		t.Fatalf("first held is %d: nothing was dropped", n.store.First())
	}
	w := n.hub.Watch(&event.Cursor{Seq: 3}, replica.Filter{})
	defer w.Close()
	f := next(t, w)
	if f.Kind != Compacted || f.Cursor.Seq != n.store.First()-1 || f.Reason == "" {
		t.Fatalf("got %+v, first held is %d", f, n.store.First())
	}
	s := &seen{t: t, cursor: f.Cursor}
	s.until(w, n.store.Cursor().Seq)
}

// A snapshot that is installed under a live watcher is an explicit gap too.
func TestSnapshotInstalledMeanwhile(t *testing.T) {
	l := newFleetLog()
	from, to := newNode(t, l, replica.Options{}, small()), newNode(t, l, replica.Options{}, small())
	to.applyAll()
	w := to.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	l.decide(50, 2, 10)
	from.applyAll()
	var snapshot bytes.Buffer
	if err := from.store.Snapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	if err := to.store.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	f := next(t, w)
	if f.Kind != Compacted || f.Cursor.Seq != from.store.Cursor().Seq {
		t.Fatalf("got %+v", f)
	}
	l.decide(2, 2, 10)
	to.applyAll()
	s := &seen{t: t, cursor: f.Cursor}
	s.until(w, to.store.Cursor().Seq)
}

// A watcher that does not keep up is cut at the bound, not before, and goes on
// where it was.
func TestSlowWatcherIsCutAndResumes(t *testing.T) {
	const bound = 500
	l := newFleetLog()
	b := small()
	b.maxBehind, b.ringBytes = bound, 1<<10
	n := newNode(t, l, replica.Options{}, b)
	n.applyAll()
	w := n.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	s := &seen{t: t, cursor: w.Cursor()}
	l.decide(1, 1, 10)
	n.applyAll()
	s.until(w, n.store.Cursor().Seq)

	l.decide(bound/5, 5, 10)
	n.applyAll()
	eventually(t, "the hub has seen it", func() bool { return n.hub.headSeq() == n.store.Cursor().Seq })
	s.add(next(t, w)) // exactly at the bound: read from the history
	s.until(w, n.store.Cursor().Seq)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	if f, err := w.Next(ctx); err == nil {
		t.Errorf("got %+v with nothing new", f)
	}
	cancel()

	l.decide(bound/5+1, 5, 10)
	n.applyAll()
	eventually(t, "the hub has seen it", func() bool { return n.hub.headSeq() == n.store.Cursor().Seq })
	f := next(t, w)
	if f.Kind != Cut || f.Reason == "" || f.Cursor != s.cursor {
		t.Fatalf("got %+v, want a cut at %+v", f, s.cursor)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if f, err := w.Next(ctx); err == nil {
		t.Errorf("got %+v after the cut", f)
	}
	again := n.hub.Watch(&f.Cursor, replica.Filter{})
	defer again.Close()
	s.until(again, n.store.Cursor().Seq)
}

func (h *Hub) headSeq() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.head.Seq
}

func TestStopCuts(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	n.applyAll()
	w := n.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	at := w.Cursor()
	go n.stop()
	if f := next(t, w); f.Kind != Cut || f.Cursor != at || f.Reason == "" {
		t.Errorf("got %+v", f)
	}
}

// While nobody watches nothing is held, and who comes next sees everything.
func TestIdle(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	n.applyAll()
	for range 3 {
		w := n.hub.Watch(nil, replica.Filter{})
		s := &seen{t: t, cursor: w.Cursor()}
		l.decide(3, 3, 10)
		n.applyAll()
		s.until(w, n.store.Cursor().Seq)
		w.Close()
		w.Close()
		eventually(t, "the ring is let go", func() bool {
			n.hub.mu.Lock()
			defer n.hub.mu.Unlock()
			return n.hub.ring == nil && n.hub.present == 0
		})
		l.decide(3, 3, 10)
		n.applyAll()
	}
}

// The ring has a bound, whatever the load.
func TestRingIsBounded(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	n.applyAll()
	w := n.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	for range 50 {
		l.decide(10, 5, 200)
		n.applyAll()
		n.hub.look()
		n.hub.mu.Lock()
		size, held := n.hub.ringBytes, 0
		for _, r := range n.hub.ring {
			held += len(r.Bytes())
		}
		n.hub.mu.Unlock()
		if size != held || size > n.hub.bounds.ringBytes {
			t.Fatalf("the ring counts %d bytes, has %d, may have %d", size, held, n.hub.bounds.ringBytes)
		}
	}
}

// Case 24: watchers that are slow, that leave and come back at other nodes,
// over nodes that lag, end and hold less than all: each event once, in order, or
// an explicit gap.
func TestWanderers(t *testing.T) {
	l := newFleetLog()
	b := small()
	b.maxBehind, b.ringBytes = 400, 4<<10
	nodes := []*node{
		newNode(t, l, replica.Options{}, b),
		newNode(t, l, replica.Options{}, b),
		newNode(t, l, replica.Options{TailBytes: 32 << 10}, b), // holds a tail only
	}
	const events, size = 4000, 4
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		for range events / size {
			l.decide(1, size, 50)
		}
	})
	for i, n := range nodes {
		work.Go(func() {
			r := rand.New(rand.NewSource(int64(i)))
			for index := uint64(0); index < 2+events/size; index, _ = n.store.Applied() {
				if n.apply(1+r.Intn(20)) == 0 || r.Intn(10) == 0 {
					time.Sleep(time.Duration(r.Intn(500)) * time.Microsecond)
				}
			}
		})
	}
	const last = founding + events
	for seed := range 6 {
		work.Go(func() { wander(t, nodes, rand.New(rand.NewSource(int64(100+seed))), last) })
	}
}

// wander watches from the beginning to event last, and moves at random.
func wander(t *testing.T, nodes []*node, r *rand.Rand, last uint64) {
	at := event.Cursor{}
	gaps, cuts, moves := 0, 0, 0
	deadline := time.Now().Add(patience)
	for at.Seq < last && time.Now().Before(deadline) {
		n := nodes[r.Intn(len(nodes))]
		from := at
		w := n.hub.Watch(&from, replica.Filter{})
		for range 1 + r.Intn(30) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.Intn(20))*time.Millisecond)
			f, err := w.Next(ctx)
			cancel()
			if err != nil {
				continue
			}
			switch f.Kind {
			case Events:
				for _, e := range f.Events {
					if e.Seq != at.Seq+1 {
						t.Errorf("event %d after %d", e.Seq, at.Seq)
					}
					at.Seq = e.Seq
				}
			case Compacted:
				gaps++
				if f.Cursor.Seq <= at.Seq || n.store.First() == 1 {
					t.Errorf("a gap from %d to %d at a node that holds from %d on", at.Seq, f.Cursor.Seq, n.store.First())
				}
			case Cut:
				cuts++
			case Behind:
			default:
				t.Errorf("got %+v", f)
			}
			if f.Kind == Events && f.Cursor.Seq != at.Seq {
				t.Errorf("the cursor is %d after event %d", f.Cursor.Seq, at.Seq)
			}
			at = f.Cursor
			if f.Kind == Cut {
				break
			}
			time.Sleep(time.Duration(r.Intn(300)) * time.Microsecond)
		}
		moves++
		w.Close()
	}
	if at.Seq < last {
		t.Errorf("only at event %d of %d", at.Seq, last)
	}
	t.Logf("%d moves, %d gaps, %d cuts", moves, gaps, cuts)
}

// recoverAt recovers the fleet from this node alone, under a new history.
func (n *node) recoverAt(history string) {
	n.t.Helper()
	c := n.store.Cursor()
	b := event.Batch{
		Actor:  event.Actor{Kind: event.KindRecovery, ID: string(fleettest.Node(0))},
		Drafts: []event.Draft{event.LogRecovered{History: history, Seq: c.Seq, Hash: c.Hash, Reason: "test"}.Draft()},
	}
	if _, err := n.store.Recover(b, time.UnixMilli(1_800_000_000_000)); err != nil {
		n.t.Fatal(err)
	}
}

// Case 17 as a watcher sees it. Who saw no more than what was kept is told of the
// new history and loses nothing, live or on coming back; who saw more has to look
// at the fleet anew.
func TestRecovery(t *testing.T) {
	l := newFleetLog()
	l.decide(10, 3, 10)
	kept, lost := newNode(t, l, replica.Options{}, small()), newNode(t, l, replica.Options{}, small())
	lost.applyAll()
	kept.apply(8)
	w := kept.hub.Watch(nil, replica.Filter{})
	defer w.Close()
	at := w.Cursor()
	early := at
	kept.recoverAt("h2")

	again := kept.hub.Watch(&early, replica.Filter{})
	defer again.Close()
	for name, w := range map[string]*Watcher{"live": w, "coming back": again} {
		f := next(t, w)
		if want := (event.Cursor{History: "h2", Seq: at.Seq, Hash: at.Hash}); f.Kind != Reset || !f.Kept || f.Cursor != want || f.Reason == "" {
			t.Fatalf("%s: got %+v, want a reset at %+v", name, f, want)
		}
		f = next(t, w)
		if f.Kind != Events || len(f.Events) != 1 || f.Events[0].Type != event.TypeLogRecovered || f.Cursor != kept.store.Cursor() {
			t.Fatalf("%s: got %+v", name, f)
		}
	}

	more := lost.store.Cursor()
	third := kept.hub.Watch(&more, replica.Filter{})
	defer third.Close()
	if f := next(t, third); f.Kind != Reset || f.Kept || f.Cursor != kept.store.Cursor() {
		t.Fatalf("who saw what was lost got %+v", f)
	}
	unchecked := kept.hub.Watch(&event.Cursor{History: "h1", Seq: 5}, replica.Filter{})
	defer unchecked.Close()
	if f := next(t, unchecked); f.Kind != Reset || f.Kept {
		t.Fatalf("a place that cannot be checked: %+v", f)
	}
}

// BenchmarkWatchers is one log with many watchers: what an event costs in all.
func BenchmarkWatchers(b *testing.B) {
	for _, watchers := range []int{1, 100} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			l := newFleetLog()
			n := newNode(b, l, replica.Options{}, bounds{ringBytes, readBytes, 1 << 40, quiet})
			n.applyAll()
			const size = 64
			l.decide(b.N/size+1, size, 100)
			var work sync.WaitGroup
			last := n.store.Cursor().Seq + uint64(b.N/size+1)*size
			for range watchers {
				w := n.hub.Watch(nil, replica.Filter{})
				work.Go(func() {
					defer w.Close()
					for w.Cursor().Seq < last {
						if _, err := w.Next(context.Background()); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			n.applyAll()
			work.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// A place may be inside a record, since events are numbered one by one.
func TestFromAnyPlace(t *testing.T) {
	l := newFleetLog()
	n := newNode(t, l, replica.Options{}, small())
	l.decide(10, 4, 10)
	n.applyAll()
	for seq := range n.store.Cursor().Seq {
		w := n.hub.Watch(&event.Cursor{Seq: seq}, replica.Filter{})
		s := &seen{t: t, cursor: event.Cursor{Seq: seq}}
		s.until(w, n.store.Cursor().Seq)
		w.Close()
	}
}
