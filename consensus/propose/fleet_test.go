package propose

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/follow"
	"skein/consensus/raftgroup"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// whole is a node with everything between the disk and the proposer: real Raft,
// real following, real files, real streams.
type whole struct {
	id       ident.NodeID
	copy     *replica.Replica
	group    *raftgroup.Group // nil on a follower
	follow   *follow.Service
	proposer *Proposer
	host     *testnet.Host
	opened   atomic.Int64
	stop     context.CancelCauseFunc
	ended    chan error
}

// Offer implements Group.
func (w *whole) Offer(b event.Batch, done func(replica.Outcome, error)) error {
	if w.group == nil {
		return errNoLeader
	}
	return w.group.Offer(b, done)
}

// Leader implements Group.
func (w *whole) Leader() (ident.NodeID, bool) {
	if w.group != nil {
		leader := w.group.Status().Leader
		return leader, leader != ""
	}
	m, _, ok := w.follow.Latest()
	return m.Leader, ok
}

// Accepts implements Group.
func (w *whole) Accepts() error {
	if w.group == nil {
		return errNoLeader
	}
	return w.group.Accepts()
}

func (w *whole) standing() follow.Standing {
	if w.group == nil {
		return follow.Standing{}
	}
	s := w.group.Status()
	return follow.Standing{Fed: true, Leader: s.Leader, Term: s.Term, Index: s.Commit, Voters: s.Voters}
}

func (w *whole) changed() <-chan struct{} {
	if w.group == nil {
		return nil
	}
	return w.group.Changed()
}

// kill ends the node as a power cut does.
func (w *whole) kill() {
	w.host.Kill()
	w.proposer.Close()
	w.stop(os.ErrClosed)
	for range cap(w.ended) {
		<-w.ended
	}
	w.copy.Close()
}

type testFleet struct {
	tb   testing.TB
	net  *testnet.Net
	root string
	kind raftlog.Kind
	live []*whole
}

