package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	robots = 5
	voters = 3
	// converge is how long after the last fault all robots must be equal.
	converge = 30 * time.Second
)

// TestChaos: see the package comment.
func TestChaos(t *testing.T) {
	lan := rig.New(t, robots)
	f := trial.Found(t, rig.Skein(t), "geese", lan.Hosts, voters)
	d := &diary{began: time.Now(), acked: map[string]uint64{}, never: map[string]error{}}
	var registers []string
	for _, r := range f.Robots[:3] {
		registers = append(registers, trial.ID(t, r))
	}
	ctx, stop := context.WithTimeout(t.Context(), trial.Soak(25*time.Second, 10*time.Minute))
	defer stop()
	var wg sync.WaitGroup
	for i, r := range f.Robots {
		w := &worker{id: i, client: f.Client(r), robots: registers, diary: d}
		w.read(0) // logs in while all is well
		wg.Go(func() { w.run(ctx) })
	}
	n := &nemesis{t: t, lan: lan, fleet: f, rand: trial.Lots(t)}
	n.run(ctx)
	wg.Wait()

	healed := time.Now()
	f.AwaitListing(f.Robots, converge)
	f.AwaitVoters(voters)
	equal(t, f)
	t.Logf("%d faults: %v; all equal %s after the last", len(n.did), n.did, time.Since(healed).Round(time.Millisecond))
	d.check(t, f)
}

// nemesis makes faults, one after the other, and heals each before the next.
type nemesis struct {
	t     *testing.T
	lan   *rig.Rig
	fleet *trial.Fleet
	rand  *rand.Rand
	did   []string
}

// run makes faults until ctx ends, and heals the last.
func (n *nemesis) run(ctx context.Context) {
	faults := []func(context.Context) string{n.killLeader, n.killSome, n.pauseLeader, n.cutLeader, n.oneWay, n.minority}
	wait := func(least, most time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(least + time.Duration(n.rand.Int64N(int64(most-least)))):
		}
	}
	for wait(time.Second, 2*time.Second); ctx.Err() == nil; wait(time.Second, 2*time.Second) {
		n.did = append(n.did, faults[n.rand.IntN(len(faults))](ctx))
	}
}

// hold is how long a fault lasts. It is not cut short, so that every fault is
// healed in order.
func (n *nemesis) hold() {
	time.Sleep(time.Second + time.Duration(n.rand.Int64N(int64(3*time.Second))))
}

func (n *nemesis) voter() *trial.Robot { return n.fleet.Robots[n.rand.IntN(voters)] }

func (n *nemesis) killLeader(context.Context) string { return n.kill(n.fleet.Leader()) }

func (n *nemesis) killSome(context.Context) string {
	return n.kill(n.fleet.Robots[n.rand.IntN(robots)])
}

func (n *nemesis) kill(r *trial.Robot) string {
	r.Kill()
	n.hold()
	r.Boot()
	return "kill " + r.Name
}

// pauseLeader stops the leader's process for longer than an election takes, so
// that it wakes up believing that it leads.
func (n *nemesis) pauseLeader(context.Context) string {
	r := n.fleet.Leader()
	r.Process.Signal(syscall.SIGSTOP)
	n.hold()
	r.Process.Signal(syscall.SIGCONT)
	return "pause " + r.Name
}

func (n *nemesis) cutLeader(context.Context) string {
	r := n.fleet.Leader()
	r.Block()
	n.hold()
	r.Heal()
	return "cut off " + r.Name
}

// oneWay lets a voter hear another that does not hear it.
func (n *nemesis) oneWay(context.Context) string {
	a, b := n.voter(), n.voter()
	for a == b {
		b = n.voter()
	}
	n.lan.Drop(a.Host, b.Host)
	n.hold()
	n.lan.Heal()
	return fmt.Sprintf("%s no longer heard by %s", a.Name, b.Name)
}

// minority separates one voter and one follower from the rest.
func (n *nemesis) minority(context.Context) string {
	v := n.rand.IntN(voters)
	one := []*rig.Host{n.fleet.Robots[v].Host, n.fleet.Robots[robots-1].Host}
	var rest []*rig.Host
	for i, r := range n.fleet.Robots[:robots-1] {
		if i != v {
			rest = append(rest, r.Host)
		}
	}
	n.lan.Split(one, rest)
	n.hold()
	n.lan.Heal()
	return "separate " + n.fleet.Robots[v].Name + " and " + n.fleet.Robots[robots-1].Name
}

// equal waits until all robots hold the newest event that any of them holds, and
// then compares their states and chains there.
func equal(t *testing.T, f *trial.Fleet) {
	t.Helper()
	var newest uint64
	states := map[string]view.Decided{}
	look := func(r *trial.Robot, at uint64) (d view.Decided, err error) {
		query := url.Values{}
		if at > 0 {
			query.Set("at", strconv.FormatUint(at, 10))
		}
		text, err := f.Client(r).Get(t.Context(), "/api/v1/state", query)
		if err == nil {
			err = json.Unmarshal(text, &d)
		}
		return d, err
	}
	for _, r := range f.Robots {
		d, err := look(r, 0)
		if err != nil {
			t.Fatal(err)
		}
		newest = max(newest, d.AsOf.Cursor.Seq)
	}
	rig.Wait(t, converge, "every robot holds the newest event", func() error {
		for _, r := range f.Robots {
			d, err := look(r, newest)
			if err != nil {
				return err
			}
			states[r.Name] = d
		}
		return nil
	})
	first := states[f.Robots[0].Name]
	for name, d := range states {
		if d.StateHash != first.StateHash || d.AsOf.Cursor != first.AsOf.Cursor {
			t.Errorf("at event %d %s has state %s and cursor %+v; %s has %s and %+v", newest,
				name, d.StateHash, d.AsOf.Cursor, f.Robots[0].Name, first.StateHash, first.AsOf.Cursor)
		}
	}
}
