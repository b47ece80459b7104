package node

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/propose"
)

// hostnameLevel is the level of event types from which on a robot tells the name
// of its computer.
const hostnameLevel = 2

// keepRegistered registers the robot once in each start, and once more when the
// fleet may know more of it, if the fleet does not know what its build and its
// configuration say. Not more often: two robots with one key (a copied disk)
// would outbid each other for ever.
func (b *body) keepRegistered(ctx context.Context) error {
	doneAt := uint64(0)
	return b.keep(ctx, func(ctx context.Context) error {
		member, me, registered, ceiling := b.seat.me(), fleet.Robot{}, false, uint64(0)
		b.store.View(func(s *fleet.State) {
			me, registered = s.Robot(b.self.key.ID())
			ceiling = s.Ceiling()
		})
		if doneAt >= ceiling || member.ID == "" || !member.Member() {
			return nil // or the log here is not that far yet
		}
		want := b.registration(member, me, ceiling)
		if registered && me.Version == want.Version && me.Arch == want.Arch && me.OS == want.OS &&
			me.Registered == (fleet.Registered{Name: want.Name, Type: want.Type, Hostname: want.Hostname}) {
			doneAt = ceiling
			return nil
		}
		if ceiling < hostnameLevel {
			want.Hostname = ""
		}
		if _, err := b.proposer.Propose(ctx, []event.Draft{want.Draft(b.self.key.ID())}, propose.Authority{}); err != nil {
			return fmt.Errorf("register this robot: %w", err)
		}
		doneAt = ceiling
		return nil
	})
}

// registration is what the robot says of itself. Below hostnameLevel it keeps to
// what the fleet has of its computer's name.
func (b *body) registration(member fleet.Node, known fleet.Robot, ceiling uint64) event.RobotRegistered {
	r := event.RobotRegistered{
		Name: b.self.cfg.Name, Type: event.RobotType(b.self.cfg.Type), Version: b.self.version, Arch: runtime.GOARCH, OS: runtime.GOOS,
		Hostname: known.Registered.Hostname,
	}
	if r.Name == "" {
		r.Name = member.Name // the one it was admitted under
	}
	if ceiling < hostnameLevel {
		return r
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	// A name that the log would refuse is left out.
	if r.Hostname = host; event.Validate(r.Draft(member.ID)) != nil {
		r.Hostname = ""
	}
	return r
}
