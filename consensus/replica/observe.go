package replica

import (
	"skein/consensus/event"
	"skein/consensus/fleet"
)

// Observer is told of every change, in order, under the lock that readers wait
// for: it must be quick, and keep neither the State nor the slice of events.
// What they hand out may be kept. It must not call the Replica.
type Observer interface {
	// Reset says that the state is now this one, whatever it was: at Open, when
	// everything is replayed, and at Restore.
	Reset(*fleet.State)
	// Applied says that events were applied, and that the state is after them.
	Applied(*fleet.State, []event.Event)
}

// nobody is the Observer of a replica that has none.
type nobody struct{}

func (nobody) Reset(*fleet.State)                  {}
func (nobody) Applied(*fleet.State, []event.Event) {}
