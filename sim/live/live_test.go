package live

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/node/client"
	"skein/node/gateway/view"
)

// settle bounds every wait; the machine may be busy and -race is slow.
const settle = 60 * time.Second

// fleetUnderTest is a fleet that runs in this process.
type fleetUnderTest struct {
	t     *testing.T
	data  string
	link  string
	stop  context.CancelFunc
	ended chan error
}

// run starts a fleet and returns when its console can be opened.
func run(t *testing.T, data string, robots, voters int) *fleetUnderTest {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &fleetUnderTest{t: t, data: data, stop: stop, ended: make(chan error, 1)}
	said := make(chan string, 1)
	go func() {
		f.ended <- Run(ctx, Options{
			Robots: robots, Voters: voters, HTTP: "127.0.0.1:0", Data: data,
			Say: func(_, loginLink string) { said <- loginLink },
		})
	}()
	select {
	case f.link = <-said:
	case err := <-f.ended:
		t.Fatalf("the fleet ended: %v", err)
	case <-time.After(settle):
		t.Fatal("the console did not open")
	}
	return f
}

// end stops the fleet and waits for every part of it.
func (f *fleetUnderTest) end() {
	f.t.Helper()
	f.stop()
	select {
	case err := <-f.ended:
		if err != nil {
			f.t.Errorf("the fleet ended with %v", err)
		}
	case <-time.After(settle):
		f.t.Fatal("the fleet did not stop")
	}
}

func (f *fleetUnderTest) command(action, name string) []Listed {
	f.t.Helper()
	robots, err := Command(f.t.Context(), f.data, action, name)
	if err != nil {
		f.t.Fatalf("%s %s: %v", action, name, err)
	}
	return robots
}

// face is where a robot's console is.
func (f *fleetUnderTest) face(name string) string {
	f.t.Helper()
	robots := f.command("list", "")
	i := slices.IndexFunc(robots, func(l Listed) bool { return l.Name == name })
	if i < 0 {
		f.t.Fatalf("no %s among %v", name, robots)
	}
	return robots[i].HTTP
}

// shows waits until a robot shows exactly these as online, and so many voters.
func (f *fleetUnderTest) shows(at string, voters int, online ...string) {
	f.t.Helper()
	deadline := time.Now().Add(settle)
	for {
		got, count, err := f.look(at)
		if err == nil && slices.Equal(got, online) && count == voters {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s shows %v online and %d voters (%v), want %v and %d", at, got, count, err, online, voters)
		}
		select {
		case <-time.After(pause):
		case err := <-f.ended:
			f.t.Fatalf("the fleet ended: %v", err)
		}
	}
}

func (f *fleetUnderTest) look(at string) (online []string, voters int, err error) {
	identity, err := client.LoadIdentity(filepath.Join(f.data, "robot-1", "admin.json"))
	if err != nil {
		return nil, 0, err
	}
	c, err := client.New(client.Options{Addresses: []string{f.face(at)}, Identity: identity, Timeout: 5 * time.Second, Now: time.Now})
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	robots, err := c.Robots(f.t.Context())
	if err != nil {
		return nil, 0, err
	}
	header, err := c.Fleet(f.t.Context())
	if err != nil {
		return nil, 0, err
	}
	for _, r := range robots.Robots {
		if r.Status == view.Online {
			online = append(online, r.Name)
		}
	}
	return online, len(header.Voters), nil
}

// TestFleetFormsLosesAndGains runs a whole fleet in this process, and then looks
// for what it left running.
func TestFleetFormsLosesAndGains(t *testing.T) {
	before := goleak.IgnoreCurrent()
	data := t.TempDir()
	f := run(t, data, 3, 3)
	f.shows("robot-1", 3, "robot-1", "robot-2", "robot-3")
	f.shows("robot-3", 3, "robot-1", "robot-2", "robot-3")
	if !strings.HasPrefix(f.link, f.face("robot-1")+"/") || !strings.Contains(f.link, "#login=") {
		t.Errorf("the login link is %s, robot-1's console is at %s", f.link, f.face("robot-1"))
	}
	f.nothingShared(data)

	f.command("kill", "robot-3")
	if face := f.face("robot-3"); face != "" {
		t.Errorf("a dead robot has a face at %s", face)
	}
	f.shows("robot-1", 3, "robot-1", "robot-2")
	f.damaged("robot-3")
	f.command("start", "robot-3")
	f.shows("robot-3", 3, "robot-1", "robot-2", "robot-3")
	f.command("add", "")
	f.shows("robot-4", 3, "robot-1", "robot-2", "robot-3", "robot-4")
	f.refusals()
	f.end()

	// The same folder goes on with the same fleet.
	f = run(t, data, 3, 3)
	f.shows("robot-2", 3, "robot-1", "robot-2", "robot-3", "robot-4") // the added one is remembered
	f.end()
	http.DefaultClient.CloseIdleConnections()
	// A probe of memberlist ends on its own when its time is up, seconds after Run.
	for deadline := time.Now().Add(settle); ; {
		left := goleak.Find(before)
		if left == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(left)
		}
	}
}

