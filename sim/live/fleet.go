package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"skein/mesh/ident"
	"skein/node"
	"skein/node/client"
	"skein/node/config"
	"skein/node/datadir"
	"skein/node/gateway/view"
)

const (
	// MaxRobots bounds a fleet in one process.
	MaxRobots = 100
	// linkGood is how long the printed login link can be used, once.
	linkGood = 12 * time.Hour
	// formTimeout bounds the forming of a fleet, founding included.
	formTimeout = 60 * time.Second
	// pause is the wait between two looks at something that is forming.
	pause = 50 * time.Millisecond
	// logName is the file in the fleet's folder that the nodes log to.
	logName = "dev.log"
	// fleetName is what the fleet is called.
	fleetName = "dev"
)

// Errors of commands to a running fleet.
var (
	// ErrNoSuchRobot: the fleet has no robot of that name.
	ErrNoSuchRobot = errors.New("no such robot")
	// ErrState: the robot is already what the command asks for.
	ErrState = errors.New("nothing to do")
)

// Options say what to run.
type Options struct {
	// Robots is how many nodes, 1 to MaxRobots; Voters how many of them vote,
	// 1, 3 or 5, and no more than Robots.
	Robots, Voters int
	// HTTP is the first robot's host:port; the others take the ports after it.
	HTTP string
	// Data is the fleet's folder; it survives, so that the next run goes on.
	Data string
	// LAN: listen on all interfaces and speak with robots on the network.
	LAN bool
	// Say is called once, when the console can be opened, with its address and a
	// login link that works once.
	Say func(console, loginLink string)
	// Version is that of the build.
	Version string
}

// Fleet is a running fleet.
type Fleet struct {
	o    Options
	dir  *datadir.Dir
	log  *os.File
	host string
	port int

	mu     sync.Mutex
	robots map[string]*robot
	ctx    context.Context
	failed chan error
	all    sync.WaitGroup
	// publishing is held while client.json is written.
	publishing sync.Mutex
}

// robot is one node of the fleet; run is nil while it is dead.
type robot struct {
	name  string
	index int
	run   *running
}

type running struct {
	node *node.Node
	kill context.CancelCauseFunc
	done chan struct{}
	// asked: a command started it, and is told if it does not come up. err is why
	// it ended, once done is closed.
	asked bool
	err   error
}

// Run runs a fleet until ctx ends. It returns an error when the fleet cannot
// be formed, or a node that nobody killed ends.
func Run(ctx context.Context, o Options) error {
	f, err := open(o)
	if err != nil {
		return err
	}
	defer f.dir.Close()
	defer f.log.Close()
	ctx, stop := context.WithCancel(ctx)
	f.ctx = ctx
	err = f.serve(ctx)
	stop()
	f.all.Wait()
	return err
}

