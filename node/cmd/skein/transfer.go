package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
)

func (a *app) raftTransfer() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer [ROBOT]",
		Short: "Make the leader hand over, to a voter or to whom it chooses",
		Long: "Make the leader hand over, to a voter or to whom it chooses: before its machine is shut\n" +
			"down, for example. Only the leader can do that; if another node answers, the leader is\n" +
			"asked at the address that the fleet knows.",
		Args: upTo("ROBOT"),
	}
	a.askingAs(cmd, func(ctx context.Context, c *client.Client, t target, args []string) error {
		to := ident.NodeID("")
		if len(args) > 0 {
			r, err := robot(ctx, c, args[0])
			if err != nil {
				return err
			}
			to = r.ID
		}
		done, err := a.transfer(ctx, c, t, to)
		if err != nil {
			return err
		}
		return a.print(done, func(w io.Writer) {
			if done.To == nil {
				fmt.Fprintf(w, "%s has handed over; nobody has heard yet to whom.\n", clean(done.From.Name))
				return
			}
			fmt.Fprintf(w, "%s (%s) leads now, after %s.\n", clean(done.To.Name), done.To.ID.Short(), clean(done.From.Name))
		})
	})
	return cmd
}

// transfer asks the node that c asks, and if that does not lead, the leader.
func (a *app) transfer(ctx context.Context, c *client.Client, t target, to ident.NodeID) (view.Transferred, error) {
	done, err := c.TransferLeader(ctx, to)
	if p, is := errors.AsType[*view.Problem](err); !is || p.Code != "not_leader" {
		return done, err
	}
	address, findErr := leaderAddress(ctx, c)
	if findErr != nil {
		return done, errors.Join(err, findErr)
	}
	own := t
	own.http = []string{address}
	if _, own.identity, err = a.find(t); err != nil {
		return done, err
	}
	if t.identity != "" || a.env("SKEIN_IDENTITY") != "" {
		own.identity = t.identity // what was asked for goes first anyway
	}
	leader, err := a.connect(own)
	if err != nil {
		return done, err
	}
	defer leader.Close()
	return leader.TransferLeader(ctx, to)
}

var errLeaderUnknown = errors.New("the leader's address is not known; ask it with --http")

func leaderAddress(ctx context.Context, c *client.Client) (string, error) {
	fleet, err := c.Fleet(ctx)
	if err != nil {
		return "", err
	}
	list, err := c.Robots(ctx)
	if err != nil {
		return "", err
	}
	for _, r := range list.Robots {
		if fleet.Leader != nil && r.ID == fleet.Leader.ID && r.HTTP != "" {
			return r.HTTP, nil
		}
	}
	return "", errLeaderUnknown
}
