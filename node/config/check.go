package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Bounds of values.
const (
	// MaxNameBytes bounds Name, as a request to join does.
	MaxNameBytes = 64
	// MaxPeers bounds Mesh.Peers.
	MaxPeers = 256
	// MaxInterfaces bounds Mesh.Interfaces.
	MaxInterfaces = 32
	// MinRaftTiming and MaxRaftTiming bound every duration of Raft. Below the
	// minimum a busy machine alone causes elections.
	MinRaftTiming = 20 * time.Millisecond
	MaxRaftTiming = 30 * time.Second

	// MinReplaceAfter and MaxReplaceAfter bound Raft.ReplaceAfter, if it is not 0.
	// A restart with its disk check must not cost a voter its place.
	MinReplaceAfter = 30 * time.Second
	MaxReplaceAfter = 30 * 24 * time.Hour

	// MinHistoryBytes and MinHistoryAge are the least of History, if not 0: a little
	// more than what the newest checkpoints need.
	MinHistoryBytes = 64 << 20
	MinHistoryAge   = time.Hour

	// MinBackupEvery and MaxBackupEvery bound Backup.Every, MaxBackups Backup.Keep.
	MinBackupEvery = time.Minute
	MaxBackupEvery = 366 * 24 * time.Hour
	MaxBackups     = 1000

	maxInterfaceName = 15 // IFNAMSIZ without its zero byte
)

// check returns the first fault, without file and line.
func (c Config) check() *Error {
	for _, fault := range []*Error{c.checkNode(), c.checkMesh(), c.checkPorts(), c.checkRaft(), c.checkHistory(), c.checkBackup(), c.checkLog()} {
		if fault != nil {
			return fault
		}
	}
	return nil
}

func bad(key, format string, args ...any) *Error {
	return &Error{Key: key, Message: fmt.Sprintf(format, args...)}
}

func (c Config) checkNode() *Error {
	switch {
	case c.Data == "":
		return bad("data", "is empty; name the node's own directory, such as %q", Default().Data)
	case strings.ContainsRune(c.Data, 0):
		return bad("data", "has a zero byte; name a directory")
	case strings.ContainsRune(c.FleetFile, 0):
		return bad("fleet_file", "has a zero byte; name a file")
	case len(c.Name) > MaxNameBytes:
		return bad("name", "has %d bytes; at most %d are allowed", len(c.Name), MaxNameBytes)
	}
	if fault := nameFault(c.Name); c.Name != "" && fault != nil {
		return bad("name", "%q %s", c.Name, fault.Message)
	}
	return oneOf("type", c.Type, string(event.LeKiwi), string(event.XLeRobot), string(event.UnknownRobot))
}

func (c Config) checkMesh() *Error {
	if len(c.Mesh.Interfaces) > MaxInterfaces {
		return bad("mesh.interfaces", "lists %d interfaces; at most %d are allowed", len(c.Mesh.Interfaces), MaxInterfaces)
	}
	for _, name := range c.Mesh.Interfaces {
		if name == "" || len(name) > maxInterfaceName || strings.ContainsAny(name, "/ \t\n") {
			return bad("mesh.interfaces", "%q is no interface name; `ip link` lists them", name)
		}
	}
	if c.Mesh.Loopback && len(c.Mesh.Interfaces) > 0 {
		return bad("mesh.loopback", "excludes mesh.interfaces; keep one of the two")
	}
	if len(c.Mesh.Peers) > MaxPeers {
		return bad("mesh.peers", "lists %d peers; at most %d are allowed, and one that answers is enough", len(c.Mesh.Peers), MaxPeers)
	}
	for _, peer := range c.Mesh.Peers {
		host, port, err := splitAddress(peer)
		if err != nil || host == "" || port == 0 {
			return bad("mesh.peers", "%q is no address; write \"host:port\", such as \"192.0.2.7:%d\"", peer, Default().Mesh.LinkPort)
		}
	}
	return nil
}

// checkPorts refuses two listeners on one TCP port, whichever addresses they
// have: it would work on one machine and fail on the next.
func (c Config) checkPorts() *Error {
	_, http, err := splitAddress(c.HTTP)
	if err != nil {
		return bad("http", "%q is no address; write \":port\" or \"host:port\", such as %q", c.HTTP, Default().HTTP)
	}
	link, gossip := c.Mesh.LinkPort, c.Mesh.GossipPort
	switch {
	case link != 0 && link == gossip:
		return bad("mesh.gossip_port", "is %d like mesh.link_port; choose another port", gossip)
	case http != 0 && http == link:
		return bad("mesh.link_port", "is %d like the port of http; choose another port", link)
	case http != 0 && http == gossip:
		return bad("mesh.gossip_port", "is %d like the port of http; choose another port", gossip)
	}
	return nil
}

