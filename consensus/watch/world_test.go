package watch

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen, on a busy machine.
const patience = time.Minute

// fleetLog is the log that a group of voters agreed on, entry by entry.
type fleetLog struct {
	mu      sync.Mutex
	entries [][]byte
	labels  int
}

func newFleetLog() *fleetLog {
	l := &fleetLog{}
	l.add(fleettest.Genesis())
	id := fleettest.Node(0)
	registered := event.RobotRegistered{Name: "goose", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(id)
	registered.Schema = 1
	l.add(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{registered}})
	return l
}

// founding is how many events newFleetLog makes.
const founding = 8

func (l *fleetLog) add(b ...event.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: 1_700_000_000_000 + int64(len(l.entries)), Batches: b})
	if err != nil {
		panic(err)
	}
	l.entries = append(l.entries, data)
}

// decide adds entries of n events each: new labels of a robot, with about size
// bytes, each value another.
func (l *fleetLog) decide(entries, n, size int) {
	for range entries {
		b := event.Batch{Actor: fleettest.Admin("ada")}
		for range n {
			l.labels++
			change := event.RobotLabelsChanged{Set: map[string]string{"n": strconv.Itoa(l.labels), "pad": strings.Repeat("x", min(size, 128))}}
			b.Drafts = append(b.Drafts, change.Draft(fleettest.Node(0)))
		}
		l.add(b)
	}
}

func (l *fleetLog) entry(i int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i > len(l.entries) {
		return nil
	}
	return l.entries[i-1]
}

// node is one node's replica and its hub, running.
type node struct {
	t     testing.TB
	log   *fleetLog
	store *replica.Replica
	hub   *Hub
	stop  func()
}

func small() bounds {
	return bounds{ringBytes: 64 << 10, readBytes: 8 << 10, maxBehind: 1 << 40, quiet: 20 * time.Millisecond}
}

func newNode(t testing.TB, l *fleetLog, o replica.Options, b bounds) *node {
	t.Helper()
	store, err := replica.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, log: l, store: store, hub: newHub(store, b)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.hub.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close the replica: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// apply applies at most the next n entries of the log and says how many it did.
func (n *node) apply(most int) int {
	index, _ := n.store.Applied()
	for did := range most {
		data := n.log.entry(int(index) + did + 1)
		if data == nil {
			return did
		}
		out, err := n.store.ApplyEntry(index+uint64(did)+1, 1, data)
		if err != nil {
			n.t.Errorf("apply: %v", err)
			return did
		}
		for _, o := range out {
			if o.Err != nil {
				n.t.Errorf("refused: %v", o.Err)
			}
		}
	}
	return most
}

func (n *node) applyAll() {
	for n.apply(64) > 0 {
	}
}

// next is the next frame.
func next(t testing.TB, w *Watcher) Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, err := w.Next(ctx)
	if err != nil {
		t.Fatalf("no frame at %+v: %v", w.Cursor(), err)
	}
	if f.Cursor != w.Cursor() {
		t.Fatalf("the frame ends at %+v, the watcher is at %+v", f.Cursor, w.Cursor())
	}
	return f
}

// seen is what a watcher got, in order.
type seen struct {
	t      testing.TB
	events []event.Event
	cursor event.Cursor
}

// add wants events that follow each other without a hole and without a
// repetition, when nothing is filtered.
func (s *seen) add(f Frame) {
	s.t.Helper()
	if f.Kind != Events || len(f.Events) == 0 {
		s.t.Fatalf("got %s %q at %d, want events", f.Kind, f.Reason, f.Cursor.Seq)
	}
	for _, e := range f.Events {
		if e.Seq != s.cursor.Seq+1 {
			s.t.Fatalf("event %d after %d", e.Seq, s.cursor.Seq)
		}
		s.cursor.Seq = e.Seq
		s.events = append(s.events, e)
	}
	if f.Cursor.Seq != s.cursor.Seq {
		s.t.Fatalf("the cursor is %d after event %d", f.Cursor.Seq, s.cursor.Seq)
	}
	s.cursor = f.Cursor
}

// until reads until event seq.
func (s *seen) until(w *Watcher, seq uint64) {
	s.t.Helper()
	for s.cursor.Seq < seq {
		s.add(next(s.t, w))
	}
}
