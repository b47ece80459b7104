package change

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"skein/mesh/ident"
	"skein/sim/rig"
	"skein/sim/trial"
)

// TestSwappedAddresses exchanges the addresses of robots, while they run and
// while they are off: whoever is asked at an old address is somebody else. Who a
// robot is follows from its key, so changes go on being acknowledged, everybody
// shows the right name at the right address, nothing is attributed to the wrong
// one, and there is one leader in each term and one log.
func TestSwappedAddresses(t *testing.T) {
	t.Parallel()
	lan := rig.New(t, 5)
	f := trial.Found(t, rig.Skein(t), "geese", lan.Hosts, 3)
	voters, robot := f.Robots[:3], f.Robots[4]
	ids := named(t, f)
	before, err := robot.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	sentry := watchLeaders(t, f)
	load := f.StartLoad("load", 3)
	load.Await(10, settle)
	for _, c := range []struct {
		name string
		with func() (a, b *trial.Robot)
		off  bool
	}{
		{"the leader and a voter, while they run", func() (a, b *trial.Robot) {
			leader := f.Leader()
			return leader, voters[(slices.Index(voters, leader)+1)%3]
		}, false},
		{"a voter and a robot, while they run", func() (a, b *trial.Robot) { return voters[0], robot }, false},
		{"two voters, while they are off", func() (a, b *trial.Robot) { return voters[1], voters[2] }, true},
		{"a voter and a robot, while they are off", func() (a, b *trial.Robot) { return voters[2], robot }, true},
	} {
		a, b := c.with()
		if c.off {
			a.Kill()
			b.Kill()
		}
		lan.Swap(a.Host, b.Host)
		if c.off {
			a.Boot()
			b.Boot()
		}
		acked := load.Await(20, settle)
		at := rig.Wait(t, settle, "everybody shows all at their addresses", func() error { return atHome(t, f, ids) })
		for _, r := range []*trial.Robot{a, b} {
			if slices.Contains(voters, r) { // it reaches everybody, also the other one
				lead(t, f, ids, r)
				load.Paused(func() { f.AwaitAgreement(f.Robots, settle) })
			}
		}
		t.Logf("%s (%s, %s): 20 more changes after %v, all seen at home %v later", c.name, a.Name, b.Name, acked, at)
	}
	f.AwaitListing(f.Robots, settle)
	f.AwaitVoters(3)
	whole(t, f, f.Robots, load)
	load.Stop()
	sentry.end()
	if err := sentry.fault(); err != nil {
		t.Error(err)
	}
	onesOwn(t, f, robot, ids)
	for _, r := range f.Robots {
		now, err := r.Fleet()
		if err != nil {
			t.Fatal(err)
		}
		if now.FleetID != before.FleetID || now.AsOf.Cursor.History != before.AsOf.Cursor.History {
			t.Errorf("%s is in fleet %s with log %s, it was %s with %s", r.Name, now.FleetID, now.AsOf.Cursor.History, before.FleetID, before.AsOf.Cursor.History)
		}
	}
}

// atHome: every robot's face is that robot's, and it shows each robot by its
// name, its id, and its own address and nobody else's.
func atHome(t testing.TB, f *trial.Fleet, ids map[string]ident.NodeID) error {
	owner := map[string]string{}
	for _, r := range f.Robots {
		owner[r.Addr().String()] = r.Name
	}
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	for _, at := range f.Robots {
		raft, err := f.Face(at).Raft(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", at.Name, err)
		}
		if raft.Node != ids[at.Name] {
			t.Fatalf("%s says that it is %s, it is %s", at.Name, raft.Node, ids[at.Name])
		}
		nodes, err := f.Face(at).Nodes(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", at.Name, err)
		}
		list, err := f.Face(at).Robots(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", at.Name, err)
		}
		if len(nodes.Nodes) != len(ids) || len(list.Robots) != len(ids) {
			return fmt.Errorf("%s shows %d nodes and %d robots, want %d", at.Name, len(nodes.Nodes), len(list.Robots), len(ids))
		}
		for _, n := range nodes.Nodes {
			if n.ID != ids[n.Name] {
				t.Fatalf("%s shows %s with the id %s, it has %s", at.Name, n.Name, n.ID, ids[n.Name])
			}
			if len(n.Addrs) == 0 || owner[n.Addrs[0]] != n.Name {
				return fmt.Errorf("%s shows the node %s at %v", at.Name, n.Name, n.Addrs)
			}
		}
		for _, r := range list.Robots {
			home := f.Robots[slices.IndexFunc(f.Robots, func(other *trial.Robot) bool { return other.Name == r.Name })]
			if want := fmt.Sprintf("http://%s:7780", home.Addr()); r.ID != ids[r.Name] || r.HTTP != want {
				return fmt.Errorf("%s shows the robot %s (%s) at %s, it is at %s", at.Name, r.Name, r.ID, r.HTTP, want)
			}
		}
	}
	return nil
}
