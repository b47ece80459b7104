// Package doctor looks at one machine and says what would keep a Skein node
// from running well on it: clock, ports, multicast, disk, memory, keys and the
// configuration file. Every finding that is not ok carries the command that
// mends it.
//
// Ordering: Run makes the checks one after another in a fixed order, so two
// reports can be compared line by line. Limits: it changes nothing except a
// small temporary file in the data directory and one multicast question per
// interface; no check takes longer than a few seconds. A check that cannot be
// made is reported as skipped, never as ok.
//
// What the machine says comes in through Machine and what a running node says
// through Options.Node, so that judgements are tested against fixtures. Only
// the command line imports this package.
package doctor

import (
	"context"
	"errors"
	"io/fs"
)

// Status says how a check ended.
type Status string

// The four ways a check can end. Only Fail makes `skein doctor` fail.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
	// Skip: the check could not be made, and Found says why.
	Skip Status = "skip"
)

// Check is the outcome of one check.
type Check struct {
	// Name is stable for scripts, for example "clock.set" or "port.http".
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Found says in one line what was seen.
	Found string `json:"found"`
	// Fix is the command that mends it, or one sentence where no command can.
	// Empty for ok.
	Fix string `json:"fix"`
}

// Report is everything one run found.
type Report struct {
	Checks   []Check `json:"checks"`
	Failed   int     `json:"failed"`
	Warnings int     `json:"warnings"`
}

// Port is a listening address that the node will want.
type Port struct {
	// Name is for people, Key the configuration key that sets it, for example
	// "gossip" and "mesh.gossip_port".
	Name, Key string
	// Networks are those that must be free: "tcp", "udp" or both.
	Networks []string
	// Addr is host:port as configured; an empty host means all addresses.
	Addr string
}

// Running is what a node that runs on this machine says about itself.
type Running struct {
	Name string
	// Holders are the robots, by name, that hold ports of this machine: this one
	// and others of its fleet that run beside it.
	Holders map[uint16]string
	// Skews are its peers' clocks as it measured them.
	Skews []Skew
}

// Skew is one peer's wall clock minus this machine's, in milliseconds.
type Skew struct {
	Robot  string
	Millis int64
}

// Options says what to check. Zero values leave the matching check out as
// skipped; Machine must be set.
type Options struct {
	Machine Machine
	// Data is the node's data directory. It may not exist yet.
	Data string
	// KeyFile is the node's private key, MembershipFile what its fleet gave it.
	// Either may be absent: then the robot has not joined yet.
	KeyFile, MembershipFile string
	// PrivateFiles are others that only their owner may read, if they exist.
	PrivateFiles []string
	// ConfigFile is the file in use, "" for none; ConfigError what reading it
	// gave.
	ConfigFile  string
	ConfigError error
	Ports       []Port
	// Interfaces limits the multicast check; empty means every interface that
	// is up, not a loopback, and says that it can do multicast.
	Interfaces []string
	// Node asks the node that runs here; an error means that none answers, and
	// fs.ErrPermission that there is one which this user may not ask.
	Node func(ctx context.Context) (Running, error)
}

// Run makes every check. It ends early only when ctx ends, and then the checks
// that are missing are absent from the report.
func Run(ctx context.Context, o Options) Report {
	node := ask(ctx, o)
	steps := []func() []Check{
		func() []Check {
			return []Check{clockSet(o.Machine.Now(), o.Machine.BuiltAt), clockSynced(o.Machine.ClockSync())}
		},
		func() []Check { return []Check{clockSkew(node)} },
		func() []Check { return checkPorts(ctx, o.Ports, node) },
		func() []Check { return []Check{checkMulticast(ctx, o.Interfaces)} },
		func() []Check { return checkDisk(o.Machine, o.Data) },
		func() []Check { return []Check{checkMemory(o.Machine.Memory())} },
		func() []Check { return checkKeys(o) },
		func() []Check { return []Check{checkConfig(o.ConfigFile, o.ConfigError)} },
	}
	var report Report
	for _, step := range steps {
		if ctx.Err() != nil {
			break
		}
		report.Checks = append(report.Checks, step()...)
	}
	for _, c := range report.Checks {
		switch c.Status {
		case Fail:
			report.Failed++
		case Warn:
			report.Warnings++
		}
	}
	return report
}

// answer is what became of asking the node.
type answer struct {
	Running
	answered, forbidden bool
}

func ask(ctx context.Context, o Options) answer {
	if o.Node == nil {
		return answer{}
	}
	r, err := o.Node(ctx)
	return answer{r, err == nil, errors.Is(err, fs.ErrPermission)}
}
