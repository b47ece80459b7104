package trial

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/node/client"
	"skein/node/gateway/view"
	"skein/sim/rig"
)

const (
	// faceURL is a robot's own face, as seen on the robot.
	faceURL = "http://127.0.0.1:7780"
	// settle bounds every wait for a fleet to come to rest.
	settle = 30 * time.Second
	// askTimeout bounds one question.
	askTimeout = 5 * time.Second
)

// Fleet is one fleet on a rig.
type Fleet struct {
	// settings are more lines of every robot's configuration.
	settings string

	t      testing.TB
	skein  string
	Name   string
	Robots []*Robot
	// faces are the clients of Face.
	faces map[*Robot]*client.Client
}

// Robot is one host of a rig with a node on it.
type Robot struct {
	*rig.Host
	fleet *Fleet
	// Name is what people see.
	Name   string
	config string
	// Process is the node now running, or the last that ran.
	Process *rig.Process
}

// Found makes a fleet of hosts: the first is the founder, voters many of them
// become voters. Every node runs `skein run` with a configuration that names
// no address. It returns when all list all and the voters vote.
func Found(t testing.TB, skein, name string, hosts []*rig.Host, voters int) *Fleet {
	t.Helper()
	return FoundOn(t, skein, name, hosts, voters, "bolt")
}

// FoundOn is Found with a kind of store for the Raft log.
func FoundOn(t testing.TB, skein, name string, hosts []*rig.Host, voters int, store string) *Fleet {
	t.Helper()
	f := &Fleet{t: t, skein: skein, Name: name, faces: map[*Robot]*client.Client{}}
	if store != "bolt" {
		f.settings = fmt.Sprintf("[raft]\nstore = %q\n", store)
	}
	for i, h := range hosts {
		f.add(h, i < voters)
	}
	founder := f.Robots[0]
	f.run(founder, "fleet", "init", name, "--data", founder.Data(), "--node-name", founder.Name)
	if store != "bolt" {
		f.run(founder, "store", "convert", "--to", store, "--data", founder.Data())
	}
	fleetFile, err := founder.Run("cat", filepath.Join(founder.Data(), "fleet.json"))
	if err != nil {
		t.Fatalf("read fleet file: %v", err)
	}
	for _, r := range f.Robots {
		r.WriteFile("fleet.json", fleetFile)
		r.Boot()
	}
	f.AwaitListing(f.Robots, settle)
	for _, r := range f.Robots[1:voters] {
		f.Admin("node", "approve", r.Name)
	}
	f.AwaitVoters(voters)
	return f
}

// add prepares a host to be a robot of the fleet.
func (f *Fleet) add(h *rig.Host, voter bool) *Robot {
	r := &Robot{Host: h, fleet: f, Name: f.Name + "-" + h.Name}
	r.config = h.WriteFile("skein.toml", fmt.Sprintf("data = %q\nname = %q\nfleet_file = %q\nvoter = %v\n%s",
		r.Data(), r.Name, filepath.Join(h.Dir, "fleet.json"), voter, f.settings))
	f.Robots = append(f.Robots, r)
	return r
}

// Data is the robot's data directory.
func (r *Robot) Data() string { return filepath.Join(r.Dir, "data") }

// Boot starts the robot's node.
func (r *Robot) Boot() { r.Process = r.Start(r.fleet.skein, "run", "--config", r.config) }

// BootAs starts the robot's node with another build of the program, with
// variables ("NAME=value") in its environment.
func (r *Robot) BootAs(skein string, variables ...string) {
	r.Process = r.Start("env", append(variables, skein, "run", "--config", r.config)...)
}

// BootInjected starts the robot's node under strace, which tampers with its
// system calls: see rig.Host.StartInjected.
func (r *Robot) BootInjected(rules ...string) (i *rig.Injection) {
	r.Process, i = r.StartInjected(rules, r.fleet.skein, "run", "--config", r.config)
	return i
}

// Command runs a command about the robot's own data directory, by its
// configuration, to its end.
func (r *Robot) Command(args ...string) (string, error) {
	return r.Host.Run(r.fleet.skein, append(args, "--config", r.config)...)
}

// Join puts one more robot on the LAN and boots it with the fleet's file.
func (f *Fleet) Join(h *rig.Host, voter bool) *Robot {
	r := f.add(h, voter)
	fleetFile, err := f.Robots[0].Run("cat", filepath.Join(f.Robots[0].Dir, "fleet.json"))
	if err != nil {
		f.t.Fatalf("read fleet file: %v", err)
	}
	r.WriteFile("fleet.json", fleetFile)
	r.Boot()
	return r
}

// run is a command on a robot that must succeed.
func (f *Fleet) run(on *Robot, args ...string) string {
	f.t.Helper()
	out, err := on.Host.Run(f.skein, args...)
	if err != nil {
		f.t.Fatalf("skein %s on %s: %v", strings.Join(args, " "), on.Name, err)
	}
	return out
}

