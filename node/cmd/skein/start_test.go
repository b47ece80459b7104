package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/node/config"
	"skein/node/doctor"
	"skein/node/gateway/view"
	"skein/sim/live"
)

// started is a shell whose starters note what they were asked.
type started struct {
	shell
	config config.Config
	dev    DevOptions
	init   InitOptions
	join   JoinOptions
	calls  int
	err    error // what starters return
}

func newStarted(t *testing.T) *started {
	s := &started{shell: shell{t: t, env: map[string]string{}}}
	s.with = func(a *app) {
		a.starters = Starters{
			RunNode: func(_ context.Context, c config.Config) error { s.calls, s.config = s.calls+1, c; return s.err },
			RunDev:  func(_ context.Context, o DevOptions) error { s.calls, s.dev = s.calls+1, o; return s.err },
			InitFleet: func(_ context.Context, o InitOptions) (InitResult, error) {
				s.calls, s.init = s.calls+1, o
				return InitResult{FleetID: "f1", FleetFile: "/d/fleet.json", AdminFile: "/d/admin.json", RootKeyFile: "/d/root.key"}, s.err
			},
			JoinFleet: func(ctx context.Context, o JoinOptions) (JoinResult, error) {
				s.calls, s.join = s.calls+1, o
				if errors.Is(s.err, errWaits) {
					<-ctx.Done()
				}
				return JoinResult{FleetName: "geese", FleetID: "f1", NodeID: string(gooseID), Name: o.Config.NodeName()}, s.err
			},
		}
	}
	return s
}

// errWaits makes JoinFleet wait until its time is over.
var errWaits = errors.New("not admitted: no robot of the fleet was found on the network yet")

