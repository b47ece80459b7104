package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skein/node/rescue"
)

func (a *app) storeCommand() *cobra.Command {
	return group("store", "Work on a stopped voter's Raft log", nil, a.storeConvert())
}

func (a *app) storeConvert() *cobra.Command {
	var r rescuer
	var to string
	cmd := &cobra.Command{
		Use:   "convert --to KIND",
		Short: "Move a stopped voter's Raft log into another kind of store: bolt or wal",
		Long: "Move a stopped voter's Raft log into another kind of store, and change nothing else. A\n" +
			"power cut leaves the old one or the new one, whole. Set `[raft] store` to match.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.settings.load(cmd.Flags())
			if err != nil {
				return err
			}
			if to == "" {
				return usage(errors.New("--to is missing; it is bolt or wal"))
			}
			done, err := rescue.Convert(c.Data, to)
			if err != nil {
				return rescueCode(err)
			}
			return a.print(done, func(w io.Writer) {
				if done.From == done.To {
					fmt.Fprintf(w, "The Raft log is kept as %q already; nothing was changed.\n", done.To)
					return
				}
				fmt.Fprintf(w, "The Raft log is kept as %q now. Set `store = %q` under [raft] in the configuration, then start the node.\n", done.To, done.To)
			})
		},
	}
	r.register(cmd)
	cmd.Flags().StringVar(&to, "to", "", "bolt or wal")
	return cmd
}
