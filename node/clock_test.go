package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
	greet := func(context.Context, ident.NodeID) error { return nil }
	s.clock = &clock{
		self: "me", wall: func() time.Time { return time.Now().Add(s.own) }, voters: func() []ident.NodeID { return voters },
		skew: func(id ident.NodeID) (time.Duration, bool) {
			d, ok := s.skew[id]
			return d - s.own, ok
		},
		greet: greet, jumps: make(chan struct{}, 1),
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
	if d, ok := s.offset("a"); ok {
		t.Errorf("a was not asked since, and is %v away", d)
	}
	s.compare(t.Context())
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

// TestALeaderComparesClocks: when it begins to lead, when its own clock jumps, and
// now and then; it judges nobody by what it knew before.
func TestALeaderComparesClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[ident.NodeID]int{}
		var mu sync.Mutex
		s := newShop("a", "b", "me")
		s.greet = func(_ context.Context, id ident.NodeID) error {
			mu.Lock()
			defer mu.Unlock()
			asked[id]++
			return nil
		}
		s.skew["a"], s.skew["b"] = 0, 0
		expect := func(when string, times int, known bool) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if _, ok := s.offset("a"); ok != known || asked["a"] != times || asked["b"] != times || asked["me"] != 0 {
				t.Errorf("%s: a's clock is known: %v, asked %v; want %v, %d times", when, ok, asked, known, times)
			}
		}
		leads, turned := false, make(chan struct{})
		turn := func(to bool) {
			mu.Lock()
			defer mu.Unlock()
			leads = to
			close(turned)
			turned = make(chan struct{})
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.keep(ctx, func() bool { mu.Lock(); defer mu.Unlock(); return leads }, func() <-chan struct{} { mu.Lock(); defer mu.Unlock(); return turned })
		}()
		expect("before it leads", 0, false)
		turn(true)
		expect("it leads", 1, true)
		time.Sleep(compareEvery - time.Second)
		expect("it leads on", 1, true)
		time.Sleep(time.Second)
		expect("it has led for long", 2, true)
		time.Sleep(time.Second)
		s.own = time.Hour
		s.now()
		expect("its clock jumps", 3, true)
		turn(false)
		expect("another leads", 3, false)
		turn(true)
		expect("it leads again", 4, true)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
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
