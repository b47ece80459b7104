package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/config"
	"skein/node/gateway/view"
)

func (a *app) fleetCommand() *cobra.Command {
	show := a.fleetShow()
	return group("fleet", "Found a fleet, look at it, log in, manage how robots join", show,
		a.fleetInit(), a.fleetLogin(), show, a.enrolmentCommand())
}

func (a *app) fleetInit() *cobra.Command {
	var o InitOptions
	cmd := &cobra.Command{
		Use:   "init NAME",
		Short: "Found a fleet, with this robot as its first member",
		Long: "Found a fleet, with this robot as its first member and voter. Writes the fleet file that\n" +
			"lets other robots join on their own, and the identity of the first admin.",
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			r, err := a.starters.InitFleet(cmd.Context(), o)
			if err != nil {
				return err
			}
			next := "skein run"
			if o.Data != config.Default().Data {
				next += " --data " + shellQuote(o.Data)
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "Fleet %s (%s) is founded.\n\n", clean(o.Name), r.FleetID)
				fields(w,
					"Fleet file", r.FleetFile+"  copy it to other robots, into their data directory",
					"Admin", r.AdminFile+"  proves who you are; keep it private",
					"Root key", r.RootKeyFile+"  move it off this machine, to a safe place")
				fmt.Fprintf(w, "\nStart this robot with: %s\n", next)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Data, "data", config.Default().Data, "data directory")
	flags.StringVar(&o.NodeName, "node-name", "", "this robot's name (default: this host's name)")
	flags.StringVar(&o.FleetFileOut, "fleet-file", "", "where to write the fleet file (default: fleet.json in the data directory)")
	return cmd
}

func (a *app) fleetShow() *cobra.Command {
	return a.asking(&cobra.Command{Use: "show", Short: "Show the fleet: leader, voters, members", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			fleet, err := c.Fleet(ctx)
			if err != nil {
				return err
			}
			return a.print(fleet, func(w io.Writer) {
				pairs := append(fleetPairs(fleet), "Members", fmt.Sprint(fleet.Members), "Robots", fmt.Sprint(fleet.Robots))
				fields(w, pairs...)
				freshness(w, fleet.AsOf)
			})
		}, withRead, withAt)
}

func (a *app) fleetLogin() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:   "login",
		Short: "Make a one-time link that opens the console as you",
		Args:  exactly(),
	}, func(ctx context.Context, c *client.Client, _ []string) error {
		code, err := c.NewLoginCode(ctx)
		if err != nil {
			return err
		}
		return a.print(code, func(w io.Writer) {
			fmt.Fprintf(w, "Open this in a browser within %s; it works once:\n%s\n", age(code.ExpiresAt.Sub(a.now())), clean(code.URL))
		})
	})
}

// fleetRoot learns the fleet's root public key from the first event of its
// log, and checks that it is this fleet's.
func fleetRoot(ctx context.Context, c *client.Client) (name string, root ed25519.PublicKey, err error) {
	fleet, err := c.Fleet(ctx)
	if err != nil {
		return "", nil, err
	}
	first, err := c.Events(ctx, 0, view.EventFilter{Stream: event.FleetStream, Type: event.TypeFleetCreated}, 1)
	if err != nil {
		return "", nil, err
	}
	if len(first.Events) == 0 {
		return "", nil, errors.New("the node that answers no longer holds the start of the log; ask a voter with --http")
	}
	var created struct {
		Root ed25519.PublicKey `json:"root"`
	}
	if err := json.Unmarshal(first.Events[0].Data, &created); err != nil || ident.FleetIDOf(created.Root) != fleet.FleetID {
		return "", nil, errors.New("the node that answers gave a root key that is not this fleet's; ask another with --http")
	}
	return fleet.Name, created.Root, nil
}

func (a *app) enrolmentCommand() *cobra.Command {
	list := a.enrolmentList()
	return group("enrolment", "Manage the keys in fleet files, with which robots join on their own", list,
		list, a.enrolmentAdd(), a.enrolmentRevoke())
}

// enrolment is one enrolment key, put together from its events.
type enrolment struct {
	ID        string     `json:"id"`
	AddedAt   time.Time  `json:"addedAt"`
	Revoked   bool       `json:"revoked"`
	RevokedAt *time.Time `json:"revokedAt"`
	Reason    string     `json:"reason"`
}

