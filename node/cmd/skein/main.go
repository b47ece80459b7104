// Command skein is a robot's node and the tool to talk to one.
//
// The commands that start something (run, dev, join, fleet init) are functions
// given to the command tree as starters; all others are clients of the REST
// API of a running node, through package node/client, and know nothing of the
// node's insides. DESIGN.md says how a command finds its node.
//
// Promises to scripts: with --json standard output holds JSON and nothing
// else; an error is one line on standard error that says what to do next; the
// exit code tells the kind of failure (see exit.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"skein/node/doctor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends a process that does not stop by itself.
	context.AfterFunc(ctx, stop)
	// A library of the Raft store takes the standard logger over when it is linked.
	log.SetFlags(log.LstdFlags)
	log.SetOutput(os.Stderr)
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		env:      os.Getenv,
		now:      time.Now,
		terminal: func() bool { return term.IsTerminal(int(os.Stdin.Fd())) },
		starters: starters(),
		machine:  doctor.ThisMachine(),

		pollInterval: 500 * time.Millisecond,
	}
	os.Exit(a.run(ctx, os.Args[1:]))
}

// app is what the commands share: where they read and write, and how they
// reach the world. Tests make their own.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	now      func() time.Time
	// terminal reports whether a person is there to answer a question.
	terminal func() bool
	starters Starters
	// machine is what doctor examines.
	machine doctor.Machine
	// pollInterval is how often `events tail` asks for news.
	pollInterval time.Duration
	// json is the global flag.
	json bool
}

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	// Interrupted by a person or by systemd is no trouble to report.
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return exitOK
	}
	_, what, _ := strings.Cut(cmd.CommandPath(), " ")
	if what != "" {
		what += ": "
	}
	fmt.Fprintf(a.err, "skein: %s%s\n", what, oneLine(explain(err)))
	return exitCode(err)
}
