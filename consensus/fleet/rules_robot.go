package fleet

import (
	"maps"
	"slices"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// robot finds the robot that e is about.
func (tx *Tx) robot(id ident.NodeID) (*robot, *event.Fault) {
	r := tx.robots.get(id)
	if r == nil {
		return nil, event.Refuse(event.CodeNotFound, "", "see `skein robots`", "there is no robot %s", id)
	}
	return r, nil
}

func (tx *Tx) mayRegister(e *event.Event) *event.Fault {
	_, fault := tx.member(e)
	return fault
}

func (tx *Tx) register(e *event.Event, p *event.RobotRegistered) {
	id := own(nodeOf(e))
	said := Registered{Name: p.Name, Type: p.Type, Hostname: p.Hostname}
	r := Robot{ID: id, Name: p.Name, Type: p.Type, StatusSince: e.Time, RegisteredAt: e.Time, Lifecycle: Lifecycle{State: Discovered}}
	if old := tx.robots.get(id); old != nil {
		r = old.whole()
		if said.Name != old.Registered.Name {
			r.Name = said.Name
		}
		if said.Type != old.Registered.Type {
			r.Type = said.Type
		}
		if r.Lifecycle.State == Retired {
			r.Lifecycle = Lifecycle{State: Discovered, Since: e.Time}
		}
	}
	r.Version, r.Arch, r.OS, r.Registered = p.Version, p.Arch, p.OS, said
	tx.robots.put(id, parted(r))
}

func (tx *Tx) mayTurn(e *event.Event, online bool) *event.Fault {
	if _, fault := tx.member(e); fault != nil {
		return fault
	}
	r, fault := tx.robot(nodeOf(e))
	if fault == nil && r.Online == online {
		fault = noChange("robot %s has that status already", r.ID)
	}
	return fault
}

func (tx *Tx) turn(e *event.Event, online bool) *event.Fault {
	return edit(&tx.robots, nodeOf(e), func(r *robot) {
		r.Online, r.StatusSince = online, e.Time
		if !online {
			r.OfflineAt = e.Time
		}
	})
}

// configured is r after a change of its configuration.
func configured(r robot, p *event.RobotConfigChanged) robot {
	if p.Name != "" {
		r.Name = p.Name
	}
	if p.Type != "" {
		r.Type = p.Type
	}
	return r
}

func (tx *Tx) mayConfigure(e *event.Event, p *event.RobotConfigChanged) *event.Fault {
	r, fault := tx.robot(nodeOf(e))
	if fault != nil {
		return fault
	}
	if after := configured(*r, p); after.Name == r.Name && after.Type == r.Type {
		return noChange("robot %s is configured so already", r.ID)
	}
	return nil
}

func (tx *Tx) configure(e *event.Event, p *event.RobotConfigChanged) *event.Fault {
	return edit(&tx.robots, nodeOf(e), func(r *robot) { *r = configured(*r, p) })
}

// relabel gives new labels; the old map is not touched, the payload is not kept.
func relabel(old map[string]string, p *event.RobotLabelsChanged) map[string]string {
	labels := maps.Clone(old)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, key := range p.Remove {
		delete(labels, key)
	}
	maps.Copy(labels, p.Set)
	if len(labels) == 0 {
		return nil
	}
	return labels
}

func (tx *Tx) mayLabel(e *event.Event, p *event.RobotLabelsChanged) *event.Fault {
	r, fault := tx.robot(nodeOf(e))
	if fault != nil {
		return fault
	}
	changed, count := false, len(r.Labels)
	for key, value := range p.Set {
		have, there := r.Labels[key]
		if !there {
			count++
		}
		changed = changed || !there || have != value
	}
	for _, key := range p.Remove {
		if _, there := r.Labels[key]; there {
			changed = true
			count--
		}
	}
	if !changed {
		return noChange("robot %s has these labels already", r.ID)
	}
	if count > event.MaxLabels {
		return conflict("remove some", "robot %s would have %d labels, at most %d are allowed", r.ID, count, event.MaxLabels)
	}
	return nil
}

func (tx *Tx) group(e *event.Event) (*Group, *event.Fault) {
	name := event.Subject(e.Stream)
	g := tx.groups.get(name)
	if g == nil {
		return nil, event.Refuse(event.CodeNotFound, "", "create it first", "there is no group %q", name)
	}
	return g, nil
}

func (tx *Tx) mayCreateGroup(e *event.Event) *event.Fault {
	if g, _ := tx.group(e); g != nil {
		return conflict("choose another name", "group %q exists already", g.Name)
	}
	if tx.groups.count() >= MaxGroups {
		return full("groups", MaxGroups)
	}
	return nil
}

func (tx *Tx) mayDeleteGroup(e *event.Event) *event.Fault {
	_, fault := tx.group(e)
	return fault
}

func (tx *Tx) deleteGroup(e *event.Event) *event.Fault {
	g, fault := tx.group(e)
	if fault != nil {
		return fault
	}
	for _, id := range g.Robots {
		if fault := edit(&tx.robots, id, func(r *robot) { r.Groups = without(r.Groups, g.Name) }); fault != nil {
			return fault
		}
	}
	tx.groups.remove(g.Name)
	return nil
}

func (tx *Tx) mayAddToGroup(e *event.Event, p *event.GroupRobotAdded) *event.Fault {
	g, fault := tx.group(e)
	if fault != nil {
		return fault
	}
	r, fault := tx.robot(p.Robot)
	switch {
	case fault != nil:
		return fault
	case slices.Contains(r.Groups, g.Name):
		return noChange("robot %s is in group %q already", r.ID, g.Name)
	case len(r.Groups) >= MaxGroupsEach:
		return conflict("take it out of another one", "robot %s is in %d groups, at most %d are allowed", r.ID, len(r.Groups), MaxGroupsEach)
	}
	return nil
}

func (tx *Tx) mayRemoveFromGroup(e *event.Event, p *event.GroupRobotRemoved) *event.Fault {
	g, fault := tx.group(e)
	if fault != nil {
		return fault
	}
	r, fault := tx.robot(p.Robot)
	if fault == nil && !slices.Contains(r.Groups, g.Name) {
		fault = noChange("robot %s is not in group %q", r.ID, g.Name)
	}
	return fault
}

// regroup puts a robot into the group of e's stream, or takes it out: the group
// and the robot each know of the other.
func (tx *Tx) regroup(e *event.Event, id ident.NodeID, in bool) *event.Fault {
	name := event.Subject(e.Stream)
	fault := edit(&tx.groups, name, func(g *Group) {
		g.Robots = without(g.Robots, id)
		if in {
			g.Robots = with(g.Robots, id)
		}
	})
	if fault != nil {
		return fault
	}
	return edit(&tx.robots, id, func(r *robot) {
		r.Groups = without(r.Groups, name)
		if in {
			r.Groups = with(r.Groups, name)
		}
	})
}

// without is a copy of a sorted list that lacks v; nil when nothing is left.
func without[T ~string](list []T, v T) []T {
	var kept []T
	for _, have := range list {
		if have != v {
			kept = append(kept, have)
		}
	}
	return kept
}

// with is a copy of a sorted list that has v in its place.
func with[T ~string](list []T, v T) []T {
	at, _ := slices.BinarySearch(list, v)
	return slices.Insert(slices.Clone(list), at, v)
}