func testLog(tb testing.TB) *slog.Logger {
	if os.Getenv("SKEIN_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// node starts node i. A follower follows only those given.
func (f *testFleet) node(i int, voter bool, whom ...ident.NodeID) *whole {
	f.tb.Helper()
	id := fleettest.Node(i)
	log := testLog(f.tb).With("self", i)
	copy, err := replica.Open(filepath.Join(f.root, string(id), "log"), replica.Options{})
	if err != nil {
		f.tb.Fatal(err)
	}
	host, err := f.net.Start(id)
	if err != nil {
		f.tb.Fatal(err)
	}
	w := &whole{id: id, copy: copy, host: host}
	ctx, stop := context.WithCancelCause(context.Background())
	w.stop = stop
	var run []func(context.Context) error
	if voter {
		if w.group, err = raftgroup.New(raftgroup.Config{ID: id, Dir: filepath.Join(f.root, string(id), "raft"), Store: f.kind, Link: host.Link("raft"),
			Machine: copy, Joining: true, Log: log}); err != nil {
			f.tb.Fatal(err)
		}
		host.Handle("raft", w.group.Handle)
		run = append(run, w.group.Run)
	}
	w.follow = follow.New(follow.Config{Self: id, Link: host.Link("follow"), Source: copy, Sink: copy, Standing: w.standing, StandingChanged: w.changed,
		Candidates: func() (all []follow.Candidate) {
			for _, id := range whom {
				all = append(all, follow.Candidate{ID: id})
			}
			return all
		}, Log: log})
	host.Handle("follow", w.follow.Handle)
	run = append(run, w.follow.Run)
	w.proposer = New(Config{Self: id, Boot: uint64(time.Now().UnixNano()), Group: w, Replica: copy, Verify: verify, Log: log,
		Open: func(ctx context.Context, id ident.NodeID) (net.Conn, error) {
			w.opened.Add(1)
			return host.Link("propose").Open(ctx, id)
		}})
	host.Handle("propose", w.proposer.Handle)
	w.ended = make(chan error, len(run))
	for _, r := range run {
		go func() { w.ended <- r(ctx) }()
	}
	f.live = append(f.live, w)
	return w
}

// verify knows one person, whose token is her name.
func verify(token string) (event.Actor, error) {
	if token != "ada" {
		return event.Actor{}, fmt.Errorf("nobody has the token %q", token)
	}
	return fleettest.Admin("ada"), nil
}

const voters = 3

// newFleet starts three voters and n followers. The first follows any voter,
// each other one only the one before it.
func newFleet(tb testing.TB, followers int) *testFleet {
	tb.Helper()
	return newFleetOn(tb, raftlog.Bolt, followers)
}

func newFleetOn(tb testing.TB, kind raftlog.Kind, followers int) *testFleet {
	tb.Helper()
	f := &testFleet{tb: tb, kind: kind, net: testnet.New(), root: tb.TempDir()}
	tb.Cleanup(func() {
		for _, w := range f.live {
			w.kill()
		}
	})
	if err := raftgroup.Bootstrap(filepath.Join(f.root, string(fleettest.Node(0)), "raft"), fleettest.Node(0), kind); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	founder := f.node(0, true)
	until(tb, "the founder leads", func() bool { _, ok := founder.group.Leading(); return ok })
	f.record(founder, fleettest.Genesis())
	for i := 1; i < voters+followers; i++ {
		f.record(founder, event.Batch{Actor: fleettest.Leader(founder.id), Drafts: []event.Draft{event.NodeAdmitted{
			PublicKey: fleettest.Key(i).Public(), Name: fmt.Sprintf("n%d", i), By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft()}})
	}
	for i := 1; i < voters; i++ {
		if err := founder.group.AddVoter(ctx, f.node(i, true).id); err != nil {
			tb.Fatal(err)
		}
	}
	for i := range followers {
		whom := []ident.NodeID{fleettest.Node(voters + i - 1)}
		if i == 0 {
			whom = []ident.NodeID{fleettest.Node(2), fleettest.Node(1), fleettest.Node(0)}
		}
		f.node(voters+i, false, whom...)
	}
	for _, w := range f.live {
		until(tb, "everybody knows the leader", func() bool { leader, ok := w.Leader(); return ok && leader == founder.id })
	}
	return f
}

// record decides a batch in the name of the leader or of genesis.
func (f *testFleet) record(w *whole, b event.Batch) {
	f.tb.Helper()
	out, err := w.group.Submit(f.tb.Context(), b)
	if err != nil || out.Err != nil {
		f.tb.Fatal(err, out.Err)
	}
}

func (f *testFleet) leader() *whole {
	f.tb.Helper()
	var lead *whole
	until(f.tb, "a leader", func() bool {
		i := slices.IndexFunc(f.live, func(w *whole) bool {
			if w.group == nil {
				return false
			}
			_, ok := w.group.Leading()
			return ok
		})
		if i >= 0 {
			lead = f.live[i]
		}
		return i >= 0
	})
	return lead
}

func (f *testFleet) kill(w *whole) {
	f.live = slices.DeleteFunc(f.live, func(o *whole) bool { return o == w })
	w.kill()
}

func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			tb.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// converge waits until all living nodes hold the same, and gives the groups.
func (f *testFleet) converge() (groups map[string]int) {
	f.tb.Helper()
	until(f.tb, "equal copies", func() bool {
		for _, w := range f.live[1:] {
			if w.copy.Cursor() != f.live[0].copy.Cursor() {
				return false
			}
		}
		return true
	})
	groups = map[string]int{}
	events, err := f.live[0].copy.Events(context.Background(), 0, replica.Filter{Type: event.TypeGroupCreated}, replica.MaxEvents)
	if err != nil {
		f.tb.Fatal(err)
	}
	for _, e := range events {
		groups[event.Subject(e.Stream)]++
	}
	hash := func(w *whole) (h string) { w.copy.View(func(s *fleet.State) { h = s.Hash() }); return h }
	for _, w := range f.live[1:] {
		if hash(w) != hash(f.live[0]) {
			f.tb.Fatal("equal cursors, other states")
		}
	}
	return groups
}

func group(i int) []event.Draft {
	return []event.Draft{event.GroupCreated{Description: "made by a test"}.Draft(fmt.Sprintf("g%d", i))}
}

var ada = Authority{Token: "ada"}
