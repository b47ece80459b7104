package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"skein/scripts/bench/log/etcdlog"
	"skein/scripts/bench/log/proc"
	"skein/scripts/bench/log/skeinlog"
	"skein/scripts/benchjson"
)

// firstWrite asks the members that are left until one accepts a write.
type firstWrite func(ctx context.Context, c *cluster, dead int) error

// failoverKinds are the systems whose leader is killed: both with the timings
// they ship with, and with heartbeats of 50 ms and elections of 250.
func failoverKinds() []kind {
	return []kind{
		{title: "skein", system: skeinlog.System, variant: "bolt", form: formSkein},
		{title: "skein tuned", system: skeinlog.System, variant: "bolt" + skeinlog.Tuned, form: formSkein},
		{title: "etcd default", system: etcdlog.System, variant: etcdlog.Default},
		{title: "etcd tuned", system: etcdlog.System, variant: etcdlog.Tuned},
	}
}

// failovers: from SIGKILL of the leader to the first accepted write, with the
// systems in turn.
func failovers(ctx context.Context, out *report, s settings) error {
	dir, err := os.MkdirTemp(s.dir, "bench-log")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	took := map[string][]float64{}
	var clusters []*cluster
	defer func() {
		for _, c := range clusters {
			c.stop()
		}
	}()
	for _, k := range failoverKinds() {
		c, err := startCluster(ctx, k, dir)
		if err != nil {
			return err
		}
		clusters = append(clusters, c)
	}
	for i := range s.kills {
		for _, c := range clusters {
			// Any phase of the timers.
			time.Sleep(time.Duration(i%10) * 37 * time.Millisecond)
			d, err := c.failover(ctx, writerOf(c))
			if err != nil {
				return fmt.Errorf("%s, kill %d: %w", c.title, i+1, err)
			}
			say("failover: %-12s %.3f s", c.title, d.Seconds())
			took[c.title] = append(took[c.title], d.Seconds())
		}
	}
	for _, pair := range [][2]string{{"skein", "etcd default"}, {"skein", "etcd tuned"}, {"skein tuned", "etcd tuned"}} {
		for _, p := range []struct {
			name string
			of   float64
		}{{"median", 50}, {"worst", 100}} {
			name := fmt.Sprintf("failover: %s, leader SIGKILL to first accepted write, %s of %d", pair[0], p.name, s.kills)
			out.beside(name, "s", benchjson.Percentile(took[pair[0]], p.of), pair[1], benchjson.Percentile(took[pair[1]], p.of))
		}
	}
	return nil
}

// failover kills the leader, waits for a write, and brings the member back.
func (c *cluster) failover(ctx context.Context, write firstWrite) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := write(ctx, c, -1); err != nil {
		return 0, fmt.Errorf("write before the kill: %w", err)
	}
	leader, err := c.leading(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	c.members[leader].Kill()
	if err := write(ctx, c, leader); err != nil {
		return 0, fmt.Errorf("write after the kill: %w", err)
	}
	took := time.Since(began)
	c.members[leader] = nil
	if c.members[leader], err = proc.Start(ctx, c.spec(leader, true)); err != nil {
		return 0, err
	}
	return took, c.level(ctx)
}

// level waits until all members have applied the same.
func (c *cluster) level(ctx context.Context) error {
	for {
		at := make([]uint64, len(c.members))
		for i, m := range c.members {
			if err := m.Ask(ctx, "applied", nil, &at[i]); err != nil {
				return err
			}
		}
		if slices.Max(at) == slices.Min(at) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the members do not catch up: %v: %w", at, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// writeSkein proposes once; the proposer keeps at it.
func writeSkein(ctx context.Context, c *cluster, _ int) error {
	one, err := skeinlog.NewClient(0, c.ports, -1)
	if err != nil {
		return err
	}
	defer one.Close()
	return one.Append(ctx)
}

func writerOf(c *cluster) firstWrite {
	if c.system == skeinlog.System {
		return writeSkein
	}
	return writeEtcd
}

// attempt is how long etcd may take to answer before it is asked again.
const attempt = 100 * time.Millisecond

// writeEtcd asks both members that are left, again and again.
func writeEtcd(ctx context.Context, c *cluster, dead int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accepted := make(chan struct{}, len(c.members))
	for i := range c.members {
		if i == dead {
			continue
		}
		one, err := etcdlog.NewClient(i, c.ports, i)
		if err != nil {
			return err
		}
		go func() {
			defer one.Close()
			for ctx.Err() == nil {
				tryCtx, cancel := context.WithTimeout(ctx, attempt)
				err := one.Append(tryCtx)
				cancel()
				if err == nil {
					accepted <- struct{}{}
					return
				}
			}
		}()
	}
	select {
	case <-accepted:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
