package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein/consensus/control"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/config"
)

// crew is a fleet of nodes that may vote, each with a clock of its own.
type crew struct {
	t    *testing.T
	file string
	all  []*hand
	// named counts names that were given.
	named int
}

// hand is one node of a crew, which may be stopped and started again.
type hand struct {
	*Node
	cfg   config.Config
	ahead *atomic.Int64 // of the right time, in nanoseconds
	level uint64
	stop  func(why error)
}

// found makes a fleet that uses event types up to level, and runs its founder,
// whose build knows those up to that level too.
func found(t *testing.T, level uint64) *crew {
	t.Helper()
	c := &crew{t: t}
	data := filepath.Join(t.TempDir(), "1")
	r, err := initFleet(t.Context(), InitOptions{Data: data, Name: "geese", NodeName: "n1"}, level)
	if err != nil {
		t.Fatal(err)
	}
	c.file = r.FleetFile
	c.hire(data, level)
	return c
}

// hire runs one more node, of a build that knows event types up to level (0 for
// this build's). data is "" for a new one.
func (c *crew) hire(data string, level uint64, settings ...func(*config.Config)) *hand {
	c.t.Helper()
	n := len(c.all) + 1
	if data == "" {
		data = filepath.Join(c.t.TempDir(), fmt.Sprint(n))
	}
	if level == 0 {
		level = event.Level
	}
	h := &hand{cfg: loopback(data, fmt.Sprintf("n%d", n), c.file), ahead: &atomic.Int64{}, level: level}
	h.cfg.Voter, h.cfg.Raft.ReplaceAfter = true, 0
	for _, set := range settings {
		set(&h.cfg)
	}
	c.start(h)
	c.all = append(c.all, h)
	return h
}

// start runs a node until it is stopped or the test ends.
func (c *crew) start(h *hand) {
	c.t.Helper()
	var out io.Writer = io.Discard
	if os.Getenv("SKEIN_TEST_LOG") != "" {
		out = os.Stderr // what is killed may write when the test is over
	}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})).With("self", h.cfg.Name)
	n, err := New(h.cfg, "test", log)
	if err != nil {
		c.t.Fatal(err)
	}
	ahead := h.ahead
	n.self.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	n.self.level, n.self.alone = h.level, time.Hour
	ctx, cancel := context.WithCancelCause(c.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	h.Node = n
	var once sync.Once
	h.stop = func(why error) {
		once.Do(func() {
			cancel(why)
			if err := <-ended; err != nil {
				c.t.Errorf("%s ended with %v", h.cfg.Name, err)
			}
		})
	}
	c.t.Cleanup(func() { h.stop(nil) })
	select {
	case <-n.Up():
	case <-time.After(settle):
		c.t.Fatalf("%s is not up", h.cfg.Name)
	}
}

func (h *hand) seat() *seat { return h.assembled().seat }

// state calls f with the state as the node has it.
func (h *hand) state(f func(*fleet.State)) { h.assembled().store.View(f) }

func (h *hand) ceiling() (level uint64) {
	h.state(func(s *fleet.State) { level = s.Ceiling() })
	return level
}

func (h *hand) voters() (ids []ident.NodeID) {
	h.state(func(s *fleet.State) { ids = s.Voters() })
	return ids
}

// leader is the node among those given that leads.
func leaderOf(hands ...*hand) (leader *hand) {
	for _, h := range hands {
		if _, leads := h.seat().Leading(); leads {
			leader = h
		}
	}
	return leader
}

