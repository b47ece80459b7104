package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"skein/node/config"
	"skein/node/rescue"
)

func (a *app) restoreCommand() *cobra.Command {
	var r rescuer
	var loseNewer bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Found the fleet of a backup anew on this node",
		Long: "Found the fleet of a backup anew on this node: the same members, robots and events, this\n" +
			"node as the only voter, and a log with a new name. The whole file is verified first.\n\n" +
			"A backup holds no keys. Put back into the data directory what this robot had:\n" +
			"  node.key         its key; it must be a member in the backup\n" +
			"  membership.json  its certificate; --root-key root.key makes a new one instead\n" +
			"  fleet.json       the fleet file, for robots that are still to join (not needed here)\n" +
			"and keep admin.json with admin.key at hand, to act as an admin. Gossip keys are made anew.\n\n" +
			"The directory must hold no log: `skein resync` moves one aside. Other robots of the fleet\n" +
			"that still run follow this node, if the backup has all that they have.",
		Example: "  skein restore geese.skein-backup --data /var/lib/skein",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.settings.load(cmd.Flags())
			if err != nil {
				return err
			}
			return rescueCode(a.restore(cmd.Context(), &r, c, args[0], loseNewer))
		},
	}
	r.register(cmd, "peer", "loopback")
	r.registerPerson(cmd)
	cmd.Flags().BoolVar(&loseNewer, "lose-newer", false, "go on although a node that answers has events that the backup lacks; they are lost")
	cmd.ValidArgsFunction = nil
	return cmd
}

func (a *app) restore(ctx context.Context, r *rescuer, c config.Config, file string, loseNewer bool) error {
	o := rescue.RestoreOptions{
		File: file, Data: c.Data, Mesh: c.Mesh, Store: c.Raft.Store, Why: r.why, RootKey: r.rootKey, LoseNewer: loseNewer,
		Confirm: func(p rescue.RestorePlan) error {
			return a.agree(r.yes, p.FleetName, func(w io.Writer) { restorePlan(w, p) })
		},
		Now: a.now, Log: quietLog(),
	}
	who, err := a.person(r, c.Data)
	if err != nil {
		return err
	}
	if who != nil {
		o.By = &rescue.Person{Name: who.Person, Key: who.Key}
	}
	done, err := rescue.Restore(ctx, o)
	if err != nil {
		return err
	}
	return a.print(done, func(w io.Writer) {
		fmt.Fprintf(w, "Fleet %s is founded anew: this node, %s, is its only voter.\n\n", clean(done.Plan.FleetName), clean(done.Plan.NodeName))
		fields(w, "Log", fmt.Sprintf("%s, at event %d", done.Cursor.History, done.Cursor.Seq))
		nextSteps(w, done.MayIssue)
	})
}

func restorePlan(w io.Writer, p rescue.RestorePlan) {
	b := p.Backup
	fmt.Fprintf(w, "Fleet %s (%s) is to be founded anew on node %s (%s), as its only voter.\n\n", clean(p.FleetName), b.Fleet, clean(p.NodeName), p.Node)
	fmt.Fprintf(w, "The backup is of %s, made by %s. It ends with event %d of log %s; what was decided later is LOST.\n",
		b.At.UTC().Format(time.DateTime), clean(b.Made.Name), b.End.Seq, b.History)
	peersHuman(w, p.Plan)
}
