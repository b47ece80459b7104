package presence

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skein/mesh/ident"
)

// id is the node id of a test's node number i.
func id(i int) ident.NodeID { return ident.IDOf(ed25519.PublicKey(fmt.Sprint("node ", i))) }

// mesh is a set of services joined by pipes in memory, on virtual time.
type mesh struct {
	t     *testing.T
	nodes []*member
	bytes atomic.Int64 // sent by all

	mu    sync.Mutex
	cut   map[[2]ident.NodeID]bool
	pipes []*pipe

	handling sync.WaitGroup
}

type member struct {
	*Service
	id   ident.NodeID
	stop context.CancelFunc
	done chan struct{}
}

// pipe is one end of an edge.
type pipe struct {
	net.Conn
	mesh     *mesh
	from, to ident.NodeID
	slow     *atomic.Int64 // nanoseconds each write takes
}

func (p *pipe) Remote() ident.NodeID { return p.to }

func (p *pipe) Write(b []byte) (int, error) {
	p.mesh.bytes.Add(int64(len(b)))
	if d := time.Duration(p.slow.Load()); d > 0 {
		time.Sleep(d)
	}
	return p.Conn.Write(b)
}

func newMesh(t *testing.T, n int) *mesh {
	m := &mesh{t: t, cut: make(map[[2]ident.NodeID]bool)}
	for i := range n {
		m.nodes = append(m.nodes, m.start(i, 1))
	}
	t.Cleanup(m.stop)
	return m
}

func (m *mesh) start(i int, boot uint64) *member {
	ctx, stop := context.WithCancel(context.Background())
	n := &member{id: id(i), stop: stop, done: make(chan struct{})}
	n.Service = New(Config{Self: n.id, Boot: boot, Open: func(ctx context.Context, to ident.NodeID) (Stream, error) {
		return m.open(n.id, to)
	}})
	go func() {
		defer close(n.done)
		if err := n.Run(ctx); err != nil {
			m.t.Error(err)
		}
	}()
	return n
}

// restart replaces node i by one that remembers nothing.
func (m *mesh) restart(i int, boot uint64) {
	m.kill(i)
	m.nodes[i] = m.start(i, boot)
}

func (m *mesh) kill(i int) {
	m.nodes[i].stop()
	<-m.nodes[i].done
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pipes {
		if p.from == id(i) || p.to == id(i) {
			p.Close()
		}
	}
}

func (m *mesh) stop() {
	for _, n := range m.nodes {
		n.stop()
	}
	for _, n := range m.nodes {
		<-n.done
	}
	m.handling.Wait() // every edge must end with its node
}

func (m *mesh) open(from, to ident.NodeID) (Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.nodes, func(n *member) bool { return n.id == to })
	if i < 0 || m.cut[[2]ident.NodeID{from, to}] {
		return nil, errors.New("unreachable")
	}
	a, b := net.Pipe()
	near := &pipe{Conn: a, mesh: m, from: from, to: to, slow: new(atomic.Int64)}
	far := &pipe{Conn: b, mesh: m, from: to, to: from, slow: new(atomic.Int64)}
	m.pipes = append(m.pipes, near, far)
	target := m.nodes[i]
	m.handling.Go(func() { target.Handle(context.Background(), far) })
	return near, nil
}

// sever breaks the edge between two nodes and keeps it broken; join undoes it.
func (m *mesh) sever(i, j int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[[2]ident.NodeID{id(i), id(j)}], m.cut[[2]ident.NodeID{id(j), id(i)}] = true, true
	for _, p := range m.pipes {
		if p.from == id(i) && p.to == id(j) || p.from == id(j) && p.to == id(i) {
			p.Close()
		}
	}
}

// slow makes each write of node i to node j take d.
func (m *mesh) slow(i, j int, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pipes {
		if p.from == id(i) && p.to == id(j) {
			p.slow.Store(int64(d))
		}
	}
}

func (m *mesh) join(i, j int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.cut, [2]ident.NodeID{id(i), id(j)})
	delete(m.cut, [2]ident.NodeID{id(j), id(i)})
}

