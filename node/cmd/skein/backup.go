package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"skein/consensus/backup"
	"skein/node/client"
)

// backupTimeout bounds a whole backup: about 100 GB on a slow network.
const backupTimeout = 6 * time.Hour

func (a *app) backupCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "backup --out FILE",
		Short: "Write a backup of the fleet's log into one file, from a node that runs",
		Long: "Write a backup of the fleet's log into one file, from a node that runs, while the fleet\n" +
			"goes on. The file is signed by that node; it is read back and verified, and appears only\n" +
			"when it is whole. It holds no keys: keep node.key, membership.json and the admin's files of\n" +
			"at least one member elsewhere, `skein restore` needs them.",
		Example: "  skein backup --out geese.skein-backup --http http://dock:7780",
		Args:    subcommandsOnly,
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist yet")
	a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		if out == "" {
			return usage(errors.New("--out is missing; say where to write the backup"))
		}
		ctx, cancel := context.WithTimeout(ctx, backupTimeout)
		defer cancel()
		s, err := backup.Save(out, func(w io.Writer) error { return c.Backup(ctx, w) })
		if err != nil {
			return err
		}
		return a.printBackup(s, "Backup written to "+out+", and verified.")
	})
	cmd.AddCommand(a.backupVerify())
	return cmd
}

func (a *app) backupVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Read a whole backup and check that it is what its maker signed",
		Args:  exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := backup.VerifyFile(args[0])
			if err != nil {
				return err
			}
			return a.printBackup(s, "The backup is whole.")
		},
	}
}

func (a *app) printBackup(s backup.Summary, sentence string) error {
	return a.print(s, func(w io.Writer) {
		fmt.Fprintln(w, clean(sentence))
		fmt.Fprintln(w)
		events := fmt.Sprintf("%d to %d", s.Base.Seq+1, s.End.Seq)
		if s.Base.Seq > 0 {
			events += "  (older ones are not on the node that made it; the state before them is in the file)"
		}
		fields(w,
			"Fleet", fmt.Sprintf("%s (%s)", s.FleetName, s.Fleet),
			"Log", s.History,
			"Events", events,
			"Size", fmt.Sprintf("%d bytes", s.Bytes),
			"Made by", fmt.Sprintf("%s (%s) at %s", s.Made.Name, s.Made.Node.Short(), s.At.UTC().Format(time.DateTime)))
	})
}
