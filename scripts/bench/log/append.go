package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"skein/scripts/bench/log/load"
	"skein/scripts/bench/log/proc"
)

// shape is a form of load.
type shape struct {
	flag, title string
	// clients are synchronous ones; 0: every connection has a window under way.
	clients int
}

func shapes() []shape {
	return []shape{
		{"1", "1 client", 1},
		{"64", "64 clients", 64},
		{"256", "256 clients", 256},
		{"windowed", "windowed", 0},
	}
}

// warmUp is how long a load runs before it counts.
const warmUp = 200 * time.Millisecond

// measured is what the rounds of one load on one system gave, a value for each
// round.
type measured struct {
	perSecond, p50, p99 []float64
	// loadCPU is the share of the machine that the load took, in percent,
	// memberCPU what the members used for an event, in microseconds.
	loadCPU, memberCPU []float64
	failed             int
}

// cell is one load on one system.
type cell struct{ shape, system string }

// appends measures all loads on all systems. In every round each load goes to
// one system after the other, so that whatever else the machine does hits all.
func appends(ctx context.Context, out *report, s settings) error {
	dir, err := os.MkdirTemp(s.dir, "bench-log")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var clusters []*cluster
	defer func() {
		for _, c := range clusters {
			c.stop()
		}
	}()
	for _, k := range kinds() {
		if !chosen(s.systems, k.title) {
			continue
		}
		if s.window > 0 {
			k.window = s.window
		}
		k.connections = s.connections
		say("append: start %s", k.title)
		c, err := startCluster(ctx, k, dir)
		if err != nil {
			return err
		}
		clusters = append(clusters, c)
	}
	results := map[cell]*measured{}
	memory := map[string]*peak{}
	for round := range s.rounds {
		say("append: round %d of %d", round+1, s.rounds)
		for _, sh := range shapes() {
			if !chosen(s.shapes, sh.flag) {
				continue
			}
			for i := range clusters {
				c := clusters[(i+round)%len(clusters)]
				if err := one(ctx, c, sh, s, results, memory); err != nil {
					return fmt.Errorf("%s, %s: %w", c.title, sh.title, err)
				}
			}
		}
	}
	tabulate(results)
	printAppends(out, results)
	printMemory(out, memory)
	return nil
}

// chosen reports whether a list by comma has a name; an empty list has all.
func chosen(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

// one is one round of one load on one system.
func one(ctx context.Context, c *cluster, sh shape, s settings, results map[cell]*measured, memory map[string]*peak) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	c.apply(ctx, sh, warmUp)
	stop, err := c.profile(ctx, s.profile, sh)
	if err != nil {
		return err
	}
	before, err := c.cpu()
	if err != nil {
		return err
	}
	r := c.apply(ctx, sh, s.wall)
	after, err := c.cpu()
	if err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.Events == 0 {
		return fmt.Errorf("nothing was acknowledged: %d failures, the first: %w", r.Failed, r.First)
	}
	at := cell{sh.flag, c.title}
	m := results[at]
	if m == nil {
		m = &measured{}
		results[at] = m
	}
	m.perSecond = append(m.perSecond, r.PerSecond())
	m.p50 = append(m.p50, quantile(r.Latencies, 50))
	m.p99 = append(m.p99, quantile(r.Latencies, 99))
	m.loadCPU = append(m.loadCPU, 100*r.CPU.Seconds()/r.Wall.Seconds()/float64(cores()))
	m.memberCPU = append(m.memberCPU, (after-before).Seconds()*1e6/float64(r.Events))
	if r.Failed > 0 {
		m.failed += r.Failed
		say("append: %s, %s: %d failed, the first: %v", c.title, sh.title, r.Failed, r.First)
	}
	say("append: %-15s %-12s %9.0f/s  p50 %7.2f ms  p99 %7.2f ms  load %4.0f %%  members %6.1f µs/event", c.title, sh.title,
		r.PerSecond(), quantile(r.Latencies, 50), quantile(r.Latencies, 99), m.loadCPU[len(m.loadCPU)-1], m.memberCPU[len(m.memberCPU)-1])
	return c.remember(memory)
}

// quantile is the p-th percentile of sorted latencies in milliseconds.
func quantile(sorted []time.Duration, p int) float64 {
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Seconds() * 1000
}

// apply puts a load on the system.
func (c *cluster) apply(ctx context.Context, sh shape, wall time.Duration) load.Round {
	if sh.clients == 0 {
		return load.Windowed(ctx, c.clients, c.window, wall)
	}
	return load.Sync(ctx, c.clients, sh.clients, wall)
}

