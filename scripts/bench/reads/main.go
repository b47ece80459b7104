// Command reads measures what a question costs over HTTP at a real node that
// holds 1,000 robots and 1,000,000 events. It prints JSON lines (package
// benchjson) beside the goals.
//
// Every question is asked in three ways (type load): at a steady rate, at that
// rate while robots are renamed, which makes the node draw its lists anew, and
// without a pause. A question takes from when it was due until the last byte of
// its answer is here; answers are not decoded. Both processes share the machine,
// so beside each p99 stands what the node computed for an answer and how busy
// this process was with asking. In the end the node's own metrics say which share
// of all questions it answered without reading through its history.
//
// The events are put into the replica of a node that has not started yet, as
// entries of the log, and the Raft log is made to continue after them; then the
// program starts as a user would start it. Questions come from this process,
// logged in as an admin, over loopback TCP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"skein/mesh/ident"
	"skein/node/client"
)

const (
	robots = 1000
	groups = 50
	// askers is how many clients ask at once, each one question after another.
	askers = 4
	// perSecond is how often each of them asks at a steady rate.
	perSecond = 50
	// renames is how many robots a second are renamed meanwhile.
	renames = 20
	// startTimeout bounds the node's start.
	startTimeout = 30 * time.Second
)

func main() {
	events := flag.Int("events", 1_000_000, "how many events the node holds")
	each := flag.Duration("each", 5*time.Second, "how long each kind of question is asked")
	flag.Parse()
	if err := run(*events, *each); err != nil {
		fmt.Fprintln(os.Stderr, "bench reads:", err)
		os.Exit(1)
	}
}

func run(events int, each time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "skein-reads")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n, err := prepare(filepath.Join(dir, "data"), events)
	if err != nil {
		return err
	}
	stop, err := n.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return n.measure(each)
}

// node is the one that is asked.
type node struct {
	skein, data, address string
	pid                  int
	// robots are those that may be renamed.
	robots []ident.NodeID
	// robot, name, from, until and last are what questions are about.
	robot string
	name  string
	from  time.Time
	until time.Time
	last  uint64
	// renamed counts renames.
	renamed int
}

// start runs the program until stop is called.
func (n *node) start() (stop func() error, err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.address = free.Addr().String()
	free.Close()
	cmd := exec.Command(n.skein, "run", "--data", n.data, "--loopback", "--http", n.address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n.pid = cmd.Process.Pid
	return func() error {
		if err := cmd.Process.Kill(); err != nil {
			return err
		}
		cmd.Wait() // it was killed: its status says just that
		return nil
	}, nil
}

// question is one kind of question.
type question struct {
	name string
	path string
	// query gives the parameters of the i-th time it is asked.
	query func(i int) url.Values
	// goal is the p99 in milliseconds, 0 for none: then it is asked without a
	// pause only.
	goal float64
}

func (n *node) questions() []question {
	fixed := func(pairs ...string) func(int) url.Values {
		return func(int) url.Values {
			v := url.Values{}
			for i := 0; i < len(pairs); i += 2 {
				v.Set(pairs[i], pairs[i+1])
			}
			return v
		}
	}
	somewhere := func(i int) url.Values {
		return url.Values{"since": {fmt.Sprint((uint64(i) * 7919 * 131) % (n.last - 100))}}
	}
	return []question{
		{"overview", "/api/v1/overview", fixed(), 10},
		{"alerts", "/api/v1/alerts", fixed(), 10},
		{"groups", "/api/v1/groups", fixed(), 10},
		{"deployments", "/api/v1/deployments", fixed(), 10},
		{"one robot", "/api/v1/robots/" + n.robot, fixed(), 10},
		{"one robot by its name", "/api/v1/robots/" + n.name, fixed(), 10},
		{"all 1,000 robots", "/api/v1/robots", fixed(), 10},
		{"events of a robot, newest 100", "/api/v1/events", fixed("stream", "robot/"+n.robot, "newest", "true"), 10},
		{"events of a type, newest 100", "/api/v1/events", fixed("type", "robot.offline", "newest", "true"), 10},
		{"events of an actor, newest 100", "/api/v1/events", fixed("actor", n.robot, "newest", "true"), 10},
		{"events of a robot in an hour", "/api/v1/events", fixed("stream", "robot/"+n.robot,
			"from", n.from.Format(time.RFC3339), "until", n.until.Format(time.RFC3339)), 10},
		{"100 events from anywhere", "/api/v1/events", somewhere, 10},
		{"the fleet at a moment of the past", "/api/v1/state", func(i int) url.Values {
			return url.Values{"at": {somewhere(i).Get("since")}}
		}, 0},
	}
}

// measure asks each question for a while in every way, and prints how long
// answers took.
func (n *node) measure(each time.Duration) error {
	var clients [askers]*client.Client
	for i := range clients {
		c, err := n.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		clients[i] = c
	}
	for _, q := range n.questions() {
		if err := clients[0].Copy(context.Background(), q.path, q.query(0), io.Discard); err != nil {
			return fmt.Errorf("%s: %w", q.name, err) // the first waits for telemetry
		}
		for _, l := range loads() {
			if q.goal == 0 && l.every > 0 {
				continue
			}
			if err := n.measureOne(clients[:], q, l, each); err != nil {
				return fmt.Errorf("%s, %s: %w", q.name, l.name, err)
			}
		}
	}
	return n.share()
}

// dial waits until the node answers a client that is logged in.
func (n *node) dial() (*client.Client, error) {
	identity, err := client.LoadIdentity(filepath.Join(n.data, "admin.json"))
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Options{Addresses: []string{"http://" + n.address}, Identity: identity, Timeout: startTimeout, Now: time.Now})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		if _, err = c.Fleet(ctx); err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			c.Close()
			return nil, fmt.Errorf("the node does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
