package change

import (
	"fmt"
	"slices"
	"testing"

	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

// TestWithdrawnWhileOthersAreDead withdraws a living voter while two of five are
// dead. Four that are left, two of them dead, could not decide: so the fleet goes
// on deciding, with those it needs, and comes to three voters in an order that
// loses no majority.
func TestWithdrawnWhileOthersAreDead(t *testing.T) {
	t.Parallel()
	lan := rig.New(t, 6)
	f := trial.Found(t, rig.Skein(t), "geese", lan.Hosts, 5)
	robot, leader := f.Robots[5], f.Leader()
	rest := slices.DeleteFunc(slices.Clone(f.Robots[:5]), func(r *trial.Robot) bool { return r == leader })
	withdrawn, dead := rest[0], rest[2:]
	load := f.StartLoadAbout("load", 2, robot)
	load.Await(10, settle)
	for _, r := range dead {
		r.Kill()
	}
	rig.Wait(t, settle, "the leader knows that they are dead", func() error {
		nodes, err := f.Face(leader).Nodes(t.Context())
		if err != nil {
			return err
		}
		for _, n := range nodes.Nodes {
			if n.State == view.Alive && (n.Name == dead[0].Name || n.Name == dead[1].Name) {
				return fmt.Errorf("%s is %s", n.Name, n.State)
			}
		}
		return nil
	})
	load.Await(10, settle)
	f.Admin("node", "withdraw", withdrawn.Name)
	t.Logf("20 more changes after %v", load.Await(20, settle))
	took := rig.Wait(t, settle, "three voters, without who was withdrawn", func() error {
		header, err := robot.Fleet()
		if err != nil {
			return err
		}
		var names []string
		for _, v := range header.Voters {
			names = append(names, v.Name)
		}
		if len(names) != 3 || slices.Contains(names, withdrawn.Name) {
			return fmt.Errorf("the voters are %v", names)
		}
		return nil
	})
	load.Await(20, settle)
	load.Stop()
	f.AwaitVoters(3)
	t.Logf("three vote after %v", took)
	wholeButVoters(t, f, []*trial.Robot{leader, withdrawn, rest[1], robot}, load)
}
