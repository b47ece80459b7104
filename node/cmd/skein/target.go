package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/config"
	"skein/node/datadir"
	"skein/node/gateway/view"
)

const (
	// devFolder is where `skein dev` keeps its fleet unless told otherwise, and
	// where commands look for one.
	devFolder = ".skein"
	// devFileName is the file in it that says how to reach the fleet.
	devFileName    = "client.json"
	defaultTimeout = 10 * time.Second
	// completionTimeout: a person waits at the TAB key.
	completionTimeout = 700 * time.Millisecond
)

// target is the flags that say which node to ask, and as whom.
type target struct {
	http     []string
	data     string
	identity string
	timeout  time.Duration
	read     string
	at       string
}

func (t *target) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&t.http, "http", nil, "address of a node, like http://HOST:7780 (SKEIN_HTTP); several are tried in order")
	flags.StringVar(&t.data, "data", "", "data directory of the node to ask through its control socket (default "+config.Default().Data+")")
	flags.StringVar(&t.identity, "identity", "", "file that proves who you are (SKEIN_IDENTITY)")
	flags.DurationVar(&t.timeout, "timeout", defaultTimeout, "how long to wait for an answer")
}

// withRead and withAt add flags that only some questions have.
func withRead(cmd *cobra.Command, t *target) {
	cmd.Flags().StringVar(&t.read, "read", string(view.Local), "how fresh: local, leased or linearizable")
}

func withAt(cmd *cobra.Command, t *target) {
	cmd.Flags().StringVar(&t.at, "at", "", "show the past: the number of an event, a time like 2026-07-07T14:00:00Z, or 10m for ten minutes ago")
}

// check makes sense of the flags that are words.
func (t *target) check(now time.Time) error {
	if t.timeout <= 0 {
		return fmt.Errorf("--timeout %s must be longer than nothing", t.timeout)
	}
	if !slices.Contains([]string{"", string(view.Local), string(view.Leased), string(view.Linearizable)}, t.read) {
		return fmt.Errorf("--read %q must be local, leased or linearizable", clean(t.read))
	}
	if t.at == "" {
		return nil
	}
	at, err := moment(t.at, now)
	if err != nil {
		return fmt.Errorf("--at %w", err)
	}
	t.at = at
	return nil
}

// moment reads the past moment that a person means: an event's number, a time,
// or how long ago by this machine's clock.
func moment(text string, now time.Time) (string, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		text = now.Add(-ago).UTC().Format(time.RFC3339Nano)
	}
	at, err := view.ParseAt(text)
	if err != nil {
		return "", fmt.Errorf("%q %w, or 10m for ten minutes ago", clean(text), err)
	}
	return at.String(), nil
}

// connect makes a client for the node that the flags, the environment and the
// current folder name, in this order. It does not connect yet.
func (a *app) connect(t target) (*client.Client, error) {
	addresses, identityFile, err := a.find(t)
	if err != nil {
		return nil, err
	}
	o := client.Options{Addresses: addresses, Timeout: t.timeout, Read: view.Read(t.read), At: t.at, Now: a.now}
	if o.Identity, err = a.identity(t, identityFile); err != nil {
		return nil, err
	}
	return client.New(o)
}

// find returns addresses to try and the identity file that goes with them, if any.
func (a *app) find(t target) (addresses []string, identityFile string, err error) {
	data := t.data
	if data == "" {
		data = config.Default().Data
	}
	admin := filepath.Join(data, adminFileName)
	if len(t.http) > 0 {
		return t.http, admin, nil
	}
	if from := a.env("SKEIN_HTTP"); from != "" && t.data == "" {
		return strings.Split(from, ","), admin, nil
	}
	folder := t.data
	if folder == "" {
		folder = devFolder
	}
	dev, err := client.LoadDevFleet(filepath.Join(folder, devFileName))
	if err == nil {
		return dev.HTTP, dev.Identity, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, "", err
	}
	return []string{"unix:" + filepath.Join(data, datadir.ControlSocketName)}, admin, nil
}

// identity loads the person: what was asked for must be there, what merely
// lies beside the node may be missing or another user's.
func (a *app) identity(t target, beside string) (*client.Identity, error) {
	asked := t.identity
	if asked == "" {
		asked = a.env("SKEIN_IDENTITY")
	}
	if asked != "" {
		id, err := client.LoadIdentity(asked)
		if errors.Is(err, fs.ErrNotExist) {
			err = usage(fmt.Errorf("%w; `skein fleet init` writes one as admin.json", err))
		}
		return id, err
	}
	if beside == "" {
		return nil, nil
	}
	id, err := client.LoadIdentity(beside)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	return id, err
}

// asking makes run a command that talks to a node: it adds the flags that say
// to which, and gives run a client whose every call is bounded by --timeout.
func (a *app) asking(cmd *cobra.Command, run func(ctx context.Context, c *client.Client, args []string) error, more ...func(*cobra.Command, *target)) *cobra.Command {
	return a.askingAs(cmd, func(ctx context.Context, c *client.Client, _ target, args []string) error { return run(ctx, c, args) }, more...)
}

// askingAs is asking for a command that may have to ask another node as well.
func (a *app) askingAs(cmd *cobra.Command, run func(ctx context.Context, c *client.Client, t target, args []string) error, more ...func(*cobra.Command, *target)) *cobra.Command {
	var t target
	t.register(cmd)
	for _, add := range more {
		add(cmd, &t)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := t.check(a.now()); err != nil {
			return usage(err)
		}
		c, err := a.connect(t)
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd.Context(), c, t, args)
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	if strings.Contains(cmd.Use, " ROBOT") {
		cmd.ValidArgsFunction = a.completeRobots(&t)
	}
	return cmd
}

// completeRobots offers the names of robots, or their ids once somebody has
// begun to type one. Without a node it offers nothing, quickly.
func (a *app) completeRobots(t *target) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		if len(args) > 0 {
			return nil, nothing
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		c, err := a.connect(*t)
		if err != nil {
			return nil, nothing
		}
		defer c.Close()
		list, err := c.Robots(ctx)
		if err != nil {
			return nil, nothing
		}
		var offers []string
		for _, r := range list.Robots {
			switch {
			case strings.HasPrefix(r.Name, typed) && clean(r.Name) == r.Name:
				offers = append(offers, cobra.CompletionWithDesc(r.Name, fmt.Sprintf("%s, %s", r.ID.Short(), r.Status)))
			case strings.HasPrefix(string(r.ID), typed):
				offers = append(offers, cobra.CompletionWithDesc(string(r.ID), r.Name))
			}
		}
		return offers, nothing
	}
}

// Names of files in a data directory that other packages write; a test holds
// them equal to package datadir's.
const (
	nodeKeyName    = "node.key"
	membershipName = "membership.json"
	adminFileName  = "admin.json"
	adminKeyName   = "admin.key"
	rootKeyName    = "root.key"
	fleetFileName  = "fleet.json"
)