// Admin runs a command as the fleet's admin, asking whichever robot answers.
func (f *Fleet) Admin(args ...string) string {
	f.t.Helper()
	founder := f.Robots[0]
	return f.run(founder, append(args, "--http", f.addresses(), "--identity", filepath.Join(founder.Data(), "admin.json"))...)
}

// addresses lists the faces of all robots, for --http.
func (f *Fleet) addresses() string {
	var urls []string
	for _, r := range f.Robots {
		urls = append(urls, fmt.Sprintf("http://%s:7780", r.Addr()))
	}
	return strings.Join(urls, ",")
}

// Client is the fleet's admin at one robot's face.
func (f *Fleet) Client(at *Robot) *client.Client {
	f.t.Helper()
	identity, err := client.LoadIdentity(filepath.Join(f.Robots[0].Data(), "admin.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := client.New(client.Options{Addresses: []string{faceURL}, Identity: identity, Timeout: askTimeout, Now: time.Now, Dial: at.Dial})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// Face is Client, but the same one each time. It belongs to the test's goroutine.
func (f *Fleet) Face(at *Robot) *client.Client {
	f.t.Helper()
	if f.faces[at] == nil {
		f.faces[at] = f.Client(at)
	}
	return f.faces[at]
}

// Robots is what a robot lists, through its control socket.
func (r *Robot) Robots() (view.Robots, error) {
	var list view.Robots
	return list, r.ask(&list, "robots", "list")
}

// Fleet is a robot's header, through its control socket.
func (r *Robot) Fleet() (view.Fleet, error) {
	var header view.Fleet
	return header, r.ask(&header, "fleet", "show")
}

func (r *Robot) ask(into any, args ...string) error {
	out, err := r.Host.Run(r.fleet.skein, append(args, "--json", "--data", r.Data())...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// AwaitListing waits until each of robots lists exactly all of robots, online.
func (f *Fleet) AwaitListing(robots []*Robot, limit time.Duration) time.Duration {
	f.t.Helper()
	var want []string
	for _, r := range robots {
		want = append(want, r.Name)
	}
	slices.Sort(want)
	return rig.Wait(f.t, limit, "every robot lists exactly its own fleet", func() error {
		for _, r := range robots {
			if err := r.lists(want); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
		}
		return nil
	})
}

// lists checks that the robots a robot shows as online are exactly want, and
// that it knows no other robot than those of its fleet.
func (r *Robot) lists(want []string) error {
	list, err := r.Robots()
	if err != nil {
		return err
	}
	var online []string
	for _, other := range list.Robots {
		if !strings.HasPrefix(other.Name, r.fleet.Name+"-") {
			return fmt.Errorf("lists %s, which is not of its fleet", other.Name)
		}
		if other.Status == view.Online {
			online = append(online, other.Name)
		}
	}
	slices.Sort(online)
	if !slices.Equal(online, want) {
		return fmt.Errorf("lists %v as online, want %v", online, want)
	}
	return nil
}

// AwaitVoters waits until the fleet has n voters and a leader that all see.
func (f *Fleet) AwaitVoters(n int) {
	f.t.Helper()
	rig.Wait(f.t, settle, fmt.Sprintf("%d voters and one leader", n), func() error {
		var leader string
		for _, r := range f.Robots {
			if r.Process == nil || r.Process.Ended() {
				continue
			}
			header, err := r.Fleet()
			if err != nil {
				return err
			}
			if header.Leader == nil || len(header.Voters) != n {
				return fmt.Errorf("%s sees leader %v and %d voters", r.Name, header.Leader, len(header.Voters))
			}
			if leader != "" && header.Leader.Name != leader {
				return fmt.Errorf("%s sees leader %s, others %s", r.Name, header.Leader.Name, leader)
			}
			leader = header.Leader.Name
		}
		return nil
	})
}

// Leader is the robot that leads, as the others see it.
func (f *Fleet) Leader() *Robot {
	f.t.Helper()
	var found *Robot
	rig.Wait(f.t, settle, "a leader", func() error {
		for _, asked := range f.Robots {
			if asked.Process.Ended() {
				continue
			}
			header, err := asked.Fleet()
			if err != nil || header.Leader == nil || header.AsOf.Stale {
				continue
			}
			for _, r := range f.Robots {
				if r.Name == header.Leader.Name && !r.Process.Ended() {
					found = r
					return nil
				}
			}
		}
		return errors.New("nobody knows a living leader")
	})
	return found
}

// Write proposes one small fact at a robot and returns its seq once the fleet
// has acknowledged it.
func Write(ctx context.Context, c *client.Client, robot string, value string) (uint64, error) {
	data, err := json.Marshal(map[string]any{"set": map[string]string{"trial": value}, "remove": []string{}})
	if err != nil {
		return 0, err
	}
	receipt, err := c.Propose(ctx, view.Draft{Stream: "robot/" + robot, Type: "robot.labels_changed", Data: data})
	return receipt.Last, err
}
