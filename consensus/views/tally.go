package views

import (
	"maps"

	"skein/consensus/event"
	"skein/consensus/fleet"
)

// Tally counts robots of members.
type Tally struct {
	Robots int `json:"robots"`
	// Online counts those that the fleet decided to be online. Live status is
	// presence, see Robot.Online.
	Online int `json:"online"`
	// Stages, Types and Builds count robots by stage of life, model, and build
	// of skein. What is 0 is absent.
	Stages map[fleet.Stage]int     `json:"stages"`
	Types  map[event.RobotType]int `json:"types"`
	Builds map[string]int          `json:"builds"`
}

func newTally() Tally {
	return Tally{Stages: map[fleet.Stage]int{}, Types: map[event.RobotType]int{}, Builds: map[string]int{}}
}

// add counts a part by times: 1 adds it, -1 takes it away.
func (t *Tally) add(p part, times int) {
	if !p.counts {
		return
	}
	t.Robots += times
	if p.online {
		t.Online += times
	}
	count(t.Stages, p.stage, times)
	count(t.Types, p.kind, times)
	count(t.Builds, p.version, times)
}

func (t Tally) clone() Tally {
	t.Stages, t.Types, t.Builds = maps.Clone(t.Stages), maps.Clone(t.Types), maps.Clone(t.Builds)
	return t
}

// count adds to m[key] and forgets what came to 0.
func count[K comparable](m map[K]int, key K, times int) {
	if m[key] += times; m[key] == 0 {
		delete(m, key)
	}
}