func open(o Options) (*Fleet, error) {
	if o.Robots < 1 || o.Robots > MaxRobots {
		return nil, fmt.Errorf("a fleet of %d robots: choose --robots from 1 to %d", o.Robots, MaxRobots)
	}
	if !slices.Contains([]int{1, 3, 5}, o.Voters) || o.Voters > o.Robots {
		return nil, fmt.Errorf("%d voters among %d robots: choose --voters 1, 3 or 5, and no more than robots", o.Voters, o.Robots)
	}
	host, port, err := net.SplitHostPort(o.HTTP)
	if err != nil {
		return nil, fmt.Errorf("--http %q: %w; give HOST:PORT, like 127.0.0.1:7780", o.HTTP, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil || number < 0 || number+o.Robots > 65536 {
		return nil, fmt.Errorf("--http %q: the port must be a number that leaves room for %d more", o.HTTP, o.Robots-1)
	}
	dir, err := datadir.Open(o.Data)
	if err != nil {
		return nil, err
	}
	// Only who holds the folder may begin a new log.
	log, err := os.OpenFile(filepath.Join(dir.Path(), logName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the nodes' log: %w", err), dir.Close())
	}
	return &Fleet{o: o, dir: dir, log: log, host: host, port: number, robots: map[string]*robot{}, failed: make(chan error, 4*MaxRobots)}, nil
}

// serve forms the fleet and keeps it until ctx ends or a node fails.
func (f *Fleet) serve(ctx context.Context) error {
	if err := f.found(ctx); err != nil {
		return err
	}
	control, err := f.listen()
	if err != nil {
		return err
	}
	f.all.Go(func() { f.answer(ctx, control) })
	for i := range max(f.o.Robots, f.onDisk()) {
		if err := f.start(nameOf(i+1), false); err != nil {
			return err
		}
	}
	formed := make(chan error, 1)
	f.all.Go(func() { formed <- f.form(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-f.failed:
			return err
		case err := <-formed:
			if err != nil && ctx.Err() == nil {
				return err
			}
			formed = nil
		}
	}
}

// onDisk is how many robots earlier runs have left, those of `skein dev add`
// included.
func (f *Fleet) onDisk() (count int) {
	for count < MaxRobots {
		if _, err := os.Stat(f.path(nameOf(count + 1))); err != nil {
			break
		}
		count++
	}
	return count
}

func nameOf(index int) string { return "robot-" + strconv.Itoa(index) }

func (f *Fleet) path(name ...string) string {
	return filepath.Join(append([]string{f.dir.Path()}, name...)...)
}

func (f *Fleet) identityFile() string { return f.path(nameOf(1), "admin.json") }

// found makes the fleet on robot-1's disk, unless an earlier run did.
func (f *Fleet) found(ctx context.Context) error {
	_, err := node.InitFleet(ctx, node.InitOptions{Data: f.path(nameOf(1)), Name: fleetName, NodeName: nameOf(1)})
	if errors.Is(err, node.ErrMember) {
		return nil
	}
	return err
}

// settings are a robot's, as if from its configuration file.
func (f *Fleet) settings(index int) config.Config {
	c := config.Default()
	c.Data = f.path(nameOf(index))
	c.Name = nameOf(index)
	c.Type = []string{"lekiwi", "xlerobot"}[(index+1)%2]
	c.FleetFile = f.path(nameOf(1), "fleet.json")
	c.Voter = index <= f.o.Voters
	c.Mesh.LinkPort, c.Mesh.GossipPort = 0, 0
	c.Mesh.Loopback = !f.o.LAN
	port := 0
	if f.port != 0 {
		port = f.port + index - 1
	}
	c.HTTP = net.JoinHostPort(f.host, strconv.Itoa(port))
	return c
}

// start boots a robot that is new or dead. asked: see running.
func (f *Fleet) start(name string, asked bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.robots[name]
	if !ok {
		r = &robot{name: name, index: len(f.robots) + 1}
	}
	if r.run != nil {
		return fmt.Errorf("%w: %s runs", ErrState, name)
	}
	if f.ctx.Err() != nil {
		return f.ctx.Err()
	}
	log := slog.New(slog.NewTextHandler(f.log, nil)).With("robot", name)
	n, err := node.New(f.settings(r.index), f.o.Version, log)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ctx, kill := context.WithCancelCause(f.ctx)
	r.run = &running{node: n, kill: kill, done: make(chan struct{}), asked: asked}
	f.robots[name] = r
	run := r.run
	f.all.Go(func() {
		defer close(run.done)
		run.err = n.Run(ctx)
		f.ended(r, run)
		kill(nil)
	})
	f.all.Go(func() {
		select {
		case <-n.Up():
			f.publish()
		case <-run.done:
		}
	})
	return nil
}

// publish writes client.json, by which commands find the robots that are up.
func (f *Fleet) publish() {
	var faces []string
	for _, l := range f.list() {
		if l.HTTP != "" {
			faces = append(faces, l.HTTP)
		}
	}
	f.publishing.Lock()
	defer f.publishing.Unlock()
	if err := (client.DevFleet{HTTP: faces, Identity: f.identityFile()}).Save(f.path("client.json")); err != nil {
		f.failed <- err
	}
}

// ended notes that a node is gone; one that nobody killed ends the fleet, unless
// it never came up and there is a command to be told.
func (f *Fleet) ended(r *robot, run *running) {
	f.mu.Lock()
	if r.run == run {
		r.run = nil
	}
	f.mu.Unlock()
	up := false
	select {
	case <-run.node.Up():
		up = true
	default:
	}
	switch err := run.err; {
	case run.asked && !up:
	case errors.Is(err, node.ErrRevoked) && r.index > 1:
		slog.New(slog.NewTextHandler(f.log, nil)).Warn("a robot was revoked and has ended, the fleet goes on", "robot", r.name)
	case err != nil:
		f.failed <- fmt.Errorf("%s: %w", r.name, err)
	}
}

// upWithin bounds how long a command waits for the robot that it boots.
const upWithin = 5 * time.Second

// boot starts a robot and waits until its face is up, or it ended, or a while.
func (f *Fleet) boot(name string) error {
	if err := f.start(name, true); err != nil {
		return err
	}
	f.mu.Lock()
	run := f.robots[name].run
	f.mu.Unlock()
	if run == nil {
		return nil
	}
	select {
	case <-run.node.Up():
	case <-run.done:
		if run.err != nil && f.ctx.Err() == nil {
			return fmt.Errorf("%s: %w", name, run.err)
		}
	case <-time.After(upWithin):
	}
	return nil
}

// kill ends a robot as a power cut would: no goodbye to anyone.
func (f *Fleet) kill(name string) error {
	f.mu.Lock()
	r, ok := f.robots[name]
	var run *running
	if ok {
		run = r.run
	}
	f.mu.Unlock()
	switch {
	case !ok:
		return fmt.Errorf("%w: %s; `skein dev list` shows the robots", ErrNoSuchRobot, name)
	case run == nil:
		return fmt.Errorf("%w: %s is dead", ErrState, name)
	}
	run.kill(node.ErrKilled)
	<-run.done
	return nil
}

// add boots one more robot and returns its name.
func (f *Fleet) add() (string, error) {
	f.mu.Lock()
	count := len(f.robots)
	f.mu.Unlock()
	if count >= MaxRobots {
		return "", fmt.Errorf("the fleet has %d robots, the most that one process runs", count)
	}
	name := nameOf(count + 1)
	return name, f.boot(name)
}

// list is every robot's name and face, "" when dead, by index.
func (f *Fleet) list() []Listed {
	f.mu.Lock()
	defer f.mu.Unlock()
	robots := make([]*robot, 0, len(f.robots))
	for _, r := range f.robots {
		robots = append(robots, r)
	}
	slices.SortFunc(robots, func(a, b *robot) int { return cmp.Compare(a.index, b.index) })
	var out []Listed
	for _, r := range robots {
		l := Listed{Name: r.name}
		if r.run != nil {
			l.HTTP = r.run.node.Face()
		}
		out = append(out, l)
	}
	return out
}

// form lets commands find the fleet, says where the console is, and approves
// the voters as they offer themselves.
func (f *Fleet) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, formTimeout)
	defer cancel()
	f.mu.Lock()
	first := f.robots[nameOf(1)].run
	f.mu.Unlock()
	if first == nil {
		return nil // it failed, and that is reported
	}
	select {
	case <-first.node.Up():
	case <-ctx.Done():
		return fmt.Errorf("form the fleet: %s did not come up: %w", nameOf(1), ctx.Err())
	}
	admin, err := f.introduce(first.node)
	if err != nil {
		return err
	}
	defer admin.Close()
	return f.approve(ctx, admin)
}

// introduce tells the console's address and logs the admin in.
func (f *Fleet) introduce(first *node.Node) (*client.Client, error) {
	f.publish()
	link, err := first.LoginLink(node.FirstAdmin, linkGood)
	if err != nil {
		return nil, err
	}
	f.o.Say(first.Face(), link)
	identity, err := client.LoadIdentity(f.identityFile())
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Addresses: []string{first.Face()}, Identity: identity, Timeout: 5 * time.Second, Now: time.Now})
}

// approve makes voters of the robots that offer themselves, until there are
// as many as were asked for. What fails is tried again: leaders change.
func (f *Fleet) approve(ctx context.Context, admin *client.Client) error {
	why := errors.New("not all voters have joined")
	for {
		robots, err := admin.Robots(ctx)
		if err != nil {
			why = err
		}
		approved := 0
		for _, r := range robots.Robots {
			if r.VoterApproved {
				approved++
			} else if r.VoterEligible && r.Status == view.Online {
				if _, err := admin.Propose(ctx, approval(r.ID)); err != nil {
					why = err
				}
			}
		}
		if approved >= f.o.Voters {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("form the fleet: %d of %d voters: %w", approved, f.o.Voters, why)
		}
	}
}

func approval(id ident.NodeID) view.Draft {
	return view.Draft{Stream: "node/" + string(id), Type: "voter.approved", Data: []byte("{}")}
}
