package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"skein/scripts/bench/log/proc"
)

// The test program is its own member, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == proc.Role {
		if err := proc.Serve(os.Args[2], startMember); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Every system starts, acknowledges under every load without a failure, and
// leaves neither a process nor a file.
func TestEverySystemAppends(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.title, func(t *testing.T) {
			dir := t.TempDir()
			c, err := startCluster(t.Context(), k, dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.stop()
			if err := c.ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, sh := range shapes() {
				r := c.apply(t.Context(), sh, time.Second)
				if r.Events == 0 || r.Failed > 0 {
					t.Errorf("%s: %d events, %d failed, the first: %v", sh.title, r.Events, r.Failed, r.First)
				}
			}
			members := c.members
			c.stop()
			for _, m := range members {
				if _, err := proc.UsageOf(m.PID); err == nil {
					t.Errorf("process %d is still there", m.PID)
				}
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// What the leader of a system wrote is there after its death, and it comes back.
func TestFailoverOfEverySystem(t *testing.T) {
	for _, k := range failoverKinds() {
		t.Run(k.title, func(t *testing.T) {
			c, err := startCluster(t.Context(), k, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer c.stop()
			for range 2 {
				took, err := c.failover(t.Context(), writerOf(c))
				if err != nil {
					t.Fatal(err)
				}
				if took <= 0 {
					t.Fatalf("took %s", took)
				}
			}
		})
	}
}

// The program as a person starts it: figures as JSON lines, and nothing left.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	bin := dir + "/bench"
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-dir", data, "-only", "append,tree", "-rounds", "1", "-wall", "300ms", "-systems", "skein bolt,bare raft bolt", "-shapes", "64", "-profile", dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	for _, want := range []string{
		`{"bench":"append: skein bolt, 64 clients, events","unit":"1/s","ours":`, `"peer":"bare raft bolt"`, `{"bench":"memory under load: skein bolt, leader, RSS","unit":"MB"`,
		`{"bench":"tree: `,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	for _, who := range []string{"leader", "load"} {
		if info, err := os.Stat(dir + "/skein-bolt-64-" + who + ".prof"); err != nil || info.Size() == 0 {
			t.Errorf("profile of the %s: %v %v", who, info, err)
		}
	}
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
