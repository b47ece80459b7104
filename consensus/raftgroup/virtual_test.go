package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// The tests of this file run real groups with real replicas on real files in
// virtual time: minutes of faults take seconds.

// pipes is a net of streams in memory: with delay, with cuts that swallow what is
// written, and with streams that break.
type pipes struct {
	mu    sync.Mutex
	rand  *rand.Rand
	nodes map[ident.NodeID]*virtual
	cut   map[[2]ident.NodeID]bool
	conns map[*pipeEnd]struct{}
	// breaks is one in how many writes breaks its stream; 0 is none.
	breaks int
}

type pipeEnd struct {
	net.Conn
	net      *pipes
	from, to ident.NodeID
	lost     atomic.Bool
}

func (p *pipes) Open(ctx context.Context, from, to ident.NodeID) (net.Conn, error) {
	p.mu.Lock()
	node, cut := p.nodes[to], p.cut[[2]ident.NodeID{from, to}]
	p.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if node == nil {
		return nil, errors.New("nobody is there")
	}
	a, b := net.Pipe()
	near, far := &pipeEnd{Conn: a, net: p, from: from, to: to}, &pipeEnd{Conn: b, net: p, from: to, to: from}
	p.mu.Lock()
	p.conns[near], p.conns[far] = struct{}{}, struct{}{}
	p.mu.Unlock()
	go node.group.Handle(node.ctx, far, from)
	return near, nil
}

// maxDelay is how long a write takes at most, in virtual time.
const maxDelay = 4 * time.Millisecond

func (e *pipeEnd) Write(b []byte) (int, error) {
	e.net.mu.Lock()
	cut := e.net.cut[[2]ident.NodeID{e.from, e.to}]
	breaks := e.net.breaks > 0 && e.net.rand.IntN(e.net.breaks) == 0
	delay := time.Duration(e.net.rand.Int64N(int64(maxDelay)))
	e.net.mu.Unlock()
	if cut {
		e.lost.Store(true)
		return len(b), nil
	}
	if breaks {
		e.Conn.Close()
		return 0, net.ErrClosed
	}
	time.Sleep(delay)
	return e.Conn.Write(b)
}

func (e *pipeEnd) Close() error {
	e.net.mu.Lock()
	delete(e.net.conns, e)
	e.net.mu.Unlock()
	return e.Conn.Close()
}

// breakOneIn makes one in n writes break its stream.
func (p *pipes) breakOneIn(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breaks = n
}

// heal ends every cut. Streams that lost bytes break.
func (p *pipes) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.cut)
	for c := range p.conns {
		if c.lost.Load() {
			c.Conn.Close()
		}
	}
}

// isolate cuts a node off, or only what it sends, or only what it is sent.
func (p *pipes) isolate(id ident.NodeID, out, in bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for other := range p.nodes {
		p.cut[[2]ident.NodeID{id, other}], p.cut[[2]ident.NodeID{other, id}] = out, in
	}
}

// breakAll breaks the streams of a node.
func (p *pipes) breakAll(id ident.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.from == id || c.to == id {
			c.Conn.Close()
		}
	}
}

// virtual is a voter in virtual time.
type virtual struct {
	id      ident.NodeID
	group   *Group
	replica *replica.Replica
	ctx     context.Context
	stop    context.CancelCauseFunc
	ended   chan error
}

// hashed compares the state after every entry with that of the others.
type hashed struct {
	*replica.Replica
	world *world
}

func (h hashed) ApplyEntry(index, term uint64, data []byte) ([]replica.Outcome, error) {
	out, err := h.Replica.ApplyEntry(index, term, data)
	if err == nil {
		h.ViewAt(func(s *fleet.State, c event.Cursor) { h.world.sawState(c, s.Hash()) })
	}
	return out, err
}