func TestRunMergesFileAndFlags(t *testing.T) {
	s := newStarted(t)
	file := filepath.Join(t.TempDir(), "skein.toml")
	if err := os.WriteFile(file, []byte("name = \"gander\"\nvoter = true\nhttp = \":8080\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("run", "--config", file, "--http", "127.0.0.1:9090", "--voter=false", "--peer", "10.0.0.1:7781").want(t, exitOK)
	want := config.Default()
	want.Name, want.HTTP, want.Mesh.Peers = "gander", "127.0.0.1:9090", []string{"10.0.0.1:7781"}
	if fmt.Sprintf("%+v", s.config) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", s.config, want)
	}
	s.run("run", "--example").want(t, exitOK, "heartbeat")

	s.calls = 0
	if err := os.WriteFile(file, []byte("htpp = \":8080\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("run", "--config", file).want(t, exitUsage, "skein.toml:1", `did you mean "http"`)
	s.run("run", "--config", file+"x").want(t, exitUsage, "--config")
	s.run("run", "--type", "tank").want(t, exitUsage, "lekiwi")
	s.run("run", "--http", "nowhere").want(t, exitUsage, ":port")
	if s.calls != 0 {
		t.Error("a node was started with a wrong configuration")
	}
	s.err = errors.New("port 7781 is in use; set mesh.link_port")
	s.run("run").want(t, exitFailed, "port 7781 is in use")
}

func TestDevOptions(t *testing.T) {
	s := newStarted(t)
	s.run("dev").want(t, exitOK)
	if o := s.dev; o.Robots != 5 || o.Voters != 3 || o.HTTP != "127.0.0.1:7780" || o.Data != ".skein" || o.LAN || o.JSON || o.Out == nil {
		t.Errorf("defaults are %+v", o)
	}
	s.run("dev", "--robots", "1", "--voters", "1", "--http", ":9", "--data", "/d", "--lan", "--json").want(t, exitOK)
	if o := s.dev; o.Robots != 1 || o.Voters != 1 || o.HTTP != ":9" || o.Data != "/d" || !o.LAN || !o.JSON {
		t.Errorf("got %+v", o)
	}
	s.calls = 0
	for _, wrong := range []string{"--robots 0", "--robots 101", "--voters 0", "--voters 2", "--robots 3 --voters 5", "--robots 9 --voters 7"} {
		s.run(append([]string{"dev"}, strings.Fields(wrong)...)...).want(t, exitUsage, "must be")
	}
	if s.calls != 0 {
		t.Error("a fleet was started with wrong options")
	}
}

func TestDevControls(t *testing.T) {
	s := newStarted(t)
	fleet := []DevRobot{{Name: "robot-1", HTTP: "http://127.0.0.1:7780"}, {Name: "robot-2"}}
	var asked []string
	start := s.with
	s.with = func(a *app) {
		start(a)
		a.starters.CommandDev = func(_ context.Context, data, action, robot string) ([]DevRobot, error) {
			asked = append(asked, strings.TrimSpace(action+" "+robot)+" in "+data)
			return fleet, s.err
		}
	}
	s.run("dev", "list").want(t, exitOK, "robot-1", "http://127.0.0.1:7780", "robot-2", "dead")
	s.run("dev", "add").want(t, exitOK)
	s.run("dev", "kill", "robot-2", "--data", "/d").want(t, exitOK)
	s.run("dev", "start", "robot-2").want(t, exitOK)
	if want := "list in .skein, add in .skein, kill robot-2 in /d, start robot-2 in .skein"; strings.Join(asked, ", ") != want {
		t.Errorf("asked %q\nwant  %q", asked, want)
	}
	var listed struct{ Robots []DevRobot }
	if out := s.run("dev", "list", "--json").out; json.Unmarshal([]byte(out), &listed) != nil || len(listed.Robots) != 2 {
		t.Errorf("got %q", out)
	}
	s.run("dev", "kill").want(t, exitUsage, "ROBOT is missing")
	s.run("dev", "explode").want(t, exitUsage, "explode")
	s.err = fmt.Errorf("%w: robot-9; `skein dev list` shows the robots", live.ErrNoSuchRobot)
	s.run("dev", "kill", "robot-9").want(t, exitNotFound, "robot-9")
	s.err = fmt.Errorf("%w; start one", live.ErrNotRunning)
	s.run("dev", "list").want(t, exitUnreachable, "start one")
}

func TestFleetInit(t *testing.T) {
	s := newStarted(t)
	s.run("fleet", "init", "geese", "--data", "/tmp/my data", "--node-name", "gander", "--fleet-file", "/tmp/f").want(t, exitOK,
		"/d/fleet.json", "/d/admin.json", "/d/root.key", "skein run --data '/tmp/my data'")
	if want := (InitOptions{Data: "/tmp/my data", Name: "geese", NodeName: "gander", FleetFileOut: "/tmp/f"}); s.init != want {
		t.Errorf("got %+v", s.init)
	}
	var r InitResult
	if out := s.run("fleet", "init", "geese", "--json").out; json.Unmarshal([]byte(out), &r) != nil || r.FleetID != "f1" {
		t.Errorf("got %q", out)
	}
	s.err = errors.New("this robot is already in a fleet: /d is of a member; use another --data")
	s.run("fleet", "init", "geese").want(t, exitFailed, "use another --data")
	s.run("fleet", "init").want(t, exitUsage, "NAME is missing")
}

func TestJoin(t *testing.T) {
	root, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	token := ident.NewJoinToken(root.Public()).String()
	s := newStarted(t)
	s.run("join", token, "--data", "/d", "--name", "goose", "--peer", "10.0.0.1:7781", "--voter").want(t, exitOK,
		"goose ("+string(gooseID)+") is now a member of fleet geese", "skein run --data /d --name goose --voter=true")
	if c := s.join.Config; s.join.Token != token || c.Data != "/d" || c.Name != "goose" || !c.Voter || len(c.Mesh.Peers) != 1 {
		t.Errorf("got %+v", s.join)
	}
	var r JoinResult
	if out := s.run("join", token, "--json").out; json.Unmarshal([]byte(out), &r) != nil || r.NodeID != string(gooseID) {
		t.Errorf("got %q", out)
	}

	s.calls = 0
	s.run("join", token[:len(token)-1]).want(t, exitUsage, "`skein token create`")
	s.run("join", "skein-join-rubbish").want(t, exitUsage, "`skein token create`")
	s.run("join", token, "--peer", "nowhere").want(t, exitUsage, "mesh.peers")
	if s.calls != 0 {
		t.Error("a malformed token was sent")
	}
	s.err = &join.Refusal{Code: join.CodeTokenUsed, Message: "this token was already used", Next: "make another with `skein token create`"}
	s.run("join", token).want(t, exitNotAllowed, "already used; make another")
	s.err = &join.Refusal{Code: join.CodeClockSkew, Message: "this robot's clock is 61 min behind", Next: "run `timedatectl set-ntp true`"}
	s.run("join", token).want(t, exitFailed, "61 min behind; run `timedatectl")
	s.err = errWaits
	s.run("join", token, "--timeout", "20ms").want(t, exitUnreachable, "no robot of the fleet was found", "--peer HOST:7781")
}

// A refusal stays one, also when it comes with the end of the time.
func TestLateRefusalKeepsItsCode(t *testing.T) {
	a, _, _ := (&shell{t: t}).app()
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	refusal := &join.Refusal{Code: join.CodeRevoked, Message: "revoked"}
	if err := a.notJoined(ctx, refusal, time.Second); exitCode(err) != exitNotAllowed {
		t.Errorf("got %v, code %d", err, exitCode(err))
	}
}

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "skein.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	free := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	// Loopback only: this test sends nothing to any network.
	base := fmt.Sprintf("data = %q\nhttp = \"127.0.0.1:%d\"\n[mesh]\nloopback = true\nlink_port = %d\ngossip_port = %d\n", dir, free(), free(), free())
	write(base)
	s := &shell{t: t, env: map[string]string{}}
	s.run("doctor", "--config", config).want(t, exitOK, "ok    config", "skip  clock.skew", "warn  keys.node", "-> skein join TOKEN --data "+dir)

	var report doctor.Report
	out := s.run("doctor", "--config", config, "--json").out
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Checks) < 10 || report.Failed != 0 {
		t.Errorf("got %+v, %v", report, err)
	}

	if err := os.WriteFile(filepath.Join(dir, nodeKeyName), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("doctor", "--config", config).want(t, exitFailed, "fail  keys.node", "1 of ")
	write("htpp = 1\n")
	s.run("doctor", "--config", config, "--data", dir, "--http", "127.0.0.1:0").want(t, exitFailed, "fail  config", "did you mean")
}

// A node that runs here explains the ports it holds, and its peers' clocks.
func TestDoctorKnowsTheRunningNode(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	f := newFakeFleet(t)
	far := int64(3_660_000)
	nodes := sampleNodes()
	nodes[0].HTTPPort = uint16(held.Addr().(*net.TCPAddr).Port)
	nodes[1].ClockSkewMillis = &far
	f.json("GET /api/v1/nodes", view.Nodes{Nodes: nodes, AsOf: sampleAsOf()})
	server := httptest.NewUnstartedServer(localOwner(f))
	server.Listener.Close()
	server.Listener = l
	server.Start()
	defer server.Close()
	config := filepath.Join(t.TempDir(), "skein.toml")
	text := fmt.Sprintf("data = %q\nhttp = %q\n[mesh]\nloopback = true\nlink_port = 0\ngossip_port = 0\n", dir, held.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	(&shell{t: t}).run("doctor", "--config", config).want(t, exitFailed,
		"held by the running node gander", "fail  clock.skew", "61 min behind", "-> sudo timedatectl set-ntp true")
}

func TestAges(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "now", 0: "0.0s", 1200 * time.Millisecond: "1.2s", 95 * time.Second: "95s",
		2 * time.Minute: "2m", 119 * time.Minute: "119m", 47 * time.Hour: "47h", 72 * time.Hour: "3d",
	} {
		if got := age(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
	for text, want := range map[string]string{"plain-1.2/x": "plain-1.2/x", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := shellQuote(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
