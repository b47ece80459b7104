package views_test

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/views"
	"skein/mesh/ident"
)

// answers are what turns speak of, as text: lists, and what was decided about
// each node.
type answers struct {
	lists map[string]string
	turns map[string]uint64
	nodes map[ident.NodeID]string
	turn  uint64
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func answersOf(s *fleet.State, v *views.Views) answers {
	a := answers{
		lists: map[string]string{"alerts": text(v.Alerts()), "deployments": text(v.Deployments())},
		turns: map[string]uint64{"alerts": v.AlertsTurn(), "deployments": v.DeploymentsTurn(), "groups": v.GroupsTurn()},
		nodes: map[ident.NodeID]string{}, turn: v.Turn(),
	}
	names := map[ident.NodeID]string{}
	for _, n := range s.Nodes() {
		names[n.ID] = n.Name
		r, ok := s.Robot(n.ID)
		if ok {
			names[n.ID] = r.Name
		}
		a.nodes[n.ID] = text([]any{n, r, ok})
	}
	a.lists["groups"] = text([]any{s.Groups(), names})
	return a
}

// TestTurns: what is said not to have changed has not, after any entry of random
// runs; and most entries leave most answers alone.
func TestTurns(t *testing.T) {
	same, other := map[string]int{}, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		run, s, v := fleettest.New(choose), fleet.New(), views.New()
		tx, now, batch, history := s.Begin(), time.UnixMilli(1_700_000_000_000).UTC(), fleettest.Genesis(), "h1"
		before := answersOf(s, v)
		for i := range 60 {
			var events []event.Event
			if verdict, err := tx.Check(batch, now); err == nil {
				events = verdict.Events
			}
			tx.Commit()
			history = s.History()
			v.Applied(s, events)
			after := answersOf(s, v)
			for list, turn := range after.turns {
				switch {
				case turn != before.turns[list]:
					other[list]++
				case after.lists[list] != before.lists[list]:
					t.Fatalf("entry %d, after %s: %s changed, and their turn did not\nwere %s\nare  %s", i, types(events), list, before.lists[list], after.lists[list])
				default:
					same[list]++
				}
			}
			touched := map[ident.NodeID]bool{}
			all := v.Touched(before.turn, func(id ident.NodeID) { touched[id] = true })
			for id, is := range after.nodes {
				if is != before.nodes[id] && !all && !touched[id] {
					t.Fatalf("entry %d, after %s: node %s changed and was not touched\nwas %s\nis  %s", i, types(events), id, before.nodes[id], is)
				}
			}
			if !all {
				same["nodes"] += len(after.nodes) - len(touched)
				other["nodes"] += len(touched)
			}
			before = after
			run.At(s.Seq(), history)
			if batch = run.Next(); choose(2) == 0 {
				batch = life(s, choose, batch)
			}
			now = now.Add(time.Second)
		}
	})
	for list, n := range other {
		if n == 0 || same[list] < n {
			t.Errorf("%s: %d times otherwise and %d times the same; nobody would gain by keeping them", list, n, same[list])
		}
	}
}

// TestTouchedSinceAReset: who kept something from before has to start anew.
func TestTouchedSinceAReset(t *testing.T) {
	w := newWorld(t, 3)
	touched := func(after uint64) (ids []ident.NodeID, all bool) {
		all = w.kept.Touched(after, func(id ident.NodeID) { ids = append(ids, id) })
		return ids, all
	}
	before := w.kept.Turn()
	w.leader(event.RobotOffline{LastHeardSeconds: 30}.Draft(fleettest.Node(2)))
	if ids, all := touched(before); all || len(ids) != 1 || ids[0] != fleettest.Node(2) {
		t.Errorf("after one event: %v, all %v", ids, all)
	}
	if ids, all := touched(w.kept.Turn()); all || ids != nil {
		t.Errorf("after nothing: %v, all %v", ids, all)
	}
	before = w.kept.Turn()
	w.kept.Reset(w.s)
	if ids, all := touched(before); !all || ids != nil {
		t.Errorf("after a reset: %v, all %v", ids, all)
	}
	if ids, all := touched(0); !all || ids != nil {
		t.Errorf("who never asked: %v, all %v", ids, all)
	}
}

// TestNamed: a name finds the one member's robot that has it, and nobody else.
func TestNamed(t *testing.T) {
	w := newWorld(t, 3)
	named := func(name string) ident.NodeID {
		id, _ := w.kept.Named(name)
		return id
	}
	if named("r1") != fleettest.Node(1) || named("r9") != "" || named("") != "" {
		t.Errorf("r1 is %s, r9 %q, no name %q", named("r1"), named("r9"), named(""))
	}
	w.admin(event.RobotConfigChanged{Name: "r1"}.Draft(fleettest.Node(2)))
	if got := named("r1") + named("r2"); got != "" {
		t.Errorf("one of two of that name, or the old name, finds %s", got)
	}
	w.admin(event.NodeRevoked{}.Draft(fleettest.Node(1)))
	if named("r1") != fleettest.Node(2) {
		t.Errorf("beside one that was revoked: %q", named("r1"))
	}
}