// decide has drafts decided in an admin's name.
func (c *crew) decide(drafts []event.Draft, hands ...*hand) {
	c.t.Helper()
	eventually(c.t, "a decision", func() error {
		h := leaderOf(hands...)
		if h == nil {
			return errors.New("nobody leads")
		}
		g := h.seat().current()
		if g == nil {
			return errEmptySeat
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		admin := event.Actor{Kind: event.KindPerson, ID: FirstAdmin, Scopes: []string{event.ScopeAdmin, event.ScopeOperator}}
		outcome, err := g.Submit(ctx, event.Batch{Actor: admin, Drafts: drafts})
		if fault, ok := event.FaultOf(outcome.Err); ok && fault.Reason == event.ReasonNoChange {
			return nil // an answer was lost
		}
		return errors.Join(err, outcome.Err)
	})
}

// approve makes nodes voters, or spares when there are enough.
func (c *crew) approve(by *hand, hands ...*hand) {
	c.t.Helper()
	for _, h := range hands {
		eventually(c.t, h.cfg.Name+" is eligible", func() error {
			var n fleet.Node
			by.state(func(s *fleet.State) { n, _ = s.Node(h.ID()) })
			if !n.VoterEligible {
				return errors.New("it is not")
			}
			return nil
		})
		c.decide([]event.Draft{event.VoterApproved{}.Draft(h.ID())}, c.all...)
	}
}

// vote waits until exactly these vote, by the word of each of them.
func (c *crew) vote(hands ...*hand) {
	c.t.Helper()
	var want, names []string
	for _, h := range hands {
		want, names = append(want, string(h.ID())), append(names, h.cfg.Name)
	}
	slices.Sort(want)
	for _, h := range hands {
		eventually(c.t, h.cfg.Name+": voters are "+strings.Join(names, ", "), func() error {
			var got []string
			for _, id := range h.voters() {
				got = append(got, string(id))
			}
			status, seated := h.seat().status()
			raft := slices.Clone(status.Voters)
			slices.Sort(raft)
			if !slices.Equal(got, want) || !seated || !slices.Equal(raft, h.voters()) {
				return fmt.Errorf("the log says %v, raft %v", got, raft)
			}
			return nil
		})
	}
}

// trio is three voters, the founder first. The others know event types up to level.
func trio(t *testing.T, founded, level uint64, settings ...func(*config.Config)) (c *crew, a, b, d *hand) {
	t.Helper()
	c = found(t, founded)
	a = c.all[0]
	for _, set := range settings {
		if set(&a.cfg); a.cfg.Raft.ReplaceAfter > 0 {
			a.stop(nil)
			c.start(a)
		}
	}
	b, d = c.hire("", level, settings...), c.hire("", level, settings...)
	c.approve(a, b, d)
	c.vote(a, b, d)
	return c, a, b, d
}

// agree waits until all have the same log and state.
func (c *crew) agree(hands ...*hand) {
	c.t.Helper()
	eventually(c.t, "all agree", func() error {
		var hashes []string
		for _, h := range hands {
			h.state(func(s *fleet.State) { hashes = append(hashes, fmt.Sprint(s.Seq(), s.Hash())) })
		}
		if slices.Sort(hashes); hashes[0] != hashes[len(hashes)-1] {
			return fmt.Errorf("%v", hashes)
		}
		return nil
	})
}

// rename makes the log n events longer by what the node says of itself.
func (c *crew) rename(h *hand, n int) {
	c.t.Helper()
	for i := 0; i < n; i += 100 {
		var drafts []event.Draft
		for range min(100, n-i) {
			c.named++
			drafts = append(drafts, event.RobotConfigChanged{Name: fmt.Sprintf("name %d", c.named)}.Draft(h.ID()))
		}
		c.decide(drafts, c.all...)
	}
}

func needsLevel2(t *testing.T) {
	t.Helper()
	if event.Level < 2 {
		t.Skip("this build knows one level only")
	}
}

// TestTheCeilingFollowsTheVoters: a fleet that an older build founded stays at
// what its oldest voter knows, and rises when that one has been upgraded, also
// when it was the leader that came last; then robots tell what they could not.
func TestTheCeilingFollowsTheVoters(t *testing.T) {
	needsLevel2(t)
	t.Parallel()
	c, a, b, d := trio(t, 1, 1)
	upgrade := func(h *hand) {
		h.stop(nil)
		h.level = 2
		c.start(h)
		c.vote(a, b, d)
	}
	upgrade(b)
	upgrade(d)
	eventually(t, "a leader that knows what each voter knows", func() error {
		l := leaderOf(a, b, d)
		if l == nil {
			return errors.New("nobody leads")
		}
		for _, h := range []*hand{a, b, d} {
			if level, ok := l.assembled().mesh.Level(h.ID()); h != l && (!ok || level != h.level) {
				return fmt.Errorf("it takes %s for level %d, %v", h.cfg.Name, level, ok)
			}
		}
		return nil
	})
	c.rename(a, 3) // what everybody knows can be used meanwhile
	since := time.Now()
	eventually(t, "several rounds of the leader", func() error {
		if level := a.ceiling(); level != 1 {
			t.Fatalf("the ceiling is %d while %s knows level 1 only", level, a.cfg.Name)
		}
		if time.Since(since) < 3*time.Second {
			return errors.New("not long enough")
		}
		return nil
	})
	upgrade(a)
	for _, h := range []*hand{a, b, d} {
		eventually(t, h.cfg.Name+": the ceiling is raised", func() error {
			if level := h.ceiling(); level != 2 {
				return fmt.Errorf("it is %d", level)
			}
			return nil
		})
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "robots tell their hostname", func() error {
		r := fleet.Robot{}
		a.state(func(s *fleet.State) { r, _ = s.Robot(a.ID()) })
		if r.Registered.Hostname != host {
			return fmt.Errorf("it is %q, want %q", r.Registered.Hostname, host)
		}
		return nil
	})
}

// TestTheLogIsSealed: after a thousand events there is a seal, its signature is
// the leader's, and what it seals is what every node has.
func TestTheLogIsSealed(t *testing.T) {
	needsLevel2(t)
	t.Parallel()
	c := found(t, event.Level)
	a, b := c.all[0], c.hire("", 0)
	c.rename(a, 1000)
	seal := fleet.Seal{}
	eventually(t, "a seal", func() error {
		ok := false
		if b.state(func(s *fleet.State) { seal, ok = s.Seal() }); !ok {
			return errors.New("there is none")
		}
		return nil
	})
	said := event.LogSealed{Seq: seal.Seq, Hash: seal.Hash, Signature: seal.Signature}
	if !said.Signed(seal.History, a.self.key.Public()) || seal.By != a.ID() {
		t.Fatalf("the seal of event %d by %s is not the leader's", seal.Seq, seal.By)
	}
	for _, h := range []*hand{a, b} {
		if !h.assembled().store.Held(event.Cursor{History: seal.History, Seq: seal.Seq, Hash: seal.Hash}) {
			t.Errorf("%s has another log than was sealed", h.cfg.Name)
		}
	}
	if seal.Seq < 1000 {
		t.Errorf("sealed after %d events", seal.Seq)
	}
	events, err := a.assembled().store.Query(t.Context(), replica.Query{Filter: replica.Filter{Stream: event.LogStream}, Limit: 100})
	if err != nil || len(events.Events) != 1 {
		t.Fatalf("%d seals, %v; want one", len(events.Events), err)
	}
}

// TestALeaderAnHourAhead: its clock jumps, and nothing follows from it but that
// another leads: entries have the right time, a token for a minute still admits,
// nobody is called offline, people stay logged in.
func TestALeaderAnHourAhead(t *testing.T) {
	t.Parallel()
	c, a, b, d := trio(t, event.Level, 0)
	var l *hand
	eventually(t, "a leader that has compared clocks", func() error {
		if l = leaderOf(a, b, d); l == nil {
			return errors.New("nobody leads")
		}
		for _, h := range []*hand{a, b, d} {
			if _, ok := l.seat().clock.offset(h.ID()); !ok && h != l {
				return errors.New("the clock of " + h.cfg.Name + " is not known")
			}
		}
		return nil
	})
	token := ident.NewJoinToken(l.self.member.Load().Root)
	c.decide([]event.Draft{event.TokenCreated{TTLSeconds: 60}.Draft(token.Hash())}, a, b, d)
	first := l.assembled().store.Cursor().Seq + 1

	l.ahead.Store(int64(time.Hour))
	c.rename(a, 1) // by whoever leads now
	if got := l.seat().clock.now(); time.Since(got).Abs() > 5*time.Second {
		t.Errorf("the leader takes the time for %s", got)
	}
	eventually(t, "another leads", func() error {
		if now := leaderOf(a, b, d); now == nil || now == l {
			return errors.New("not yet")
		}
		return nil
	})
	late := loopback(filepath.Join(t.TempDir(), "late"), "late", "")
	joinCtx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	if _, err := JoinFleet(joinCtx, late, token.String()); err != nil {
		t.Errorf("a token that is good for a minute: %v", err)
	}
	c.rename(a, 1)
	c.agree(a, b, d)
	events, err := a.assembled().store.Events(t.Context(), first-1, replica.Filter{}, replica.MaxEvents)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == event.TypeRobotOffline {
			t.Errorf("event %d calls %s offline", e.Seq, e.Stream)
		}
		if time.Since(e.Time).Abs() > settle {
			t.Errorf("event %d (%s) is of %s, and it is %s", e.Seq, e.Type, e.Time, time.Now().UTC())
		}
	}
	if len(events) < 3 {
		t.Errorf("%d events since the jump", len(events))
	}
}

