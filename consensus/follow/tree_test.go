package follow

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quickTimes are the shipped times, about twenty times faster.
var quickTimes = times{
	mark: 200 * time.Millisecond, tick: 250 * time.Millisecond,
	silence: 700 * time.Millisecond, keepAlive: 500 * time.Millisecond, childSilence: 2 * time.Second,
	stall: 500 * time.Millisecond, open: 500 * time.Millisecond,
	stale: time.Second, search: 500 * time.Millisecond,
	retryLow: 10 * time.Millisecond, retryHigh: 100 * time.Millisecond,
}

// position is a Standing that the test sets.
type position struct {
	mu      sync.Mutex
	now     Standing
	changed chan struct{}
}

func (p *position) get() Standing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *position) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *position) set(s Standing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// peer is one node of a test.
type peer struct {
	*Service
	id    ident.NodeID
	copy  *replica.Replica
	host  *testnet.Host
	place *position
	stop  context.CancelFunc
	ended chan error

	mu   sync.Mutex
	whom []Candidate
}

func (p *peer) candidates() []Candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.whom)
}

// follows changes whom the peer may follow.
func (p *peer) follows(whom ...*peer) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whom = nil
	for _, w := range whom {
		p.whom = append(p.whom, Candidate{ID: w.id, Voter: w.place.get().Leader != ""})
	}
	return p
}

// kill ends the peer as a power cut does.
func (p *peer) kill() {
	p.host.Kill()
	p.stop()
	<-p.ended
}

type forest struct {
	tb   testing.TB
	net  *testnet.Net
	root string
	now  times
	conf func(*Config)

	run   *fleettest.Run
	index uint64
}

func newForest(tb testing.TB) *forest {
	seed := 0
	return &forest{tb: tb, net: testnet.New(), root: tb.TempDir(), now: quickTimes,
		run: fleettest.New(func(n int) int { seed = (seed*1103515245 + 12345) & 0x7fffffff; return seed / 65536 % n })}
}

func testLog(tb testing.TB) *slog.Logger {
	if os.Getenv("SKEIN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// peer starts node i; it follows nobody yet.
func (f *forest) peer(i int) *peer {
	f.tb.Helper()
	id := testnet.ID(i)
	copy, err := replica.Open(filepath.Join(f.root, string(id)), replica.Options{})
	if err != nil {
		f.tb.Fatal(err)
	}
	host, err := f.net.Start(id)
	if err != nil {
		f.tb.Fatal(err)
	}
	p := &peer{id: id, copy: copy, host: host, place: &position{changed: make(chan struct{})}, ended: make(chan error, 1)}
	cfg := Config{Self: id, Link: host.Link("follow"), Source: copy, Sink: copy, Standing: p.place.get, StandingChanged: p.place.next,
		Candidates: p.candidates, Log: testLog(f.tb).With("self", id[22:])}
	if f.conf != nil {
		f.conf(&cfg)
	}
	p.Service = New(cfg)
	p.Service.times = f.now
	host.Handle("follow", p.Handle)
	return p
}

// start runs a peer until the test ends.
func (f *forest) start(p *peer) *peer {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() { p.ended <- p.Run(ctx) }()
	f.tb.Cleanup(func() {
		p.host.Kill()
		stop()
		select {
		case err := <-p.ended:
			if err != nil {
				f.tb.Errorf("%s ended: %v", p.id, err)
			}
		default:
			// killed before, or on its way
		}
		p.copy.Close()
	})
	return p
}

// leader starts node i as the leader of term.
func (f *forest) leader(i int, term uint64) *peer {
	p := f.peer(i)
	p.leads(term)
	f.decide(p, fleettest.Genesis())
	return f.start(p)
}

func (p *peer) leads(term uint64) {
	p.place.set(Standing{Fed: true, Leader: p.id, Term: term, Voters: []ident.NodeID{p.id}})
}

// decide applies batches on the peers, as Raft does.
func (f *forest) decide(p *peer, batches ...event.Batch) {
	f.tb.Helper()
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: 1_700_000_000_000, Batches: batches})
	if err != nil {
		f.tb.Fatal(err)
	}
	f.index++
	if _, err := p.copy.ApplyEntry(f.index, 1, data); err != nil {
		f.tb.Fatal(err)
	}
}

// decideMany makes the leader's log longer by at least n events.
func (f *forest) decideMany(p *peer, n int) {
	f.tb.Helper()
	for until := p.copy.Cursor().Seq + uint64(n); p.copy.Cursor().Seq < until; {
		f.decide(p, f.run.Next())
		f.decide(p, admit(int(f.index)))
	}
}

// admit is a batch that is always accepted: a group with a new name.
func admit(i int) event.Batch {
	return event.Batch{Producer: event.Producer{Node: fleettest.Node(0), Boot: 77, N: uint64(i) + 1}, Actor: fleettest.Admin("ada"),
		Drafts: []event.Draft{event.GroupCreated{Description: "d"}.Draft(fmt.Sprintf("g%d", i))}}
}

func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// same waits until all peers hold the same log and state.
func same(tb testing.TB, first *peer, others ...*peer) {
	tb.Helper()
	for _, p := range others {
		until(tb, fmt.Sprintf("%s at %d of %d", p.id[22:], p.copy.Cursor().Seq, first.copy.Cursor().Seq), func() bool {
			return p.copy.Cursor() == first.copy.Cursor()
		})
		if hash(p) != hash(first) {
			tb.Fatalf("%s has another state", p.id)
		}
	}
}

func hash(p *peer) (h string) {
	p.copy.View(func(s *fleet.State) { h = s.Hash() })
	return h
}

// dense checks that the peer's history has each event once, in order.
func dense(tb testing.TB, p *peer) {
	tb.Helper()
	next := p.copy.First()
	for {
		events, err := p.copy.Events(context.Background(), next-1, replica.Filter{}, 1000)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range events {
			if e.Seq != next {
				tb.Fatalf("event %d where %d is next", e.Seq, next)
			}
			next++
		}
		if len(events) < 1000 {
			break
		}
	}
	if last := p.copy.Cursor().Seq; next != last+1 {
		tb.Fatalf("history ends with %d, the copy with %d", next-1, last)
	}
}

func ids(ps ...*peer) (out []ident.NodeID) {
	for _, p := range ps {
		out = append(out, p.id)
	}
	return out
}
