package rest

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"skein/agent/telemetry"
	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/node/gateway/view"
)

// same wants an answer to be what encoding a T gives, to the byte.
func same[T any](t *testing.T, f *face, path string) T {
	t.Helper()
	r := f.do("anna", "GET", path, "")
	v := into[T](t, r)
	if want := string(view.Encode(v)) + "\n"; string(r.body) != want {
		t.Errorf("%s is told as\n%s\nand not as\n%s", path, r.body, want)
	}
	return v
}

// newLivedFace serves a fleet in which much has happened, some of it in words
// that JSON has to escape.
func newLivedFace(t *testing.T) (*face, *deep) {
	f, d := newDeepFace(t)
	admin := func(drafts ...event.Draft) {
		d.decide(t, event.Batch{Actor: fleettest.Admin("ada"), Drafts: drafts})
	}
	id := fleettest.Node(0)
	admin(event.GroupCreated{Description: "<b> & \"co\" ü"}.Draft("north 1"), event.GroupCreated{}.Draft("empty"))
	admin(event.GroupRobotAdded{Robot: id}.Draft("north 1"))
	admin(event.RobotProvisioned{Version: "2.0"}.Draft(id), event.RobotProvisioned{Version: "2.0"}.Draft(id))
	d.decide(t, event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
		event.RobotDeploymentStarted{Deployment: "d1", Version: "2.1", Kind: event.DeployFull}.Draft(id),
		event.RobotDeploymentFailed{Deployment: "d1", Version: "2.1", Message: "no space & no <hope>"}.Draft(id),
	}})
	return f, d
}

func TestToldIsAsEncoded(t *testing.T) {
	f, d := newLivedFace(t)
	last := d.store.Cursor().Seq
	for _, at := range []string{"", fmt.Sprint("?at=", last), "?at=1", "?read=leased"} {
		alerts := same[view.Alerts](t, f, "/api/v1/alerts"+at)
		groups := same[view.Groups](t, f, "/api/v1/groups"+at)
		deployments := same[view.Deployments](t, f, "/api/v1/deployments"+at)
		robots := same[view.Robots](t, f, "/api/v1/robots"+at)
		if at != "?at=1" && (len(alerts.Alerts) != 2 || len(groups.Groups) != 2 || len(deployments.Deployments) != 1 || len(robots.Robots) != 1) {
			t.Errorf("%q: %d alerts, %d groups, %d deployments, %d robots", at, len(alerts.Alerts), len(groups.Groups), len(deployments.Deployments), len(robots.Robots))
		}
		for _, asOf := range []view.AsOf{alerts.AsOf, groups.AsOf, deployments.AsOf, robots.AsOf} {
			if (asOf.At != nil) != strings.HasPrefix(at, "?at") || (asOf.Read == view.Leased) != strings.HasPrefix(at, "?read") {
				t.Errorf("%q: as of %+v", at, asOf)
			}
		}
	}
	if events := same[view.Events](t, f, "/api/v1/events"); len(events.Events) != int(last) {
		t.Errorf("%d events, want %d", len(events.Events), last)
	}
	if events := same[view.Events](t, f, "/api/v1/events?limit=3&newest=true"); len(events.Events) != 3 || !events.More {
		t.Errorf("events %+v", events)
	}
	same[view.Events](t, f, fmt.Sprint("/api/v1/events?since=", last))
}

// Rows with telemetry and without, as a node tells them.
func TestRobotsAreToldWithTheirNews(t *testing.T) {
	f := newFace(t)
	age := int64(1500)
	f.set(func() {
		f.robots = []view.Robot{
			{ID: "a", Name: "<a>", Status: view.Online, Telemetry: &telemetry.Sample{CPUPercent: 2.5}, HeardAgeMillis: &age},
			{ID: "b", Status: view.Offline, Labels: map[string]string{"z": "1", "a": "&"}, Groups: []string{"g"}},
		}
	})
	robots := same[view.Robots](t, f, "/api/v1/robots")
	if a, b := robots.Robots[0], robots.Robots[1]; a.HeardAgeMillis == nil || *a.HeardAgeMillis != age || b.HeardAgeMillis != nil {
		t.Errorf("heard %v and %v ms ago", a.HeardAgeMillis, b.HeardAgeMillis)
	}
}

