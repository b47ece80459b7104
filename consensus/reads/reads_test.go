package reads

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/raftgroup"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counter is a machine whose state is how many entries it has applied, and a
// copy of the log as reads see it. A test can hold it up.
type counter struct {
	mu          sync.Mutex
	index, term uint64
	seq         uint64
	held        bool
	news        chan struct{}
}

func newCounter() *counter { return &counter{news: make(chan struct{})} }

func (c *counter) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.news)
	c.news = make(chan struct{})
}

// hold makes reads see nothing new until it is called with false.
func (c *counter) hold(held bool) { c.change(func() { c.held = held }) }

func (c *counter) ApplyEntry(index, term uint64, data []byte) (out []replica.Outcome, err error) {
	entry, err := replica.DecodeEntry(data)
	if err != nil {
		return nil, err
	}
	c.change(func() {
		c.index, c.term = index, term
		for range entry.Batches {
			c.seq++
			out = append(out, replica.Outcome{First: c.seq, Last: c.seq})
		}
	})
	return out, nil
}

func (c *counter) Applied() (index, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index, c.term
}

func (c *counter) Snapshot(w io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return binary.Write(w, binary.BigEndian, []uint64{c.index, c.term, c.seq})
}

func (c *counter) Restore(r io.Reader) error {
	var v [3]uint64
	if err := binary.Read(r, binary.BigEndian, v[:]); err != nil {
		return err
	}
	c.change(func() { c.index, c.term, c.seq = v[0], v[1], v[2] })
	return nil
}

func (c *counter) SnapshotIndex(r io.Reader) (uint64, error) {
	var index uint64
	return index, binary.Read(r, binary.BigEndian, &index)
}

