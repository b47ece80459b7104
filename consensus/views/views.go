package views

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

// Views are the read models of one state. The zero Views is not ready; use New.
type Views struct {
	parts map[ident.NodeID]part
	all   Tally
	// named are the robots that count, by name.
	named       map[string][]ident.NodeID
	groups      map[string]*group
	deployments map[string]*deployment
	// alerts are those about robots.
	alerts map[alertKey]Alert
	// severities counts alerts.
	severities map[Severity]int
	// members counts nodes that belong to the fleet, voters those that vote, and
	// quietVoters those of these that are not heard.
	members, voters, quietVoters int
	// touched is reused from one Applied to the next.
	touched map[ident.NodeID]bool
	turns
}

type alertKey struct {
	robot ident.NodeID
	kind  AlertKind
}

type group struct {
	made   fleet.Group // without its robots
	tally  Tally
	alerts int
	// robots are its members, whether or not they count.
	robots map[ident.NodeID]bool
}

type deployment struct {
	tally                               Tally
	versions                            map[string]int
	running, completed, failed, waiting int
}

// New returns the views of a state without events.
func New() *Views {
	v := &Views{touched: map[ident.NodeID]bool{}}
	v.clear()
	return v
}

// clear forgets everything. Turns go on: what was kept by them is out of date.
func (v *Views) clear() {
	v.anew()
	v.parts = map[ident.NodeID]part{}
	v.all = newTally()
	v.named = map[string][]ident.NodeID{}
	v.groups = map[string]*group{}
	v.deployments = map[string]*deployment{}
	v.alerts = map[alertKey]Alert{}
	v.severities = map[Severity]int{}
	v.members, v.voters, v.quietVoters = 0, 0, 0
}

// Reset builds the views anew from a state; it implements replica.Observer.
func (v *Views) Reset(s *fleet.State) {
	v.clear()
	for _, g := range s.Groups() {
		v.keepGroup(s, g.Name)
	}
	for _, n := range s.Nodes() {
		v.refresh(s, n.ID)
	}
}

// Applied brings the views to a state after events; it implements
// replica.Observer. It costs as much as the robots that the events are about,
// and for a deleted group as much as its robots.
func (v *Views) Applied(s *fleet.State, events []event.Event) {
	clear(v.touched)
	v.now++
	for i := range events {
		e := &events[i]
		switch {
		case e.Type == event.TypeLogRecovered:
			v.Reset(s) // it changes every node
			return
		case strings.HasPrefix(e.Stream, "robot/"), strings.HasPrefix(e.Stream, "node/"):
			v.touched[ident.NodeID(event.Subject(e.Stream))] = true
		case strings.HasPrefix(e.Stream, "group/"):
			v.regroup(s, e)
		}
	}
	v.next(v.touched)
	voters, quiet := v.voters, v.quietVoters
	for id := range v.touched {
		v.refresh(s, id)
	}
	if voters != v.voters || quiet != v.quietVoters {
		v.alertsAt = v.now
	}
}

// regroup notes which robots an event about a group may have changed.
func (v *Views) regroup(s *fleet.State, e *event.Event) {
	name := event.Subject(e.Stream)
	if g := v.groups[name]; g != nil && e.Type == event.TypeGroupDeleted {
		for id := range g.robots {
			v.touched[id] = true
		}
	}
	v.keepGroup(s, name)
	v.groupsAt = v.now
	payload, err := e.Decode()
	if err != nil {
		return // it was applied, so this cannot be; a rebuild would show it
	}
	switch p := payload.(type) {
	case *event.GroupRobotAdded:
		v.touched[p.Robot] = true
	case *event.GroupRobotRemoved:
		v.touched[p.Robot] = true
	}
}

// keepGroup makes, renews or removes a group's entry. Robots that are still
// counted in a removed one are touched, and their parts taken away without it.
func (v *Views) keepGroup(s *fleet.State, name string) {
	made, ok := s.Group(name)
	if !ok {
		delete(v.groups, name)
		return
	}
	made.Robots = nil
	if g := v.groups[name]; g != nil {
		g.made = made
		return
	}
	v.groups[name] = &group{made: made, tally: newTally(), robots: map[ident.NodeID]bool{}}
}

// refresh replaces what a node adds to the views.
func (v *Views) refresh(s *fleet.State, id ident.NodeID) {
	old, now := v.parts[id], partOf(s, id)
	if old.equal(now) {
		return
	}
	v.add(id, old, -1)
	v.add(id, now, 1)
	v.rename(id, old, now)
	v.changed(id, old, now)
	v.parts[id] = now
	if now.equal(part{}) {
		delete(v.parts, id)
	}
}

// rename keeps named up to date when one part takes another's place.
func (v *Views) rename(id ident.NodeID, old, now part) {
	if old.counts == now.counts && old.name == now.name {
		return
	}
	if old.counts {
		v.named[old.name] = slices.DeleteFunc(v.named[old.name], func(other ident.NodeID) bool { return other == id })
		if len(v.named[old.name]) == 0 {
			delete(v.named, old.name)
		}
	}
	if now.counts {
		v.named[now.name] = append(v.named[now.name], id)
	}
}

