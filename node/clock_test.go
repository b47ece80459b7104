package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/config"
)

// shop is a clock among others that the test sets.
type shop struct {
	*clock
	own  time.Duration
	skew map[ident.NodeID]time.Duration
}

func newShop(voters ...ident.NodeID) *shop {
	s := &shop{skew: map[ident.NodeID]time.Duration{}}
	s.clock = &clock{
		self: "me", wall: func() time.Time { return time.Now().Add(s.own) }, voters: func() []ident.NodeID { return voters },
		skew: func(id ident.NodeID) (time.Duration, bool) {
			d, ok := s.skew[id]
			return d - s.own, ok
		},
	}
	return s
}

// off is how far the clock is from the right time.
func (s *shop) off() time.Duration { return time.Until(s.now()).Round(100 * time.Millisecond) }

func TestTheClockIsPutRightByTheVoters(t *testing.T) {
	s := newShop("a", "b", "me")
	expect := func(when string, want time.Duration) {
		t.Helper()
		if got := s.off(); (got - want).Abs() > 2*clockSlack {
			t.Errorf("%s: it is off by %v, want %v", when, got, want)
		}
	}
	expect("nobody else is known", 0)
	s.own = time.Hour
	expect("nobody can say that it is wrong", time.Hour)
	s.own, s.skew["a"], s.skew["b"] = 0, 0, 700*time.Millisecond
	s.lookedAt = time.Time{}
	expect("all are about right", 0)
	s.own = time.Hour
	expect("it jumps", 0)
	if d, ok := s.offset("a"); !ok || (d+time.Hour).Abs() > time.Second {
		t.Errorf("a's clock is %v away, %v; want an hour behind", d, ok)
	}
	clear(s.skew) // all streams are lost
	s.own = -time.Hour
	expect("it jumps back, and nobody is connected", 0)
	for id, r := range s.readings {
		s.readings[id] = clockReading{r.clock, r.at.Add(-clockOld)}
	}
	s.own = time.Minute
	expect("that is long ago", time.Minute)
}

func TestOneOtherClockDecidesNothingForAVoter(t *testing.T) {
	s := newShop("a", "me")
	s.skew["a"] = time.Hour
	if got := s.off(); got.Abs() > clockSlack {
		t.Errorf("a voter follows the only other one by %v", got)
	}
	s = newShop("a")
	s.skew["a"] = time.Hour
	if got := s.off(); (got - time.Hour).Abs() > clockSlack {
		t.Errorf("a robot is %v from the fleet's only voter, want none", time.Hour-got)
	}
}

func TestALeaderComparesClocks(t *testing.T) {
	asked := make(chan ident.NodeID, 8)
	s := newShop("a", "b", "me")
	s.greet = func(_ context.Context, id ident.NodeID) error { asked <- id; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.keep(ctx, func() bool { return true }, func() <-chan struct{} { return nil })
	}()
	got := map[ident.NodeID]bool{<-asked: true, <-asked: true}
	cancel()
	if err := <-ended; err != nil || !got["a"] || !got["b"] {
		t.Errorf("asked %v, ended with %v", got, err)
	}
}

func TestEpochsAreRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "epochs.json")
	open := func(fleet ident.FleetID) *epochs {
		t.Helper()
		e, err := openEpochs(path, fleet)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := open("f1")
	if err := e.save(0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a fleet that was never recovered has a file of epochs")
	}
	changed := e.next()
	e.hear("a", 0)
	if _, later := e.after(0); later {
		t.Error("epoch 0 is later than 0")
	}
	e.hear("a", 3)
	<-changed
	e.hear("b", 2)
	if by, later := e.after(2); !later || by != "a" {
		t.Errorf("after 2: %v, by %q", later, by)
	}
	if err := e.save(1); err != nil {
		t.Fatal(err)
	}
	e = open("f1")
	if _, later := e.after(2); !later || e.seatedIn() != 1 {
		t.Errorf("after a restart: later %v, seated in %d", later, e.seatedIn())
	}
	if _, later := open("f2").after(0); later {
		t.Error("another fleet's epoch counts")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openEpochs(path, "f1"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestWhoMayVoteKeepsThePast: the others keep a tail.
func TestWhoMayVoteKeepsThePast(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*config.Config)
		raft bool
		want replica.Options
	}{
		"robot":             {func(*config.Config) {}, false, replica.Options{TailBytes: replica.DefaultTailBytes}},
		"robot with bounds": {func(c *config.Config) { c.History = config.History{MaxAge: time.Hour, MaxBytes: 1 << 40} }, false, replica.Options{TailBytes: replica.DefaultTailBytes}},
		"may vote":          {func(c *config.Config) { c.Voter = true }, false, replica.Options{}},
		"may vote, with bounds": {func(c *config.Config) {
			c.Voter, c.History = true, config.History{MaxAge: time.Hour, MaxBytes: 1 << 30}
		}, false, replica.Options{MaxAge: time.Hour, MaxBytes: 1 << 30}},
		"votes": {func(*config.Config) {}, true, replica.Options{}},
	} {
		n, err := New(loopback(filepath.Join(t.TempDir(), "n"), "n", fleetFileOf(t)), "test", Logger(config.Default(), t.Output()))
		if err != nil {
			t.Fatal(err)
		}
		c.set(&n.self.cfg)
		if c.raft {
			if err := os.Mkdir(n.self.dir.Raft(), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		got := n.self.keeps(nil)
		if got.TailBytes != c.want.TailBytes || got.MaxAge != c.want.MaxAge || got.MaxBytes != c.want.MaxBytes {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// fleetFileOf is the file of some fleet.
func fleetFileOf(t *testing.T) string {
	t.Helper()
	root, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	enrolment, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fleet.json")
	if err := ident.NewFleetFile("geese", root.Public(), enrolment).Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}
