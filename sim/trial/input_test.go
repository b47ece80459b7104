package trial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/mesh/link"
	"skein/sim/rig"
)

// prompt is how long a command may take that has nothing to wait for.
const prompt = 10 * time.Second

// damage is done to one file; code and words are how the node ends.
type damage struct {
	name   string
	damage func(t *testing.T, dir string)
	code   int
	words  []string
}

// deadly damage is such that a node may not start.
func deadly() []damage {
	return []damage{
		{"node key is cut", empty("node.key"), 1, []string{"node.key", "restore it from a backup"}},
		{"node key is another", anotherKey, 1, []string{"membership.json", "put back the key"}},
		{"node key is gone", remove("node.key"), 1, []string{"node.key", "put back the key"}},
		{"node key is readable by others", exposed("node.key"), 1, []string{"chmod 600"}},
		{"membership is damaged", flipped("membership.json", 0), 1, []string{"membership.json", "restore it from a backup"}},
		{"membership is cut", empty("membership.json"), 1, []string{"membership.json", "restore it from a backup"}},
		{"gossip keys are damaged", flipped("gossip-keys.json", 0), 1, []string{"gossip-keys.json", "remove it"}},
		{"gossip keys are cut", empty("gossip-keys.json"), 1, []string{"gossip-keys.json", "remove it"}},
		{"history is damaged", flippedAt("log/history/*.seg", "fleet.created"), 1, []string{".seg", "skein resync"}},
		{"history is cut", empty("log/history/*.seg"), 1, []string{".seg", "skein resync"}},
		{"history is gone", remove("log/history"), 1, []string{"history", "skein resync"}},
		{"raft log is damaged", flippedAt("raft/log.bolt", "robot.registered"), 1, []string{"raft", "log.bolt", "withdraw"}},
		{"raft log is cut", empty("raft/log.bolt"), 1, []string{"log.bolt", "withdraw"}},
		{"raft log is cut short", cutTo("raft/log.bolt", 8<<10), 1, []string{"log.bolt", "withdraw"}},
		{"raft log is gone", remove("raft"), 1, []string{"raft", "withdraw"}},
		{"raft marker is damaged", empty("raft/member.json"), 1, []string{"member.json", "withdraw"}},
		{"boot count is damaged", written("boots", "many"), 1, []string{"boots", "write a number"}},
		{"fleet file is of another fleet", anotherFleet, 1, []string{"fleet.json", "another fleet", "skein leave"}},
	}
}

// TestDamagedFiles starts a voter on a data directory in which one file is
// damaged. The node must say which one and what to do, end, and leave every
// file as it is; or, where the file can be made anew from others, go on.
func TestDamagedFiles(t *testing.T) {
	b := newBench(t)
	config := b.settings("skein.toml", `name = "goose"`)
	b.must("fleet", "init", "geese", "--data", b.path("model"), "--node-name", "goose")
	node := b.start("run", "--config", config, "--data", b.path("model"))
	b.await("model")
	rig.Wait(t, settle, "the robot is registered and labelled", func() error {
		out, err := b.try(prompt, "robots", "label", "goose", "colour=grey", "--data", b.path("model"))
		if err == nil && out.code != 0 {
			err = errors.New(out.stderr)
		}
		return err
	})
	node.kill()
	// A socket cannot be copied, and the next start makes it anew.
	if err := os.Remove(b.path("model", "control.sock")); err != nil {
		t.Fatal(err)
	}

	for _, c := range deadly() {
		t.Run(c.name, func(t *testing.T) {
			b := b.on(t)
			dir := copyOf(t, b.path("model"))
			c.damage(t, dir)
			before := contents(t, dir)
			delete(before, "raft/log.bolt") // bbolt writes a new meta page when it is opened
			out := b.run(prompt, "run", "--config", config, "--data", dir)
			complains(t, out, c.code, c.words...)
			unharmed(t, before, contents(t, dir))
		})
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
	}{
		{"checkpoint is damaged", flipped("log/checkpoint-*", 0)},
		{"checkpoint is cut", empty("log/checkpoint-*")},
		{"history is damaged after the checkpoint, but the raft log has it", flippedAt("log/history/*.seg", "robot.registered")},
		{"address book is damaged", written("peers.json", "{{")},
		{"fleet file is gone", remove("fleet.json")},
		{"log is gone, the raft log is not", remove("log")},
		{"fleet file is damaged after admission", written("fleet.json", "{")},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := b.on(t)
			dir := copyOf(t, b.path("model"))
			c.damage(t, dir)
			node := b.start("run", "--config", config, "--data", dir)
			rig.Wait(t, settle, "the robot is there with its label", func() error {
				out, err := b.try(prompt, "robots", "show", "goose", "--data", dir)
				if err == nil && !strings.Contains(out.stdout, "colour=grey") {
					err = fmt.Errorf("shows %s%s", out.stdout, out.stderr)
				}
				return err
			})
			node.stop()
		})
	}
}