// TestASpareTakesTheSeatOfADeadVoter: and the dead one, when it comes back, is a
// spare itself, that can take a seat again.
func TestASpareTakesTheSeatOfADeadVoter(t *testing.T) {
	t.Parallel()
	soon := func(cfg *config.Config) { cfg.Raft.ReplaceAfter = 3 * time.Second }
	c, a, b, d := trio(t, event.Level, 0, soon)
	e := c.hire("", 0, soon)
	c.approve(a, e)
	c.rename(a, 10)
	c.agree(a, b, d, e)
	c.vote(a, b, d) // three is enough
	d.stop(ErrKilled)
	c.vote(a, b, e)
	c.rename(a, 10)
	// Another leads, whose Raft never knew the dead one and so does not tell it.
	eventually(t, "another leads", func() error {
		l := leaderOf(a, b, e)
		if l == nil {
			return errors.New("nobody leads")
		}
		return l.seat().Transfer(t.Context(), "")
	})

	c.start(d)
	c.agree(a, b, d, e)
	eventually(t, "the one that is back knows that it does not vote", func() error {
		if s, ok := d.seat().status(); !ok || s.Member(d.ID()) {
			m, age, heard := d.assembled().follower.Latest()
			return fmt.Errorf("it has a seat: %v, %s in a group of %v, leader heard %v ago; mark %+v, %v, %v", ok, s.State, s.Voters, s.LastContact, m, age, heard)
		}
		return nil
	})
	c.vote(a, b, e)
	b.stop(ErrKilled)
	c.vote(a, d, e)
	c.rename(a, 10)
	c.agree(a, d, e)
}