// Named finds the robot with a name; not ok if no member's robot has it, or several.
func (v *Views) Named(name string) (id ident.NodeID, ok bool) {
	if ids := v.named[name]; len(ids) == 1 {
		return ids[0], true
	}
	return "", false
}

// add counts a part wherever it counts: 1 adds it, -1 takes it away.
func (v *Views) add(id ident.NodeID, p part, times int) {
	if p.member {
		v.members += times
	}
	if p.voter {
		v.voters += times
		if p.counts && p.quiet {
			v.quietVoters += times
		}
	}
	if !p.counts {
		return
	}
	v.all.add(p, times)
	alerts := p.alerts(id)
	for _, a := range alerts {
		count(v.severities, a.Severity, times)
		if key := (alertKey{id, a.Kind}); times > 0 {
			v.alerts[key] = a
		} else {
			delete(v.alerts, key)
		}
	}
	for _, name := range p.groups {
		g := v.groups[name]
		if g == nil {
			continue // deleted
		}
		g.tally.add(p, times)
		g.alerts += times * len(alerts)
		if times > 0 {
			g.robots[id] = true
		} else {
			delete(g.robots, id)
		}
	}
	v.deploy(p, times)
}

// deploy counts a part in its deployment.
func (v *Views) deploy(p part, times int) {
	id := p.deployed.Deployment
	if id == "" {
		return
	}
	d := v.deployments[id]
	if d == nil {
		d = &deployment{tally: newTally(), versions: map[string]int{}}
		v.deployments[id] = d
	}
	d.tally.add(p, times)
	count(d.versions, p.deployed.Version, times)
	switch p.deployed.Status {
	case fleet.DeploymentRunning:
		d.running += times
		if !p.online {
			d.waiting += times
		}
	case fleet.DeploymentCompleted:
		d.completed += times
	case fleet.DeploymentFailed:
		d.failed += times
	}
	if d.tally.Robots == 0 {
		delete(v.deployments, id)
	}
}

// Overview is the fleet in figures.
func (v *Views) Overview() Overview {
	o := Overview{
		Tally: v.all.clone(), Groups: len(v.groups), Deployments: len(v.deployments),
		Critical: v.severities[Critical], Warning: v.severities[Warning],
		Voters: v.voters, MayLose: v.mayLose(),
	}
	if risk, ok := v.quorum(); ok && risk.Severity == Critical {
		o.Critical++
	}
	return o
}

// Members counts the nodes that belong to the fleet, with and without a robot.
func (v *Views) Members() int { return v.members }

// mayLose is how many more voters may be lost before nothing can be decided.
func (v *Views) mayLose() int {
	return max(0, v.voters-v.quietVoters-(v.voters/2+1))
}

// quorum is the alert about the voters, if there is one.
func (v *Views) quorum() (Alert, bool) {
	if v.voters == 0 || v.mayLose() > 0 {
		return Alert{}, false
	}
	return Alert{
		Kind: QuorumAtRisk, Severity: Critical,
		Message: fmt.Sprintf("%d of %d voters are heard; the loss of one more stops decisions", v.voters-v.quietVoters, v.voters),
	}, true
}

// Groups are all groups, sorted by name.
func (v *Views) Groups() []Group {
	out := make([]Group, 0, len(v.groups))
	for _, name := range slices.Sorted(maps.Keys(v.groups)) {
		out = append(out, v.groups[name].model())
	}
	return out
}

// Group finds a group.
func (v *Views) Group(name string) (Group, bool) {
	g := v.groups[name]
	if g == nil {
		return Group{}, false
	}
	return g.model(), true
}

func (g *group) model() Group {
	return Group{
		Name: g.made.Name, Description: g.made.Description, CreatedAt: g.made.CreatedAt,
		Tally: g.tally.clone(), Alerts: g.alerts,
	}
}

// Deployments are all deployments that are some robot's newest, sorted by id.
func (v *Views) Deployments() []Deployment {
	out := make([]Deployment, 0, len(v.deployments))
	for _, id := range slices.Sorted(maps.Keys(v.deployments)) {
		out = append(out, v.deployments[id].model(id))
	}
	return out
}

// Deployment finds a deployment that is some robot's newest.
func (v *Views) Deployment(id string) (Deployment, bool) {
	d := v.deployments[id]
	if d == nil {
		return Deployment{}, false
	}
	return d.model(id), true
}

func (d *deployment) model(id string) Deployment {
	return Deployment{
		ID: id, Versions: maps.Clone(d.versions), Running: d.running, Completed: d.completed,
		Failed: d.failed, Waiting: d.waiting, Tally: d.tally.clone(),
	}
}

// Alerts are all that hold now: critical ones first, of these the fleet's own
// first, then by robot and kind.
func (v *Views) Alerts() []Alert {
	out := slices.SortedFunc(maps.Values(v.alerts), func(a, b Alert) int {
		return cmp.Or(strings.Compare(string(a.Severity), string(b.Severity)),
			strings.Compare(string(a.Robot), string(b.Robot)), strings.Compare(string(a.Kind), string(b.Kind)))
	})
	if risk, ok := v.quorum(); ok {
		out = slices.Insert(out, 0, risk)
	}
	return out
}
