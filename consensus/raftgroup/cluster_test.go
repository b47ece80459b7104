package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

func TestMain(m *testing.M) {
	// Raft forgets to answer a question that it has not taken up when it is shut
	// down: see DESIGN.md, Limits.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*deferError).Error"))
}

var errKilled = errors.New("killed by the test")

// memMachine remembers which producers were applied, in order, each once. It
// forgets everything at a restart, so raft must bring it back.
type memMachine struct {
	mu          sync.Mutex
	index, term uint64
	order       []uint64
	seen        map[uint64]uint64
	restored    int
	times       []int64
	refuse      error
	news        chan struct{}
}

func newMachine() *memMachine {
	return &memMachine{seen: map[uint64]uint64{}, news: make(chan struct{})}
}

func (m *memMachine) ApplyEntry(index, term uint64, data []byte) ([]replica.Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.index {
		return nil, nil
	}
	if m.refuse != nil {
		return nil, m.refuse
	}
	entry, err := replica.DecodeEntry(data)
	if err != nil {
		return nil, err
	}
	m.index, m.term = index, term
	m.times = append(m.times, entry.TimeMillis)
	var out []replica.Outcome
	for _, b := range entry.Batches {
		at, ok := m.seen[b.Producer.N]
		if !ok {
			m.order = append(m.order, b.Producer.N)
			at = uint64(len(m.order))
			m.seen[b.Producer.N] = at
		}
		out = append(out, replica.Outcome{First: at, Last: at})
	}
	m.changed()
	return out, nil
}

func (m *memMachine) changed() { close(m.news); m.news = make(chan struct{}) }

func (m *memMachine) Applied() (index, term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, m.term
}

type memState struct {
	Index, Term uint64
	Order       []uint64
}

func (m *memMachine) Snapshot(w io.Writer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return json.NewEncoder(w).Encode(memState{m.index, m.term, m.order})
}

func (m *memMachine) Restore(r io.Reader) error {
	var s memState
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Index < m.index {
		return nil
	}
	m.index, m.term, m.order, m.seen = s.Index, s.Term, s.Order, map[uint64]uint64{}
	for i, n := range s.Order {
		m.seen[n] = uint64(i + 1)
	}
	m.restored++
	m.changed()
	return nil
}

func (m *memMachine) SnapshotIndex(r io.Reader) (uint64, error) {
	var s memState
	err := json.NewDecoder(r).Decode(&s)
	return s.Index, err
}

// has waits until n was applied here.
func (m *memMachine) has(ctx context.Context, n uint64) error {
	for {
		m.mu.Lock()
		_, ok := m.seen[n]
		news := m.news
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("%d not applied: %w", n, ctx.Err())
		}
	}
}

func (m *memMachine) list() []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}

// member is one node of a test.
type member struct {
	*Group
	id      ident.NodeID
	dir     string
	machine *memMachine
	host    *testnet.Host
	stop    context.CancelCauseFunc
	ended   chan error
}

// kill ends the node without a word: its streams break, nothing is handed over.
func (m *member) kill() error {
	m.host.Kill()
	m.stop(errKilled)
	return <-m.ended
}

// leave ends the node gracefully.
func (m *member) leave() error {
	m.stop(context.Canceled)
	err := <-m.ended
	m.host.Kill()
	return err
}

type cluster struct {
	tb   testing.TB
	net  *testnet.Net
	root string
	conf func(*Config)
	kind raftlog.Kind
	// idle: the machines do nothing, for benchmarks.
	idle bool
	// disk may change how the log of a node is opened.
	disk func(ident.NodeID, *raftlog.Config)
	// restore gives a machine that outlived its node; nil makes a new one.
	restore func(ident.NodeID) *memMachine

	mu   sync.Mutex
	live map[ident.NodeID]*member
}

func newCluster(tb testing.TB, conf func(*Config)) *cluster {
	c := &cluster{tb: tb, net: testnet.New(), root: tb.TempDir(), conf: conf, live: map[ident.NodeID]*member{}}
	tb.Cleanup(func() {
		for _, m := range c.all() {
			if err := m.kill(); err != nil && !errors.Is(err, raftlog.ErrFailed) && !errors.Is(err, ErrMachine) {
				tb.Errorf("end of %s: %v", m.id, err)
			}
		}
	})
	return c
}

