package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
)

// errNoLeader makes `skein status` useful in scripts: code 5 without a leader.
var errNoLeader = errors.New("the fleet has no leader, so nothing can be decided; bring back enough voters for a majority (`skein node list`)")

// summary is what `skein status --json` prints.
type summary struct {
	Fleet view.Fleet `json:"fleet"`
	// Robots counts robots by status; those that left or were revoked too.
	Robots map[view.Status]int `json:"robots"`
	// NoSpace: the disk of the node that was asked is nearly full, see view.Raft.
	NoSpace bool `json:"noSpace"`
}

func (a *app) statusCommand() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:   "status",
		Short: "Show who leads, how much may fail, and how many robots are there",
		Long:  "Show who leads, how much may fail, and how many robots are there. The exit code is 5\nif the fleet has no leader.",
		Args:  exactly(),
	}, func(ctx context.Context, c *client.Client, _ []string) error {
		fleet, err := c.Fleet(ctx)
		if err != nil {
			return err
		}
		robots, err := c.Robots(ctx)
		if err != nil {
			return err
		}
		raft, err := c.Raft(ctx)
		if err != nil {
			return err
		}
		s := summary{fleet, map[view.Status]int{view.Online: 0, view.Offline: 0, view.Revoked: 0, view.Left: 0}, raft.NoSpace}
		for _, r := range robots.Robots {
			s.Robots[r.Status]++
		}
		if err := a.print(s, s.human); err != nil {
			return err
		}
		if fleet.Leader == nil {
			return withCode(exitUnreachable, errNoLeader)
		}
		return nil
	}, withRead)
}

func (s summary) human(w io.Writer) {
	robots := fmt.Sprintf("%d online, %d offline", s.Robots[view.Online], s.Robots[view.Offline])
	if n := s.Robots[view.Revoked]; n > 0 {
		robots += fmt.Sprintf(", %d revoked", n)
	}
	if n := s.Robots[view.Left]; n > 0 {
		robots += fmt.Sprintf(", %d left", n)
	}
	pairs := append(fleetPairs(s.Fleet), "Robots", robots)
	if s.NoSpace {
		pairs = append(pairs, "Disk here", noSpace)
	}
	fields(w, pairs...)
	freshness(w, s.Fleet.AsOf)
}

// fleetPairs are the lines that status and `fleet show` share.
func fleetPairs(f view.Fleet) []string {
	leader := "none known"
	if f.Leader != nil {
		leader = fmt.Sprintf("%s (%s), term %d", f.Leader.Name, f.Leader.ID.Short(), f.Term)
	}
	var voters []string
	for _, v := range f.Voters {
		text := v.Name
		if !v.Reachable {
			text += " (unreachable)"
		}
		voters = append(voters, text)
	}
	lose := fmt.Sprint(f.CanLose)
	if f.CanLoseReason != "" {
		lose += ": " + f.CanLoseReason
	}
	return []string{"Fleet", fmt.Sprintf("%s (%s)", f.Name, f.FleetID), "Leader", leader, "Voters", strings.Join(voters, ", "), "Can lose", lose}
}

func (a *app) raftCommand() *cobra.Command {
	show := a.raftShow()
	return group("raft", "Show one node's part in deciding, and hand leadership over", show, show, a.raftTransfer())
}

func (a *app) raftShow() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:   "show",
		Short: "Show one node's part in deciding and copying the log",
		Args:  exactly(),
	}, func(ctx context.Context, c *client.Client, _ []string) error {
		raft, err := c.Raft(ctx)
		if err != nil {
			return err
		}
		return a.print(raft, func(w io.Writer) { raftHuman(w, raft) })
	})
}

func raftHuman(w io.Writer, r view.Raft) {
	pairs := []string{
		"Node", string(r.Node),
		"State", r.State,
		"Leader", string(r.Leader),
		"Term", fmt.Sprint(r.Term),
		"Voters", idList(r.Voters),
	}
	if f := r.Follow; f != nil {
		// A node that follows is no part of Raft and knows only what it applied.
		pairs = append(pairs, "Log", fmt.Sprintf("applied %d", r.AppliedIndex),
			"Follows", string(f.Parent), "Path from leader", idList(f.Path), "Age of news", ageMillis(f.MarkAgeMillis))
	} else {
		pairs = append(pairs, "Log", fmt.Sprintf("last %d, committed %d, applied %d", r.LastIndex, r.CommitIndex, r.AppliedIndex),
			"Becoming voters", idList(r.Nonvoters), "Leader heard by Raft", ageMillis(r.LastContactMillis))
	}
	pairs = append(pairs, "State hash", r.StateHash)
	if r.NoSpace {
		pairs = append(pairs, "Disk", noSpace)
	}
	fields(w, pairs...)
}

const noSpace = "nearly full: this voter accepts no new events until space is freed"

func idList(ids []ident.NodeID) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, id.Short())
	}
	return strings.Join(texts, ", ")
}
