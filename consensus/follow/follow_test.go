package follow

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
	"skein/consensus/raftgroup/testnet"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

func TestChainOfFollowers(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 3)
	chain := []*peer{lead}
	for i := 1; i <= 4; i++ {
		p := f.peer(i).follows(chain[i-1])
		chain = append(chain, f.start(p))
	}
	f.decideMany(lead, 200)
	same(t, lead, chain[1:]...)
	last := chain[4]
	until(t, "marks at the end of the chain", func() bool {
		m, age, ok := last.Mark()
		return ok && m.Leader == lead.id && m.Term == 3 && m.Seq == lead.copy.Cursor().Seq &&
			slices.Equal(m.Path, ids(chain...)) && age < 2*quickTimes.mark
	})
	if p, ok := last.Parent(); !ok || p != chain[3].id {
		t.Fatalf("parent is %q", p)
	}
	// What is decided now arrives at once, not with a mark.
	began := time.Now()
	for i := range 20 {
		f.decide(lead, admit(1000+i))
		if err := last.copy.Wait(t.Context(), lead.copy.Cursor().Seq); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began) / 20; took > 50*time.Millisecond {
		t.Fatalf("an event took %s over four hops", took)
	}
	dense(t, last)
}

func TestChangeOfLeaderIsToldAtOnce(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.now.mark, f.now.tick, f.now.silence = time.Minute, time.Minute, 2*time.Minute
	lead := f.leader(0, 1)
	mid := f.start(f.peer(1).follows(lead))
	end := f.start(f.peer(2).follows(mid))
	until(t, "a first mark", func() bool { m, _, ok := end.Latest(); return ok && m.Term == 1 })
	changed := end.Changed()
	began := time.Now()
	voters := []*peer{lead, mid}
	lead.place.set(Standing{Fed: true, Leader: lead.id, Term: 2, Voters: ids(voters...)})
	<-changed
	until(t, "term and voters", func() bool {
		m, _, _ := end.Latest()
		return m.Term == 2 && slices.Equal(m.Voters, ids(voters...))
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("it took %s", took)
	}
}

func TestParentsAreFull(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.conf = func(c *Config) { c.MaxChildren = 2 }
	lead := f.leader(0, 1)
	f.decideMany(lead, 20)
	var all []*peer
	for i := 1; i <= 9; i++ {
		all = append(all, f.start(f.peer(i).follows(lead))) // they know nobody else
	}
	same(t, lead, all...)
	if n := len(lead.Children()); n != 2 {
		t.Fatalf("leader has %d children", n)
	}
	f.decideMany(lead, 20)
	same(t, lead, all...)
}

func TestParentsDieUnderLoad(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	mids := []*peer{f.start(f.peer(1).follows(lead)), f.start(f.peer(2).follows(lead)), f.start(f.peer(3).follows(lead))}
	end := f.start(f.peer(4).follows(mids...))
	for len(mids) > 1 {
		f.decideMany(lead, 150)
		until(t, "a parent", func() bool { _, ok := end.Parent(); return ok })
		parent, _ := end.Parent()
		i := slices.IndexFunc(mids, func(p *peer) bool { return p.id == parent })
		if i < 0 {
			continue
		}
		mids[i].kill()
		mids = slices.Delete(mids, i, i+1)
		end.follows(mids...)
		f.decideMany(lead, 150)
		same(t, lead, end)
	}
	dense(t, end)
}

func TestSilentParentIsLeft(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.now.childSilence = time.Minute // only the child can notice
	lead := f.leader(0, 1)
	mids := []*peer{f.start(f.peer(1).follows(lead)), f.start(f.peer(2).follows(lead))}
	end := f.start(f.peer(3).follows(mids...))
	f.decideMany(lead, 10)
	same(t, lead, mids[0], mids[1], end)
	parent, _ := end.Parent()
	f.net.Cut(parent, end.id)
	f.decideMany(lead, 10)
	same(t, lead, end)
	if now, _ := end.Parent(); now == parent {
		t.Fatal("still follows who cannot be reached")
	}
}

func TestFreshParentIsPreferred(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	stale := f.start(f.peer(1).follows(lead))
	fresh := f.start(f.peer(2).follows(lead))
	f.decideMany(lead, 10)
	same(t, lead, stale, fresh)
	end := f.start(f.peer(3).follows(stale))
	same(t, lead, end)
	stale.follows() // and nobody to turn to
	f.net.Cut(lead.id, stale.id)
	until(t, "the parent is cut off", func() bool { _, ok := stale.Parent(); return !ok })
	end.follows(stale, fresh)
	until(t, "the fresh parent is followed", func() bool { p, _ := end.Parent(); return p == fresh.id })
	until(t, "fresh marks", func() bool { _, age, ok := end.Mark(); return ok && age < quickTimes.stale })
	time.Sleep(3 * quickTimes.search)
	if p, _ := end.Parent(); p != fresh.id {
		t.Fatalf("left the fresh parent for %q", p)
	}
}

// TestWithoutALeaderTheLogStillSpreads: two followers, one of which is ahead,
// and no leader anywhere.
func TestWithoutALeaderTheLogStillSpreads(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.now.search = time.Minute
	ahead := f.start(f.peer(1))
	f.decide(ahead, fleettest.Genesis())
	f.decideMany(ahead, 30)
	behind := f.start(f.peer(2).follows(ahead))
	same(t, ahead, behind)
	if _, _, ok := behind.Mark(); ok {
		t.Fatal("a mark without a leader")
	}
	time.Sleep(2 * quickTimes.silence)
	if _, ok := behind.Parent(); !ok {
		t.Fatal("a parent without marks was left for silence")
	}
}

func TestRingsBreak(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	var ring []*peer
	for i := 1; i <= 3; i++ {
		ring = append(ring, f.start(f.peer(i).follows(lead)))
	}
	f.decideMany(lead, 5)
	same(t, lead, ring...)
	lead.kill()
	for i, p := range ring {
		p.follows(ring[(i+1)%3])
	}
	// For a while, everyone who still has a parent must find the marks ageing, and
	// not all three can have one for long.
	last := map[*peer]time.Duration{}
	began := time.Now()
	for time.Since(began) < 3*time.Second {
		for _, p := range ring {
			_, age, ok := p.Latest()
			if !ok {
				t.Fatal("mark lost")
			}
			if age < last[p]-50*time.Millisecond {
				t.Fatalf("age of %s went from %s to %s without a leader", p.id, last[p], age)
			}
			last[p] = age
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, p := range ring {
		if last[p] < 2800*time.Millisecond {
			t.Fatalf("marks of %s are %s old, the leader died %s ago", p.id, last[p], time.Since(began))
		}
	}
	until(t, "no ring", func() bool {
		with := 0
		for _, p := range ring {
			if _, ok := p.Parent(); ok {
				with++
			}
		}
		return with < 3
	})
}

func TestFarBehindGetsASnapshot(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	f.decideMany(lead, 50)
	mid := f.peer(1)
	// mid holds the state but not the log before it.
	pipe, in := io.Pipe()
	go func() { in.CloseWithError(lead.copy.Snapshot(in)) }()
	if err := mid.copy.Restore(pipe); err != nil {
		t.Fatal(err)
	}
	f.start(mid.follows(lead))
	f.decideMany(lead, 50)
	same(t, lead, mid)
	end := f.start(f.peer(2).follows(mid))
	same(t, lead, end)
	if end.copy.First() == 1 {
		t.Fatal("the log came from nowhere")
	}
	f.decideMany(lead, 50)
	same(t, lead, end)
	dense(t, end)
}

func TestForkedLogIsReplacedByASnapshot(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	fork := f.peer(1)
	f.index = 0
	f.decide(fork, fleettest.Genesis())
	f.decide(fork, admit(9999)) // decided by nobody else
	f.decideMany(lead, 30)
	f.start(fork.follows(lead))
	same(t, lead, fork)
}

func TestOtherHistoryIsNotMixed(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	other := f.peer(1)
	genesis := fleettest.Genesis()
	genesis.Drafts[0] = event.FleetCreated{Name: "another", Root: fleettest.Key(99).Public(), History: "h2"}.Draft()
	f.decide(other, genesis)
	before := other.copy.Cursor()
	f.start(other.follows(lead))
	f.decideMany(lead, 30)
	time.Sleep(10 * quickTimes.retryHigh)
	if _, ok := other.Parent(); ok || other.copy.Cursor() != before {
		t.Fatal("a log of another history was followed")
	}
	b, err := wire.ReadFrame(asChild(t, other.host, lead, request{Cursor: before}), wire.MaxControl)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := parseFrame(b); err != nil || f.refusal.Reason != reasonHistory {
		t.Fatalf("answered with %q", b)
	}
}

func TestVotersFollowMarksOnly(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.conf = func(c *Config) { c.MaxChildren = 1 }
	lead := f.leader(0, 5)
	voter := f.peer(1)
	voter.place.set(Standing{Fed: true, Leader: lead.id, Term: 5})
	f.start(voter)
	follower := f.start(f.peer(2).follows(lead)) // voters do not take its place
	f.decideMany(lead, 10)
	same(t, lead, follower)
	until(t, "marks at the voter", func() bool { m, _, ok := voter.Latest(); return ok && m.Seq == lead.copy.Cursor().Seq })
	if seq := voter.copy.Cursor().Seq; seq != 0 {
		t.Fatalf("a voter was sent the log up to %d, which Raft brings", seq)
	}
	if _, _, ok := voter.Mark(); ok {
		t.Fatal("a mark counts for a copy that has not reached it")
	}
	// The voter takes over: its own marks go to the old leader.
	voter.leads(6)
	lead.place.set(Standing{Fed: true, Leader: voter.id, Term: 6})
	until(t, "the old leader hears the new one", func() bool { m, _, _ := lead.Latest(); return m.Leader == voter.id && m.Term == 6 })
	// A voter that Raft does not feed any more follows like anybody.
	follower.follows(lead)
	lead.place.set(Standing{})
	lead.follows(voter)
	until(t, "it follows the new leader", func() bool { p, _ := lead.Parent(); return p == voter.id })
}

// TestAVoterWithoutALeaderHearsOthers: who was removed while it was away is told
// so by nobody's Raft.
func TestAVoterWithoutALeaderHearsOthers(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 5)
	other := f.start(f.peer(1).follows(lead))
	f.decideMany(lead, 3)
	same(t, lead, other)
	voter := f.peer(2).follows(other)
	voter.place.set(Standing{Fed: true})
	f.start(voter)
	until(t, "marks at the voter", func() bool {
		m, _, ok := voter.Latest()
		return ok && m.Leader == lead.id && m.Seq == lead.copy.Cursor().Seq
	})
	if seq := voter.copy.Cursor().Seq; seq != 0 {
		t.Fatalf("a voter was sent the log up to %d, which Raft brings", seq)
	}
}

func TestFailingCopyEndsRun(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	broken := errors.New("disk is full")
	p := f.peer(1).follows(lead)
	p.cfg.Sink = failingSink{broken}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := p.Run(ctx)
	p.host.Kill()
	p.copy.Close()
	if !errors.Is(err, broken) || !errors.Is(err, errApply) {
		t.Fatalf("Run ended with %v", err)
	}
}

type failingSink struct{ err error }

func (s failingSink) ApplyRecord(history.Record) error { return s.err }
func (s failingSink) Restore(io.Reader) error          { return s.err }

func TestReturningChildReplacesItself(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.conf = func(c *Config) { c.MaxChildren = 1 }
	lead := f.leader(0, 1)
	child := f.start(f.peer(1).follows(lead))
	same(t, lead, child)
	f.net.Cut(lead.id, child.id) // the leader does not notice
	until(t, "the child notices", func() bool { _, ok := child.Parent(); return !ok })
	f.net.Heal(lead.id, child.id)
	f.decideMany(lead, 5)
	same(t, lead, child)
	if got := lead.Children(); len(got) != 1 {
		t.Fatalf("children are %v", got)
	}
}

// asChild opens a stream to a parent by hand and asks to follow.
func asChild(t *testing.T, host *testnet.Host, parent *peer, q request) net.Conn {
	t.Helper()
	conn, err := host.Link("follow").Open(t.Context(), parent.id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b, err := jsonFrame(kindRequest, q)
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.WriteFrame(conn, b, wire.MaxControl); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (f *forest) host(i int) *testnet.Host {
	f.tb.Helper()
	h, err := f.net.Start(testnet.ID(i))
	if err != nil {
		f.tb.Fatal(err)
	}
	f.tb.Cleanup(h.Kill)
	return h
}

func TestReturningChildEndsItsOldStream(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.now.childSilence = time.Minute
	lead := f.leader(0, 1)
	host := f.host(9)
	old := asChild(t, host, lead, request{})
	until(t, "it is a child", func() bool { return len(lead.Children()) == 1 })
	asChild(t, host, lead, request{})
	old.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, old); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the old stream is still served")
	}
}

func TestSilentChildIsCutOff(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	conn := asChild(t, f.host(9), lead, request{})
	go io.Copy(io.Discard, conn)
	until(t, "it is a child", func() bool { return len(lead.Children()) == 1 })
	until(t, "it is not any more", func() bool { return len(lead.Children()) == 0 })
}

func TestChildThatTakesNothingIsCutOff(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.now.childSilence = time.Minute
	lead := f.leader(0, 1)
	asChild(t, f.host(9), lead, request{})
	until(t, "it is a child", func() bool { return len(lead.Children()) == 1 })
	n := 100_000
	until(t, "it is not any more", func() bool {
		n++
		wide := admit(n)
		wide.Drafts = nil
		for range 200 {
			wide.Drafts = append(wide.Drafts, event.GroupCreated{Description: strings.Repeat("d", event.MaxText)}.Draft("big"), event.GroupDeleted{}.Draft("big"))
		}
		f.decide(lead, wide) // until the socket's buffers are full
		return len(lead.Children()) == 0
	})
}

func TestNodeOnTheWayToTheLeaderIsRefused(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	mid := f.start(f.peer(1).follows(lead))
	end := f.start(f.peer(2).follows(mid))
	until(t, "marks", func() bool { _, _, ok := end.Latest(); return ok })
	for _, above := range []*peer{lead, mid} {
		b, err := wire.ReadFrame(asChild(t, above.host, end, request{}), wire.MaxControl)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := parseFrame(b); err != nil || f.refusal.Reason != reasonLoop {
			t.Fatalf("%s was answered with %q", above.id, b)
		}
	}
}

func TestParentBelowThisNodeIsLeft(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	ring := f.host(9)
	asked := make(chan struct{}, 100)
	ring.Handle("follow", func(ctx context.Context, conn net.Conn, remote ident.NodeID) {
		b, err := jsonFrame(kindMark, markOf(1, 1, 0, 0, 1, 9))
		if err == nil {
			wire.WriteFrame(conn, b, maxFrame)
		}
		asked <- struct{}{}
		io.Copy(io.Discard, conn) // until the child leaves
	})
	p := f.peer(1)
	p.whom = []Candidate{{ID: ring.ID}}
	f.start(p)
	for range 3 {
		<-asked // it left and tried again
	}
	if _, _, ok := p.Latest(); ok {
		t.Fatal("a mark that passed this node was believed")
	}
}

func TestStaleParentIsNotTakenForFresh(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	f.now.stale = -1 // whatever comes is old
	lead := f.leader(0, 1)
	mid := f.start(f.peer(1).follows(lead))
	until(t, "marks", func() bool { _, _, ok := mid.Latest(); return ok })
	p := f.peer(2)
	defer p.copy.Close()
	defer p.host.Kill()
	if followed, err := p.attach(t.Context(), mid.id, attempt{freshOnly: true}); followed || !errors.Is(err, errNotFresh) {
		t.Fatalf("followed %v, %v", followed, err)
	}
}

func TestNonsenseFromAChild(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	host, err := f.net.Start(testnet.ID(9))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Kill()
	for _, say := range [][]byte{
		nil, {0xff, 0xff, 0xff, 0xff}, binary.BigEndian.AppendUint32(nil, 0), append(binary.BigEndian.AppendUint32(nil, 3), 'Q', '{', ']'),
		append(binary.BigEndian.AppendUint32(nil, 1), byte(kindKeepAlive)),
	} {
		conn, err := host.Link("follow").Open(t.Context(), lead.id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(say); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 10)); err == nil {
			t.Fatalf("%q was answered with %d bytes", say, n)
		}
		conn.Close()
	}
}

// TestNonsenseFromAParent: whatever a parent says, this node keeps its log and
// looks elsewhere.
func TestNonsenseFromAParent(t *testing.T) {
	t.Parallel()
	f := newForest(t)
	lead := f.leader(0, 1)
	f.decideMany(lead, 10)
	bad, err := f.net.Start(testnet.ID(9))
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Kill()
	records, _ := lead.copy.Records(1, 1<<20)
	spoilt := recordFrames(records[:1])[0]
	spoilt[len(spoilt)-3] ^= 1
	says := [][]byte{{}, {'?'}, []byte("M{}"), []byte("T123"), tickFrame(Mark{}), []byte("Rxxxxxxx"), spoilt, []byte("Cnot a snapshot"), []byte("E"), []byte("Q{}"), []byte(`N{"reason":"because"}`)}
	turn := make(chan []byte, len(says))
	for _, s := range says {
		turn <- s
	}
	bad.Handle("follow", func(_ context.Context, conn net.Conn, _ ident.NodeID) {
		if _, err := wire.ReadFrame(conn, wire.MaxControl); err != nil {
			return
		}
		select {
		case say := <-turn:
			wire.WriteFrame(conn, say, maxFrame)
		default:
		}
	})
	p := f.peer(1)
	p.whom = []Candidate{{ID: bad.ID}}
	f.start(p)
	until(t, "all nonsense was said", func() bool { return len(turn) == 0 })
	if seq := p.copy.Cursor().Seq; seq != 0 {
		t.Fatalf("nonsense was applied up to %d", seq)
	}
	p.follows(lead)
	same(t, lead, p)
}