func (c *counter) Wait(ctx context.Context, seq uint64) error {
	for {
		c.mu.Lock()
		at, held, news := c.seq, c.held, c.news
		c.mu.Unlock()
		if at >= seq && !held {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *counter) Cursor() event.Cursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return event.Cursor{History: "h", Seq: c.seq}
}

// node is a voter with its reads, or, without a group, another member whose
// copy is that of the voter it was given.
type node struct {
	*Service
	id    ident.NodeID
	host  *testnet.Host
	group *raftgroup.Group
	copy  *counter
	// believes is whom a node without a seat takes for the leader.
	believes atomic.Value
	stop     func()
}

func (n *node) Leader() (ident.NodeID, bool) {
	if n.group == nil {
		id, ok := n.believes.Load().(ident.NodeID)
		return id, ok
	}
	leader := n.group.Status().Leader
	return leader, leader != ""
}

func (n *node) VerifyLeader(ctx context.Context) error { return n.group.VerifyLeader(ctx) }
func (n *node) Leased() bool                           { return n.group != nil && n.group.Leased() }

type fleet struct {
	t    *testing.T
	net  *testnet.Net
	root string
	all  []*node
}

func newFleet(t *testing.T, voters int) *fleet {
	f := &fleet{t: t, net: testnet.New(), root: t.TempDir()}
	if err := raftgroup.Bootstrap(filepath.Join(f.root, "0"), testnet.ID(0), ""); err != nil {
		t.Fatal(err)
	}
	for i := range voters {
		f.add(i, true)
	}
	lead := f.leader()
	for _, n := range f.all[1:] {
		if err := lead.group.AddVoter(t.Context(), n.id); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// add starts node i, as a voter or with a copy of its own that stays empty.
func (f *fleet) add(i int, voter bool) *node {
	f.t.Helper()
	host, err := f.net.Start(testnet.ID(i))
	if err != nil {
		f.t.Fatal(err)
	}
	n := &node{id: host.ID, host: host, copy: newCounter()}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(context.Background())
	if voter {
		n.group, err = raftgroup.New(raftgroup.Config{ID: n.id, Dir: filepath.Join(f.root, fmt.Sprint(i)), Link: host.Link("raft"),
			Machine: n.copy, Joining: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			f.t.Fatal(err)
		}
		host.Handle("raft", n.group.Handle)
		go func() { ended <- n.group.Run(ctx) }()
	} else {
		ended <- nil
	}
	n.Service = New(Config{Self: n.id, Seat: n, Replica: n.copy, Open: host.Link("read").Open, Log: slog.New(slog.DiscardHandler),
		Age: func() (time.Duration, ident.NodeID, bool) { return time.Second, "somebody", true }})
	host.Handle("read", n.Service.Handle)
	n.stop = sync.OnceFunc(func() { n.Service.Close(); host.Kill(); cancel(errors.New("killed")); <-ended })
	f.t.Cleanup(n.stop)
	f.all = append(f.all, n)
	return n
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (f *fleet) leader(without ...*node) (lead *node) {
	f.t.Helper()
	until(f.t, "a ready leader", func() bool {
		for _, n := range f.all {
			if n.group == nil || slices.Contains(without, n) {
				continue
			}
			if _, ok := n.group.Leading(); ok {
				lead = n
				return true
			}
		}
		return false
	})
	return lead
}

// write has one more event decided by n, and gives its number.
func (f *fleet) write(ctx context.Context, n *node) (uint64, error) {
	out, err := n.group.Submit(ctx, event.Batch{Producer: event.Producer{Node: n.id, Boot: 1, N: 1}, Actor: event.Actor{Kind: event.KindLeader, ID: string(n.id)},
		Drafts: []event.Draft{{Stream: "fleet", Type: event.TypeGossipKeyRotated, Data: []byte(`{"epoch":1}`)}}})
	return out.Last, err
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantFault(t *testing.T, err error, code event.Code) {
	t.Helper()
	if f, ok := event.FaultOf(err); !ok || f.Code != code || f.Next == "" {
		t.Fatalf("got %v, want %s", err, code)
	}
}

// TestEveryNodeReadsWhatWasAcknowledged: right after a write, on every node, also
// one that takes a follower for the leader.
func TestEveryNodeReadsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	lead := f.leader()
	outside := f.add(7, false)
	outside.copy = lead.copy // it follows without delay: only the way of the question matters
	outside.cfg.Replica = lead.copy
	outside.believes.Store(f.all[2].id)
	for range 20 {
		seq, err := f.write(t.Context(), lead)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range f.all {
			for _, level := range []Level{Leased, Linearizable} {
				a, err := n.Await(t.Context(), level)
				if err != nil || a.Cursor.Seq < seq || a.Level != level || a.Leader != lead.id || a.Age < 0 || a.Age > 5*time.Second {
					t.Fatalf("%s on %s after event %d: %+v %v", level, n.id, seq, a, err)
				}
			}
		}
	}
}

func TestLocalNeedsNobody(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, net: testnet.New(), root: t.TempDir()}
	n := f.add(3, false)
	a, err := n.Await(t.Context(), Local)
	if err != nil || a.Level != Local || a.Age != time.Second || a.Leader != "somebody" || a.Cursor != n.copy.Cursor() {
		t.Fatalf("%+v %v", a, err)
	}
	n.cfg.Age = func() (time.Duration, ident.NodeID, bool) { return 0, "", false }
	if a, err = n.Await(t.Context(), Local); err != nil || a.Age >= 0 || a.Leader != "" {
		t.Fatalf("%+v %v", a, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, net: testnet.New(), root: t.TempDir()}
	n := f.add(3, false)
	_, err := n.Await(t.Context(), "fresh")
	wantFault(t, err, event.CodeInvalid)
	began := time.Now()
	_, err = n.Await(within(t, 300*time.Millisecond), Linearizable)
	wantFault(t, err, event.CodeNoLeader)
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("took %s", took)
	}
	n.believes.Store(testnet.ID(9)) // nobody is there
	_, err = n.Await(within(t, 300*time.Millisecond), Leased)
	wantFault(t, err, event.CodeNoLeader)
	n.Close()
	_, err = n.Await(t.Context(), Linearizable)
	wantFault(t, err, event.CodeNoLeader)
	for _, text := range []string{"", "local", "leased", "linearizable"} {
		if l, err := ParseLevel(text); err != nil || text != "" && string(l) != text {
			t.Fatalf("%q: %q %v", text, l, err)
		}
	}
}

// TestCopyThatDoesNotCatchUp: the leader vouches, the copy here stays behind.
func TestCopyThatDoesNotCatchUp(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	lead := f.leader()
	n := f.all[slices.IndexFunc(f.all, func(n *node) bool { return n != lead })]
	if _, err := f.write(t.Context(), lead); err != nil {
		t.Fatal(err)
	}
	n.copy.hold(true)
	_, err := n.Await(within(t, 400*time.Millisecond), Linearizable)
	wantFault(t, err, CodeTimeout)
	got := make(chan error, 1)
	go func() { _, err := n.Await(t.Context(), Linearizable); got <- err }()
	n.copy.hold(false)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// TestCutOffLeaderIsNotBelieved: another leader has taken over and acknowledged.
func TestCutOffLeaderIsNotBelieved(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	old := f.leader()
	if _, err := f.write(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Await(t.Context(), Linearizable); err != nil {
		t.Fatal(err)
	}
	f.net.Isolate(old.id)
	next := f.leader(old)
	seq, err := f.write(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range []Level{Leased, Linearizable} {
		a, err := old.Await(within(t, 500*time.Millisecond), level)
		if err == nil {
			t.Fatalf("%s on the old leader: %+v, event %d was decided", level, a, seq)
		}
		wantFault(t, err, event.CodeNoLeader)
		if a, err := next.Await(t.Context(), level); err != nil || a.Cursor.Seq < seq {
			t.Fatalf("%s on the new leader: %+v %v", level, a, err)
		}
	}
	f.net.Join(old.id)
	if a, err := old.Await(within(t, 10*time.Second), Linearizable); err != nil || a.Cursor.Seq < seq {
		t.Fatalf("healed: %+v %v", a, err)
	}
}

// TestLeaseEndsWhenLeadershipIsHandedOver although it is young.
func TestLeaseEndsWhenLeadershipIsHandedOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	for range 5 {
		old := f.leader()
		if _, err := old.Await(t.Context(), Leased); err != nil {
			t.Fatal(err)
		}
		if err := old.group.Transfer(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		seq, err := f.write(t.Context(), f.leader(old))
		if err != nil {
			t.Fatal(err)
		}
		if a, err := old.Await(within(t, 10*time.Second), Leased); err != nil || a.Cursor.Seq < seq {
			t.Fatalf("%+v %v, event %d was decided before", a, err, seq)
		}
	}
}

// TestManyReadersShareARound: who comes while the majority is asked waits for the
// next round, together with all the others.
func TestManyReadersShareARound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		s := New(Config{Self: "a", Replica: newCounter(), Log: slog.New(slog.DiscardHandler), Seat: seatOf(func(ctx context.Context) error {
			asked.Add(1)
			<-release
			return nil
		})})
		defer s.Close()
		var wg sync.WaitGroup
		read := func() {
			if _, err := s.Await(t.Context(), Linearizable); err != nil {
				t.Error(err)
			}
		}
		wg.Go(read)
		synctest.Wait() // the first round asks
		for range 99 {
			wg.Go(read)
		}
		synctest.Wait() // all wait
		close(release)
		wg.Wait()
		if n := asked.Load(); n != 2 {
			t.Fatalf("%d rounds for 100 readers; those who came during the first share the second", n)
		}
	})
}

// seatOf is a seat that leads, for as long as fn says so.
type seatOf func(context.Context) error

func (seatOf) Leader() (ident.NodeID, bool)             { return "a", true }
func (f seatOf) VerifyLeader(ctx context.Context) error { return f(ctx) }
func (seatOf) Leased() bool                             { return false }

// TestARoundAnswersOnlyWhoAskedBefore: who comes while one is under way must not
// get its answer.
func TestARoundAnswersOnlyWhoAskedBefore(t *testing.T) {
	t.Parallel()
	s := New(Config{Log: slog.New(slog.DiscardHandler)})
	defer s.Close()
	var r rounds[int]
	n := 0
	began, release := make(chan struct{}, 2), make(chan struct{})
	work := func(context.Context) (int, error) { n++; began <- struct{}{}; <-release; return n, nil }
	got := make(chan int, 2)
	ask := func() {
		v, err := r.do(t.Context(), s, work)
		if err != nil {
			t.Error(err)
		}
		got <- v
	}
	go ask()
	<-began
	go ask()
	until(t, "the second waits", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.next != nil })
	release <- struct{}{}
	if v := <-got; v != 1 {
		t.Fatalf("first got round %d", v)
	}
	release <- struct{}{}
	if v := <-got; v != 2 {
		t.Fatalf("second got round %d", v)
	}
}

func TestNonsenseEndsAStream(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	n := f.add(5, false)
	for _, say := range [][]byte{{0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1, '['}, {0, 0, 0, 0}} {
		conn, err := n.host.Link("read").Open(t.Context(), f.all[0].id)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write(say); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 8)); err == nil || isTimeout(err) {
			t.Fatalf("%q: %d bytes, %v", say, n, err)
		}
		conn.Close()
	}
	conn, err := n.host.Link("read").Open(t.Context(), f.all[0].id)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var v verdict
	if err := errors.Join(wire.WriteJSON(conn, question{"local"}, maxFrame), wire.ReadJSON(conn, &v, maxFrame)); err != nil || v.Fault == nil || v.Fault.Code != event.CodeInvalid {
		t.Fatalf("%+v %v", v, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// FuzzQuestion: whatever a member asks, it gets a verdict with a cursor or a fault.
func FuzzQuestion(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"level":"linearizable"}`, `{"level":"leased"}`, `{"level":7}`, `[]`} {
		f.Add([]byte(seed))
	}
	s := New(Config{Self: "a", Replica: newCounter(), Log: slog.New(slog.DiscardHandler), Seat: seatOf(func(context.Context) error { return nil })})
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		var q question
		if json.Unmarshal(b, &q) != nil {
			return
		}
		if v := s.answer(t.Context(), q); (v.Fault == nil) != (v.Leader == "a") {
			t.Fatalf("%s: %+v", b, v)
		}
	})
}

// FuzzVerdict: whatever a leader answers, the reader goes on.
func FuzzVerdict(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"cursor":{"history":"h","seq":7}}`, `{"fault":{"code":"no_leader"}}`, `{"cursor":{"seq":-1}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := net.Pipe()
		defer a.Close()
		go func() {
			defer c.Close()
			if _, err := wire.ReadFrame(c, maxFrame); err == nil {
				wire.WriteFrame(c, b, 1<<20)
			}
		}()
		s := New(Config{Self: "a", Replica: newCounter(), Log: slog.New(slog.DiscardHandler), Seat: seatOf(nil),
			Open: func(context.Context, ident.NodeID) (net.Conn, error) { return a, nil }})
		defer s.Close()
		asker := asker{service: s, level: Leased}
		if v, err := asker.put(t.Context(), "b"); err == nil && v.Fault != nil {
			_ = v.Fault.Error()
		}
	})
}
