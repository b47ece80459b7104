package survey

import (
	"math/rand"
	"reflect"
	"testing"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/node/gateway/view"
)

// The diff of two states of a random run is empty exactly if everything that is
// compared is equal; forwards and backwards say the same; and every change is of
// something that one of the two states has.
func TestDiffOfRandomStates(t *testing.T) {
	for seed := range int64(20) {
		run := fleettest.New(rand.New(rand.NewSource(seed)).Intn)
		s := fleet.New()
		apply := func(b event.Batch) {
			v, err := s.Check(b, noon)
			if err != nil {
				return
			}
			for _, e := range v.Events {
				if err := s.Apply(e); err != nil {
					t.Fatal(err)
				}
			}
		}
		apply(fleettest.Genesis())
		before := s.Clone()
		for range 200 {
			apply(run.Next())
		}
		a, b := things(before), things(s)
		forwards, backwards := diff(a, b), diff(b, a)
		if same := reflect.DeepEqual(a, b); same != (len(forwards) == 0) || len(diff(b, b)) != 0 {
			t.Fatalf("seed %d: equal is %v, with changes %+v", seed, same, forwards)
		}
		if len(forwards) != len(backwards) {
			t.Fatalf("seed %d: %d changes forwards, %d backwards", seed, len(forwards), len(backwards))
		}
		opposite := map[string]string{"added": "removed", "removed": "added", "changed": "changed"}
		for i, c := range forwards {
			back := backwards[i]
			if back.Kind != c.Kind || back.ID != c.ID || back.What != opposite[c.What] || len(back.Fields) != len(c.Fields) {
				t.Fatalf("seed %d: forwards %+v, backwards %+v", seed, c, back)
			}
			for j, f := range c.Fields {
				if back.Fields[j] != (view.FieldChange{Field: f.Field, From: f.To, To: f.From}) || f.From == f.To {
					t.Fatalf("seed %d: forwards %+v, backwards %+v", seed, f, back.Fields[j])
				}
			}
			_, inA := a[thing{c.Kind, c.ID}]
			_, inB := b[thing{c.Kind, c.ID}]
			if inA != (c.What != "added") || inB != (c.What != "removed") {
				t.Fatalf("seed %d: %+v, in the one %v, in the other %v", seed, c, inA, inB)
			}
		}
	}
}

func TestARobotsLifeIsShown(t *testing.T) {
	w := newWorld(t, 1, 1)
	if l := w.row(0).Life; l.Lifecycle.State != "discovered" || l.Lifecycle.Since != nil || l.Lifecycle.LastFailure != nil || l.Deployed != nil {
		t.Fatalf("at first %+v", l)
	}
	id := fleettest.Node(0)
	w.leader(event.CeilingRaised{Level: 2}.Draft())
	w.admin(event.RobotProvisioned{Version: "1"}.Draft(id), event.RobotProvisioned{Version: "2"}.Draft(id))
	w.leader(event.RobotDeploymentStarted{Deployment: "d1", Version: "3", Kind: event.DeployFull}.Draft(id))
	w.leader(event.RobotFailed{Message: "stuck", Code: "E7", Kind: event.FailedHardware}.Draft(id))
	l := w.row(0).Life
	if l.Lifecycle.Since == nil || !l.Lifecycle.Since.Equal(noon) || l.Lifecycle.Failures != 1 || l.Lifecycle.LastFailure == nil || l.Lifecycle.LastFailure.Code != "E7" {
		t.Errorf("lifecycle %+v", l.Lifecycle)
	}
	if l.Deployed == nil || l.Deployed.Version != "3" || l.Deployed.Status != "running" {
		t.Errorf("deployed %+v", l.Deployed)
	}
}
