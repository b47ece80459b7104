//go:build skein_clock

package node

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// movedBy is a file in the working directory with how far this machine's wall
// clock is off, such as "-1h"; without it the clock is right.
const movedBy = "skein-clock"

// machineClock is a wall clock that a test can set while the program runs: with
// it the trial of wrong clocks has machines that share one clock and disagree.
// Nothing else may set the tag skein_clock. Durations stay true, as they do when
// somebody sets a real machine's clock: they are measured by another one.
func machineClock() time.Time {
	text, err := os.ReadFile(movedBy)
	if err != nil {
		return time.Now()
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		panic(fmt.Sprintf("%s: %v; write a duration such as 1h", movedBy, err))
	}
	return time.Now().Round(0).Add(d) // without the monotonic reading, which did not move
}
