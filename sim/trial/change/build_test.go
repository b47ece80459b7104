package change

import (
	"fmt"
	"strings"
	"testing"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

// TestRollingUpgrade founds a fleet with a build that knows one level of event
// types less, and upgrades it robot by robot under load. Until the last voter is
// new, what only new builds know is refused, whoever leads and whoever is asked;
// then it can be used everywhere. All states are the same all the time. An old
// build that is put back afterwards says so and ends, and harms nobody.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	older, newer := rig.Build(t, "skein_oldevents"), rig.Skein(t)
	lan := rig.New(t, 4)
	f := trial.Found(t, older, "geese", lan.Hosts, 3)
	ids := named(t, f)
	upgrade := &upgrade{t: t, f: f, ids: ids, load: f.StartLoad("load", 4)}
	one, two, last, robot := f.Robots[0], f.Robots[1], f.Robots[2], f.Robots[3]
	upgrade.refused("all are old", 1, "skein", f.Robots...)
	for _, r := range []*trial.Robot{one, two} {
		upgrade.restart(r, newer)
	}
	for _, leader := range []*trial.Robot{last, one} {
		lead(t, f, ids, leader)
		upgrade.refused(leader.Name+" leads, "+last.Name+" is old", 1, "upgrade", one, two, last, robot)
	}
	upgrade.restart(last, newer)
	rig.Wait(t, settle, "the fleet's level is raised", func() error {
		d, err := f.Face(one).Decided(t.Context(), "")
		if err == nil && d.Ceiling != event.Level {
			err = fmt.Errorf("it is %d", d.Ceiling)
		}
		return err
	})
	ends(t, robot.Process, 1, "upgrade") // it does not vote, so nobody waited for it
	robot.BootAs(newer)
	upgrade.load.Await(10, settle)
	upgrade.accepted()

	for _, r := range []*trial.Robot{robot, two} {
		r.Process.Stop()
		r.Boot() // the old build
		ends(t, r.Process, 1, "upgrade")
		upgrade.load.Await(10, settle)
		r.BootAs(newer)
	}
	upgrade.load.Await(10, settle)
	f.AwaitVoters(3)
	upgrade.load.Stop()
	whole(t, f, f.Robots, upgrade.load)
	onesOwn(t, f, robot, ids)
}

// upgrade is a fleet that is being upgraded.
type upgrade struct {
	t    *testing.T
	f    *trial.Fleet
	ids  map[string]ident.NodeID
	load *trial.Load
}

// restart puts another build on a robot, and waits until changes go on.
func (u *upgrade) restart(r *trial.Robot, build string) {
	u.t.Helper()
	r.Process.Stop()
	r.BootAs(build)
	u.load.Await(10, settle)
	u.f.AwaitVoters(3)
}

// refused: the fleet is at a level, each of robots refuses what is above it in
// words that say what to do, and all are in the same state.
func (u *upgrade) refused(when string, level uint64, word string, robots ...*trial.Robot) {
	u.t.Helper()
	for _, r := range robots {
		d, err := u.f.Face(r).Decided(u.t.Context(), "")
		if err != nil || d.Ceiling != level {
			u.t.Fatalf("%s: %s is at level %d, want %d (%v)", when, r.Name, d.Ceiling, level, err)
		}
		p := refusal(u.t, u.f.Face(r), u.later(r))
		switch {
		case p == nil:
			u.t.Fatalf("%s: %s let through what an older voter does not know", when, r.Name)
		case p.Code != string(event.CodeConflict) && p.Code != string(event.CodeUnknownType), !strings.Contains(p.Error(), word), p.Next == "":
			u.t.Errorf("%s: %s refuses with %s: %v; want what to do, and %q", when, r.Name, p.Code, p, word)
		}
	}
	u.load.Paused(func() { u.f.AwaitAgreement(u.f.Robots, settle) })
}

// later is a change that only the newer build knows.
func (u *upgrade) later(r *trial.Robot) view.Draft {
	return event.RobotProvisioned{Firmware: "of a trial"}.Draft(u.ids[r.Name])
}

// accepted: what was refused is decided, asked for at each robot.
func (u *upgrade) accepted() {
	u.t.Helper()
	for _, r := range u.f.Robots {
		if p := refusal(u.t, u.f.Face(r), u.later(r)); p != nil && p.Reason != string(event.ReasonNoChange) {
			u.t.Errorf("%s refuses what all voters know: %v", r.Name, p)
		}
	}
	whole(u.t, u.f, u.f.Robots, u.load)
}