// copyOf copies a data directory.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// CopyFS adds to the modes what the umask leaves; keys must be private.
	err := filepath.WalkDir(to, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// edit applies change to every file that fits the pattern, at least one.
func edit(pattern string, change func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("nothing fits %s: %v", pattern, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, change(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func empty(pattern string) func(*testing.T, string) {
	return edit(pattern, func([]byte) []byte { return nil })
}

// cutTo leaves so many bytes; of a bbolt file, 8 KiB are the two meta pages.
func cutTo(pattern string, size int) func(*testing.T, string) {
	return edit(pattern, func(text []byte) []byte { return text[:size] })
}

// flipped damages one byte, counted from the middle.
func flipped(pattern string, after int) func(*testing.T, string) {
	return edit(pattern, func(text []byte) []byte {
		text[len(text)/2+after] ^= 0x55
		return text
	})
}

// flippedAt damages one byte of each place that holds mark: a database keeps
// old pages, and damage in one that is not used any more is none.
func flippedAt(pattern, mark string) func(*testing.T, string) {
	return edit(pattern, func(text []byte) []byte {
		if !bytes.Contains(text, []byte(mark)) {
			panic("no " + mark + " in " + pattern)
		}
		return bytes.ReplaceAll(text, []byte(mark), []byte("#"+mark[1:]))
	})
}

func written(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func exposed(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func anotherKey(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "node.key")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := newKey(t).Save(path); err != nil {
		t.Fatal(err)
	}
}

func anotherFleet(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "fleet.json")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := ident.NewFleetFile("swans", newKey(t).Public(), newKey(t)).Save(path); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) ident.Key {
	t.Helper()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestWrongWayIn tries to get into a running fleet, and to start beside it,
// with everything that is wrong.
func TestWrongWayIn(t *testing.T) {
	b := newBench(t)
	geese := b.path("goose")
	b.must("fleet", "init", "geese", "--data", geese, "--node-name", "goose")
	b.start("run", "--config", b.settings("goose.toml", `name = "goose"`), "--data", geese)
	b.await("goose")
	for name, run := range map[string]func(*testing.T, *bench){
		"fleet files": wrongFleetFiles, "tokens": wrongTokens, "a race for one token": tokenRace,
		"ports": portsInUse, "settings": wrongSettings, "second founding": secondFounding,
		"data directory in use": directoryInUse, "robots and people": wrongWords,
	} {
		t.Run(name, func(t *testing.T) { run(t, b.on(t)) })
	}
}

func wrongFleetFiles(t *testing.T, b *bench) {
	stranger := func(name, fleetFile string) outcome {
		return b.run(prompt, "run", "--config", b.settings(name+".toml", fmt.Sprintf("name = %q\nfleet_file = %q", name, fleetFile)), "--data", b.path(name))
	}
	complains(t, stranger("torn", b.write("torn.json", `{"format":"skein-fl`)), 1, "torn.json", "copy it again")
	complains(t, stranger("missing", b.path("none.json")), 1, "none.json", "copy")
	good, err := ident.LoadFleetFile(b.path("goose", "fleet.json"))
	if err != nil {
		t.Fatal(err)
	}
	mixed := good
	mixed.Root = newKey(t).Public()
	text, _ := json.Marshal(mixed)
	complains(t, stranger("mixed", b.write("mixed.json", string(text))), 1, "mixed.json", "do not belong together", "copy it again")
	complains(t, b.run(prompt, "run", "--config", b.settings("bare.toml"), "--data", b.path("bare")), 1, "belongs to no fleet", "skein join")

	// A key that this fleet never knew, and one that an admin has revoked.
	forged := ident.NewFleetFile("geese", good.Root, newKey(t))
	text, _ = json.Marshal(forged)
	complains(t, stranger("forged", b.write("forged.json", string(text))), 4, "enrolment key", "ask an admin")
	enrolment, err := good.Enrolment()
	if err != nil {
		t.Fatal(err)
	}
	b.must("fleet", "enrolment", "revoke", string(enrolment.ID()), "--data", b.path("goose"))
	complains(t, stranger("late", b.path("goose", "fleet.json")), 4, "enrolment key is not valid any more", "ask an admin")
	b.sees("goose", "goose")

	// Of another fleet, which is not there: the robot waits, and its log says why.
	other := b.path("other.json")
	if err := ident.NewFleetFile("swans", newKey(t).Public(), newKey(t)).Save(other); err != nil {
		t.Fatal(err)
	}
	waiting := b.start("run", "--config", b.settings("lost.toml", fmt.Sprintf("name = \"lost\"\nfleet_file = %q", other)), "--data", b.path("lost"))
	rig.Wait(t, settle, "the log says what to check", func() error {
		if strings.Contains(waiting.log(), "check that the fleet file is of the fleet") {
			return nil
		}
		return rig.ErrNotYet
	})
	if _, err := os.Stat(b.path("lost", "membership.json")); err == nil {
		t.Error("it became a member of something")
	}
}

// sees checks which robots a node lists.
func (b *bench) sees(data string, want ...string) {
	b.t.Helper()
	var list struct {
		Robots []struct {
			Name string `json:"name"`
		} `json:"robots"`
	}
	if err := json.Unmarshal([]byte(b.must("robots", "list", "--json", "--data", b.path(data))), &list); err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, r := range list.Robots {
		names = append(names, r.Name)
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		b.t.Errorf("%s lists %v, want %v", data, names, want)
	}
}

// token makes a token as the admin.
func (b *bench) token(ttl string) string {
	b.t.Helper()
	var made struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(b.must("token", "create", "--ttl", ttl, "--json", "--data", b.path("goose"))), &made); err != nil {
		b.t.Fatal(err)
	}
	return made.Token
}

// join asks with a token for a new robot.
func (b *bench) join(name, token string) (outcome, error) {
	return b.try(settle, "join", token, "--config", b.path("join.toml"), "--name", name, "--data", b.path(name))
}

func wrongTokens(t *testing.T, b *bench) {
	b.settings("join.toml")
	refused := func(name, token string, code int, words ...string) {
		t.Helper()
		out, err := b.join(name, token)
		if err != nil {
			t.Fatal(err)
		}
		complains(t, out, code, words...)
		if _, err := os.Stat(b.path(name, "membership.json")); err == nil {
			t.Errorf("%s became a member", name)
		}
	}
	good := b.token("10m")
	typo := []byte(good)
	i := len("skein-join-") + 3
	typo[i] = map[bool]byte{true: 'B', false: 'A'}[typo[i] == 'A']
	refused("typo", string(typo), 2, "mistyped", "copy it")
	refused("short", good[:len(good)-4], 2, "missing or mistyped", "copy it")
	refused("none", "hello", 2, "skein-join-", "copy it")

	out, err := b.join("first", good)
	if err != nil || out.code != 0 {
		t.Fatalf("the good token was refused: %v %s", err, out.stderr)
	}
	refused("second", good, 4, "token", "used", "skein token create")
	complains(t, b.run(prompt, "join", good, "--config", b.path("join.toml"), "--data", b.path("first")), 1, "already in a fleet", "skein leave")

	parsed, err := ident.ParseJoinToken(good)
	if err != nil {
		t.Fatal(err)
	}
	refused("guess", ident.NewJoinToken(parsed.Root).String(), 4, "token", "skein token create")
	short := b.token("1s")
	rig.Wait(t, settle, "the token has expired", func() error {
		if strings.Contains(b.must("token", "list", "--data", b.path("goose")), "expired") {
			return nil
		}
		return rig.ErrNotYet
	})
	refused("late", short, 4, "token", "expired", "skein token create")
	foreign := ident.NewJoinToken(newKey(t).Public()).String()
	lost := b.run(settle, "join", foreign, "--config", b.path("join.toml"), "--data", b.path("foreign"), "--timeout", "2s")
	complains(t, lost, 5, "skein doctor")
}

// tokenRace: of two robots that use one token at the same time, one wins.
func tokenRace(t *testing.T, b *bench) {
	b.settings("join.toml")
	token := b.token("10m")
	type entry struct {
		out outcome
		err error
	}
	results := make(chan entry, 2)
	for _, name := range []string{"left", "right"} {
		go func() {
			out, err := b.join(name, token)
			results <- entry{out, err}
		}()
	}
	won := 0
	for range 2 {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		if r.out.code == 0 {
			won++
			continue
		}
		complains(t, r.out, 4, "token", "used")
	}
	if won != 1 {
		t.Fatalf("%d robots joined with one token", won)
	}
	var members int
	for _, name := range []string{"left", "right"} {
		if _, err := os.Stat(b.path(name, "membership.json")); err == nil {
			members++
		}
	}
	if members != 1 {
		t.Errorf("%d robots have a membership", members)
	}
}

func portsInUse(t *testing.T, b *bench) {
	b.must("fleet", "init", "swans", "--data", b.path("swan"), "--node-name", "swan")
	before := contents(t, b.path("swan"))
	port := occupied(t)
	mesh := "[mesh]\nloopback = true\n"
	for name, c := range map[string]struct{ config, key string }{
		"http":   {"http = \"127.0.0.1:" + port + "\"\n" + mesh + "link_port = 0\ngossip_port = 0\n", "`http`"},
		"link":   {"http = \"127.0.0.1:0\"\n" + mesh + "link_port = " + port + "\ngossip_port = 0\n", "link_port"},
		"gossip": {"http = \"127.0.0.1:0\"\n" + mesh + "link_port = 0\ngossip_port = " + port + "\n", "gossip port"},
	} {
		t.Run(name, func(t *testing.T) {
			out := b.on(t).run(prompt, "run", "--config", b.write(name+"-port.toml", c.config), "--data", b.path("swan"))
			complains(t, out, 1, port, "in use", c.key)
		})
	}
	unchanged(t, before, contents(t, b.path("swan")))
}

func wrongSettings(t *testing.T, b *bench) {
	for _, c := range []struct{ text, word string }{
		{"votr = true\n", `"voter"`},
		{"[mesh]\nlinkport = 1\n", `link_port`},
		{"link_port = 7781\n", `[mesh]`},
		{"voter = \"yes\"\n", "voter"},
		{"http = \"nowhere\"\n", "http"},
	} {
		out := b.run(prompt, "run", "--config", b.write("wrong.toml", c.text), "--data", b.path("unused"))
		complains(t, out, 2, c.word, "wrong.toml")
	}
	complains(t, b.run(prompt, "run", "--config", b.path("nowhere.toml")), 2, "nowhere.toml")
	complains(t, b.run(prompt, "run", "--dta", "x"), 2, "--dta")
	if _, err := os.Stat(b.path("unused")); err == nil {
		t.Error("a data directory was made although the settings are wrong")
	}
}

func secondFounding(t *testing.T, b *bench) {
	b.must("fleet", "init", "ducks", "--data", b.path("duck"), "--node-name", "duck")
	before := contents(t, b.path("duck"))
	complains(t, b.run(prompt, "fleet", "init", "drakes", "--data", b.path("duck")), 1, "already in a fleet", "--data")
	unchanged(t, before, contents(t, b.path("duck")))
	complains(t, b.run(prompt, "fleet", "init", "geese", "--data", b.path("goose")), 1, "in use", "stop")
	complains(t, b.run(prompt, "fleet", "init", "", "--data", b.path("nameless")), 2, "name")
	out := b.run(prompt, "fleet", "init", "quails", "--data", b.path("quail"), "--fleet-file", b.path("duck", "fleet.json"))
	complains(t, out, 1, "fleet.json")
	unchanged(t, before, contents(t, b.path("duck")))
}

func directoryInUse(t *testing.T, b *bench) {
	complains(t, b.run(prompt, "run", "--config", b.settings("again.toml"), "--data", b.path("goose")), 1, "in use", "stop")
}

func wrongWords(t *testing.T, b *bench) {
	at := []string{"--data", b.path("goose")}
	complains(t, b.run(prompt, append([]string{"robots", "show", "swan"}, at...)...), 3, "swan", "skein robots list")
	complains(t, b.run(prompt, "robots", "list", "--data", b.path("nobody")), 5, "skein run")
	complains(t, b.run(prompt, "robots", "label", "goose", "a=b", "--identity", b.path("nobody.json"), "--data", b.path("goose")), 2, "skein fleet init")
	stranger := b.path("stranger.json")
	if err := newKey(t).Save(b.path("stranger.key")); err != nil {
		t.Fatal(err)
	}
	b.write("stranger.json", `{"person":"admin","key":"stranger.key"}`)
	complains(t, b.run(prompt, "robots", "label", "goose", "a=b", "--identity", stranger, "--data", b.path("goose")), 4)
}

// TestUnreachableVoters: a robot that is no voter, alone. It goes on showing
// what it knows and says that nothing can be decided.
func TestUnreachableVoters(t *testing.T) {
	b := newBench(t)
	b.must("fleet", "init", "geese", "--data", b.path("goose"), "--node-name", "goose")
	founder := b.start("run", "--config", b.settings("goose.toml", `name = "goose"`), "--data", b.path("goose"))
	follower := b.settings("gosling.toml", `name = "gosling"`, fmt.Sprintf("fleet_file = %q", b.path("goose", "fleet.json")))
	b.start("run", "--config", follower, "--data", b.path("gosling"))
	b.await("gosling")
	rig.Wait(t, settle, "both robots are online", func() error {
		if out, err := b.try(prompt, "status", "--data", b.path("gosling")); err != nil || !strings.Contains(out.stdout, "2 online") {
			return fmt.Errorf("%v %s", err, out.stdout)
		}
		return nil
	})
	founder.kill()

	var last outcome
	rig.Wait(t, settle, "`skein status` says that there is no leader", func() error {
		var err error
		if last, err = b.try(prompt, "status", "--data", b.path("gosling")); err != nil || last.code == 5 {
			return err
		}
		return fmt.Errorf("exit code %d: %s", last.code, last.stdout)
	})
	if !strings.Contains(last.stdout, "nothing can be decided") || !strings.Contains(last.stderr, "skein: status: the fleet has no leader") {
		t.Errorf("status says\n%s\n%s", last.stdout, last.stderr)
	}
	out := b.run(20*time.Second, "robots", "label", "gosling", "colour=grey", "--data", b.path("gosling"), "--identity", b.path("goose", "admin.json"))
	complains(t, out, 5)
	t.Logf("a proposal without voters ended after %s", out.took)
	b.must("robots", "list", "--data", b.path("gosling"))
	complains(t, b.run(20*time.Second, "leave", "--yes", "--data", b.path("gosling")), 5)
	if _, err := os.Stat(b.path("gosling", "membership.json")); err != nil {
		t.Errorf("a robot that could not leave has lost its membership: %v", err)
	}
}

// TestClockAnHourOff: nobody may set this machine's clock, so the fleet's is
// wrong: a member, played by this test, whose clock is an hour ahead.
func TestClockAnHourOff(t *testing.T) {
	b := newBench(t)
	root, member := newKey(t), newKey(t)
	fleet := ident.FleetIDOf(root.Public())
	chain := func() ident.Chain { return ident.NewChain(fleet, member.Public(), true, time.Now(), root, nil) }
	host, err := link.New(link.Config{
		Key: member, Root: root.Public(), Listen: netip.MustParseAddrPort("127.0.0.1:0"), Chain: chain, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	asked := &nobody{}
	host.HandleOpen(join.Protocol, join.Serve(asked, join.ServerConfig{Chain: chain, Now: func() time.Time { return time.Now().Add(time.Hour) }}))
	self := func() ident.Endpoint {
		return ident.Endpoint{ID: member.ID(), PublicKey: member.Public(), LinkPort: host.Port(), GossipPort: 1, HTTPPort: 1}
	}
	finder, err := discover.New(discover.Config{Self: self, Fleet: fleet, Loopback: true, Found: func(ident.Endpoint) {}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- finder.Run(ctx) }()
	defer func() { stop(); <-ended }()

	token := ident.NewJoinToken(root.Public()).String()
	out := b.run(settle, "join", token, "--config", b.settings("join.toml"), "--data", b.path("late"))
	complains(t, out, 1, "clock is 60 min behind", "timedatectl set-ntp true")
	if asked.times.Load() != 0 {
		t.Error("the token was shown to a fleet of another time")
	}
	if _, err := os.Stat(b.path("late", "membership.json")); err == nil {
		t.Error("it became a member")
	}
}

// nobody admits nobody.
type nobody struct{ times atomic.Int32 }

// Admit implements join.Authority.
func (n *nobody) Admit(context.Context, ident.NodeID, join.Request, []byte) (join.Grant, error) {
	n.times.Add(1)
	return join.Grant{}, errors.New("nobody is admitted here")
}
