package change

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// movedBy is the file by which a build with the tag skein_clock is told how far
	// its clock is off.
	movedBy = "skein-clock"
	// watched is how long a fleet is looked at with a wrong clock: several times
	// what an election takes.
	watched = 2 * time.Second
	// handover is how long nobody may answer a fresh read at most, also while a
	// leader with a wrong clock hands over.
	handover = 5 * time.Second
	// nearly is how far the time of an event may be from the right one.
	nearly = 5 * time.Second
)

// move sets the clock of a robot's machine, while its node runs or not.
func move(t testing.TB, r *trial.Robot, by time.Duration) {
	t.Helper()
	next := r.WriteFile(movedBy+".next", by.String())
	if err := os.Rename(next, filepath.Join(r.Dir, movedBy)); err != nil {
		t.Fatal(err)
	}
}

// TestWrongClocks sets clocks of running robots an hour forth and back, also the
// leader's, and starts robots with such clocks. Nobody is elected for it, but
// that a leader hands over once; no deadline comes early or late, nobody is taken
// for gone, nobody is logged out, reads stay fresh, and events have the right time.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	lan := rig.New(t, 6)
	moving := rig.Build(t, "skein_clock")
	f := trial.Found(t, moving, "geese", lan.Hosts[:4], 3)
	c := &clocks{t: t, skein: moving, f: f, ids: named(t, f), load: f.StartLoad("load", 4), start: time.Now()}
	sentry := watchLeaders(t, f)
	reader := readFresh(t, f)
	c.load.Await(10, settle)

	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		moved := map[*trial.Robot]time.Duration{c.follower(): by, f.Robots[3]: -by}
		term := sentry.term()
		for r, by := range moved {
			move(t, r, by)
		}
		c.steady()
		if now := sentry.term(); now != term {
			t.Errorf("clocks of a voter and a robot moved by %v: term %d came after %d", by, now, term)
		}
		if gap := reader.longest(); gap > handover {
			t.Errorf("clocks of a voter and a robot moved by %v: no fresh read for %v", by, gap)
		}
		for r := range moved {
			r.Kill()
			r.Boot()
		}
		for r, by := range moved {
			c.off(r, by)
		}
		c.steady()
		for r := range moved {
			move(t, r, 0)
		}
		c.load.Await(5, settle)
		reader.longest()
	}
	for i, by := range []time.Duration{time.Hour, -time.Hour} {
		long, short := c.token(60*time.Second), c.token(2*time.Second)
		made, term, leader := time.Now(), sentry.term(), f.Leader()
		move(t, leader, by)
		rig.Wait(t, settle, "another leads than "+leader.Name, func() error {
			if f.Leader() == leader {
				return rig.ErrNotYet
			}
			return nil
		})
		t.Logf("%s, %v off, has handed over after %v", leader.Name, by, time.Since(made))
		c.steady()
		if now := sentry.term(); now != term+1 {
			t.Errorf("the leader's clock moved by %v: term %d came after %d, want one more", by, now, term)
		}
		if gap := reader.longest(); gap > handover {
			t.Errorf("the leader's clock moved by %v: no fresh read for %v", by, gap)
		}
		c.tokens(lan.Hosts[4+i], long, short, made)
		move(t, leader, 0)
		c.load.Await(5, settle)
	}
	sentry.end()
	if err := errors.Join(sentry.fault(), reader.end()); err != nil {
		t.Error(err)
	}
	c.load.Stop()
	whole(t, f, f.Robots, c.load)
	c.times()
}

// clocks is a fleet whose clocks are moved.
type clocks struct {
	t     *testing.T
	skein string
	f     *trial.Fleet
	ids   map[string]ident.NodeID
	load  *trial.Load
	start time.Time
}

// follower is a voter that does not lead.
func (c *clocks) follower() *trial.Robot {
	if leader := c.f.Leader(); leader != c.f.Robots[0] {
		return c.f.Robots[0]
	}
	return c.f.Robots[1]
}

// off waits until a robot sees by how much its clock and another's differ, so that
// it is off. They are compared when nodes meet.
func (c *clocks) off(r *trial.Robot, by time.Duration) {
	c.t.Helper()
	rig.Wait(c.t, settle, fmt.Sprintf("%s sees that its clock is off by %v", r.Name, by), func() error {
		var faults []error
		for name, id := range c.ids {
			if name == r.Name {
				continue
			}
			err := seenOff(c.t.Context(), c.f.Face(r), id, -by)
			if err == nil {
				return nil
			}
			faults = append(faults, err)
		}
		return errors.Join(faults...)
	})
}

