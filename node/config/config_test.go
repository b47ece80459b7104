package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

func TestExampleIsTheDefaults(t *testing.T) {
	got, err := Parse(Example(), "example.toml")
	if err != nil {
		t.Fatal(err)
	}
	if got.Mesh.Interfaces == nil || got.Mesh.Peers == nil {
		t.Error("the example does not show the empty lists")
	}
	got.Mesh.Interfaces, got.Mesh.Peers = nil, nil
	if want := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("the example says\n%+v\nthe defaults are\n%+v", got, want)
	}
}

// An equal value is not enough: a key left out of the example would have it too.
func TestExampleShowsEveryKey(t *testing.T) {
	var any map[string]any
	keys, err := toml.Decode(Example(), &any)
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, key := range keys.Keys() {
		shown = append(shown, key.String())
	}
	for _, key := range knownKeys() {
		if !slices.Contains(shown, key) {
			t.Errorf("example.toml does not show %s", key)
		}
	}
}

func TestEmptyFileIsTheDefaults(t *testing.T) {
	got, err := Parse("", "empty.toml")
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryKeyArrives(t *testing.T) {
	got, err := Parse(`
data = "/srv/skein"
name = "Küche 1"
type = "lekiwi"
fleet_file = "/etc/skein/fleet.json"
http = "127.0.0.1:0"
voter = true
[mesh]
link_port = 1
gossip_port = 65535
interfaces = ["wlan0", "eth0"]
mdns = false
peers = ["192.0.2.7:7781", "[2001:db8::1]:7781", "dock.local:9"]
[raft]
election = "2s"
lease = "500ms"
heartbeat = "100ms"
commit = "50ms"
store = "wal"
replace_after = "0s"
[history]
max_age = "2160h"
max_bytes = 10_000_000_000
[backup]
dir = "/var/backups/skein"
every = "6h"
keep = 28
[log]
level = "debug"
format = "json"
`, "all.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Data: "/srv/skein", Name: "Küche 1", Type: "lekiwi", FleetFile: "/etc/skein/fleet.json", HTTP: "127.0.0.1:0", Voter: true,
		Mesh: Mesh{LinkPort: 1, GossipPort: 65535, Interfaces: []string{"wlan0", "eth0"},
			Peers: []string{"192.0.2.7:7781", "[2001:db8::1]:7781", "dock.local:9"}},
		Raft:    Raft{Election: 2e9, Lease: 5e8, Beat: 1e8, Commit: 5e7, Store: "wal"},
		History: History{MaxAge: 90 * 24 * time.Hour, MaxBytes: 1e10},
		Backup:  Backup{Dir: "/var/backups/skein", Every: 6 * time.Hour, Keep: 28},
		Log:     Log{Level: "debug", Format: "json"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, err := Parse("[mesh]\nloopback = true", "loopback.toml"); err != nil || !got.Mesh.Loopback {
		t.Errorf("loopback did not arrive: %v", err)
	}
}

// Every fault is one line with file, line, key and what to do.
func TestFaults(t *testing.T) {
	long := strings.Repeat("x", MaxNameBytes+1)
	for _, tc := range []struct{ name, text, want string }{
		{"syntax", "data = \"/x\"\nhttp = ", `f.toml:2: http: unexpected EOF; expected value`},
		{"typing error", "\nhtpp = \":1\"", `f.toml:2: htpp: unknown key; did you mean "http"?`},
		{"typing error in a table", "[mesh]\n\nlink-prt = 1", `f.toml:3: mesh.link-prt: unknown key; did you mean "mesh.link_port"?`},
		{"table mistyped", "[mseh]\nlink_port = 1", `f.toml:1: mseh: unknown key; did you mean "mesh"?`},
		{"wrong table", "heartbeat = \"1s\"", `f.toml:1: heartbeat: unknown key; did you mean "heartbeat" in the table [raft]?`},
		{"other case", "HTTP = \":1\"", `f.toml:1: HTTP: unknown key; did you mean "http"?`},
		{"dotted", "voter = true\nmesh.mdsn = true", `f.toml:2: mesh.mdsn: unknown key; did you mean "mesh.mdns"?`},
		{"inline table", "mesh = { mdsn = true }", `f.toml:1: mesh.mdsn: unknown key; did you mean "mesh.mdns"?`},
		{"quoted with a dot", `"mesh.mdns" = true`, `f.toml:1: "mesh.mdns": unknown key; did you mean "mdns" in the table [mesh]?`},
		{"nothing near", "[log]\ncompression_level = 9", `f.toml:2: log.compression_level: unknown key; the keys here are level, format`},
		{"nothing near at the top", "zzzzzzzz = 9", `f.toml:1: zzzzzzzz: unknown key; the keys here are data, name, type, fleet_file, http, voter, mesh, raft, history, backup, log`},
		{"wrong type", "[mesh]\nlink_port = \"7781\"", `f.toml:2: mesh.link_port: this is of type string; it must be of type integer`},
		{"not a list", "[mesh]\npeers = \"a:1\"", `f.toml:2: mesh.peers: this is of type string; it must be of type list`},
		{"port too high", "[mesh]\nlink_port = 70000", `f.toml:2: mesh.link_port: 70000 is no port; it must be 0 to 65535`},
		{"port negative", "[mesh]\nlink_port = -1", `f.toml:2: mesh.link_port: -1 is no port; it must be 0 to 65535`},
		{"same port twice", "[mesh]\nlink_port = 5\ngossip_port = 5", `f.toml:3: mesh.gossip_port: is 5 like mesh.link_port; choose another port`},
		{"link on the http port", "http = \":7781\"", `f.toml: mesh.link_port: is 7781 like the port of http; choose another port`},
		{"gossip on the http port", "http = \":7782\"", `f.toml: mesh.gossip_port: is 7782 like the port of http; choose another port`},
		{"no unit", "[raft]\nheartbeat = 300", `f.toml:2: raft.heartbeat: is 300ns; it must be 20ms to 30s, written with a unit, such as "300ms"`},
		{"no duration", "[raft]\nheartbeat = \"soon\"", `f.toml:2: raft.heartbeat: "soon" is no duration; write a number with a unit, such as "300ms"`},
		{"lease too long", "[raft]\nlease = \"450ms\"", `f.toml:2: raft.lease: is 450ms; it must be shorter than raft.election (450ms)`},
		{"heartbeat too long", "[raft]\nheartbeat = \"151ms\"", `f.toml:2: raft.heartbeat: is 151ms; it must be at most a third of raft.election (450ms)`},
		{"election alone", "[raft]\nelection = \"300ms\"", `f.toml: raft.lease: is 440ms; it must be shorter than raft.election (300ms)`},
		{"store", "[raft]\nstore = \"rocks\"", `f.toml:2: raft.store: "rocks" is not known; it must be "bolt" or "wal"`},
		{"replaced during a restart", "[raft]\nreplace_after = \"5s\"", `f.toml:2: raft.replace_after: is 5s; it must be "0s" for never, or 30s to 720h0m0s, written with a unit, such as "10m"`},
		{"replaced before", "[raft]\nreplace_after = \"-1m\"", `f.toml:2: raft.replace_after: is -1m0s; it must be "0s" for never, or 30s to 720h0m0s, written with a unit, such as "10m"`},
		{"history of a moment", "[history]\nmax_age = 30", `f.toml:2: history.max_age: is 30ns; it must be "0s" for no bound, or at least 1h0m0s, written with a unit, such as "720h"`},
		{"history of a few bytes", "[history]\nmax_bytes = 1000", `f.toml:2: history.max_bytes: is 1000; it must be 0 for no bound, or at least 67108864 bytes`},
		{"history below nothing", "[history]\nmax_bytes = -1", `f.toml:2: history.max_bytes: is -1; it must be 0 for no bound, or at least 67108864 bytes`},
		{"history in words", "[history]\nmax_bytes = \"1GB\"", `f.toml:2: history.max_bytes: this is of type string; it must be of type integer`},
		{"backups beside the program", "[backup]\ndir = \"backups\"", `f.toml:2: backup.dir: "backups" is no absolute path; name a directory such as "/var/backups/skein"`},
		{"backups all the time", "[backup]\nevery = \"1s\"", `f.toml:2: backup.every: is 1s; it must be 1m0s to 8784h0m0s, written with a unit, such as "24h"`},
		{"no backup stays", "[backup]\nkeep = 0", `f.toml:2: backup.keep: is 0; it must be 1 to 1000`},
		{"robot type", "type = \"roomba\"", `f.toml:1: type: "roomba" is not known; it must be "lekiwi" or "xlerobot" or "unknown"`},
		{"log level", "[log]\nlevel = \"loud\"", `f.toml:2: log.level: "loud" is not known; it must be "debug" or "info" or "warn" or "error"`},
		{"http without port", "http = \"localhost\"", `f.toml:1: http: "localhost" is no address; write ":port" or "host:port", such as ":7780"`},
		{"http with a service name", "http = \":http\"", `f.toml:1: http: ":http" is no address; write ":port" or "host:port", such as ":7780"`},
		{"peer without port", "[mesh]\npeers = [\"a:1\", \"b\"]", `f.toml:2: mesh.peers: "b" is no address; write "host:port", such as "192.0.2.7:7781"`},
		{"peer with port 0", "[mesh]\npeers = [\"a:0\"]", `f.toml:2: mesh.peers: "a:0" is no address; write "host:port", such as "192.0.2.7:7781"`},
		{"interface", "[mesh]\ninterfaces = [\"/dev/eth\"]", "f.toml:2: mesh.interfaces: \"/dev/eth\" is no interface name; `ip link` lists them"},
		{"loopback and interfaces", "[mesh]\ninterfaces = [\"a\"]\nloopback = true", `f.toml:3: mesh.loopback: excludes mesh.interfaces; keep one of the two`},
		{"no data", "data = \"\"", `f.toml:1: data: is empty; name the node's own directory, such as "/var/lib/skein"`},
		{"name too long", "name = \"" + long + "\"", `f.toml:1: name: has 65 bytes; at most 64 are allowed`},
		{"name with a line break", `name = "a\nb"`, `f.toml:1: name: "a\nb" may have only letters, digits, - _ . and spaces`},
		{"name with a space at its end", `name = "dock "`, `f.toml:1: name: "dock " must not start or end with a space`},
		{"key with a line break", `"a\nbcdefgh" = 1`, `f.toml:1: "a\nbcdefgh": unknown key; the keys here are data, name, type, fleet_file, http, voter, mesh, raft, history, backup, log`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(tc.text, "f.toml")
			if err == nil {
				t.Fatal("accepted")
			}
			if err.Error() != tc.want {
				t.Errorf("got  %s\nwant %s", err, tc.want)
			}
			if _, ok := err.(*Error); !ok {
				t.Errorf("error is a %T, want *Error", err)
			}
		})
	}
}

// At the bound is allowed, one over is not.
func TestBounds(t *testing.T) {
	list := func(n int, item string) []string { return slices.Repeat([]string{item}, n) }
	for _, tc := range []struct {
		name string
		set  func(c *Config, over int)
	}{
		{"name", func(c *Config, over int) { c.Name = strings.Repeat("n", MaxNameBytes+over) }},
		{"peers", func(c *Config, over int) { c.Mesh.Peers = list(MaxPeers+over, "a:1") }},
		{"interfaces", func(c *Config, over int) { c.Mesh.Interfaces = list(MaxInterfaces+over, "eth0") }},
		{"heartbeat", func(c *Config, over int) { c.Raft.Beat = c.Raft.Election/3 + durationOf(over) }},
		{"interface name", func(c *Config, over int) { c.Mesh.Interfaces = []string{strings.Repeat("e", 15+over)} }},
		{"longest timing", func(c *Config, over int) { c.Raft.Commit = MaxRaftTiming + durationOf(over) }},
		{"replaced soonest", func(c *Config, over int) { c.Raft.ReplaceAfter = MinReplaceAfter - durationOf(over) }},
		{"replaced latest", func(c *Config, over int) { c.Raft.ReplaceAfter = MaxReplaceAfter + durationOf(over) }},
		{"shortest history", func(c *Config, over int) { c.History.MaxAge = MinHistoryAge - durationOf(over) }},
		{"smallest history", func(c *Config, over int) { c.History.MaxBytes = MinHistoryBytes - int64(over) }},
		{"most backups", func(c *Config, over int) { c.Backup.Keep = MaxBackups + over }},
		{"backups most often", func(c *Config, over int) { c.Backup.Every = MinBackupEvery - durationOf(over) }},
		{"shortest timing", func(c *Config, over int) { c.Raft.Commit = MinRaftTiming - durationOf(over) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Default()
			tc.set(&c, 0)
			if err := c.Validate(); err != nil {
				t.Errorf("at the bound: %v", err)
			}
			tc.set(&c, 1)
			if err := c.Validate(); err == nil {
				t.Error("over the bound: accepted")
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.toml")
	write(t, good, "name = \"dock\"")
	if c, err := Load(good); err != nil || c.NodeName() != "dock" {
		t.Errorf("got %q, %v", c.Name, err)
	}

	missing := filepath.Join(dir, "missing.toml")
	_, err := Load(missing)
	want := missing + ": cannot open the configuration: no such file or directory; name an existing file with --config"
	if err == nil || err.Error() != want {
		t.Errorf("missing file:\ngot  %v\nwant %s", err, want)
	}
	if _, err := Load(dir); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a directory was loaded, or the error is not one line: %v", err)
	}

	big := filepath.Join(dir, "big.toml")
	write(t, big, strings.Repeat("#", MaxFileBytes))
	if _, err := Load(big); err != nil {
		t.Errorf("a file of exactly the bound: %v", err)
	}
	write(t, big, strings.Repeat("#", MaxFileBytes+1))
	if _, err := Load(big); err == nil {
		t.Error("a file over the bound was accepted")
	}
}

func TestErrorIsAlwaysOneLine(t *testing.T) {
	err := &Error{File: "a\nb", Line: 3, Key: "c\r", Message: "d\x7fe"}
	if got, want := err.Error(), "a b:3: c : d e"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNodeName(t *testing.T) {
	for host, want := range map[string]string{
		"kiwi-3":                 "kiwi-3",
		"kiwi-3.lan.example.org": "kiwi-3",
		"":                       "robot",
		".lan":                   "robot",
		"a\x00b":                 "robot",
		strings.Repeat("h", 200): strings.Repeat("h", MaxNameBytes),
	} {
		if got := nameFromHost(host); got != want {
			t.Errorf("host %q: name %q, want %q", host, got, want)
		}
	}
	c := Default()
	c.Name = c.NodeName()
	if err := c.Validate(); err != nil {
		t.Errorf("this host's name is not accepted: %v", err)
	}
}

func TestFleetFilePath(t *testing.T) {
	c := Default()
	if path, required := c.FleetFilePath(); path != "/var/lib/skein/fleet.json" || required {
		t.Errorf("default: %s, required %v", path, required)
	}
	c.FleetFile = "/etc/skein/fleet.json"
	if path, required := c.FleetFilePath(); path != c.FleetFile || !required {
		t.Errorf("named: %s, required %v", path, required)
	}
}

// Whatever the text: a valid configuration, or one error of one line.
func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add("[mesh]\nlink_port = 70000\n")
	f.Add("\"a\\nb\" = 1")
	f.Add("mesh.peers = [[1], {a = 2}]")
	f.Add("[[mesh]]\nx = 1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text, "fuzz.toml")
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Errorf("accepted, but not valid: %v", err)
			}
			return
		}
		if message := err.Error(); strings.ContainsAny(message, "\n\r") || !strings.HasPrefix(message, "fuzz.toml") {
			t.Errorf("not one line with the file's name: %q", message)
		}
	})
}

func durationOf(over int) time.Duration { return time.Duration(over) * time.Millisecond }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