func (c Config) checkRaft() *Error {
	for _, timing := range []struct {
		key   string
		value time.Duration
	}{
		{"raft.election", c.Raft.Election},
		{"raft.lease", c.Raft.Lease},
		{"raft.heartbeat", c.Raft.Beat},
		{"raft.commit", c.Raft.Commit},
	} {
		if timing.value < MinRaftTiming || timing.value > MaxRaftTiming {
			return bad(timing.key, "is %v; it must be %v to %v, written with a unit, such as \"300ms\"",
				timing.value, MinRaftTiming, MaxRaftTiming)
		}
	}
	switch {
	case c.Raft.Lease >= c.Raft.Election:
		return bad("raft.lease", "is %v; it must be shorter than raft.election (%v)", c.Raft.Lease, c.Raft.Election)
	case c.Raft.Beat*3 > c.Raft.Election:
		return bad("raft.heartbeat", "is %v; it must be at most a third of raft.election (%v)", c.Raft.Beat, c.Raft.Election)
	}
	if after := c.Raft.ReplaceAfter; after != 0 && (after < MinReplaceAfter || after > MaxReplaceAfter) {
		return bad("raft.replace_after", "is %v; it must be \"0s\" for never, or %v to %v, written with a unit, such as \"10m\"",
			after, MinReplaceAfter, MaxReplaceAfter)
	}
	return oneOf("raft.store", c.Raft.Store, "bolt", "wal")
}

func (c Config) checkHistory() *Error {
	switch h := c.History; {
	case h.MaxAge != 0 && h.MaxAge < MinHistoryAge:
		return bad("history.max_age", "is %v; it must be \"0s\" for no bound, or at least %v, written with a unit, such as \"720h\"", h.MaxAge, MinHistoryAge)
	case h.MaxBytes != 0 && h.MaxBytes < MinHistoryBytes:
		return bad("history.max_bytes", "is %d; it must be 0 for no bound, or at least %d bytes", h.MaxBytes, MinHistoryBytes)
	}
	return nil
}

func (c Config) checkBackup() *Error {
	switch b := c.Backup; {
	case b.Dir != "" && (!filepath.IsAbs(b.Dir) || strings.ContainsRune(b.Dir, 0)):
		return bad("backup.dir", "%q is no absolute path; name a directory such as \"/var/backups/skein\"", b.Dir)
	case b.Every < MinBackupEvery || b.Every > MaxBackupEvery:
		return bad("backup.every", "is %v; it must be %v to %v, written with a unit, such as \"24h\"", b.Every, MinBackupEvery, MaxBackupEvery)
	case b.Keep < 1 || b.Keep > MaxBackups:
		return bad("backup.keep", "is %d; it must be 1 to %d", b.Keep, MaxBackups)
	}
	return nil
}

func (c Config) checkLog() *Error {
	if fault := oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"); fault != nil {
		return fault
	}
	return oneOf("log.format", c.Log.Format, "text", "json")
}

func oneOf(key, value string, allowed ...string) *Error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return bad(key, "%q is not known; it must be \"%s\"", value, strings.Join(allowed, "\" or \""))
}

// splitAddress reads "host:port" with a numeric port; host may be empty.
func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	if strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || r == '/' || !unicode.IsPrint(r) }) {
		return "", 0, fmt.Errorf("host %q has a character that no host name has", host)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, uint16(n), err
}

// nameFault asks the package that decides what the log takes as a robot's name:
// one that is accepted here must not be refused when the robot registers.
func nameFault(name string) *event.Fault {
	fault, _ := errors.AsType[*event.Fault](event.Validate(event.RobotConfigChanged{Name: name}.Draft(ident.IDOf(nil))))
	return fault
}

// nameFromHost makes a valid name of a host name.
func nameFromHost(host string) string {
	label, _, _ := strings.Cut(host, ".")
	label = label[:min(len(label), MaxNameBytes)]
	if nameFault(label) != nil {
		return "robot"
	}
	return label
}
