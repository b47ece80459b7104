package views

import (
	"slices"

	"skein/mesh/ident"
)

// turns say when what Views answer last changed, so that who keeps an answer
// knows when it is out of date. They count changes of one Views and mean nothing
// to another; unlike the rest of Views they are not a function of the state.
type turns struct {
	// now counts turns: one for each Applied and Reset.
	now uint64
	// resetAt is the turn of the last Reset.
	resetAt uint64
	// alertsAt, deploymentsAt and groupsAt are those at which the lists changed.
	alertsAt, deploymentsAt, groupsAt uint64
	// nodesAt has for each node that events were about since the last Reset the
	// turn of the newest of them.
	nodesAt map[ident.NodeID]uint64
}

// anew begins a turn at which everything is otherwise.
func (t *turns) anew() {
	t.now++
	t.resetAt, t.alertsAt, t.deploymentsAt, t.groupsAt = t.now, t.now, t.now, t.now
	t.nodesAt = map[ident.NodeID]uint64{}
}

// next begins a turn at which these nodes may be otherwise.
func (t *turns) next(touched map[ident.NodeID]bool) {
	for id := range touched {
		t.nodesAt[id] = t.now
	}
}

// changed notes which lists are otherwise after one part took another's place.
func (v *Views) changed(id ident.NodeID, old, now part) {
	if old.name != now.name || !slices.Equal(old.groups, now.groups) {
		v.groupsAt = v.now
	}
	if old.deployed.Deployment != "" || now.deployed.Deployment != "" {
		v.deploymentsAt = v.now
	}
	if !slices.EqualFunc(old.alerts(id), now.alerts(id), Alert.equal) {
		v.alertsAt = v.now
	}
}

func (a Alert) equal(b Alert) bool {
	return a.Kind == b.Kind && a.Severity == b.Severity && a.Robot == b.Robot && a.Name == b.Name && a.Message == b.Message &&
		slices.Equal(a.Groups, b.Groups) && a.Since.Equal(b.Since)
}

// Turn is the newest turn. While it is the same, so is all that was decided
// about nodes, robots and groups.
func (v *Views) Turn() uint64 { return v.now }

// AlertsTurn is the turn at which Alerts last changed: while it is the same, so
// are they.
func (v *Views) AlertsTurn() uint64 { return v.alertsAt }

// DeploymentsTurn is the turn at which Deployments last changed.
func (v *Views) DeploymentsTurn() uint64 { return v.deploymentsAt }

// GroupsTurn is the turn at which the groups last changed, who is in them, or
// the name of a node.
func (v *Views) GroupsTurn() uint64 { return v.groupsAt }

// Touched calls f with every node that something was decided about after a
// turn, or about its robot. all means that a Reset came in between: everything
// may be otherwise, and f was not called.
func (v *Views) Touched(after uint64, f func(ident.NodeID)) (all bool) {
	if after < v.resetAt {
		return true
	}
	if after == v.now {
		return false
	}
	for id, at := range v.nodesAt {
		if at > after {
			f(id)
		}
	}
	return false
}
