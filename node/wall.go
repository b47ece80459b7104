//go:build !skein_clock

package node

import "time"

// machineClock is this machine's wall clock.
func machineClock() time.Time { return time.Now() }
