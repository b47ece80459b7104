package config

import (
	_ "embed"
	"os"
	"path/filepath"
	"time"
)

// Config is everything a node can be told. Kind of truth: own (this robot's
// file). The zero Config is not valid; start from Default.
type Config struct {
	// Data is the node's own directory.
	Data string `toml:"data"`
	// Name is what people see; empty means the host's name. Use NodeName.
	Name string `toml:"name"`
	// Type is the kind of robot: "lekiwi", "xlerobot" or "unknown".
	Type string `toml:"type"`
	// FleetFile lets the node join on its own. Use FleetFilePath.
	FleetFile string `toml:"fleet_file"`
	// HTTP is the "host:port" to listen on; host may be empty, port may be 0.
	HTTP string `toml:"http"`
	// Voter says that this node is eligible as a voter.
	Voter bool `toml:"voter"`
	// Mesh is how the node reaches others.
	Mesh Mesh `toml:"mesh"`
	// Raft is the timing and the store of a voter.
	Raft Raft `toml:"raft"`
	// History is how much of the log's past stays on the disk.
	History History `toml:"history"`
	// Backup is the backups that the node makes by itself.
	Backup Backup `toml:"backup"`
	// Log is what is written to standard error.
	Log Log `toml:"log"`
}

// Mesh is how the node finds and reaches others.
type Mesh struct {
	// LinkPort is the TCP port of authenticated streams; 0 is any free port.
	LinkPort uint16 `toml:"link_port"`
	// GossipPort is the TCP and UDP port of memberlist; 0 is any free port.
	GossipPort uint16 `toml:"gossip_port"`
	// Interfaces limits the node to these; empty means all usable ones.
	Interfaces []string `toml:"interfaces"`
	// MDNS switches announcing and browsing.
	MDNS bool `toml:"mdns"`
	// Peers are link addresses "host:port" to try besides those found.
	Peers []string `toml:"peers"`
	// Loopback limits the node to the loopback interface.
	Loopback bool `toml:"loopback"`
}

// Raft is the timing and the store of a voter.
type Raft struct {
	// Election is how long a voter waits for news before it stands for election.
	Election time.Duration `toml:"election"`
	// Lease is how long a leader leads without a majority; less than Election.
	Lease time.Duration `toml:"lease"`
	// Beat is the least time between two heartbeats of the leader, the most is
	// twice that; at most a third of Election.
	Beat time.Duration `toml:"heartbeat"`
	// Commit is how late the others hear of a decision if everything faster failed.
	Commit time.Duration `toml:"commit"`
	// Store is the kind of raft log: "bolt" or "wal".
	Store string `toml:"store"`
	// ReplaceAfter is how long a voter may be silent before an approved spare takes
	// its place; 0 is for ever.
	ReplaceAfter time.Duration `toml:"replace_after"`
}

// History is how much of the log's past stays on the disk of a node that may
// vote. Others keep 16 MiB, or MaxBytes if that is less.
type History struct {
	// MaxAge is how old events get; 0 is no bound.
	MaxAge time.Duration `toml:"max_age"`
	// MaxBytes is how much is kept; 0 is no bound.
	MaxBytes int64 `toml:"max_bytes"`
}

// Backup is the backups that the node makes by itself.
type Backup struct {
	// Dir is where they go, an absolute path; empty means none.
	Dir string `toml:"dir"`
	// Every is the time from one to the next.
	Every time.Duration `toml:"every"`
	// Keep is how many stay.
	Keep int `toml:"keep"`
}

// Log is what is written to standard error.
type Log struct {
	// Level is "debug", "info", "warn" or "error".
	Level string `toml:"level"`
	// Format is "text" or "json".
	Format string `toml:"format"`
}

// Default is the configuration of an empty file. Its meaning, key by key, is
// in Example.
func Default() Config {
	return Config{
		Data: "/var/lib/skein",
		Type: "unknown",
		HTTP: ":7780",
		Mesh: Mesh{
			LinkPort:   7781,
			GossipPort: 7782,
			MDNS:       true,
		},
		Raft: Raft{
			Election: 450 * time.Millisecond,
			Lease:    440 * time.Millisecond,
			Beat:     110 * time.Millisecond,
			Commit:   time.Second,
			Store:    "bolt",

			ReplaceAfter: 10 * time.Minute,
		},
		Backup: Backup{Every: 24 * time.Hour, Keep: 7},
		Log:    Log{Level: "info", Format: "text"},
	}
}

//go:embed example.toml
var example string

// Example is an annotated file with every key and its default, for people.
func Example() string { return example }

// NodeName is the configured name, or the host's name up to its first dot, or
// "robot" on a host without a name.
func (c Config) NodeName() string {
	if c.Name != "" {
		return c.Name
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return nameFromHost(host)
}

// FleetFilePath is where to look for the fleet file. A file that the
// configuration names must exist (required); the one in the data directory may.
func (c Config) FleetFilePath() (path string, required bool) {
	if c.FleetFile != "" {
		return c.FleetFile, true
	}
	return filepath.Join(c.Data, "fleet.json"), false
}