// TestVotersLeaveOneByOne: none leaves whom the others need to decide; the leader
// hands over first; and what is left decides.
func TestVotersLeaveOneByOne(t *testing.T) {
	t.Parallel()
	c, a, b, d := trio(t, event.Level, 0)
	leave := func(h *hand) error {
		ctx, cancel := context.WithTimeout(t.Context(), settle)
		defer cancel()
		return h.assembled().leave(ctx)
	}
	d.stop(ErrKilled)
	if f, is := event.FaultOf(leave(b)); !is || f.Code != event.CodeConflict || f.Reason != control.ReasonQuorum {
		t.Fatalf("one of two that answer may leave: %v", f)
	}
	c.rename(a, 10)
	c.start(d)
	c.vote(a, b, d)
	goes := leaderOf(a, b, d)
	stay := slices.DeleteFunc([]*hand{a, b, d}, func(h *hand) bool { return h == goes })
	if err := leave(goes); err != nil {
		t.Fatalf("the leader leaves: %v", err)
	}
	c.vote(stay...)
	c.decide([]event.Draft{event.RobotConfigChanged{Name: "two"}.Draft(stay[0].ID())}, stay...)
	if err := leave(stay[1]); err != nil {
		t.Fatalf("one of two leaves: %v", err)
	}
	c.vote(stay[0])
	c.decide([]event.Draft{event.RobotConfigChanged{Name: "one"}.Draft(stay[0].ID())}, stay[0])
	if f, is := event.FaultOf(leave(stay[0])); !is || f.Code != event.CodeConflict {
		t.Fatalf("the last voter may leave: %v", f)
	}
}

// TestAVoterThatWasAwayHearsANewLeader, whom its copy of the log does not know as
// a voter.
func TestAVoterThatWasAwayHearsANewLeader(t *testing.T) {
	t.Parallel()
	c, a, b, d := trio(t, event.Level, 0)
	d.stop(ErrKilled)
	e, f := c.hire("", 0), c.hire("", 0)
	c.approve(a, e, f)
	eventually(t, "five vote", func() error {
		if got := e.voters(); len(got) != 5 {
			return fmt.Errorf("%v vote", got)
		}
		return nil
	})
	eventually(t, "a new voter leads", func() error {
		l := leaderOf(a, b, e, f)
		if l == nil {
			return errors.New("nobody leads")
		}
		if l == e {
			return nil
		}
		return errors.Join(l.seat().Transfer(t.Context(), e.ID()), errors.New("it was handed over"))
	})
	c.start(d)
	c.vote(a, b, d, e, f)
}