type world struct {
	t    *testing.T
	dir  string
	kind raftlog.Kind
	keep Compaction
	net  *pipes
	skew map[ident.NodeID]*atomic.Int64

	mu     sync.Mutex
	states map[uint64]string
	// acked is where the events of a proposal are.
	acked map[event.Producer]replica.Outcome
	// terms are all in which somebody led.
	terms map[uint64]ident.NodeID
}

func newWorld(t *testing.T, dir string, kind raftlog.Kind, seed uint64) *world {
	w := &world{t: t, dir: dir, kind: kind, keep: Compaction{Every: 30 * time.Second, Entries: 100, Keep: 20}, states: map[uint64]string{}, acked: map[event.Producer]replica.Outcome{},
		terms: map[uint64]ident.NodeID{}, skew: map[ident.NodeID]*atomic.Int64{},
		net: &pipes{rand: rand.New(rand.NewPCG(seed, 1)), nodes: map[ident.NodeID]*virtual{}, cut: map[[2]ident.NodeID]bool{}, conns: map[*pipeEnd]struct{}{}}}
	for i := range 3 {
		w.skew[fleettest.Node(i)] = &atomic.Int64{}
	}
	return w
}

func (w *world) sawState(c event.Cursor, hash string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := c.Hash + " " + hash
	if was, ok := w.states[c.Seq]; ok && was != text {
		w.t.Errorf("two states after event %d: %s and %s", c.Seq, was, text)
	}
	w.states[c.Seq] = text
}

func (w *world) path(id ident.NodeID, what string) string {
	return filepath.Join(w.dir, string(id), what)
}

type linkOf struct {
	net *pipes
	id  ident.NodeID
}

func (l linkOf) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	return l.net.Open(ctx, l.id, id)
}

// start opens and runs node i.
func (w *world) start(i int) *virtual {
	id := fleettest.Node(i)
	r, err := replica.Open(w.path(id, "log"), replica.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	v := &virtual{id: id, replica: r, ended: make(chan error, 1)}
	v.group, err = New(Config{ID: id, Dir: w.path(id, "raft"), Store: w.kind, Link: linkOf{w.net, id}, Machine: hashed{r, w}, Joining: true,
		Compaction: w.keep, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(w.skew[id].Load())) }})
	if err != nil {
		w.t.Fatal(err)
	}
	v.ctx, v.stop = context.WithCancelCause(context.Background())
	go func() { v.ended <- v.group.Run(v.ctx) }()
	go v.watchTerms(w)
	w.net.mu.Lock()
	w.net.nodes[id] = v
	w.net.mu.Unlock()
	return v
}

// watchTerms notes who leads, and that nobody else does in the same term.
func (v *virtual) watchTerms(w *world) {
	for v.ctx.Err() == nil {
		changed := v.group.Changed()
		if term, leading := v.group.Leading(); leading {
			w.mu.Lock()
			if was, ok := w.terms[term]; ok && was != v.id {
				w.t.Errorf("two leaders in term %d", term)
			}
			w.terms[term] = v.id
			w.mu.Unlock()
		}
		select {
		case <-changed:
		case <-v.ctx.Done():
		}
	}
}

func (w *world) kill(v *virtual) {
	w.net.mu.Lock()
	delete(w.net.nodes, v.id)
	w.net.mu.Unlock()
	w.net.breakAll(v.id)
	v.stop(errKilled)
	if err := <-v.ended; err != nil {
		w.t.Errorf("end of %s: %v", v.id, err)
	}
	if err := v.replica.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) live() (all []*virtual) {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	for i := range 3 {
		if v := w.net.nodes[fleettest.Node(i)]; v != nil {
			all = append(all, v)
		}
	}
	return all
}

