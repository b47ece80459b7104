// Command log measures Skein's replicated log beside etcd, NATS JetStream and
// bare hashicorp/raft: appends of 256 bytes to three processes on loopback that
// sync every write, failover, local reads, and how far a tree of followers lags.
// It prints JSON lines (package benchjson) on standard output and what it is
// doing on standard error. DESIGN.md says what is in the path and what is not.
//
// The program starts itself again for every member of every system. It takes
// what it started down by process id, and removes its directory at the end, also
// after an interrupt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"skein/scripts/bench/log/proc"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == proc.Role {
		if err := proc.Serve(os.Args[2], startMember); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench log:", err)
		os.Exit(1)
	}
}

// settings are what the flags say.
type settings struct {
	quick   bool
	rounds  int
	wall    time.Duration
	kills   int
	only    string
	systems string
	shapes  string
	// window and connections replace what kinds says; 0 leaves it.
	window, connections int

	profile string
	dir     string
}

func parse() (settings, error) {
	var s settings
	flag.BoolVar(&s.quick, "quick", false, "fewer and shorter rounds: under three minutes, figures that scatter more")
	flag.IntVar(&s.rounds, "rounds", 0, "rounds of every load on every system, of which the median counts (default 5, quick 3)")
	flag.DurationVar(&s.wall, "wall", 0, "how long a round is (default 2s, quick 700ms)")
	flag.IntVar(&s.kills, "kills", 0, "how often a leader is killed (default 11, quick 3)")
	flag.StringVar(&s.only, "only", "", "parts, by comma: "+strings.Join(partNames(), ", ")+"; empty: all")
	flag.StringVar(&s.systems, "systems", "", "systems to append to, by comma: "+strings.Join(titles(), ", ")+"; empty: all")
	flag.StringVar(&s.shapes, "shapes", "", "loads to append with, by comma: 1, 64, 256, windowed; empty: all")
	flag.IntVar(&s.window, "window", 0, "events under way on each of the 8 connections when windowed (default 256, JetStream 512)")
	flag.IntVar(&s.connections, "connections", 0, fmt.Sprintf("connections to each system (default %d)", connections))
	flag.StringVar(&s.profile, "profile", "", "an existing folder for CPU profiles of all members and of the load")
	flag.StringVar(&s.dir, "dir", ".", "where the members' data goes, in a folder that is removed at the end; on a real disk")
	flag.Parse()
	if flag.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	rounds, wall, kills := 5, 2*time.Second, 11
	if s.quick {
		rounds, wall, kills = 3, 700*time.Millisecond, 3
	}
	if s.rounds <= 0 {
		s.rounds = rounds
	}
	if s.wall <= 0 {
		s.wall = wall
	}
	if s.kills <= 0 {
		s.kills = kills
	}
	return s, onDisk(s.dir)
}

// tmpfs is the file system that keeps files in memory, where a sync costs nothing.
const tmpfs = 0x01021994

// onDisk refuses a folder in memory: its figures would be no figures.
func onDisk(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if fs.Type == tmpfs {
		return fmt.Errorf("%s is in memory; give a folder on a disk with -dir", dir)
	}
	return nil
}

// part is one of the benchmarks.
type part struct {
	name string
	run  func(context.Context, *report, settings) error
}

func parts() []part {
	return []part{{"append", appends}, {"failover", failovers}, {"reads", reads}, {"tree", tree}}
}

func partNames() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func bench(ctx context.Context) error {
	s, err := parse()
	if err != nil {
		return err
	}
	began := time.Now()
	out := &report{}
	for _, p := range parts() {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), p.name) {
			continue
		}
		if e := p.run(ctx, out, s); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, e))
		}
		if ctx.Err() != nil {
			return errors.Join(err, errors.New("interrupted"))
		}
	}
	say("all of it took %s", time.Since(began).Round(time.Second))
	return errors.Join(err, out.err)
}

// say tells a person what is going on.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