func (a *app) enrolmentList() *cobra.Command {
	return a.asking(&cobra.Command{Use: "list", Short: "List enrolment keys", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			list := []enrolment{}
			at := map[string]int{}
			compacted, err := eachEvent(ctx, c, view.EventFilter{Type: "enrolment."}, 0, func(e view.Event) {
				id := event.Subject(e.Stream)
				i, ok := at[id]
				if !ok {
					i = len(list)
					at[id] = i
					list = append(list, enrolment{ID: id})
				}
				switch e.Type {
				case event.TypeEnrolmentAdded:
					list[i].AddedAt = e.Time
				case event.TypeEnrolmentRevoked:
					when := e.Time
					list[i].Revoked, list[i].RevokedAt, list[i].Reason = true, &when, reasonOf(e)
				}
			})
			if err != nil {
				return err
			}
			a.warnCompacted(compacted)
			return a.print(map[string]any{"enrolments": list}, func(w io.Writer) {
				rows := [][]string{{"ID", "ADDED", "REVOKED", "REASON"}}
				for _, e := range list {
					revoked := ""
					if e.RevokedAt != nil {
						revoked = e.RevokedAt.UTC().Format(time.DateTime)
					}
					rows = append(rows, []string{e.ID, e.AddedAt.UTC().Format(time.DateTime), revoked, e.Reason})
				}
				table(w, rows)
			})
		})
}

func reasonOf(e view.Event) string {
	var data struct {
		Reason string `json:"reason"`
	}
	// A payload without a reason shows none.
	_ = json.Unmarshal(e.Data, &data)
	return data.Reason
}

func (a *app) warnCompacted(compacted bool) {
	if compacted {
		fmt.Fprintln(a.err, "skein: the node that answers no longer holds the start of the log, so this list may lack old entries; ask a voter with --http")
	}
}

func (a *app) enrolmentAdd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "add --out FILE",
		Short: "Make a new enrolment key and a fleet file with it",
		Args:  exactly(),
	}
	cmd.Flags().StringVar(&out, "out", "", "fleet file to write; it must not exist yet")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		if out == "" {
			return usage(errors.New("--out is missing; say where to write the new fleet file"))
		}
		name, root, err := fleetRoot(ctx, c)
		if err != nil {
			return err
		}
		key, err := ident.NewKey()
		if err != nil {
			return err
		}
		// The file first: a key that nobody holds could never be used, a file
		// whose key is not valid is taken away again.
		if err := ident.NewFleetFile(name, root, key).Save(out); err != nil {
			if errors.Is(err, fs.ErrExist) {
				err = fmt.Errorf("%w; choose another --out, or move that file away", err)
			}
			return err
		}
		receipt, err := c.Propose(ctx, event.EnrolmentAdded{PublicKey: key.Public()}.Draft())
		if err != nil {
			return errors.Join(err, dropUnused(out, err))
		}
		result := map[string]any{"id": key.ID(), "fleetFile": out, "receipt": receipt}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "Enrolment key %s is valid.\nCopy %s to robots as fleet.json in their data directory.\n", key.ID(), clean(out))
		})
	})
}

// dropUnused removes a new fleet file after the fleet refused its key. If the
// outcome is not known the file stays, because its key may be valid.
func dropUnused(path string, refusal error) error {
	if code := exitCode(refusal); code == exitTimeout || errors.Is(refusal, client.ErrMaybeDone) {
		return fmt.Errorf("%s is kept, as its key may have been accepted: `skein fleet enrolment list` tells", path)
	}
	return os.Remove(path)
}

func (a *app) enrolmentRevoke() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Make an enrolment key useless; who joined with it stays",
		Args:  exactly("ID"),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		id, err := enrolmentID(ctx, c, args[0])
		if err != nil {
			return err
		}
		receipt, err := c.Propose(ctx, event.EnrolmentRevoked{Reason: reason}.Draft(id))
		if err != nil {
			return err
		}
		return a.print(map[string]any{"id": id, "receipt": receipt}, func(w io.Writer) {
			fmt.Fprintf(w, "Enrolment key %s is revoked, event %d. Fleet files with it are useless now.\n", id, receipt.Last)
		})
	})
}

// enrolmentID completes a unique start of an id. A whole id needs no look-up.
func enrolmentID(ctx context.Context, c *client.Client, which string) (ident.NodeID, error) {
	if id, err := ident.ParseNodeID(which); err == nil {
		return id, nil
	}
	var fits []string
	_, err := eachEvent(ctx, c, view.EventFilter{Type: event.TypeEnrolmentAdded}, 0, func(e view.Event) {
		if id := event.Subject(e.Stream); strings.HasPrefix(id, which) {
			fits = append(fits, id)
		}
	})
	switch {
	case err != nil:
		return "", err
	case len(fits) == 0:
		return "", withCode(exitNotFound, fmt.Errorf("no enrolment key's id starts with %q; `skein fleet enrolment list` shows them", which))
	case len(fits) > 1:
		return "", usage(fmt.Errorf("%q fits %s; say more of the id", which, strings.Join(fits, ", ")))
	}
	return ident.ParseNodeID(fits[0])
}
