package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/consensus/event"
	"skein/node/client"
	"skein/node/gateway/view"
)

func (a *app) nodeCommand() *cobra.Command {
	list := a.nodeList()
	return group("node", "Show members, expel them, choose voters", list,
		list, a.nodeShow(), a.nodeRevoke(),
		a.nodeChange("approve", "Let a robot vote, if its configuration offers that", "may vote",
			func(r view.Robot) view.Draft { return event.VoterApproved{}.Draft(r.ID) }),
		a.nodeChange("withdraw", "Let a robot vote no longer", "votes no longer",
			func(r view.Robot) view.Draft { return event.VoterWithdrawn{}.Draft(r.ID) }))
}

func (a *app) nodeList() *cobra.Command {
	return a.asking(&cobra.Command{Use: "list", Short: "List the members as one node sees them", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { nodesHuman(w, list) })
		}, withRead, withAt)
}

func nodesHuman(w io.Writer, list view.Nodes) {
	rows := [][]string{{"NAME", "ID", "ROLE", "STATE", "ADDRESS", "LINK", "GOSSIP", "HTTP", "VERSION", "ADMITTED", "BY", "CLOCK"}}
	for _, n := range list.Nodes {
		state := string(n.State)
		if n.Revoked {
			state = "revoked"
		}
		address := ""
		if len(n.Addrs) > 0 {
			address = n.Addrs[0]
		}
		rows = append(rows, []string{n.Name, n.ID.Short(), string(n.Role), state, address,
			port(n.LinkPort), port(n.GossipPort), port(n.HTTPPort), n.Version, n.AdmittedAt.UTC().Format(time.DateOnly), n.By, skew(n.ClockSkewMillis)})
	}
	table(w, rows)
	freshness(w, list.AsOf)
}

func port(p uint16) string {
	if p == 0 {
		return ""
	}
	return fmt.Sprint(p)
}

func skew(millis *int64) string {
	if millis == nil {
		return ""
	}
	return fmt.Sprintf("%+dms", *millis)
}

// nodeAndRobot is what `skein node show --json` prints.
type nodeAndRobot struct {
	Node  view.Node  `json:"node"`
	Robot view.Robot `json:"robot"`
}

func (a *app) nodeShow() *cobra.Command {
	return a.asking(&cobra.Command{Use: "show ROBOT", Short: "Show one member: addresses, ports, clock, vote", Args: exactly("ROBOT")},
		func(ctx context.Context, c *client.Client, args []string) error {
			r, err := robot(ctx, c, args[0])
			if err != nil {
				return err
			}
			list, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			for _, n := range list.Nodes {
				if n.ID == r.ID {
					return a.print(nodeAndRobot{n, r}, func(w io.Writer) { nodeHuman(w, n, r) })
				}
			}
			return fmt.Errorf("%w: the node that answers does not list %s as a member yet; ask again", client.ErrNoSuchRobot, r.ID)
		}, withRead, withAt)
}

func nodeHuman(w io.Writer, n view.Node, r view.Robot) {
	fields(w,
		"Name", n.Name,
		"ID", string(n.ID),
		"Role", string(n.Role),
		"Voter", fmt.Sprintf("eligible: %s, approved: %s", yesNo(r.VoterEligible), yesNo(r.VoterApproved)),
		"State", string(n.State),
		"Revoked", yesNo(n.Revoked),
		"Addresses", strings.Join(n.Addrs, ", "),
		"Ports", fmt.Sprintf("link %d, gossip %d, http %d", n.LinkPort, n.GossipPort, n.HTTPPort),
		"Admitted", fmt.Sprintf("%s by %s", n.AdmittedAt.UTC().Format(time.RFC3339), n.By),
		"Clock", skew(n.ClockSkewMillis))
}

func (a *app) nodeRevoke() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ROBOT",
		Short: "Expel a robot for good: its key is never admitted again",
		Long: "Expel a robot for good: its key is never admitted again, and its peers cut it off.\n" +
			"If its fleet file may be in wrong hands, revoke that enrolment key as well:\n" +
			"`skein fleet enrolment revoke`.",
		Args: exactly("ROBOT"),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		r, err := robot(ctx, c, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("Expel %s (%s) for good?", r.Name, r.ID)); err != nil {
			return err
		}
		return a.decide(ctx, c, r, "is expelled", event.NodeRevoked{Reason: reason}.Draft(r.ID))
	})
}

// nodeChange is a command that proposes one event about a robot.
func (a *app) nodeChange(use, short, outcome string, draft func(view.Robot) view.Draft) *cobra.Command {
	return a.asking(&cobra.Command{Use: use + " ROBOT", Short: short, Args: exactly("ROBOT")},
		func(ctx context.Context, c *client.Client, args []string) error {
			r, err := robot(ctx, c, args[0])
			if err != nil {
				return err
			}
			return a.decide(ctx, c, r, outcome, draft(r))
		})
}

// decision is what commands that change something print with --json.
type decision struct {
	Robot   view.NodeRef `json:"robot"`
	Receipt view.Receipt `json:"receipt"`
}

// decide proposes draft and says what has become of r.
func (a *app) decide(ctx context.Context, c *client.Client, r view.Robot, outcome string, draft view.Draft) error {
	receipt, err := c.Propose(ctx, draft)
	if err != nil {
		return err
	}
	return a.print(decision{view.NodeRef{ID: r.ID, Name: r.Name}, receipt}, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s) %s, event %d.\n", clean(r.Name), r.ID.Short(), outcome, receipt.Last)
	})
}