// damaged starts a dead robot whose log lost a byte: the command says what is
// wrong, and the others go on. Then the byte is put back.
func (f *fleetUnderTest) damaged(name string) {
	f.t.Helper()
	segments, err := filepath.Glob(filepath.Join(f.data, name, "log", "history", "*.seg"))
	if err != nil || len(segments) == 0 {
		f.t.Fatalf("no history of %s: %v", name, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		f.t.Fatal(err)
	}
	broken := slices.Clone(whole)
	broken[len(broken)/2] ^= 1
	if err := os.WriteFile(segments[0], broken, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if _, err := Command(f.t.Context(), f.data, "start", name); err == nil || !strings.Contains(err.Error(), "damaged") {
		f.t.Errorf("starting a robot with a damaged log: %v", err)
	}
	f.shows("robot-1", 3, "robot-1", "robot-2")
	if err := os.WriteFile(segments[0], whole, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// nothingShared checks that every robot has a key, a face and files of its own.
func (f *fleetUnderTest) nothingShared(data string) {
	f.t.Helper()
	keys, faces := map[string]string{}, map[string]string{}
	for _, r := range f.command("list", "") {
		key, err := os.ReadFile(filepath.Join(data, r.Name, "node.key"))
		if err != nil {
			f.t.Fatal(err)
		}
		if other := keys[string(key)]; other != "" {
			f.t.Errorf("%s and %s have one key", r.Name, other)
		}
		if other := faces[r.HTTP]; other != "" {
			f.t.Errorf("%s and %s have one face", r.Name, other)
		}
		keys[string(key)], faces[r.HTTP] = r.Name, r.Name
	}
}

// refusals gives commands that cannot be done.
func (f *fleetUnderTest) refusals() {
	f.t.Helper()
	for _, c := range []struct{ action, name string }{{"kill", "robot-9"}, {"start", "robot-9"}, {"kill", "../x"}} {
		if _, err := Command(f.t.Context(), f.data, c.action, c.name); !errors.Is(err, ErrNoSuchRobot) {
			f.t.Errorf("%s %s: %v, want that there is no such robot", c.action, c.name, err)
		}
	}
	if _, err := Command(f.t.Context(), f.data, "start", "robot-1"); err == nil || !strings.Contains(err.Error(), "runs") {
		f.t.Errorf("starting a robot that runs: %v", err)
	}
	second := Run(f.t.Context(), Options{Robots: 1, Voters: 1, HTTP: "127.0.0.1:0", Data: f.data, Say: func(string, string) {}})
	if second == nil || !strings.Contains(second.Error(), "in use") {
		f.t.Errorf("a second fleet in the same folder: %v", second)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"no robots":           {Robots: 0, Voters: 1, HTTP: "127.0.0.1:0"},
		"too many":            {Robots: MaxRobots + 1, Voters: 1, HTTP: "127.0.0.1:0"},
		"two voters":          {Robots: 5, Voters: 2, HTTP: "127.0.0.1:0"},
		"voters but no robot": {Robots: 1, Voters: 3, HTTP: "127.0.0.1:0"},
		"no port":             {Robots: 1, Voters: 1, HTTP: "127.0.0.1"},
		"port is a word":      {Robots: 1, Voters: 1, HTTP: "127.0.0.1:http"},
		"no room for ports":   {Robots: 3, Voters: 1, HTTP: "127.0.0.1:65534"},
	} {
		o.Data = filepath.Join(t.TempDir(), "fleet")
		if err := Run(t.Context(), o); err == nil {
			t.Errorf("%s was taken", name)
		}
		if _, err := os.Stat(o.Data); err == nil {
			t.Errorf("%s: a folder was made", name)
		}
	}
}

func TestCommandWithoutAFleet(t *testing.T) {
	if _, err := Command(t.Context(), t.TempDir(), "list", ""); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v, want that none runs", err)
	}
}