// edges makes node e[0] keep an uplink to e[1].
func (m *mesh) edges(list ...[2]int) {
	up := make(map[int][]ident.NodeID)
	for _, e := range list {
		up[e[0]] = append(up[e[0]], id(e[1]))
	}
	for i, ids := range up {
		m.nodes[i].SetUplinks(ids)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func line(n int) (list [][2]int) {
	for i := 1; i < n; i++ {
		list = append(list, [2]int{i, i - 1})
	}
	return list
}

func tree(n, fanOut int) (list [][2]int) {
	for i := 1; i < n; i++ {
		list = append(list, [2]int{i, (i - 1) / fanOut})
	}
	return list
}

// clique joins the first n with each other.
func clique(n int) (list [][2]int) {
	for i := range n {
		for j := range i {
			list = append(list, [2]int{i, j})
		}
	}
	return list
}

func text(i, round int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"node":%d,"round":%d}`, i, round))
}

func (m *mesh) publish(round int) {
	for i, n := range m.nodes {
		if err := n.Publish(text(i, round)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// wantAll fails unless node i has everybody's report of this round.
func (m *mesh) wantAll(i, round int) {
	m.t.Helper()
	got := m.nodes[i].Reports()
	for j := range m.nodes {
		if r, ok := got[id(j)]; !ok || string(r.Data) != string(text(j, round)) {
			m.t.Fatalf("node %d has of node %d: %s, want round %d", i, j, r.Data, round)
		}
	}
	if len(got) != len(m.nodes) {
		m.t.Fatalf("node %d has %d reports, want %d", i, len(got), len(m.nodes))
	}
}

// inVirtualTime runs each test in a bubble: sleeping costs nothing there and
// waits for nobody's luck; every goroutine must end or the bubble fails.
func inVirtualTime(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestReportsReachWhoLooksOverAnyGraph(t *testing.T) {
	shapes := map[string]struct {
		n    int
		list [][2]int
	}{
		"alone":            {1, nil},
		"line":             {6, line(6)},
		"tree":             {40, tree(40, 3)},
		"triangle":         {3, clique(3)},
		"clique of five":   {5, clique(5)},
		"voters and trees": {30, append(clique(3), tree(30, 3)[2:]...)},
		"ring":             {8, append(line(8), [2]int{0, 7})},
		"both ways":        {4, append(line(4), [2]int{0, 1}, [2]int{2, 3})},
	}
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		list := tree(25, 4)
		for range 15 {
			list = append(list, [2]int{r.IntN(25), r.IntN(25)})
		}
		shapes[fmt.Sprint("random with loops, seed ", seed)] = struct {
			n    int
			list [][2]int
		}{25, list}
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T) {
				m := newMesh(t, shape.n)
				m.edges(shape.list...)
				m.publish(1)
				near, far := 0, shape.n-1
				defer m.nodes[near].Watch()()
				defer m.nodes[far].Watch()()
				after(6 * time.Second)
				m.wantAll(near, 1)
				m.wantAll(far, 1)
				m.publish(2)
				after(6 * time.Second)
				m.wantAll(near, 2)
				m.wantAll(far, 2)
			})
		})
	}
}

func TestEachReportCrossesEachPathOnce(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 5)
		m.edges(clique(5)...)
		for i := 1; i < 5; i++ { // so all hear from the viewer first
			for j := range i {
				m.slow(i, j, 20*time.Millisecond)
				m.slow(j, i, 20*time.Millisecond)
			}
			m.slow(0, i, 0)
		}
		defer m.nodes[0].Watch()()
		after(5 * time.Second)
		before := m.bytes.Load()
		const rounds = 100
		for round := range rounds {
			m.publish(round)
			after(time.Second)
		}
		// 4 reports a round, once each, plus 10 renewals over 10 edges both ways.
		perReport := float64(m.bytes.Load()-before) / (4 * rounds)
		if perReport > 200 {
			t.Fatalf("%.0f bytes a report: it travels more than once", perReport)
		}
		m.wantAll(0, rounds-1)
	})
}

func TestInterestIsNotSentBack(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 2)
		m.edges(line(2)...)
		defer m.nodes[0].Watch()()
		after(10*renewEvery - time.Second)
		if n := m.bytes.Load(); n == 0 || n > 10*130 {
			t.Fatalf("%d bytes for ten renewals over one edge", n)
		}
	})
}

func TestNothingIsSentWhileNobodyLooks(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 12)
		m.edges(append(clique(3), tree(12, 3)[2:]...)...)
		for round := range 300 {
			m.publish(round)
			after(2 * time.Second)
		}
		if n := m.bytes.Load(); n != 0 {
			t.Fatalf("%d bytes in ten minutes, want none", n)
		}
		release := m.nodes[11].Watch()
		after(6 * time.Second)
		m.wantAll(11, 299)
		release()
		release() // twice counts once
		m.publish(300)
		after(interestTTL + time.Second)
		quiet := m.bytes.Load()
		for round := range 100 {
			m.publish(301 + round)
			after(2 * time.Second)
		}
		if n := m.bytes.Load(); n != quiet {
			t.Fatalf("%d bytes after the last viewer has gone", n-quiet)
		}
	})
}

func TestInterestIsKnownEverywhereAndExpires(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 5)
		m.edges(line(5)...)
		signs := func() (n int) {
			for _, node := range m.nodes {
				select {
				case <-node.InterestChanged():
					n++
				default:
				}
			}
			return n
		}
		interested := func() (n int) {
			for _, node := range m.nodes {
				if node.Interested() {
					n++
				}
			}
			return n
		}
		release := m.nodes[0].Watch()
		after(3 * time.Second)
		if interested() != 5 || signs() != 5 {
			t.Fatalf("%d of 5 know", interested())
		}
		after(5 * time.Minute)
		if interested() != 5 || signs() != 0 {
			t.Fatalf("renewed for five minutes: %d of 5 know", interested())
		}
		second := m.nodes[0].Watch()
		release()
		after(time.Minute)
		if interested() != 5 {
			t.Fatal("one of two viewers still looks")
		}
		second()
		after(interestTTL - renewEvery - time.Second)
		if interested() != 4 {
			t.Fatalf("%d others know; they must not forget before the time", interested())
		}
		after(renewEvery + 2*time.Second)
		if interested() != 0 || signs() != 5 {
			t.Fatalf("%d of 5 still believe that somebody looks", interested())
		}
	})
}

func TestInterestOfADeadViewerExpiresThoughNeighboursRepeatIt(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 6)
		m.edges(append(clique(3), tree(6, 3)[2:]...)...)
		m.nodes[5].Watch()
		after(3 * time.Second)
		m.kill(5)
		// Edges come and go: each new one is told of the interest, with its age.
		for range 20 {
			m.sever(1, 0)
			m.sever(2, 1)
			after(500 * time.Millisecond)
			m.join(1, 0)
			m.join(2, 1)
			after(time.Second)
		}
		after(2 * time.Second)
		for i := range 5 {
			if m.nodes[i].Interested() {
				t.Fatalf("node %d keeps a dead viewer's interest alive", i)
			}
		}
	})
}

func TestAgesAddUpAndDoNotTrustClocks(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 4)
		m.edges([2]int{1, 0}, [2]int{2, 1})
		defer m.nodes[2].Watch()()
		after(3 * time.Second)
		m.nodes[0].Publish(text(0, 1))
		after(time.Second)
		m.kill(0)
		after(20 * time.Second) // held at 1 and 2
		m.edges([2]int{3, 2})
		defer m.nodes[3].Watch()()
		after(time.Second)
		r, ok := m.nodes[3].Reports()[id(0)]
		if !ok {
			t.Fatal("a new viewer is not given what is known")
		}
		if age := r.Age(); age < 22*time.Second || age > 24*time.Second {
			t.Fatalf("age %s, want about 23 s", age)
		}
		after(10 * time.Second)
		if grown := m.nodes[3].Reports()[id(0)].Age() - r.Age(); grown != 10*time.Second {
			t.Fatalf("grown by %s in 10 s", grown)
		}
		after(reportTTL)
		if _, ok := m.nodes[3].Reports()[id(0)]; ok {
			t.Fatal("a report of five minutes ago is still given")
		}
		for i := 1; i < 4; i++ {
			m.nodes[i].mu.Lock()
			if _, ok := m.nodes[i].state.reports[id(0)]; ok {
				t.Errorf("node %d remembers it", i)
			}
			m.nodes[i].mu.Unlock()
		}
		if _, ok := m.nodes[3].Reports()[id(3)]; ok {
			t.Error("a node that never published has a report")
		}
	})
}

func TestRestartedNodeReplacesItsFormerSelf(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 3)
		m.edges(line(3)...)
		defer m.nodes[0].Watch()()
		for round := range 50 {
			m.publish(round)
			after(time.Second)
		}
		m.restart(2, 2)
		m.edges([2]int{2, 1})
		m.nodes[2].Publish(text(2, 1000))
		after(12 * time.Second)
		r := m.nodes[0].Reports()[id(2)]
		if r.Boot != 2 || r.N != 1 || string(r.Data) != string(text(2, 1000)) {
			t.Fatalf("viewer has %+v", r)
		}
		// A straggler of the former life loses.
		m.nodes[1].mu.Lock()
		stale := Report{Node: id(2), Boot: 1, N: 9999, Data: text(2, 7)}
		news := m.nodes[1].state.hearReport(newEdge(&pipe{mesh: m}, true, func() {}), stale, time.Now())
		m.nodes[1].mu.Unlock()
		if news {
			t.Fatal("an older life won")
		}
	})
}

func TestRestartedViewerIsHeardAgain(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 4)
		m.edges(line(4)...)
		m.nodes[3].Watch()
		after(time.Minute) // its n is now above 1
		m.restart(3, 2)
		m.edges([2]int{3, 2})
		m.publish(1)
		defer m.nodes[3].Watch()()
		after(4 * time.Second)
		m.wantAll(3, 1)
	})
}

func TestBrokenPathFarFromTheViewerIsReplacedAtOnce(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 5)
		// 4 has two ways to 1, and 1 one to the viewer.
		m.edges([2]int{1, 0}, [2]int{2, 1}, [2]int{3, 1}, [2]int{4, 2}, [2]int{4, 3})
		m.slow(4, 2, 20*time.Millisecond) // so 2 and 3 hear from 1 first
		m.slow(4, 3, 20*time.Millisecond)
		defer m.nodes[0].Watch()()
		after(3 * time.Second)
		m.publish(1)
		after(2 * time.Second)
		m.wantAll(0, 1)
		m.nodes[4].mu.Lock()
		path := m.nodes[4].state.interests[id(0)].path.remote
		m.nodes[4].mu.Unlock()
		if path == id(2) {
			m.kill(2)
		} else {
			m.kill(3)
		}
		m.publish(2)
		after(time.Second) // less than a renewal
		if got := m.nodes[0].Reports()[id(4)]; string(got.Data) != string(text(4, 2)) {
			t.Fatalf("viewer has %s", got.Data)
		}
	})
}

func TestBrokenPathAtTheViewerIsReplacedAtOnce(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 4)
		m.edges([2]int{1, 0}, [2]int{2, 0}, [2]int{2, 1}, [2]int{3, 2})
		m.slow(0, 1, 20*time.Millisecond) // so 1 has its path over 2
		defer m.nodes[0].Watch()()
		after(3 * time.Second)
		m.sever(2, 0)
		m.publish(2)
		after(time.Second) // less than a renewal
		m.wantAll(0, 2)
		m.join(2, 0)
		m.sever(2, 1)
		after(interestTTL)
		m.publish(3)
		after(2 * time.Second)
		m.wantAll(0, 3)
	})
}

func TestViewerThatMovesIsFoundAtOnce(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 6)
		m.edges([2]int{1, 0}, [2]int{2, 0}, [2]int{3, 1}, [2]int{4, 2}, [2]int{5, 3})
		defer m.nodes[5].Watch()()
		after(4 * time.Second)
		m.publish(1)
		after(renewEvery - 3*time.Second)
		m.wantAll(5, 1) // just after a renewal; the next one is far
		m.nodes[5].SetUplinks([]ident.NodeID{id(4)})
		after(2 * time.Second)
		m.publish(2)
		after(3 * time.Second)
		m.wantAll(5, 2)
	})
}

func TestSlowEdgeGetsTheLatest(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 3)
		m.edges(line(3)...)
		defer m.nodes[0].Watch()()
		after(3 * time.Second)
		m.slow(1, 0, 5*time.Second)
		before := m.bytes.Load()
		const rounds = 600
		for round := range rounds {
			m.publish(round)
			after(100 * time.Millisecond)
		}
		after(15 * time.Second)
		m.wantAll(0, rounds-1)
		// In a minute the slow edge takes about 12 frames; the other about 240.
		if n := m.bytes.Load() - before; n > 260*400 {
			t.Fatalf("%d bytes: the slow edge was sent old news", n)
		}
	})
}

func TestAnEdgeThatTakesNothingIsGivenUp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 1)
		near, far := net.Pipe() // nobody reads far
		defer far.Close()
		gone := make(chan struct{})
		go func() {
			m.nodes[0].Handle(t.Context(), &pipe{Conn: near, mesh: m, to: id(9), slow: new(atomic.Int64)})
			close(gone)
		}()
		defer m.nodes[0].Watch()()
		after(writeTimeout + time.Second)
		select {
		case <-gone:
		default:
			t.Fatal("the edge is still kept")
		}
	})
}

func TestFramesAreSpacedAndBatched(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 1)
		near, far := net.Pipe()
		go m.nodes[0].Handle(t.Context(), &pipe{Conn: near, mesh: m, to: id(9), slow: new(atomic.Int64)})
		frames := make(chan frame, 1000)
		go func() {
			defer close(frames)
			for {
				f, err := readFrame(far)
				if err != nil {
					return
				}
				frames <- f
			}
		}()
		if err := writeFrame(far, frame{Interests: []inquiry{{Origin: id(9), Boot: 1, N: 1}}}); err != nil {
			t.Fatal(err)
		}
		for round := range 200 { // ten seconds
			m.publish(round)
			after(50 * time.Millisecond)
		}
		far.Close()
		n := 0
		for range frames {
			n++
		}
		if n < 30 || n > 41 {
			t.Fatalf("%d frames in 10 s, want at most 4 a second", n)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Now()
	st := newState(id(-1), 1)
	e, out := newEdge(&pipe{}, true, func() {}), newEdge(&pipe{}, true, func() {})
	st.attach(e, now)
	st.attach(out, now)
	for i := range originsMax + 500 {
		st.hearInterest(out, inquiry{Origin: id(i), Boot: 1, N: 1}, now)
	}
	for i := range reportsMax + 500 {
		st.hearReport(e, Report{Node: id(i), Boot: 1, N: 1, Data: text(i, 1)}, now.Add(time.Duration(i)))
	}
	st.say(text(-1, 1), now)
	if len(st.interests) != originsMax || len(st.reports) != reportsMax {
		t.Fatalf("%d interests, %d reports", len(st.interests), len(st.reports))
	}
	if st.reports[id(0)] != nil || st.reports[id(reportsMax+499)] == nil || st.reports[id(-1)] == nil {
		t.Fatal("the stalest must give way to the newest")
	}
	if len(e.sent) > reportsMax || len(out.sent) > reportsMax || len(out.queued) != len(out.queue) {
		t.Fatalf("edges: %d, %d, %d of %d queued", len(e.sent), len(out.sent), len(out.queued), len(out.queue))
	}
	total := 0
	for more := true; more; {
		var f frame
		f, more = st.collect(out, now)
		var b bytes.Buffer
		if err := writeFrame(&b, f); err != nil {
			t.Fatal(err)
		}
		got, err := readFrame(&b)
		if err != nil {
			t.Fatal(err)
		}
		total += len(got.Reports)
	}
	if total != reportsMax {
		t.Fatalf("%d reports offered, want %d", total, reportsMax)
	}
	// After their time nothing of all this is left but the own report.
	st.tick(now.Add(interestTTL + 2*reportTTL))
	if len(st.interests) != 0 || len(st.reports) != 1 || len(out.sent) > 1 || len(out.queue) != 0 {
		t.Fatalf("left: %d interests, %d reports, %d sent", len(st.interests), len(st.reports), len(out.sent))
	}
}

func TestALateCopyRevivesNoInterest(t *testing.T) {
	now := time.Now()
	st := newState(id(0), 1)
	e := newEdge(&pipe{}, true, func() {})
	st.attach(e, now)
	st.hearInterest(e, inquiry{Origin: id(1), Boot: 1, N: 5}, now)
	late := now.Add(interestTTL + time.Second)
	st.tick(late)
	for _, q := range []inquiry{{Origin: id(1), Boot: 1, N: 5}, {Origin: id(1), Boot: 1, N: 4}, {Origin: id(1), Boot: 1, N: 6, AgeMillis: 30000}} {
		st.hearInterest(e, q, late)
		if st.interested(late) || e.leads != 0 {
			t.Fatalf("revived by %+v", q)
		}
	}
	st.hearInterest(e, inquiry{Origin: id(1), Boot: 1, N: 6, AgeMillis: 29000}, late)
	if !st.interested(late) || st.interested(late.Add(time.Second)) {
		t.Fatal("a renewal counts from when the origin sent it")
	}
}

func TestOwnNewsFromOthersIsIgnored(t *testing.T) {
	now := time.Now()
	st := newState(id(0), 7)
	e := newEdge(&pipe{}, true, func() {})
	st.attach(e, now)
	st.hearInterest(e, inquiry{Origin: id(0), Boot: 99, N: 5}, now)
	if st.hearReport(e, Report{Node: id(0), Boot: 99, N: 9, Data: text(0, 0)}, now) || st.interested(now) || len(st.reports) != 0 {
		t.Fatal("others said something about this node and it was believed")
	}
}

func TestPublishRefusesWhatDoesNotFit(t *testing.T) {
	s := New(Config{Self: id(0), Boot: 1})
	for _, bad := range []string{"", "{", "x", `"` + strings.Repeat("x", DataMax) + `"`} {
		if err := s.Publish(json.RawMessage(bad)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	if len(s.Reports()) != 0 {
		t.Fatal("a refused report is kept")
	}
}

func TestLargestReportsFitAFrameWhateverTheyContain(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 2)
		m.edges(line(2)...)
		defer m.nodes[0].Watch()()
		after(time.Second)
		nasty := json.RawMessage(`"` + strings.Repeat("<", DataMax-2) + `"`)
		if err := m.nodes[1].Publish(nasty); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if got := m.nodes[0].Reports()[id(1)].Data; string(got) != string(nasty) {
			t.Fatalf("arrived with %d bytes", len(got))
		}
	})
}

func TestBadFramesEndTheEdge(t *testing.T) {
	interest := func(q inquiry) []byte { return frameBytes(frame{Interests: []inquiry{q}}) }
	report := func(r Report) []byte { return frameBytes(frame{Reports: []Report{r}}) }
	for name, payload := range map[string][]byte{
		"garbage":          []byte("GET / HTTP/1.1\r\n\r\n"),
		"2 GiB announced":  {0x7f, 0xff, 0xff, 0xff},
		"not JSON":         {0, 0, 0, 1, '{'},
		"origin no id":     interest(inquiry{Origin: "x"}),
		"negative age":     interest(inquiry{Origin: id(1), AgeMillis: -1}),
		"node no id":       report(Report{Node: "../..", Data: text(0, 0)}),
		"report too large": report(Report{Node: id(1), Data: json.RawMessage(`"` + strings.Repeat("x", DataMax) + `"`)}),
		"report of future": report(Report{Node: id(1), AgeMillis: -5, Data: text(0, 0)}),
		"report empty":     []byte("\x00\x00\x00\x2d" + `{"reports":[{"node":"` + string(id(1)) + `"}]}`)[:4+0x2d],
		"too many":         frameBytes(frame{Interests: make([]inquiry, frameInterests+1)}),
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T) {
				m := newMesh(t, 1)
				near, far := net.Pipe()
				gone := make(chan struct{})
				go func() {
					m.nodes[0].Handle(t.Context(), &pipe{Conn: near, mesh: m, to: id(9), slow: new(atomic.Int64)})
					close(gone)
				}()
				far.SetDeadline(time.Now().Add(time.Second))
				far.Write(payload)
				after(time.Second)
				select {
				case <-gone:
				default:
					t.Fatal("the edge lives on")
				}
				if len(m.nodes[0].Reports()) != 0 || m.nodes[0].Interested() {
					t.Fatal("it was believed")
				}
			})
		})
	}
}

func frameBytes(f frame) []byte {
	var b bytes.Buffer
	if err := writeFrame(&b, f); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestAcceptedEdgesAreBoundedAndReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 1)
		var far []net.Conn
		dial := func(i int) net.Conn {
			a, b := net.Pipe()
			go m.nodes[0].Handle(t.Context(), &pipe{Conn: a, mesh: m, to: id(i), slow: new(atomic.Int64)})
			far = append(far, b)
			synctest.Wait()
			return b
		}
		ended := func(c net.Conn) bool {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			return err == io.EOF
		}
		for i := range acceptedMax {
			if ended(dial(100 + i)) {
				t.Fatalf("edge %d refused", i)
			}
		}
		if !ended(dial(999)) {
			t.Fatal("one more than the cap was accepted")
		}
		if ended(dial(100)) {
			t.Fatal("a neighbour that starts anew was refused")
		}
		if !ended(far[0]) {
			t.Fatal("its former edge lives on")
		}
		for _, c := range far {
			c.Close()
		}
	})
}

func TestUplinksAreKeptAndDropped(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 3)
		m.sever(1, 0)
		m.edges([2]int{1, 0})
		edgeCount := func(i int) int {
			m.nodes[i].mu.Lock()
			defer m.nodes[i].mu.Unlock()
			return len(m.nodes[i].state.edges)
		}
		after(time.Hour)
		m.join(1, 0)
		after(retryMax + time.Second)
		if edgeCount(0) != 1 || edgeCount(1) != 1 {
			t.Fatalf("not reconnected after an hour: %d, %d", edgeCount(0), edgeCount(1))
		}
		m.nodes[1].SetUplinks([]ident.NodeID{id(1), id(2), id(2)})
		after(time.Second)
		if edgeCount(0) != 0 || edgeCount(1) != 1 || edgeCount(2) != 1 {
			t.Fatalf("after the move: %d, %d, %d", edgeCount(0), edgeCount(1), edgeCount(2))
		}
		many := make([]ident.NodeID, 100)
		for i := range many {
			many[i] = id(1000 + i)
		}
		m.nodes[1].SetUplinks(many)
		m.nodes[1].mu.Lock()
		kept := len(m.nodes[1].wanted)
		m.nodes[1].mu.Unlock()
		if kept != uplinksMax {
			t.Fatalf("%d uplinks kept", kept)
		}
	})
}

func TestAttemptsBackOff(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		var tries atomic.Int64
		s := New(Config{Self: id(0), Boot: 1, Open: func(ctx context.Context, _ ident.NodeID) (Stream, error) {
			tries.Add(1)
			<-ctx.Done() // the worst kind: it takes its whole time
			return nil, ctx.Err()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		s.SetUplinks([]ident.NodeID{id(1)})
		after(time.Hour)
		if n := tries.Load(); n < 80 || n > 180 {
			t.Fatalf("%d attempts in an hour", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestHandleAfterTheEndReturns(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 1)
		m.nodes[0].stop()
		<-m.nodes[0].done
		near, far := net.Pipe()
		m.nodes[0].Handle(context.Background(), &pipe{Conn: near, mesh: m, to: id(9), slow: new(atomic.Int64)})
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("got %v", err)
		}
	})
}

func TestChangedSignsNews(t *testing.T) {
	inVirtualTime(t, func(t *testing.T) {
		m := newMesh(t, 2)
		m.edges(line(2)...)
		defer m.nodes[0].Watch()()
		after(time.Second)
		m.nodes[1].Publish(text(1, 1))
		after(time.Second)
		select {
		case <-m.nodes[0].Changed():
		default:
			t.Fatal("no sign")
		}
		after(time.Minute)
		select {
		case <-m.nodes[0].Changed():
			t.Fatal("a sign without news")
		default:
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(frameBytes(frame{}))
	f.Add(frameBytes(frame{Interests: []inquiry{{id(1), 1, 2, 3}, {id(1), 1, 2, 3}, {id(0), 1, 9, 0}}}))
	f.Add(frameBytes(frame{
		Interests: []inquiry{{id(2), 1 << 63, 1 << 63, 29999}},
		Reports:   []Report{{id(1), 1, 2, 3, text(1, 1)}, {id(0), 9, 9, 0, text(0, 1)}, {id(1), 1, 1, 1 << 62, text(1, 0)}},
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		now := time.Now()
		st := newState(id(0), 1)
		e, other := newEdge(&pipe{}, true, func() {}), newEdge(&pipe{}, true, func() {})
		st.attach(e, now)
		st.attach(other, now)
		for range 2 { // a repetition must not change anything
			for _, q := range got.Interests {
				st.hearInterest(e, q, now)
			}
			for _, p := range got.Reports {
				st.hearReport(e, p, now)
			}
		}
		st.hearInterest(other, inquiry{Origin: id(3), Boot: 1, N: 1}, now)
		for more := true; more; {
			var out frame
			out, more = st.collect(other, now)
			if err := writeFrame(io.Discard, out); err != nil {
				t.Fatalf("what was taken in cannot be passed on: %v", err)
			}
		}
		if e.leads < 0 || other.leads != 1 || len(st.reports) > len(got.Reports) {
			t.Fatalf("leads %d, %d; %d reports", e.leads, other.leads, len(st.reports))
		}
		st.detach(e, now)
		st.detach(other, now)
		if e.leads != 0 || other.leads != 0 {
			t.Fatalf("leads after the end: %d, %d", e.leads, other.leads)
		}
	})
}