// seenOff asks a robot how far a node's clock is off, by its own.
func seenOff(ctx context.Context, at *client.Client, id ident.NodeID, by time.Duration) error {
	nodes, err := at.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes.Nodes {
		if n.ID != id {
			continue
		}
		if n.ClockSkewMillis == nil {
			return errors.New("not compared yet")
		}
		if seen := time.Duration(*n.ClockSkewMillis) * time.Millisecond; (seen - by).Abs() > nearly {
			return fmt.Errorf("it sees %v", seen)
		}
		return nil
	}
	return errors.New("it does not know that node")
}

// steady lets changes go on for a while.
func (c *clocks) steady() {
	c.t.Helper()
	until := time.Now().Add(watched)
	for c.load.Await(5, settle); time.Now().Before(until); c.load.Await(5, settle) {
	}
}

// token is one that lets a robot join, once, within ttl.
func (c *clocks) token(ttl time.Duration) string {
	c.t.Helper()
	var token struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(c.f.Admin("token", "create", "--ttl", ttl.String(), "--json")), &token); err != nil || token.Token == "" {
		c.t.Fatalf("no token: %v", err)
	}
	return token.Token
}

// tokens: long, made at a moment, is still good, and short is not any more. The
// clock of who wants to join is right.
func (c *clocks) tokens(h *rig.Host, long, short string, made time.Time) {
	c.t.Helper()
	join := func(token string) error {
		_, err := h.Run(c.skein, "join", token, "--data", filepath.Join(h.Dir, "data"), "--name", "late-"+h.Name, "--timeout", "20s")
		return err
	}
	for time.Since(made) < 3*time.Second { // until the short one is over
		c.load.Await(1, settle)
	}
	if err := join(short); err == nil || !strings.Contains(err.Error(), "expired") {
		c.t.Errorf("a token for two seconds, %v later: %v", time.Since(made), err)
	}
	if err := join(long); err != nil {
		c.t.Errorf("a token for a minute, %v later: %v", time.Since(made), err)
	}
}

// times: no event says that somebody is gone, and each has about the right time.
func (c *clocks) times() {
	c.t.Helper()
	log, err := trial.Log(c.t.Context(), c.f.Face(c.f.Robots[3]), 0)
	if err != nil {
		c.t.Fatal(err)
	}
	wrong := 0
	for _, e := range log {
		if e.Type == event.TypeRobotOffline {
			c.t.Errorf("event %d calls %s offline", e.Seq, e.Stream)
		}
		if (e.Time.Before(c.start.Add(-settle-nearly)) || e.Time.After(time.Now().Add(nearly))) && wrong < 5 {
			wrong++
			c.t.Errorf("event %d (%s) is of %v, in a trial from %v to now, %v", e.Seq, e.Type, e.Time, c.start.UTC(), time.Now().UTC())
		}
	}
}

// fresh reads linearizably and by lease at every robot, and notes for how long
// one could not.
type fresh struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	gap  time.Duration
	good int
}

func readFresh(t testing.TB, f *trial.Fleet) *fresh {
	ctx, cancel := context.WithCancel(t.Context())
	r := &fresh{stop: cancel}
	for _, read := range []view.Read{view.Linearizable, view.Leased} {
		var faces []*client.Client
		for _, robot := range f.Robots {
			faces = append(faces, f.Client(robot))
		}
		r.wg.Go(func() { r.run(ctx, faces, url.Values{"read": {string(read)}}) })
	}
	t.Cleanup(func() { r.stop(); r.wg.Wait() })
	return r
}

// run asks each robot in turn.
func (r *fresh) run(ctx context.Context, faces []*client.Client, query url.Values) {
	last := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := faces[i%len(faces)].Get(try, "/api/v1/fleet", query)
		cancel()
		r.mu.Lock()
		r.gap = max(r.gap, time.Since(last))
		if err == nil {
			r.good++
			last = time.Now()
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// longest is the longest time without a fresh read since it was asked last.
func (r *fresh) longest() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	gap := r.gap
	r.gap = 0
	return gap
}

// end stops reading; something must have been read.
func (r *fresh) end() error {
	r.stop()
	r.wg.Wait()
	if r.good < 100 {
		return fmt.Errorf("%d fresh reads in all", r.good)
	}
	return nil
}

// TestShippedBuildHasTheMachinesClock: what moves the clock of a build for trials
// does not move that of the build that people run.
func TestShippedBuildHasTheMachinesClock(t *testing.T) {
	t.Parallel()
	lan := rig.New(t, 2)
	lan.Hosts[1].WriteFile(movedBy, time.Hour.String())
	f := trial.Found(t, rig.Skein(t), "geese", lan.Hosts, 1) // with a wrong clock it would not be let in
	if err := seenOff(t.Context(), f.Face(f.Robots[0]), ident.NodeID(trial.ID(t, f.Robots[1])), 0); err != nil {
		t.Errorf("the clock of a shipped build: %v", err)
	}
}
