package fleet

import (
	"maps"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// robot is how the state keeps a Robot: what changes often is apart from what
// hardly ever does, because every change copies the former. Both are immutable
// like every value of the state.
type robot struct {
	Name        string
	Type        event.RobotType
	Labels      map[string]string
	Groups      []string
	Online      bool
	StatusSince time.Time
	OfflineAt   time.Time
	*steady
}

// steady is the part of a robot that hardly ever changes.
type steady struct {
	ID           ident.NodeID
	Version      string
	Arch         string
	OS           string
	RegisteredAt time.Time
	Registered   Registered
	Lifecycle    Lifecycle
	Deployed     Deployed
}

func (r *robot) key() ident.NodeID { return r.ID }

// whole is r as others see it.
func (r *robot) whole() Robot {
	return Robot{
		ID: r.ID, Name: r.Name, Type: r.Type, Version: r.Version, Arch: r.Arch, OS: r.OS,
		Labels: r.Labels, Groups: r.Groups, Online: r.Online, StatusSince: r.StatusSince, OfflineAt: r.OfflineAt,
		RegisteredAt: r.RegisteredAt, Registered: r.Registered, Lifecycle: r.Lifecycle, Deployed: r.Deployed,
	}
}

// parted is the opposite of whole.
func parted(r Robot) *robot {
	return &robot{
		Name: r.Name, Type: r.Type, Labels: r.Labels, Groups: r.Groups, Online: r.Online, StatusSince: r.StatusSince, OfflineAt: r.OfflineAt,
		steady: &steady{ID: r.ID, Version: r.Version, Arch: r.Arch, OS: r.OS, RegisteredAt: r.RegisteredAt,
			Registered: r.Registered, Lifecycle: r.Lifecycle, Deployed: r.Deployed},
	}
}

// settle changes the steady part of a copy.
func (r *robot) settle(f func(*steady)) {
	s := *r.steady
	f(&s)
	r.steady = &s
}

// wholes are the robots of m, sorted by id.
func wholes(m map[ident.NodeID]*robot) []Robot {
	all := make([]Robot, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		all = append(all, m[id].whole())
	}
	return all
}