// What is told as bytes is described as what it is.
func TestToldIsDescribed(t *testing.T) {
	f := newFace(t)
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(f.do("", "GET", "/openapi.json", "").body, &doc); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"robots": "Robots", "alerts": "Alerts", "groups": "Groups", "deployments": "Deployments", "events": "Events"} {
		got := doc.Paths["/api/v1/"+path]["get"].Responses["200"].Content["application/json"].Schema["$ref"]
		if got != "#/components/schemas/"+want || doc.Components.Schemas[want] == nil {
			t.Errorf("%s is described as %v", path, got)
		}
	}
	for name := range doc.Components.Schemas {
		if strings.Contains(strings.ToLower(name), "told") {
			t.Errorf("the description speaks of %s", name)
		}
	}
}

// However a robot is asked for, the way that is quick finds what the way that
// looks at all finds, or leaves it to that.
func TestTheQuickWayFindsTheSameRobot(t *testing.T) {
	quick, slow := 0, 0
	for seed := range int64(10) {
		d := newDeep(t, replica.Options{})
		run := fleettest.New(rand.New(rand.NewSource(seed)).Intn)
		for range 150 {
			run.At(d.store.Cursor().Seq, d.store.Cursor().History)
			d.apply(run.Next()) // about half are refused
		}
		robots := d.Look().Robots
		queries := []string{"", "nobody"}
		for _, r := range robots {
			queries = append(queries, r.Name, string(r.ID), string(r.ID[:4]))
		}
		for _, which := range queries {
			got, ok := d.Robot(which)
			want, err := find(robots, which)
			switch {
			case !ok:
				slow++
			case err != nil || got.ID != want.ID || string(view.Encode(got.Robot.Filled())) != string(view.Encode(want.Filled())):
				t.Errorf("seed %d: %q finds %+v, and among all %+v, %v", seed, which, got.Robot, want, err)
			default:
				quick++
			}
		}
	}
	if quick == 0 || slow == 0 {
		t.Errorf("%d found the quick way, %d not", quick, slow)
	}
}

// Many ask while things are decided: no answer mixes two states, and who asks
// again never goes back.
func TestManyAskWhileThingsAreDecided(t *testing.T) {
	_, d := newDeepFace(t)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			last := uint64(0)
			for states := 0; states < 50 && !t.Failed(); {
				robots := d.Robots()
				groups, err := d.Groups(t.Context(), nil)
				at, then := robots.AsOf.Cursor.Seq, groups.AsOf.Cursor.Seq
				if err != nil || at < last || then < at {
					t.Errorf("from event %d to robots of %d and groups of %d: %v", last, at, then, err)
				}
				// What is decided comes in twos: one event renames the robot, one makes a
				// group or deletes it.
				if renames := (at - registered) / 2; renames > 0 && robots.Rows[0].Name != fmt.Sprint("goose-", renames) {
					t.Errorf("at event %d the robot is %s", at, robots.Rows[0].Name)
				}
				if want := int(then-registered) / 2 % 2; len(groups.Rows) != want || strings.Count(string(groups.JSON()), "createdAt") != want {
					t.Errorf("at event %d there are %d groups: %s", then, len(groups.Rows), groups.JSON())
				}
				if then > last {
					states++
				}
				last = then
			}
		})
	}
	asked := make(chan struct{})
	go func() {
		asking.Wait()
		close(asked)
	}()
	for i := 1; ; i++ {
		select {
		case <-asked:
			return
		default:
		}
		group := event.GroupDeleted{}.Draft("north")
		if i%2 == 1 {
			group = event.GroupCreated{}.Draft("north")
		}
		if _, err := d.apply(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{
			event.RobotConfigChanged{Name: fmt.Sprint("goose-", i)}.Draft(fleettest.Node(0)), group}}); err != nil {
			t.Error(err)
			<-asked
			return
		}
	}
}
