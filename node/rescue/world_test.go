package rescue_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/backup/backuptest"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/node/config"
	"skein/node/rescue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func now() time.Time { return time.UnixMilli(1_900_000_000_000).UTC() }

// mesh keeps to this machine and announces nothing.
var mesh = config.Mesh{Loopback: true}

// ada is the admin of backuptest's fleet.
var ada = rescue.Person{Name: "ada", Key: fleettest.Key(50)}

// body is a data directory of the i-th node of fleettest, stopped.
type body struct {
	t    *testing.T
	i    int
	data string
	log  *backuptest.Log
}

// survivor is the founder, stopped, in a fleet whose other voters are nodes 3
// and 4.
func survivor(t *testing.T) *body {
	t.Helper()
	b := newBody(t, 0)
	b.log = backuptest.New(t, filepath.Join(b.data, "log"), replica.Options{})
	for _, i := range []int{3, 4} {
		b.log.Admit(i)
		b.log.Decide(event.Batch{Actor: fleettest.Itself(fleettest.Node(i)), Drafts: []event.Draft{event.VoterEligible{Eligible: true}.Draft(fleettest.Node(i))}})
		b.log.Decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterApproved{}.Draft(fleettest.Node(i))}})
		b.log.Decide(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.VoterAdded{}.Draft(fleettest.Node(i))}})
	}
	b.log.Admit(5)
	b.log.Labels(8, 2)
	return b
}

// newBody is a data directory with a key and a membership.
func newBody(t *testing.T, i int) *body {
	t.Helper()
	b := &body{t: t, i: i, data: filepath.Join(t.TempDir(), fmt.Sprint("node-", i))}
	if err := os.MkdirAll(b.data, 0o700); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(
		fleettest.Key(i).Save(b.path("node.key")),
		ident.NewMembership("test fleet", fleettest.Key(99).Public(), backuptest.Chain(i)).Save(b.path("membership.json")),
		os.WriteFile(b.path("lock"), nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *body) path(name string) string { return filepath.Join(b.data, name) }

// seat gives the body a Raft log that begins where its copy of the log is.
func (b *body) seat() {
	b.t.Helper()
	index, term := b.log.Replica.Applied()
	if _, err := raftgroup.Recover(b.path("raft"), fleettest.Node(b.i), raftlog.Bolt, index, term); err != nil {
		b.t.Fatal(err)
	}
}

// knows puts the addresses of others into the address book.
func (b *body) knows(others ...*peer) {
	b.t.Helper()
	book, err := discover.OpenBook(b.path("peers.json"), quiet)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range others {
		book.Put(p.endpoint())
	}
	if err := book.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// peer is a node that runs and answers chain/1 from a copy of a log.
type peer struct {
	i    int
	host *link.Host
	log  *backuptest.Log
}

// runs makes node i run with a copy of what l has, and then some labels more.
func runs(t *testing.T, i int, l *backuptest.Log, more int, leader func() (ident.NodeID, time.Duration, bool)) *peer {
	t.Helper()
	p := &peer{i: i, log: copied(t, l)}
	if more > 0 {
		p.log.Labels(more, 1)
	}
	p.serve(t, rescue.ServeConfig{Chain: p.log.Replica, Leader: leader})
	return p
}

func (p *peer) serve(t *testing.T, c rescue.ServeConfig) {
	t.Helper()
	var err error
	p.host, err = link.New(link.Config{Key: fleettest.Key(p.i), Root: fleettest.Key(99).Public(), Chain: func() ident.Chain { return backuptest.Chain(p.i) },
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.host.Close() })
	if c.Chain == nil {
		return // an old build, which does not know the protocol
	}
	p.host.Handle(rescue.ChainProtocol, func(ctx context.Context, st *link.Stream) {
		rescue.ServeChain(ctx, st, st.Remote(), c)
	})
}

func (p *peer) endpoint() ident.Endpoint {
	return ident.Endpoint{ID: fleettest.Node(p.i), PublicKey: fleettest.Key(p.i).Public(),
		Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, LinkPort: p.host.Port()}
}

// copied is an own copy of a log, by its records.
func copied(t *testing.T, l *backuptest.Log) *backuptest.Log {
	t.Helper()
	c := backuptest.Empty(t, filepath.Join(t.TempDir(), "log"))
	records, ok := l.Replica.Records(1, 1<<30)
	if !ok {
		t.Fatal("the log does not begin with event 1")
	}
	for _, r := range records {
		if err := c.Replica.ApplyRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	c.GoOn()
	return c
}

// digest is a hash of every file below a directory, by name and content. The
// lock has none.
func digest(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		all[path] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged fails if anything below dir, but for files of some names, changes
// until the test calls it.
func unchanged(t *testing.T, dir string, but ...string) func() {
	t.Helper()
	before := digest(t, dir)
	return func() {
		t.Helper()
		after := digest(t, dir)
		for path := range after {
			if before[path] != after[path] && !slices.Contains(but, filepath.Base(path)) {
				t.Errorf("%s was changed, or made", path)
			}
		}
		for path := range before {
			if after[path] == "" {
				t.Errorf("%s is gone", path)
			}
		}
	}
}

// agree lets everything be done, and keeps what was shown.
func agree(into *rescue.Plan) func(rescue.Plan) error {
	return func(p rescue.Plan) error {
		if into != nil {
			*into = p
		}
		return nil
	}
}

func (b *body) options() rescue.RecoverOptions {
	return rescue.RecoverOptions{Data: b.data, Mesh: mesh, By: ada, Why: "the dock burnt down", Confirm: agree(nil), Now: now, Log: quiet}
}

// leads runs a Raft group on the body until the test ends, alone, and decides
// something through it.
func (b *body) leads() *replica.Replica {
	b.t.Helper()
	store, err := replica.Open(b.path("log"), replica.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	g, err := raftgroup.New(raftgroup.Config{ID: fleettest.Node(b.i), Dir: b.path("raft"), Link: nobody{}, Machine: store, Log: quiet,
		Epoch: recoveries(store)})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	b.t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, store.Close()); err != nil {
			b.t.Error(err)
		}
	})
	deadline := time.After(30 * time.Second)
	for {
		changed := g.Changed()
		if _, leading := g.Leading(); leading {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			b.t.Fatal("it does not lead")
		}
	}
	label := event.RobotLabelsChanged{Set: map[string]string{"decided-at": fmt.Sprint(store.Cursor().Seq)}}.Draft(fleettest.Node(0))
	out, err := g.Submit(ctx, event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{label}})
	if err != nil || out.Err != nil {
		b.t.Fatal(err, out.Err)
	}
	return store
}

func recoveries(r *replica.Replica) (n uint64) {
	r.View(func(s *fleet.State) { n = s.Recoveries() })
	return n
}

func voters(r *replica.Replica) (ids []ident.NodeID) {
	r.View(func(s *fleet.State) { ids = s.Voters() })
	return ids
}
