package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"skein/mesh/ident"
	"skein/node/config"
)

// maxDevRobots bounds a fleet in one process: about 25 MB each.
const maxDevRobots = 100

// joinTimeout is longer than other commands': the fleet must be found first.
const joinTimeout = 30 * time.Second

func (a *app) devCommand() *cobra.Command {
	o := DevOptions{Out: a.out}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Start a whole fleet on this machine, to try and to develop",
		Example: "  skein dev --robots 5 --voters 3\n" +
			"  skein status            # in the same folder, in another terminal",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.Robots < 1 || o.Robots > maxDevRobots:
				return usage(fmt.Errorf("--robots %d must be 1 to %d", o.Robots, maxDevRobots))
			case o.Voters < 1 || o.Voters > o.Robots:
				return usage(fmt.Errorf("--voters %d must be 1 to the number of robots, %d", o.Voters, o.Robots))
			case !slices.Contains([]int{1, 3, 5}, o.Voters):
				return usage(fmt.Errorf("--voters %d must be 1, 3 or 5: an even number cannot lose more than one less", o.Voters))
			}
			o.JSON = a.json
			return a.starters.RunDev(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Robots, "robots", 5, "how many robots")
	flags.IntVar(&o.Voters, "voters", 3, "how many of them vote: 1, 3 or 5")
	flags.StringVar(&o.HTTP, "http", "127.0.0.1:7780", "address of the first robot's console; the others take the ports after it")
	flags.StringVar(&o.Data, "data", devFolder, "folder for keys and logs; delete it to start anew")
	flags.BoolVar(&o.LAN, "lan", false, "speak with robots on the local network too, not only on this machine")
	cmd.AddCommand(a.devControls()...)
	return cmd
}

func (a *app) runCommand() *cobra.Command {
	var s settings
	var example bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run this robot's node",
		Long: "Run this robot's node until it is stopped. Flags win over the configuration file.\n" +
			"A robot joins its fleet by itself if it has a fleet file, or after `skein join TOKEN`.",
		Example: "  skein run --config /etc/skein.toml\n  skein run --example > skein.toml",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				_, err := io.WriteString(a.out, config.Example())
				return err
			}
			c, err := s.load(cmd.Flags())
			if err != nil {
				return err
			}
			return a.starters.RunNode(cmd.Context(), c)
		},
	}
	s.register(cmd.Flags())
	cmd.Flags().BoolVar(&example, "example", false, "print a configuration file with every key explained, and end")
	return cmd
}

// settings are a configuration file and the flags that win over it.
type settings struct {
	file string
	over config.Config
}

// register adds the named flags, or all.
func (s *settings) register(flags *pflag.FlagSet, only ...string) {
	d := config.Default()
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.StringVar(&s.file, "config", "", "configuration file (TOML)")
	all.StringVar(&s.over.Data, "data", d.Data, "data directory")
	all.StringVar(&s.over.Name, "name", "", "name that people see (default: this host's name)")
	all.StringVar(&s.over.Type, "type", d.Type, "kind of robot: lekiwi, xlerobot or unknown")
	all.StringVar(&s.over.HTTP, "http", d.HTTP, "host:port of console and API")
	all.StringVar(&s.over.FleetFile, "fleet-file", "", "fleet file to join with (default: fleet.json in the data directory)")
	all.BoolVar(&s.over.Voter, "voter", false, "offer this robot as a voter; an admin approves it")
	all.StringSliceVar(&s.over.Mesh.Peers, "peer", nil, "host:port of a robot to try besides those found by mDNS")
	all.BoolVar(&s.over.Mesh.Loopback, "loopback", false, "stay on this machine, beside a fleet of `skein dev`")
	all.VisitAll(func(f *pflag.Flag) {
		if len(only) == 0 || slices.Contains(only, f.Name) {
			flags.AddFlag(f)
		}
	})
}

// load reads the file and lays the flags that were given over it. It checks
// the result again, because flags can be wrong too.
func (s *settings) load(flags *pflag.FlagSet) (config.Config, error) {
	c := config.Default()
	if s.file != "" {
		var err error
		if c, err = config.Load(s.file); err != nil {
			return config.Config{}, err
		}
	}
	for name, set := range map[string]func(){
		"data":       func() { c.Data = s.over.Data },
		"name":       func() { c.Name = s.over.Name },
		"type":       func() { c.Type = s.over.Type },
		"http":       func() { c.HTTP = s.over.HTTP },
		"fleet-file": func() { c.FleetFile = s.over.FleetFile },
		"voter":      func() { c.Voter = s.over.Voter },
		"peer":       func() { c.Mesh.Peers = s.over.Mesh.Peers },
		"loopback": func() {
			if c.Mesh.Loopback = s.over.Mesh.Loopback; c.Mesh.Loopback && s.file == "" {
				// Beside the robots of a fleet, whose faces may have the usual ports.
				c.Mesh.LinkPort, c.Mesh.GossipPort = 0, 0
			}
		},
	} {
		if flags.Changed(name) {
			set()
		}
	}
	return c, c.Validate()
}

// runLine is the command that runs the node with the settings given here, as
// they are kept nowhere.
func (s *settings) runLine(flags *pflag.FlagSet) string {
	line := "skein run"
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "data", "name":
			line += " --" + f.Name + " " + shellQuote(f.Value.String())
		case "voter", "loopback":
			line += " --" + f.Name + "=" + f.Value.String()
		}
	})
	return line
}

func (a *app) joinCommand() *cobra.Command {
	var s settings
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Make this robot a member of a fleet",
		Long: "Make this robot a member of the fleet whose admin made TOKEN with `skein token create`.\n" +
			"It finds the fleet on the local network. The node must not be running.",
		Args: exactly("TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := ident.ParseJoinToken(args[0]); err != nil {
				return err
			}
			c, err := s.load(cmd.Flags())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			r, err := a.starters.JoinFleet(ctx, JoinOptions{Config: c, Token: args[0]})
			if err != nil {
				return a.notJoined(ctx, err, timeout)
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%s (%s) is now a member of fleet %s.\nStart it with: %s\n", clean(r.Name), r.NodeID, clean(r.FleetName), s.runLine(cmd.Flags()))
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s.register(cmd.Flags(), "config", "data", "name", "voter", "peer", "loopback")
	cmd.Flags().DurationVar(&timeout, "timeout", joinTimeout, "how long to look for the fleet and wait for its answer")
	return cmd
}

// notJoined tells a search that ended without an answer from a refusal.
func (a *app) notJoined(ctx context.Context, err error, timeout time.Duration) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) || exitCode(err) != exitFailed {
		return err
	}
	return withCode(exitUnreachable, fmt.Errorf("%w; gave up after %s: check that a robot of the fleet is on this network (`skein doctor`), or name one with --peer HOST:7781", err, timeout))
}

func (a *app) leaveCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Make the node that runs here leave its fleet",
		Long: "Make the node that runs here leave its fleet and stop. Its files are put aside, not\n" +
			"deleted. To come back it joins as a new robot.",
		Args: exactly(),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return a.asking(cmd, a.leave(&yes))
}
