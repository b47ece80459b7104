package doctor

import (
	"fmt"
	"slices"
	"time"
)

const (
	fixClock    = "sudo timedatectl set-ntp true"
	asNodesUser = "sudo skein doctor"
	// firstPlausibleYear: mesh/join refuses to join with an earlier clock.
	firstPlausibleYear = 2025
	lastPlausibleYear  = 2100
	// skewRefused: mesh/join refuses a robot whose clock is further off.
	skewRefusedMillis = 5 * 60 * 1000
	// skewNoticed: times shown to people begin to look wrong.
	skewNoticedMillis = 2 * 1000
)

// clockSet judges the wall clock alone. A clock before the program was built
// is wrong too, but the builder's clock may have been, so it only warns.
func clockSet(now, builtAt time.Time) Check {
	const name = "clock.set"
	text := now.UTC().Format(time.RFC3339)
	switch {
	case now.Year() < firstPlausibleYear:
		return Check{name, Fail, "the clock says " + text + ": it is not set", fixClock}
	case now.Year() >= lastPlausibleYear:
		return Check{name, Fail, "the clock says " + text + ": far in the future", fixClock}
	case now.Before(builtAt.Add(-24 * time.Hour)):
		return Check{name, Warn, fmt.Sprintf("the clock says %s, but this program was built on %s", text, builtAt.UTC().Format(time.DateOnly)), fixClock}
	}
	return Check{name, OK, "the clock says " + text, ""}
}

// ClockSync is what the kernel knows about its clock (adjtimex(2)).
type ClockSync struct {
	// Synchronised: a time service keeps the clock right.
	Synchronised bool
	// MaxErrorMillis is the kernel's own bound, meaningful if Synchronised.
	MaxErrorMillis int64
}

// clockSynced only warns: a fleet on an island has no time source and works,
// because no decision of the fleet depends on wall time.
func clockSynced(s ClockSync, err error) Check {
	const name = "clock.ntp"
	switch {
	case err != nil:
		return Check{name, Skip, fmt.Sprintf("the kernel does not say whether the clock is synchronised: %v", err), "timedatectl status"}
	case !s.Synchronised:
		return Check{name, Warn, "no time service keeps this clock right", fixClock}
	}
	return Check{name, OK, fmt.Sprintf("synchronised, error below %d ms", s.MaxErrorMillis), ""}
}

// clockSkew compares with the peers of the running node. The median tells
// whose clock is off: if it is this one, all peers differ in the same way.
func clockSkew(r answer) Check {
	const name = "clock.skew"
	switch {
	case r.forbidden:
		return Check{name, Skip, "this user may not ask the node that runs here", asNodesUser}
	case !r.answered:
		return Check{name, Skip, "no node runs here to compare clocks with its peers", "skein run"}
	case len(r.Skews) == 0:
		return Check{name, Skip, r.Name + " has not spoken to another robot yet", "skein node list"}
	}
	skews := slices.Clone(r.Skews)
	slices.SortFunc(skews, func(a, b Skew) int { return int(max(min(a.Millis-b.Millis, 1), -1)) })
	middle := skews[len(skews)/2].Millis
	if away := abs(middle); away > skewNoticedMillis {
		status := Warn
		if away > skewRefusedMillis {
			status = Fail
		}
		direction := "behind"
		if middle < 0 {
			direction = "ahead of"
		}
		return Check{name, status, fmt.Sprintf("this clock is %s %s the other robots'", millis(away), direction), fixClock}
	}
	worst := slices.MaxFunc(skews, func(a, b Skew) int { return int(max(min(abs(a.Millis)-abs(b.Millis), 1), -1)) })
	if abs(worst.Millis) > skewNoticedMillis {
		return Check{name, Warn, fmt.Sprintf("the clock of %s is %s off", worst.Robot, millis(abs(worst.Millis))), "on " + worst.Robot + ": " + fixClock}
	}
	return Check{name, OK, fmt.Sprintf("within %s of %d other robots", millis(abs(worst.Millis)), len(skews)), ""}
}

func abs(v int64) int64 { return max(v, -v) }

// millis writes a duration the way a person would say it.
func millis(v int64) string {
	d := time.Duration(v) * time.Millisecond
	switch {
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", int64(d/time.Minute))
	case d >= 2*time.Second:
		return fmt.Sprintf("%d s", int64(d/time.Second))
	}
	return fmt.Sprintf("%d ms", v)
}
