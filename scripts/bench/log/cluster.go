package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"skein/scripts/bench/log/barelog"
	"skein/scripts/bench/log/etcdlog"
	"skein/scripts/bench/log/load"
	"skein/scripts/bench/log/natslog"
	"skein/scripts/bench/log/proc"
	"skein/scripts/bench/log/skeinlog"
)

// voters is how many members every system has, connections how many clients
// connect to it. A load of more clients shares these.
const (
	voters      = skeinlog.Voters
	connections = 8
)

// client is a connection to the leader of a system.
type client interface {
	load.Appender
	load.Pipeliner
	io.Closer
}

// kind is a system that is measured.
type kind struct {
	// title names it in results; system and variant are its members' spec.
	title, system, variant string
	// connect makes connection i to the member that leads.
	connect func(i int, ports [][2]int, leader int) (client, error)
	// form is what must happen once, when all members are there. May be nil.
	form func(context.Context, *cluster) error
	// window is how many events a connection has under way when windowed.
	window int
	// connections is how many there are; 0 is the usual number.
	connections int
}

func kinds() []kind {
	return []kind{
		{title: "skein bolt", system: skeinlog.System, variant: "bolt", connect: connectSkein, form: formSkein, window: 256},
		{title: "skein wal", system: skeinlog.System, variant: "wal", connect: connectSkein, form: formSkein, window: 256},
		{title: "bare raft bolt", system: barelog.System, variant: "bolt", connect: connectBare, window: 256},
		{title: "bare raft wal", system: barelog.System, variant: "wal", connect: connectBare, window: 256},
		{title: "etcd", system: etcdlog.System, variant: etcdlog.Default, connect: connectEtcd, window: 256},
		{title: "jetstream", system: natslog.System, variant: "sync always", connect: connectNATS, form: formNATS, window: 512},
	}
}

func titles() (all []string) {
	for _, k := range kinds() {
		all = append(all, k.title)
	}
	return all
}

// startMember is what a member process runs.
func startMember(ctx context.Context, s proc.Spec) (proc.Member, error) {
	switch s.System {
	case skeinlog.System:
		return skeinlog.StartVoter(ctx, s)
	case skeinlog.FollowerSystem:
		return skeinlog.StartFollower(ctx, s)
	case barelog.System:
		return barelog.Start(ctx, s)
	case etcdlog.System:
		return etcdlog.Start(ctx, s)
	case natslog.System:
		return natslog.Start(ctx, s)
	}
	return nil, fmt.Errorf("unknown system %q", s.System)
}

func connectSkein(i int, ports [][2]int, leader int) (client, error) {
	return skeinlog.NewClient(i, ports, leader)
}

func formSkein(ctx context.Context, c *cluster) error { return c.members[0].Ask(ctx, "form", nil, nil) }

func connectBare(_ int, ports [][2]int, leader int) (client, error) {
	return barelog.NewClient(ports, leader)
}

func connectEtcd(i int, ports [][2]int, leader int) (client, error) {
	return etcdlog.NewClient(i, ports, leader)
}

func connectNATS(_ int, ports [][2]int, leader int) (client, error) {
	return natslog.NewClient(ports, leader)
}

func formNATS(ctx context.Context, c *cluster) error {
	one, err := natslog.NewClient(c.ports, 0)
	if err != nil {
		return err
	}
	defer one.Close()
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	return one.CreateStream(ctx)
}

// cluster is a running system.
type cluster struct {
	kind
	dir     string
	ports   [][2]int
	members []*proc.Process
	// leader is the member that led when the clients connected.
	leader  int
	clients []client
}

// leaderTimeout bounds the wait for a leader.
const leaderTimeout = 30 * time.Second

// startCluster starts the members of a system in a folder of their own in dir.
func startCluster(ctx context.Context, k kind, dir string) (_ *cluster, err error) {
	c := &cluster{kind: k, members: make([]*proc.Process, voters), leader: -1}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", k.title, err)
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp(dir, "log"); err != nil {
		return nil, err
	}
	if c.ports, err = proc.FreePorts(voters); err != nil {
		return nil, err
	}
	errs := make([]error, voters)
	var all sync.WaitGroup
	for i := range c.members {
		all.Go(func() { c.members[i], errs[i] = proc.Start(ctx, c.spec(i, false)) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if k.form != nil {
		if err := k.form(ctx, c); err != nil {
			return nil, err
		}
	}
	_, err = c.leading(ctx)
	return c, err
}

func (c *cluster) spec(i int, again bool) proc.Spec {
	return proc.Spec{System: c.system, Variant: c.variant, Dir: c.dir, Index: i, Ports: c.ports, Again: again}
}

// leading waits until a member leads, and says which.
func (c *cluster) leading(ctx context.Context) (int, error) {
	deadline := time.Now().Add(leaderTimeout)
	for time.Now().Before(deadline) {
		for i, m := range c.members {
			if m == nil {
				continue
			}
			var leads bool
			if err := m.Ask(ctx, "leading", nil, &leads); err != nil {
				return -1, fmt.Errorf("member %d: %w", i, err)
			}
			if leads {
				return i, nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return -1, fmt.Errorf("no member leads after %s", leaderTimeout)
}

// ready connects the clients to the member that leads now.
func (c *cluster) ready(ctx context.Context) error {
	leader, err := c.leading(ctx)
	if err != nil || leader == c.leader {
		return err
	}
	c.hangUp()
	n := connections
	if c.connections > 0 {
		n = c.connections
	}
	for i := range n {
		one, err := c.connect(i, c.ports, leader)
		if err != nil {
			return err
		}
		c.clients = append(c.clients, one)
	}
	c.leader = leader
	return nil
}

func (c *cluster) hangUp() {
	for _, one := range c.clients {
		one.Close()
	}
	c.clients, c.leader = nil, -1
}

// stop ends the clients and the members, and removes their data.
func (c *cluster) stop() {
	c.hangUp()
	var all sync.WaitGroup
	for _, m := range slices.DeleteFunc(slices.Clone(c.members), func(m *proc.Process) bool { return m == nil }) {
		all.Go(m.End)
	}
	all.Wait()
	if c.dir != "" {
		os.RemoveAll(c.dir)
	}
}
