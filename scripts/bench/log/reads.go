package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"skein/scripts/bench/log/etcdlog"
	"skein/scripts/bench/log/load"
	"skein/scripts/bench/log/proc"
	"skein/scripts/bench/log/skeinlog"
)

// readers is how many read at once, writers how many synchronous clients write
// meanwhile.
const (
	readers = 64
	writers = 64
)

func cores() int { return runtime.NumCPU() }

// reads measures local reads on a member that does not lead, while clients
// write: on a robot that is a look into the state of the own process; with etcd
// it is a serializable get at the nearest member.
func reads(ctx context.Context, out *report, s settings) error {
	dir, err := os.MkdirTemp(s.dir, "bench-log")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ours, err := readSkein(ctx, s, dir)
	if err != nil {
		return fmt.Errorf("skein: %w", err)
	}
	theirs, err := readEtcd(ctx, s, dir)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	const peer = "etcd, serializable get over loopback"
	name := fmt.Sprintf("local reads in a follower's process, %d readers beside %d clients that write, ", readers, writers)
	out.beside(name+"reads", "1/s", ours.PerSecond, peer, theirs.PerSecond())
	out.beside(name+"p50", "us", ours.P50Nanos/1e3, peer, quantile(theirs.Latencies, 50)*1e3)
	out.beside(name+"p99", "us", ours.P99Nanos/1e3, peer, quantile(theirs.Latencies, 99)*1e3)
	return nil
}

// writing keeps writers busy until stop, which says how many events that were.
func writing(ctx context.Context, c *cluster) (stop func() int, err error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	result := make(chan load.Round, 1)
	go func() { result <- load.Sync(ctx, c.clients, writers, time.Hour) }()
	return func() int {
		cancel()
		return (<-result).Events
	}, nil
}

func readSkein(ctx context.Context, s settings, dir string) (r skeinlog.ReadingResult, err error) {
	c, err := startCluster(ctx, kinds()[0], dir)
	if err != nil {
		return r, err
	}
	defer c.stop()
	spec := c.spec(0, false)
	spec.System = skeinlog.FollowerSystem
	follower, err := proc.Start(ctx, spec)
	if err != nil {
		return r, err
	}
	defer follower.End()
	stop, err := writing(ctx, c)
	if err != nil {
		return r, err
	}
	defer stop()
	var seq uint64
	for deadline := time.Now().Add(leaderTimeout); seq < 1000; time.Sleep(20 * time.Millisecond) {
		if err := follower.Ask(ctx, "seq", nil, &seq); err != nil {
			return r, err
		}
		if time.Now().After(deadline) {
			return r, fmt.Errorf("the follower has %d events after %s", seq, leaderTimeout)
		}
	}
	if err := follower.Ask(ctx, "read", skeinlog.Reading{Readers: readers, Wall: s.wall}, &r); err != nil {
		return r, err
	}
	if r.Seq <= seq {
		return r, fmt.Errorf("the follower's copy stood still at event %d", seq)
	}
	return r, nil
}

// getter makes reads of a client look like appends to the load.
type getter struct{ *etcdlog.Client }

// Append implements load.Appender.
func (g getter) Append(ctx context.Context) error { return g.Read(ctx) }

func readEtcd(ctx context.Context, s settings, dir string) (r load.Round, err error) {
	c, err := startCluster(ctx, kind{title: "etcd", system: etcdlog.System, variant: etcdlog.Default, connect: connectEtcd}, dir)
	if err != nil {
		return r, err
	}
	defer c.stop()
	stop, err := writing(ctx, c)
	if err != nil {
		return r, err
	}
	defer stop()
	var getters []getter
	for i := range connections {
		one, err := etcdlog.NewClient(i, c.ports, (c.leader+1)%voters)
		if err != nil {
			return r, err
		}
		defer one.Close()
		getters = append(getters, getter{one})
	}
	load.Sync(ctx, getters, readers, warmUp)
	r = load.Sync(ctx, getters, readers, s.wall)
	if r.Failed > 0 || r.Events == 0 {
		return r, fmt.Errorf("%d reads of %d failed, the first: %w", r.Failed, r.Failed+r.Events, r.First)
	}
	return r, nil
}
