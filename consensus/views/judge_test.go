package views_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/views"
)

// everything is all that views can say, in a form that can be compared.
func everything(v *views.Views, s *fleet.State) string {
	all := map[string]any{"overview": v.Overview(), "groups": v.Groups(), "deployments": v.Deployments(), "alerts": v.Alerts(), "members": v.Members()}
	for _, r := range s.Robots() {
		if id, ok := v.Named(r.Name); ok {
			all["robot "+r.Name] = id
		}
	}
	for _, g := range v.Groups() {
		all["group "+g.Name], _ = v.Group(g.Name)
	}
	for _, d := range v.Deployments() {
		all["deployment "+d.ID], _ = v.Deployment(d.ID)
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		panic(err)
	}
	return string(text)
}

// TestJudge compares the views after every entry of random runs with views that
// are built anew from the state; entries hold one to four batches.
func TestJudge(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		run := fleettest.New(choose)
		s, kept := fleet.New(), views.New()
		tx := s.Begin()
		now := time.UnixMilli(1_700_000_000_000).UTC()
		batch, history := fleettest.Genesis(), "h1"
		for i := range 60 {
			var events []event.Event
			for range rapid.IntRange(1, 4).Draw(t, "batches") {
				if v, err := tx.Check(batch, now); err == nil {
					events = append(events, v.Events...)
				}
				run.At(s.Seq()+uint64(len(events)), history)
				if batch = run.Next(); choose(2) == 0 {
					batch = life(s, choose, batch)
				}
			}
			tx.Commit()
			history = s.History()
			kept.Applied(s, events)
			rebuilt := views.New()
			rebuilt.Reset(s)
			if got, want := everything(kept, s), everything(rebuilt, s); got != want {
				t.Fatalf("entry %d, after %s\nkept up to date: %s\nbuilt anew: %s", i, types(events), got, want)
			}
			for _, a := range kept.Alerts() {
				seen[string(a.Kind)]++
			}
			seen["groups"] += len(kept.Groups())
			seen["deployments"] += len(kept.Deployments())
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "seconds")) * time.Second)
		}
	})
	for _, what := range []string{"groups", "deployments", string(views.QuorumAtRisk), string(views.RobotFailed),
		string(views.RobotUnhealthy), string(views.RobotQuiet), string(views.DeploymentFailed)} {
		if seen[what] == 0 {
			t.Errorf("no run had %s: nothing was compared", what)
		}
	}
}

// life is a batch of a random robot about its own life, or other if there is no
// robot. Random runs alone seldom get a robot far enough to fail at work.
func life(s *fleet.State, choose func(int) int, other event.Batch) event.Batch {
	robots := s.Robots()
	if len(robots) == 0 {
		return other
	}
	id := robots[choose(len(robots))].ID
	if choose(4) == 0 {
		turn := []event.Draft{event.RobotOnline{}.Draft(id), event.RobotOffline{LastHeardSeconds: 30}.Draft(id)}
		return event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: turn[choose(2):][:1]}
	}
	deployment := fmt.Sprint("d", choose(3))
	drafts := []event.Draft{
		event.RobotProvisioned{Version: "1.0"}.Draft(id),
		event.RobotActivated{}.Draft(id),
		event.RobotFailed{Message: "arm stuck", Kind: event.FailedHardware}.Draft(id),
		event.RobotRecovered{}.Draft(id),
		event.RobotDeploymentStarted{Deployment: deployment, Version: "2.0", Kind: event.DeployFull}.Draft(id),
		event.RobotDeploymentCompleted{Deployment: deployment, Version: "2.0"}.Draft(id),
		event.RobotDeploymentFailed{Deployment: deployment, Version: "2.0", Message: "no space"}.Draft(id),
	}
	return event.Batch{Actor: fleettest.Itself(id), Drafts: drafts[choose(len(drafts)):][:1]}
}

func types(events []event.Event) (names []string) {
	for _, e := range events {
		names = append(names, e.Type)
	}
	return names
}

// world is a state with robots, applied one entry at a time, and its views.
type world struct {
	t    testing.TB
	s    *fleet.State
	tx   *fleet.Tx
	kept *views.Views
	now  time.Time
}