// profile writes CPU profiles of the members and of the load until stop.
func (c *cluster) profile(ctx context.Context, folder string, sh shape) (stop func() error, err error) {
	if folder == "" {
		return func() error { return nil }, nil
	}
	base := filepath.Join(folder, strings.ReplaceAll(c.title, " ", "-")+"-"+sh.flag+"-")
	for i, m := range c.members {
		role := fmt.Sprintf("follower%d", i)
		if i == c.leader {
			role = "leader"
		}
		if err := m.Ask(ctx, "profile", base+role+".prof", nil); err != nil {
			return nil, err
		}
	}
	f, err := os.Create(base + "load.prof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		err := f.Close()
		for _, m := range c.members {
			if e := m.Ask(ctx, "unprofile", nil, nil); e != nil {
				err = e
			}
		}
		return err
	}, nil
}

// cpu is what the members have used so far.
func (c *cluster) cpu() (sum time.Duration, err error) {
	for _, m := range c.members {
		u, err := proc.UsageOf(m.PID)
		if err != nil {
			return 0, err
		}
		sum += u.CPU
	}
	return sum, nil
}

// peak is the most memory that a leader and a follower were seen to take, in bytes.
type peak struct{ leader, follower proc.Usage }

// remember looks at the members' memory, right after a load.
func (c *cluster) remember(memory map[string]*peak) error {
	p := memory[c.title]
	if p == nil {
		p = &peak{}
		memory[c.title] = p
	}
	for i, m := range c.members {
		u, err := proc.UsageOf(m.PID)
		if err != nil {
			return err
		}
		most := &p.follower
		if i == c.leader {
			most = &p.leader
		}
		most.RSS, most.Anonymous = max(most.RSS, u.RSS), max(most.Anonymous, u.Anonymous)
	}
	return nil
}

// pairs are who is held against whom.
func pairs() (all [][2]string) {
	for _, store := range []string{"bolt", "wal"} {
		for _, peer := range []string{"bare raft " + store, "etcd", "jetstream"} {
			all = append(all, [2]string{"skein " + store, peer})
		}
	}
	return all
}

// tabulate shows a person the medians: events a second, and the latencies at the
// median and at 99 %, in milliseconds.
func tabulate(results map[cell]*measured) {
	for _, sh := range shapes() {
		for _, title := range titles() {
			if m := results[cell{sh.flag, title}]; m != nil {
				say("median: %-12s %-15s %9.0f/s  p50 %7.2f ms  p99 %7.2f ms  load %3.0f %%  members %6.1f µs/event", sh.title, title,
					median(m.perSecond), median(m.p50), median(m.p99), median(m.loadCPU), median(m.memberCPU))
			}
		}
	}
}

func printAppends(out *report, results map[cell]*measured) {
	for _, sh := range shapes() {
		for _, pair := range pairs() {
			ours, theirs := results[cell{sh.flag, pair[0]}], results[cell{sh.flag, pair[1]}]
			if ours == nil || theirs == nil {
				continue
			}
			name := fmt.Sprintf("append: %s, %s, ", pair[0], sh.title)
			out.beside(name+"events", "1/s", median(ours.perSecond), pair[1], median(theirs.perSecond))
			out.beside(name+"p50", "ms", median(ours.p50), pair[1], median(theirs.p50))
			out.beside(name+"p99", "ms", median(ours.p99), pair[1], median(theirs.p99))
			out.beside(name+"the load's share of the machine meanwhile", "%", median(ours.loadCPU), pair[1], median(theirs.loadCPU))
			out.beside(name+"processor time of all members an event", "us", median(ours.memberCPU), pair[1], median(theirs.memberCPU))
			if ours.failed+theirs.failed > 0 {
				out.beside(name+"appends that failed", "events", float64(ours.failed), pair[1], float64(theirs.failed))
			}
		}
	}
}

func printMemory(out *report, memory map[string]*peak) {
	const mb = 1e6
	for _, pair := range pairs() {
		ours, theirs := memory[pair[0]], memory[pair[1]]
		if ours == nil || theirs == nil {
			continue
		}
		for _, who := range []struct {
			name         string
			ours, theirs proc.Usage
		}{{"leader", ours.leader, theirs.leader}, {"follower", ours.follower, theirs.follower}} {
			name := fmt.Sprintf("memory under load: %s, %s, ", pair[0], who.name)
			out.beside(name+"RSS", "MB", float64(who.ours.RSS)/mb, pair[1], float64(who.theirs.RSS)/mb)
			out.beside(name+"anonymous", "MB", float64(who.ours.Anonymous)/mb, pair[1], float64(who.theirs.Anonymous)/mb)
		}
	}
}
