// Command fleet measures a fleet of real processes on a LAN of namespaces: how
// fast it forms, how fast it gets over the loss of its leader, and what a robot
// costs at rest. It prints JSON lines (package benchjson) beside the goals of
// DESIGN.md, and needs what a rig needs: Linux, root, ip and nft.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"skein/scripts/benchjson"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	robots = 20
	voters = 3
)

func main() {
	joins := flag.Int("joins", 7, "how often a twentieth robot joins")
	kills := flag.Int("kills", 10, "how often the leader is killed")
	rest := flag.Duration("rest", time.Minute, "how long the fleet at rest is watched")
	only := flag.String("only", "", "one of failover, rest, forming, sizes; empty: all")
	flag.Parse()
	var b bench
	var err error
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"failover", func() error { return rig.Script("failover", func(t testing.TB) { b.failover(t, *kills) }) }},
		{"rest", func() error { return rig.Script("rest", func(t testing.TB) { b.rest(t, *rest) }) }},
		{"forming", func() error { return rig.Script("forming", func(t testing.TB) { b.forming(t, *joins) }) }},
		{"sizes", b.sizes},
	} {
		if *only == "" || *only == part.name {
			err = errors.Join(err, part.run())
		}
	}
	err = errors.Join(err, b.err)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench fleet:", err)
		os.Exit(1)
	}
}

// bench prints figures and remembers the first that could not be printed.
type bench struct{ err error }

func (b *bench) print(name, unit string, ours float64, goal float64) {
	r := benchjson.Result{Bench: name, Unit: unit, Ours: ours}
	if goal > 0 {
		r.Peer, r.Theirs = "goal", goal
	}
	b.err = errors.Join(b.err, benchjson.Print(os.Stdout, r))
}

// forming: from the start of the last of 20 nodes, which has never run before,
// until all 20 list all 20.
func (b *bench) forming(t testing.TB, joins int) {
	lan := rig.New(t, robots-1)
	f := trial.Found(t, rig.Skein(t), "bench", lan.Hosts, voters)
	watchers := trial.Watch(f)
	var took []float64
	for i := range joins {
		host := lan.Add(fmt.Sprintf("late%d", i))
		start := time.Now()
		late := f.Join(host, false)
		watchers.AwaitAll(t, late)
		took = append(took, time.Since(start).Seconds())
		late.Kill()
		f.Forget(late)
	}
	b.print("forming: start of the last of 20 nodes until all list all, median", "s", benchjson.Percentile(took, 50), 1)
	b.print("forming: start of the last of 20 nodes until all list all, worst", "s", benchjson.Percentile(took, 100), 5)
}

// failover: from SIGKILL of the leader to the first write that the fleet
// accepts, asked for at a non-voter, with the shipped timeouts.
func (b *bench) failover(t testing.TB, kills int) {
	lan := rig.New(t, 5)
	f := trial.Found(t, rig.Skein(t), "bench", lan.Hosts, voters)
	writer := f.Robots[4]
	c := f.Client(writer)
	id := trial.ID(t, writer)
	var took []float64
	for i := range kills {
		if _, err := trial.Write(t.Context(), c, id, fmt.Sprintf("before%d", i)); err != nil {
			t.Fatalf("write before the kill: %v", err)
		}
		leader := f.Leader()
		start := time.Now()
		leader.Kill()
		rig.Wait(t, time.Minute, "a write is accepted", func() error {
			_, err := trial.Write(t.Context(), c, id, fmt.Sprintf("after%d", i))
			return err
		})
		took = append(took, time.Since(start).Seconds())
		leader.Boot()
		f.AwaitListing(f.Robots, time.Minute)
		f.AwaitMargin(1)
	}
	b.print("failover: leader SIGKILL to first accepted write, median", "s", benchjson.Percentile(took, 50), 0.7)
	b.print("failover: leader SIGKILL to first accepted write, worst", "s", benchjson.Percentile(took, 100), 0)
}

// rest: what a node costs in a fleet of 20 that nobody looks at.
func (b *bench) rest(t testing.TB, watch time.Duration) {
	lan := rig.New(t, robots)
	f := trial.Found(t, rig.Skein(t), "bench", lan.Hosts, voters)
	leader := f.Leader()
	var follower *trial.Robot
	for _, r := range f.Robots[:voters] {
		if r != leader {
			follower = r
		}
	}
	nonVoter := f.Robots[robots-1]
	// The questions above made telemetry flow. It ends 45 s after the last one.
	time.Sleep(75 * time.Second)
	watched := []struct {
		name  string
		robot *trial.Robot
		goals trial.Cost
	}{
		{"non-voter", nonVoter, trial.Cost{RSSMB: 50, AnonMB: 45, CPUPercent: 1, SentBytesPerSec: 1024}},
		{"voter", follower, trial.Cost{RSSMB: 50, AnonMB: 45, CPUPercent: 3, SentBytesPerSec: 5 * 1024}},
		{"leader", leader, trial.Cost{RSSMB: 50, AnonMB: 45, CPUPercent: 3, SentBytesPerSec: 5 * 1024}},
	}
	var meters []*trial.Meter
	for _, w := range watched {
		meters = append(meters, trial.NewMeter(t, w.robot))
	}
	time.Sleep(watch)
	for i, w := range watched {
		c := meters[i].Read(t)
		b.print("rest: RSS of a "+w.name, "MB", c.RSSMB, w.goals.RSSMB)
		b.print("rest: anonymous memory of a "+w.name, "MB", c.AnonMB, w.goals.AnonMB)
		b.print("rest: CPU of a "+w.name, "%", c.CPUPercent, w.goals.CPUPercent)
		b.print("rest: all bytes sent by a "+w.name, "B/s", c.SentBytesPerSec, w.goals.SentBytesPerSec)
	}
	for _, w := range watched[:2] {
		w.robot.Kill()
		start := time.Now()
		w.robot.Boot()
		w.robot.AwaitReady(t)
		b.print("rest: start to ready of a "+w.name, "s", time.Since(start).Seconds(), 5)
	}
}

// sizes: the static binary for the machines that robots have.
func (b *bench) sizes() error {
	dir, err := os.MkdirTemp("", "skein-sizes")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, target := range []struct{ arch, arm string }{{"amd64", ""}, {"arm64", ""}, {"arm", "7"}} {
		out := filepath.Join(dir, target.arch)
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "./node/cmd/skein")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+target.arch, "GOARM="+target.arm)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build for linux/%s: %w", target.arch, err)
		}
		info, err := os.Stat(out)
		if err != nil {
			return err
		}
		b.print("binary: linux/"+target.arch+target.arm+", static", "MB", float64(info.Size())/1e6, 0)
	}
	return nil
}
