package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/node"
	"skein/node/client"
	"skein/node/config"
)

// geese is a real fleet of one node, in a directory, stopped.
type geese struct {
	shell
	data string
}

func newGeese(t *testing.T) *geese {
	t.Helper()
	g := &geese{shell: shell{t: t, env: map[string]string{}}, data: filepath.Join(t.TempDir(), "gander")}
	g.with = func(a *app) { a.now = time.Now }
	if _, err := node.InitFleet(t.Context(), node.InitOptions{Data: g.data, Name: "geese", NodeName: "gander"}); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *geese) path(name string) string { return filepath.Join(g.data, name) }

// runs runs the node while f does something.
func (g *geese) runs(f func()) {
	g.t.Helper()
	c := config.Default()
	c.Data, c.Name, c.HTTP, c.Voter = g.data, "gander", "127.0.0.1:0", true
	c.Mesh.LinkPort, c.Mesh.GossipPort, c.Mesh.Loopback, c.Mesh.MDNS = 0, 0, true, false
	n, err := node.New(c, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(g.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	<-n.Up()
	g.decides("awake")
	f()
	stop()
	if err := <-ended; err != nil {
		g.t.Error(err)
	}
}

// decides proposes a group until it is decided.
func (g *geese) decides(name string) {
	g.t.Helper()
	who, err := client.LoadIdentity(g.path("admin.json"))
	if err != nil {
		g.t.Fatal(err)
	}
	c, err := client.New(client.Options{Addresses: []string{"unix:" + g.path("control.sock")}, Identity: who, Timeout: 10 * time.Second, Now: time.Now})
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	deadline := time.Now().Add(60 * time.Second)
	for {
		_, err := c.Propose(g.t.Context(), event.GroupCreated{}.Draft(fmt.Sprintf("%s-%d", name, time.Now().UnixNano())))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// plan is run without the rule that an error is one line: the plan, which a
// person is to agree to, stands above it.
func (g *geese) plan(args ...string) result {
	g.t.Helper()
	a, out, err := g.app()
	code := a.run(g.t.Context(), args)
	return result{code, out.String(), err.String()}
}

// quietMesh is a configuration file with which nobody is looked for.
func (g *geese) quietMesh() string {
	g.t.Helper()
	path := filepath.Join(g.t.TempDir(), "skein.toml")
	text := fmt.Sprintf("data = %q\n[mesh]\nmdns = false\nlink_port = 0\ngossip_port = 0\n", g.data)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return path
}

// files are all files below a directory with their content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameFiles(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := files(t, dir)
	for path, text := range after {
		if before[path] != text {
			t.Errorf("%s was changed, or made", path)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			t.Errorf("%s is gone", path)
		}
	}
}

// A backup of a node that runs; its verification; what is wrong with a bad one.
func TestBackupCommands(t *testing.T) {
	g := newGeese(t)
	file := filepath.Join(t.TempDir(), "geese.skein-backup")
	g.runs(func() {
		g.run("backup", "--out", file, "--data", g.data).want(t, exitOK, "verified", "geese", "gander")
		g.run("backup", "--out", file, "--data", g.data).want(t, exitFailed, "choose another name")
		g.run("backup", "--data", g.data).want(t, exitUsage, "--out is missing")
		g.run("backup", "--out", filepath.Join(t.TempDir(), "no", "folder"), "--data", g.data).want(t, exitFailed, "make the folder")
		g.run("audit", "verify", "--data", g.data).want(t, exitOK, "Everything is in order", "geese")
	})
	g.run("backup", "--out", file+".2", "--data", g.data).want(t, exitUnreachable, "no node answers")
	if _, err := os.Stat(file + ".2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was left")
	}
	g.run("backup", "verify", file).want(t, exitOK, "The backup is whole", "gander")
	g.run("backup", "verify").want(t, exitUsage, "FILE is missing")
	g.run("backup", "verify", file+".no").want(t, exitFailed, "no such file")
	g.run("audit", "verify", "--backup", file).want(t, exitOK, "Everything is in order")
	var report struct {
		FleetName string
		Last      uint64
		Findings  []any
	}
	r := g.run("audit", "verify", "--backup", file, "--json")
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || report.FleetName != "geese" || report.Last == 0 || report.Findings == nil {
		t.Errorf("%v %s", err, r.out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	g.run("backup", "verify", file).want(t, exitFailed, "at byte", "use another backup")
	g.run("audit", "verify", "--backup", file).want(t, exitFailed, "WRONG", "at byte", "1 thing is wrong")
}

func TestAuditOfAStoppedNode(t *testing.T) {
	g := newGeese(t)
	g.run("audit", "verify", "--data", g.data).want(t, exitOK, "Everything is in order", "1 to ")
	g.run("audit", "verify", "--data", g.path("none")).want(t, exitNotFound, "--data")
	segment := filepath.Join(g.data, "log", "history", strings.Repeat("0", 20)+".seg")
	text, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-20] ^= 4
	if err := os.WriteFile(segment, text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := files(t, g.data)
	g.run("audit", "verify", "--data", g.data).want(t, exitFailed, "WRONG", segment, "checksum")
	sameFiles(t, g.data, before)
}

// The fleet's name must be typed, or given; the person must be an admin.
func TestRestoreCommand(t *testing.T) {
	g := newGeese(t)
	file, conf := filepath.Join(t.TempDir(), "geese.skein-backup"), g.quietMesh()
	g.runs(func() { g.run("backup", "--out", file, "--data", g.data).want(t, exitOK) })
	g.run("restore", file, "--config", conf, "--yes", "geese").want(t, exitFailed, "holds a log already", "skein resync")
	for _, name := range []string{"log", "raft", "gossip-keys.json", "boots", "peers.json", "epochs.json"} {
		if err := os.RemoveAll(g.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	before := files(t, g.data)
	g.plan("restore", file, "--config", conf).want(t, exitUsage, "nobody is here to agree", "--yes geese", "is LOST")
	g.run("restore", file, "--config", conf, "--yes", "ducks").want(t, exitUsage, "not the name of this fleet")
	g.tty, g.in = true, "no\n"
	g.plan("restore", file, "--config", conf).want(t, exitFailed, "Type the fleet's name")
	g.run("restore", file+".no", "--config", conf).want(t, exitFailed, "no such file")
	g.run("restore", "--config", conf).want(t, exitUsage, "FILE is missing")
	sameFiles(t, g.data, before)
	g.in = "geese\n"
	g.run("restore", file, "--config", conf, "--reason", "a test").want(t, exitOK, "founded anew", "gander", "skein run")
	g.runs(func() { g.decides("after") })
	g.run("audit", "verify", "--data", g.data).want(t, exitOK, "Everything is in order")
}

func TestRecoverCommand(t *testing.T) {
	g := newGeese(t)
	conf := g.quietMesh()
	g.run("recover-quorum", "--config", conf, "--yes", "geese").want(t, exitFailed, "only voter", "start it")
	if err := os.RemoveAll(g.path("raft")); err != nil {
		t.Fatal(err)
	}
	before := files(t, g.data)
	g.plan("recover-quorum", "--config", conf).want(t, exitUsage, "nobody is here to agree", "only voter", "LOST")
	g.run("recover-quorum", "--config", conf, "--reason", strings.Repeat("x", 300)).want(t, exitUsage, "the reason is too long")
	g.run("recover-quorum", "--data", g.path("none"), "--identity", g.path("admin.json")).want(t, exitNotFound, "--data")
	other := newGeese(t)
	g.run("recover-quorum", "--config", conf, "--identity", other.path("admin.json"), "--yes", "geese").want(t, exitNotAllowed, "right identity file")
	sameFiles(t, g.data, before)
	admin := g.path("admin.json")
	if err := os.Rename(admin, admin+".away"); err != nil {
		t.Fatal(err)
	}
	g.run("recover-quorum", "--config", conf, "--yes", "geese").want(t, exitNotAllowed, "--identity")
	if err := os.Rename(admin+".away", admin); err != nil {
		t.Fatal(err)
	}
	r := g.run("recover-quorum", "--config", conf, "--yes", "geese", "--json")
	r.want(t, exitOK)
	var done struct {
		Recoveries uint64
		MayIssue   bool
		Plan       struct{ NodeName string }
	}
	if err := json.Unmarshal([]byte(r.out), &done); err != nil || done.Recoveries != 1 || !done.MayIssue || done.Plan.NodeName != "gander" {
		t.Errorf("%v %s", err, r.out)
	}
	g.runs(func() {
		g.run("recover-quorum", "--config", conf, "--yes", "geese").want(t, exitFailed, "stop the node")
	})
}

// A solo fleet's copy of the log is damaged. Every message leads to the command
// that brings all of it back, what was decided after the backup too.
func TestDamagedSoloFleet(t *testing.T) {
	g := newGeese(t)
	file, conf := filepath.Join(t.TempDir(), "geese.skein-backup"), g.quietMesh()
	g.runs(func() {
		g.decides("before")
		g.run("backup", "--out", file, "--data", g.data).want(t, exitOK)
		g.decides("after")
	})
	segment := filepath.Join(g.data, "log", "history", strings.Repeat("0", 20)+".seg")
	text, err := os.ReadFile(segment)
	if err != nil || len(text) < 1600 {
		t.Fatal(len(text), err)
	}
	text[1500] ^= 1
	if err := os.WriteFile(segment, text, 0o600); err != nil {
		t.Fatal(err)
	}
	g.run("recover-quorum", "--config", conf, "--yes", "geese").want(t, exitFailed, "skein resync")
	g.run("restore", file, "--config", conf, "--yes", "geese").want(t, exitFailed, "skein resync", "--alone")
	g.run("resync", "--config", conf).want(t, exitOK, "Moved aside", "own Raft log")
	g.runs(func() {
		g.run("groups", "list", "--data", g.data, "--identity", g.path("admin.json")).want(t, exitOK, "before-", "after-")
	})
	g.run("audit", "verify", "--data", g.data).want(t, exitOK, "Everything is in order")
}

func TestResyncAndConvertCommands(t *testing.T) {
	g := newGeese(t)
	conf := g.quietMesh()
	before := files(t, g.data)
	g.run("resync", "--config", conf).want(t, exitFailed, "no other node answers", "skein restore")
	g.run("store", "convert", "--config", conf).want(t, exitUsage, "--to is missing")
	g.run("store", "convert", "--config", conf, "--to", "etcd").want(t, exitUsage, "bolt", "wal")
	sameFiles(t, g.data, before)
	g.run("store", "convert", "--config", conf, "--to", "wal").want(t, exitOK, `store = "wal"`)
	g.run("store", "convert", "--config", conf, "--to", "wal").want(t, exitOK, "already")
	g.run("store", "convert", "--config", conf, "--to", "bolt").want(t, exitOK, `store = "bolt"`)
	g.runs(func() {
		g.run("store", "convert", "--config", conf, "--to", "wal").want(t, exitFailed, "stop the node")
	})
	g.run("resync", "--config", conf, "--alone").want(t, exitOK, "Moved aside", "damaged-")
	g.run("store", "convert", "--config", conf, "--to", "wal").want(t, exitFailed, "no voter")
}