func newWorld(t testing.TB, robots int) *world {
	w := &world{t: t, s: fleet.New(), kept: views.New(), now: time.UnixMilli(1_700_000_000_000).UTC()}
	w.tx = w.s.Begin()
	w.apply(fleettest.Genesis())
	w.apply(fleettest.Raise())
	for i := range robots {
		id := fleettest.Node(i)
		if i > 0 {
			w.apply(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.NodeAdmitted{
				PublicKey: fleettest.Key(i).Public(), Name: fmt.Sprint("r", i), By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft()}})
		}
		w.apply(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
			event.RobotRegistered{Name: fmt.Sprint("r", i), Type: event.LeKiwi, Version: "1", Arch: "a", OS: "o"}.Draft(id)}})
		w.leader(event.RobotOnline{}.Draft(id))
	}
	return w
}

func (w *world) apply(b event.Batch) {
	w.t.Helper()
	v, err := w.tx.Check(b, w.now)
	if err != nil {
		w.t.Fatalf("%+v: %v", b.Drafts, err)
	}
	w.tx.Commit()
	w.kept.Applied(w.s, v.Events)
}

func (w *world) admin(drafts ...event.Draft) {
	w.t.Helper()
	w.apply(event.Batch{Actor: fleettest.Admin("ada"), Drafts: drafts})
}

func (w *world) leader(drafts ...event.Draft) {
	w.t.Helper()
	w.apply(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: drafts})
}

func (w *world) itself(i int, drafts ...event.Draft) {
	w.t.Helper()
	w.apply(event.Batch{Actor: fleettest.Itself(fleettest.Node(i)), Drafts: drafts})
}

// TestOneChangeReachesEveryView: a robot's change is seen in its group, its
// deployment, the alerts and the overview at once, and its end too.
func TestOneChangeReachesEveryView(t *testing.T) {
	w := newWorld(t, 3)
	id := fleettest.Node(1)
	w.admin(event.GroupCreated{Description: "in the barn"}.Draft("barn"), event.GroupRobotAdded{Robot: id}.Draft("barn"))
	w.admin(event.RobotProvisioned{Version: "1.0"}.Draft(id), event.RobotProvisioned{Version: "1.0"}.Draft(id))
	w.itself(1, event.RobotDeploymentStarted{Deployment: "d1", Version: "2.0", Kind: event.DeployFull}.Draft(id))

	w.leader(event.RobotOffline{LastHeardSeconds: 30}.Draft(id))
	g, _ := w.kept.Group("barn")
	d, _ := w.kept.Deployment("d1")
	o := w.kept.Overview()
	if g.Robots != 1 || g.Online != 0 || g.Alerts != 1 || g.Description != "in the barn" || g.Stages[fleet.Ready] != 1 {
		t.Errorf("group %+v", g)
	}
	if d.Running != 1 || d.Waiting != 1 || d.Online != 0 || d.Versions["2.0"] != 1 {
		t.Errorf("deployment %+v", d)
	}
	if o.Robots != 3 || o.Online != 2 || o.Warning != 1 || o.Voters != 1 || o.MayLose != 0 {
		t.Errorf("overview %+v", o)
	}
	alerts := w.kept.Alerts()
	if len(alerts) != 2 || alerts[0].Kind != views.QuorumAtRisk || alerts[1].Kind != views.RobotQuiet || alerts[1].Robot != id ||
		len(alerts[1].Groups) != 1 || !alerts[1].Since.Equal(w.now) {
		t.Errorf("alerts %+v", alerts)
	}

	w.leader(event.RobotOnline{}.Draft(id))
	w.itself(1, event.RobotDeploymentFailed{Deployment: "d1", Version: "2.0", Message: "no space"}.Draft(id))
	g, _ = w.kept.Group("barn")
	d, _ = w.kept.Deployment("d1")
	if g.Online != 1 || d.Failed != 1 || d.Running+d.Waiting != 0 || w.kept.Alerts()[1].Kind != views.DeploymentFailed {
		t.Errorf("after its return: group %+v, deployment %+v, alerts %+v", g, d, w.kept.Alerts())
	}

	w.admin(event.GroupDeleted{}.Draft("barn"))
	if groups := w.kept.Groups(); len(groups) != 0 || w.kept.Alerts()[1].Groups != nil {
		t.Errorf("after the group's end: %+v, alerts %+v", groups, w.kept.Alerts())
	}
	w.admin(event.NodeRevoked{}.Draft(id))
	if o := w.kept.Overview(); o.Robots != 2 || o.Warning != 0 || len(w.kept.Deployments()) != 0 {
		t.Errorf("after the revocation: %+v, deployments %+v", o, w.kept.Deployments())
	}
}
