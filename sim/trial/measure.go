package trial

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
	"skein/sim/rig"
)

// clockTicks is USER_HZ, the unit of CPU time in /proc, on every Linux that Go runs on.
const clockTicks = 100

// Cost is what a node takes from its machine.
type Cost struct {
	RSSMB, AnonMB   float64
	CPUPercent      float64
	SentBytesPerSec float64
}

// Meter measures one node from when it was made.
type Meter struct {
	robot *Robot
	start time.Time
	ticks uint64
	sent  uint64
}

// NewMeter begins to measure.
func NewMeter(t testing.TB, r *Robot) *Meter {
	t.Helper()
	return &Meter{robot: r, start: time.Now(), ticks: cpuTicks(t, r.Process.Pid()), sent: r.Traffic().SentBytes}
}

// Read gives memory now, and CPU and traffic since the start as rates. Traffic
// is every byte of every frame that left the robot's interface.
func (m *Meter) Read(t testing.TB) Cost {
	t.Helper()
	seconds := time.Since(m.start).Seconds()
	pid := m.robot.Process.Pid()
	return Cost{
		RSSMB:           memoryMB(t, pid, "Rss:"),
		AnonMB:          memoryMB(t, pid, "Anonymous:"),
		CPUPercent:      float64(cpuTicks(t, pid)-m.ticks) / clockTicks / seconds * 100,
		SentBytesPerSec: float64(m.robot.Traffic().SentBytes-m.sent) / seconds,
	}
}

func cpuTicks(t testing.TB, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// Fields after the command's name, which is in parentheses: utime and stime
	// are the 14th and 15th of all (proc(5)).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err1 := strconv.ParseUint(fields[11], 10, 64)
	system, err2 := strconv.ParseUint(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return user + system
}

func memoryMB(t testing.TB, pid int, field string) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kilobytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes * 1024 / 1e6
		}
	}
	t.Fatalf("smaps_rollup has no %s", field)
	return 0
}

// AwaitReady waits until the node says that it is ready.
func (r *Robot) AwaitReady(t testing.TB) {
	t.Helper()
	c := r.Host.Client()
	defer c.CloseIdleConnections()
	rig.Wait(t, settle, r.Name+" is ready", func() error {
		response, err := c.Get(faceURL + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// ID is a robot's node id, by its own word.
func ID(t testing.TB, r *Robot) string {
	t.Helper()
	var status view.Raft
	if err := r.ask(&status, "raft"); err != nil {
		t.Fatal(err)
	}
	return string(status.Node)
}

// AwaitMargin waits until every robot that runs says that k voters may be lost.
func (f *Fleet) AwaitMargin(k int) {
	f.t.Helper()
	rig.Wait(f.t, settle, fmt.Sprintf("the fleet can lose %d", k), func() error {
		for _, r := range f.Robots {
			header, err := r.Fleet()
			if err != nil {
				return err
			}
			if header.CanLose != k {
				return fmt.Errorf("%s says can lose %d: %s", r.Name, header.CanLose, header.CanLoseReason)
			}
		}
		return nil
	})
}

// Forget takes a robot that is gone for good out of the fleet's list.
func (f *Fleet) Forget(r *Robot) {
	f.Robots = slices.DeleteFunc(f.Robots, func(other *Robot) bool { return other == r })
}

// Watchers look at every robot's list over kept connections, so that looking
// costs next to nothing while something is measured.
type Watchers struct {
	fleet *Fleet
	at    map[*Robot]*client.Client
}

// Watch logs in at every robot.
func Watch(f *Fleet) *Watchers {
	w := &Watchers{fleet: f, at: map[*Robot]*client.Client{}}
	for _, r := range f.Robots {
		w.at[r] = f.Client(r)
	}
	return w
}

// AwaitAll waits until all robots of the fleet, the late one included, list
// each other as online.
func (w *Watchers) AwaitAll(t testing.TB, late *Robot) {
	t.Helper()
	lateClient := w.fleet.Client(late)
	var lateID ident.NodeID
	rig.Wait(t, settle, "all list all", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		defer cancel()
		if lateID == "" {
			status, err := lateClient.Raft(ctx)
			if err != nil {
				return err
			}
			lateID = status.Node
		}
		for r, c := range w.at {
			if err := w.lists(ctx, c, lateID); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
		}
		return w.lists(ctx, lateClient, lateID)
	})
}

// lists checks that the late robot and everybody who was there before are online.
func (w *Watchers) lists(ctx context.Context, c *client.Client, late ident.NodeID) error {
	list, err := c.Robots(ctx)
	if err != nil {
		return err
	}
	online, there := map[string]bool{}, false
	for _, r := range list.Robots {
		if r.Status == view.Online {
			online[r.Name] = true
			there = there || r.ID == late
		}
	}
	if !there {
		return errors.New("does not list the late robot")
	}
	for r := range w.at {
		if !online[r.Name] {
			return fmt.Errorf("does not list %s", r.Name)
		}
	}
	return nil
}