// decide proposes a batch to everybody until it is decided. It counts once.
func (w *world) decide(ctx context.Context, b event.Batch) (replica.Outcome, bool) {
	for ctx.Err() == nil {
		for _, v := range w.live() {
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			out, err := v.group.Submit(try, b)
			cancel()
			if err == nil {
				return out, true
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return replica.Outcome{}, false
}

// found makes the fleet and its three voters.
func (w *world) found() {
	if err := Bootstrap(w.path(fleettest.Node(0), "raft"), fleettest.Node(0), w.kind); err != nil {
		w.t.Fatal(err)
	}
	for i := range 3 {
		w.start(i)
	}
	if _, ok := w.decide(w.t.Context(), fleettest.Genesis()); !ok {
		w.t.Fatal("no fleet")
	}
	lead := w.live()[0]
	for i := 1; i < 3; i++ {
		if err := lead.group.AddVoter(w.t.Context(), fleettest.Node(i)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// write decides random batches until ctx ends.
func (w *world) write(ctx context.Context, seed uint64, pause time.Duration) {
	r := rand.New(rand.NewPCG(seed, 2))
	run := fleettest.NewLevel1(r.IntN)
	for n := uint64(1); ctx.Err() == nil; n++ {
		b := run.Next()
		b.Producer = event.Producer{Node: fleettest.Node(0), Boot: 1, N: n}
		if out, ok := w.decide(ctx, b); ok && out.Err == nil {
			w.mu.Lock()
			w.acked[b.Producer] = out
			w.mu.Unlock()
		}
		time.Sleep(pause)
	}
}

// disturb makes one fault and takes it back after a while.
func (w *world) disturb(r *rand.Rand) {
	all := w.live()
	v := all[r.IntN(len(all))]
	switch r.IntN(6) {
	case 0, 1:
		w.net.isolate(v.id, true, true)
	case 2:
		w.net.isolate(v.id, true, false)
	case 3:
		w.net.isolate(v.id, false, true)
	case 4:
		w.kill(v)
	case 5:
		w.skew[v.id].Store(int64(time.Duration(r.IntN(3)-1) * time.Hour))
	}
	time.Sleep(time.Duration(r.IntN(8000)) * time.Millisecond)
	w.net.heal()
	for i := range 3 {
		if !slices.ContainsFunc(w.live(), func(v *virtual) bool { return v.id == fleettest.Node(i) }) {
			w.start(i)
		}
	}
	time.Sleep(time.Duration(r.IntN(6000)) * time.Millisecond)
}

// settle waits until all nodes have the same, and looks for what was acknowledged.
func (w *world) settle() {
	deadline := time.Now().Add(30 * time.Second)
	for {
		all := w.live()
		a, b, c := all[0].replica.Cursor(), all[1].replica.Cursor(), all[2].replica.Cursor()
		if a == b && b == c {
			break
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("30 s after the last fault the copies are at %d, %d, %d", a.Seq, b.Seq, c.Seq)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, v := range w.live() {
		w.check(v)
	}
}

// check reads the whole history of a node.
func (w *world) check(v *virtual) {
	where := map[event.Producer]replica.Outcome{}
	for since := uint64(0); ; {
		events, err := v.replica.Events(w.t.Context(), since, replica.Filter{}, 1000)
		if errors.Is(err, replica.ErrCompacted) {
			return // it was sent the state; its chain says that the rest is the same
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			since = e.Seq
			if e.Producer == (event.Producer{}) {
				continue
			}
			at, seen := where[e.Producer]
			if !seen {
				at.First = e.Seq
			} else if at.Last+1 != e.Seq {
				w.t.Errorf("proposal %v was decided twice: events up to %d, and %d", e.Producer, at.Last, e.Seq)
			}
			at.Last = e.Seq
			where[e.Producer] = at
		}
	}
	for p, out := range w.acked {
		if where[p] != out {
			w.t.Errorf("%s: proposal %v was acknowledged as %+v and is %+v", v.id, p, out, where[p])
		}
	}
}

func (w *world) end() {
	for _, v := range w.live() {
		w.kill(v)
	}
	time.Sleep(maxDelay) // raft does not wait for answers that it is writing
}

// soaks is n runs, or many with SKEIN_SOAK=1.
func soaks(n, many int) int {
	if os.Getenv("SKEIN_SOAK") != "" {
		return many
	}
	return n
}

// TestVirtualMinutesOfFaults: cuts, kills, breaking streams and clocks that jump
// by an hour, in virtual time; in the end all have the same, what was acknowledged
// is there once, and at no event had two nodes different states.
func TestVirtualMinutesOfFaults(t *testing.T) {
	t.Parallel()
	for seed := range soaks(2, 40) {
		kind := []raftlog.Kind{raftlog.Bolt, raftlog.WAL}[seed%2]
		t.Run(fmt.Sprintf("%s/%d", kind, seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, dir, kind, uint64(seed))
				defer w.end()
				w.found()
				w.net.breakOneIn(500)
				ctx, stop := context.WithCancel(t.Context())
				var writing sync.WaitGroup
				writing.Go(func() { w.write(ctx, uint64(seed), time.Second) })
				r := rand.New(rand.NewPCG(uint64(seed), 3))
				for began := time.Now(); time.Since(began) < 12*time.Minute && !t.Failed(); {
					w.disturb(r)
				}
				w.net.breakOneIn(0)
				stop()
				writing.Wait()
				w.settle()
				t.Logf("%d proposals accepted, %d terms", len(w.acked), len(w.terms))
				if len(w.acked) < 100 {
					t.Errorf("only %d proposals were accepted in 12 minutes", len(w.acked))
				}
			})
		})
	}
}

// TestVirtualHourOfWrongClocks: the wall clocks jump by an hour all the time, the
// leader's too. Nobody stands for election because of that, and the lease of reads
// is there again with the next round.
func TestVirtualHourOfWrongClocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, raftlog.Bolt, 1)
		defer w.end()
		w.found()
		lead := w.live()[0]
		term := lead.group.Status().Term
		ctx, stop := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		writing.Go(func() { w.write(ctx, 1, 10*time.Second) })
		r := rand.New(rand.NewPCG(1, 3))
		for range 360 {
			w.skew[fleettest.Node(r.IntN(3))].Store(int64(time.Duration(r.IntN(3)-1) * time.Hour))
			time.Sleep(10 * time.Second)
			if err := lead.group.VerifyLeader(t.Context()); err != nil || !lead.group.Leased() {
				t.Fatalf("no lease: %v", err)
			}
		}
		stop()
		writing.Wait()
		w.settle()
		for _, v := range w.live() {
			if s := v.group.Status(); s.Term != term || s.Leader != lead.id {
				t.Errorf("%s has term %d, leader %s; was %d, %s", v.id, s.Term, s.Leader, term, lead.id)
			}
		}
		var last time.Time
		events, err := lead.replica.Events(t.Context(), 0, replica.Filter{}, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Time.Before(last) {
				t.Fatalf("event %d is from %s, the one before from %s", e.Seq, e.Time, last)
			}
			last = e.Time
		}
	})
}

// TestVirtualLaggardCatchesUp on an idle log: raft on its own would give it 16
// entries each CommitTimeout.
func TestVirtualLaggardCatchesUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, raftlog.WAL, 1)
		w.keep = Compaction{Every: time.Hour, Entries: 1 << 20, Keep: 1 << 20}
		defer w.end()
		w.found()
		away := w.live()[2]
		for round := range 6 {
			w.kill(away)
			for range 100 {
				if _, err := w.live()[0].group.Submit(t.Context(), event.Batch{Actor: fleettest.Leader(fleettest.Node(0)),
					Drafts: []event.Draft{event.GossipKeyRotated{Epoch: 1}.Draft()}}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(round) * 7 * time.Millisecond) // any phase of raft's own pauses
			}
			away = w.start(2)
			back := time.Now()
			want := w.live()[0].group.Status().LastIndex
			for away.group.Status().Applied < want {
				time.Sleep(10 * time.Millisecond)
				if took := time.Since(back); took > 10*time.Second {
					t.Fatalf("round %d: after %s it has %d of %d entries", round, took, away.group.Status().Applied, want)
				}
			}
		}
	})
}
