package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skein/node/rescue"
)

func (a *app) resyncCommand() *cobra.Command {
	var r rescuer
	var alone bool
	cmd := &cobra.Command{
		Use:   "resync",
		Short: "Move a stopped node's copy of the log aside, so that it fetches a new one",
		Long: "Move the copy of the log of a stopped node aside, because it is damaged or has gone its own\n" +
			"way, so that the node fetches a new one from the others when it starts. Nothing is deleted.\n\n" +
			"A voter must be withdrawn by an admin first (`skein node withdraw ROBOT`) and approved anew\n" +
			"afterwards: one that has forgotten its votes could elect a leader that lacks events.\n\n" +
			"When no other node answers, this copy may be the last. If it is damaged and the voter's own\n" +
			"Raft log is whole, only the copy is moved and comes back from that; else --alone is needed.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.settings.load(cmd.Flags())
			if err != nil {
				return err
			}
			done, err := rescue.Resync(cmd.Context(), rescue.ResyncOptions{Data: c.Data, Mesh: c.Mesh, Alone: alone, Now: a.now, Log: quietLog()})
			if err != nil {
				return rescueCode(err)
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "Moved aside into %s:\n", clean(done.Attic))
				for _, path := range done.Moved {
					fmt.Fprintf(w, "  %s\n", clean(path))
				}
				fmt.Fprintf(w, "\n%s\n", done.Next())
			})
		},
	}
	r.register(cmd, "peer", "loopback")
	cmd.Flags().BoolVar(&alone, "alone", false, "do it although no other node answers and nothing here can be kept")
	return cmd
}