// TestWhoHasLeftEnds although nobody answered it: what the log says is enough.
func TestWhoHasLeftEnds(t *testing.T) {
	t.Parallel()
	c, a, b, d := trio(t, event.Level, 0)
	c.decide([]event.Draft{event.NodeLeft{}.Draft(b.ID())}, a, b, d)
	eventually(t, "it has put its membership aside", func() error {
		found, err := filepath.Glob(filepath.Join(b.cfg.Data, "left-*", "membership.json"))
		if len(found) == 0 {
			return errors.Join(err, errors.New("it has not"))
		}
		return err
	})
	c.vote(a, d)
}

// TestANewVoterGetsThePast: one whose copy began with a snapshot fetches what was
// before when it is to vote.
func TestANewVoterGetsThePast(t *testing.T) {
	t.Parallel()
	c := found(t, event.Level)
	a, b := c.all[0], c.hire("", 0)
	c.rename(a, 300)
	b.stop(nil)
	if err := os.RemoveAll(b.self.dir.Log()); err != nil {
		t.Fatal(err)
	}
	bare, err := replica.Open(b.self.dir.Log(), replica.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pipe, in := io.Pipe()
	go func() { in.CloseWithError(a.assembled().store.Snapshot(in)) }()
	if err := errors.Join(bare.Restore(pipe), bare.Close()); err != nil {
		t.Fatal(err)
	}
	c.start(b)
	c.approve(a, b)
	c.vote(a, b)
	eventually(t, "it has the past", func() error {
		if first := b.assembled().store.First(); first != 1 {
			return fmt.Errorf("the first event is %d", first)
		}
		return nil
	})
	want, err := a.assembled().store.Events(t.Context(), 0, replica.Filter{}, 250)
	got, err2 := b.assembled().store.Events(t.Context(), 0, replica.Filter{}, 250)
	if err := errors.Join(err, err2); err != nil || !slices.EqualFunc(got, want, func(a, b event.Event) bool {
		return string(a.AppendJSON(nil)) == string(b.AppendJSON(nil))
	}) {
		t.Fatalf("another past: %d events, %d; %v", len(got), len(want), err)
	}
}

// TestSettingsOfTheDisk: the kind of Raft log is the founder's choice and holds
// over a restart, another kind is refused with what to do, and backups appear
// where they are wanted.
func TestSettingsOfTheDisk(t *testing.T) {
	t.Parallel()
	data, backups := filepath.Join(t.TempDir(), "1"), filepath.Join(t.TempDir(), "backups")
	r, err := InitFleet(t.Context(), InitOptions{Data: data, Name: "geese", NodeName: "n1", Store: "wal"})
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{t: t, file: r.FleetFile}
	a := c.hire(data, 0, func(cfg *config.Config) {
		cfg.Raft.Store, cfg.Backup = "wal", config.Backup{Dir: backups, Every: time.Hour, Keep: 1}
	})
	c.rename(a, 3)
	eventually(t, "a backup", func() error {
		files, err := os.ReadDir(backups)
		if err == nil && len(files) != 1 {
			err = fmt.Errorf("%d files in %s", len(files), backups)
		}
		return err
	})
	seq := a.assembled().store.Cursor().Seq
	a.stop(ErrKilled)
	c.start(a)
	c.rename(a, 3)
	if now := a.assembled().store.Cursor().Seq; now < seq+3 {
		t.Errorf("the log ends at %d, it was at %d before", now, seq)
	}
	a.stop(nil)
	other := a.cfg
	other.Raft.Store = "bolt"
	n, err := New(other, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), `kept as "wal"`) {
		t.Errorf("started with another kind of store: %v", err)
	}
}