func testLog(tb testing.TB) *slog.Logger {
	if os.Getenv("SKEIN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (c *cluster) config(id ident.NodeID, link Link, machine Machine) Config {
	cfg := Config{ID: id, Dir: filepath.Join(c.root, string(id)), Link: link, Machine: machine, Joining: true,
		Store: c.kind, Log: testLog(c.tb).With("self", id[20:])}
	if c.conf != nil {
		c.conf(&cfg)
	}
	return cfg
}

// open is New, with a disk of the test's.
func (c *cluster) open(cfg Config) (*Group, error) {
	if c.disk == nil {
		return New(cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	disk := cfg.disk()
	c.disk(cfg.ID, &disk)
	return open(cfg, disk)
}

// start opens and runs node i.
func (c *cluster) start(i int) *member {
	c.tb.Helper()
	id := testnet.ID(i)
	host, err := c.net.Start(id)
	if err != nil {
		c.tb.Fatal(err)
	}
	machine := (*memMachine)(nil)
	if c.restore != nil {
		machine = c.restore(id)
	}
	if machine == nil {
		machine = newMachine()
	}
	cfg := c.config(id, host.Link("raft"), machine)
	if c.idle {
		cfg.Machine = idle{machine}
	}
	g, err := c.open(cfg)
	if err != nil {
		host.Kill()
		c.tb.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	m := &member{Group: g, id: id, dir: cfg.Dir, machine: machine, host: host, stop: stop, ended: make(chan error, 1)}
	host.Handle("raft", g.Handle)
	go func() { m.ended <- g.Run(ctx) }()
	c.mu.Lock()
	c.live[id] = m
	c.mu.Unlock()
	return m
}

// forget takes a node out of the living.
func (c *cluster) forget(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.live, m.id)
}

func (c *cluster) kill(m *member) {
	c.tb.Helper()
	c.forget(m)
	if err := m.kill(); err != nil {
		c.tb.Fatalf("kill %s: %v", m.id, err)
	}
}

// form bootstraps node 0 and adds n-1 more voters.
func (c *cluster) form(n int) []*member {
	c.tb.Helper()
	if err := Bootstrap(filepath.Join(c.root, string(testnet.ID(0))), testnet.ID(0), c.kind); err != nil {
		c.tb.Fatal(err)
	}
	var all []*member
	for i := range n {
		all = append(all, c.start(i))
	}
	lead := c.leader(all[0])
	for _, m := range all[1:] {
		ctx, cancel := context.WithTimeout(c.tb.Context(), 10*time.Second)
		if err := lead.AddVoter(ctx, m.id); err != nil {
			c.tb.Fatalf("add %s: %v", m.id, err)
		}
		cancel()
	}
	return all
}

// until polls a condition that nothing announces.
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

// leader waits until one of the given nodes leads and is ready.
func (c *cluster) leader(among ...*member) *member {
	c.tb.Helper()
	var found *member
	until(c.tb, "a ready leader", func() bool {
		for _, m := range among {
			if _, ok := m.Leading(); ok {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// all are the living nodes.
func (c *cluster) all() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*member
	for _, m := range c.live {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *member) int { return strings.Compare(string(a.id), string(b.id)) })
	return all
}

// batch is a proposal that the memMachine knows as n.
func batch(n uint64) event.Batch {
	return event.Batch{Producer: event.Producer{Node: testnet.ID(0), Boot: 1, N: n},
		Actor:  event.Actor{Kind: event.KindLeader, ID: string(testnet.ID(0))},
		Drafts: []event.Draft{{Stream: "fleet", Type: event.TypeGossipKeyRotated, Data: json.RawMessage(`{"epoch":1}`)}}}
}

// decide submits n to whoever leads until it is acknowledged.
func (c *cluster) decide(ctx context.Context, n uint64) error {
	for {
		for _, m := range c.all() {
			out, err := m.Submit(ctx, batch(n))
			if err == nil {
				return out.Err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (c *cluster) mustDecide(ns ...uint64) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), 15*time.Second)
	defer cancel()
	for _, n := range ns {
		if err := c.decide(ctx, n); err != nil {
			c.tb.Fatalf("decide %d: %v", n, err)
		}
	}
}

// agree waits until all given nodes applied the same, and checks that every
// number of want is there. That retries count once is the state's business, and
// tested where the state is real: see package propose.
func (c *cluster) agree(want []uint64, among ...*member) {
	c.tb.Helper()
	until(c.tb, "equal state on all", func() bool {
		first := among[0].machine.list()
		if len(first) < len(want) {
			return false
		}
		for _, m := range among[1:] {
			if !slices.Equal(first, m.machine.list()) {
				return false
			}
		}
		return true
	})
	got := among[0].machine.list()
	for _, n := range want {
		if !slices.Contains(got, n) {
			c.tb.Fatalf("acknowledged %d is lost", n)
		}
	}
}