// recoverOn makes a stopped node the only voter of its fleet, as
// `skein recover-quorum` does, and says what the log is called now.
func recoverOn(t *testing.T, h *hand) (history string) {
	t.Helper()
	store, err := replica.Open(h.self.dir.Log(), replica.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := store.Cursor()
	history = newHistory()
	r, err := store.Recover(event.Batch{Actor: event.Actor{Kind: event.KindRecovery, ID: string(h.ID())}, Drafts: []event.Draft{
		event.LogRecovered{History: history, Seq: at.Seq, Hash: at.Hash, Reason: "the others are lost"}.Draft()}}, time.Now())
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := raftgroup.Recover(h.self.dir.Raft(), h.ID(), raftlog.Bolt, r.Index, r.Term); err != nil {
		t.Fatal(err)
	}
	return history
}

// TestOldVotersGiveUpTheirSeats: after a recovery on one voter the other two come
// back, at the same moment. Together they would be a majority of the old group;
// neither ever leads, both follow the recovered log, keep their old Raft logs
// aside, and may vote again when an admin says so.
func TestOldVotersGiveUpTheirSeats(t *testing.T) {
	needsLevel2(t)
	t.Parallel()
	c, a, b, d := trio(t, event.Level, 0)
	c.rename(a, 20)
	c.agree(a, b, d)
	for _, h := range []*hand{a, b, d} {
		h.stop(ErrKilled)
	}
	history := recoverOn(t, a)
	c.start(a)
	c.vote(a)
	c.rename(a, 5)
	var led atomic.Bool
	var wg sync.WaitGroup
	for _, h := range []*hand{b, d} {
		wg.Go(func() { c.start(h) })
	}
	wg.Wait()
	for _, h := range []*hand{b, d} {
		eventually(t, h.cfg.Name+" is of the recovered fleet", func() error {
			if leaderOf(h) != nil {
				led.Store(true)
			}
			if at := h.assembled().store.Cursor(); at.History != history {
				return fmt.Errorf("it is at %+v", at)
			}
			aside, err := filepath.Glob(h.self.dir.Raft() + ".before-*")
			if _, seated := h.seat().status(); seated || err != nil || len(aside) != 1 {
				return fmt.Errorf("seated %v, put aside %v, %v", seated, aside, err)
			}
			return nil
		})
	}
	if led.Load() {
		t.Error("one that was given up has led")
	}
	c.agree(a, b, d)
	c.approve(a, b, d)
	c.vote(a, b, d)
	c.rename(a, 5)
	c.agree(a, b, d)
	a.stop(ErrKilled)
	c.rename(b, 5) // the new group decides without the first
	c.agree(b, d)
}

// TestAnOldMajorityGivesWay: voters that were given up come back where the
// recovered one is not, lead, and decide. When they meet it they give up their
// seats, although what they have cannot be joined to its log.
func TestAnOldMajorityGivesWay(t *testing.T) {
	needsLevel2(t)
	t.Parallel()
	c, a, b, d := trio(t, event.Level, 0)
	c.agree(a, b, d)
	for _, h := range []*hand{a, b, d} {
		h.stop(ErrKilled)
	}
	history := recoverOn(t, a)
	c.start(b)
	c.start(d)
	c.all = []*hand{b, d}
	c.rename(b, 1) // they do not know better
	if err := os.Remove(a.self.dir.Peers()); err != nil {
		t.Fatal(err)
	}
	c.start(a) // it finds them by gossip only
	c.all = []*hand{a}
	c.rename(a, 1)
	for _, h := range []*hand{b, d} {
		eventually(t, h.cfg.Name+" gives up its seat", func() error {
			if s, seated := h.seat().status(); seated {
				return fmt.Errorf("it is %s", s.State)
			}
			return nil
		})
		if at := h.assembled().store.Cursor(); at.History == history {
			t.Errorf("%s has joined another log to its own: %+v", h.cfg.Name, at)
		}
	}
	c.vote(a)
}

// TestAnOutdatedVoterStaysQuiet: once it has heard of a later epoch, a voter gives
// up its seat also when it cannot follow anybody there, and remembers over a
// restart.
func TestAnOutdatedVoterStaysQuiet(t *testing.T) {
	t.Parallel()
	c := found(t, event.Level)
	a := c.all[0]
	eventually(t, "it leads", func() error {
		if leaderOf(a) == nil {
			return errors.New("not yet")
		}
		return nil
	})
	a.trust.epochs.Load().hear(ident.NodeID("somebody"), 1)
	quiet := func() error {
		if _, seated := a.seat().status(); seated {
			return errors.New("it has a seat")
		}
		return nil
	}
	eventually(t, "it gives up its seat", quiet)
	if a.seat().standing().Fed {
		t.Error("it waits for Raft to bring the log")
	}
	a.stop(nil)
	c.start(a)
	if err := quiet(); err != nil || !a.seat().outdated() {
		t.Errorf("after a restart: %v", err)
	}
}
