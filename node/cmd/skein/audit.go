package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"skein/consensus/audit"
	"skein/node/rescue"
)

// findingsShown is how many findings people see; JSON has up to 100.
const findingsShown = 10

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Prove that the log is what was decided", nil, a.auditVerify())
}

func (a *app) auditVerify() *cobra.Command {
	var r rescuer
	var file string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read every byte of a node's copy of the log, or of a backup, and say what is wrong",
		Long: "Read every byte of a node's copy of the log, or of a backup: checksums, the hash chain over\n" +
			"all events, checkpoints, and the leaders' signatures. One changed or missing byte is found\n" +
			"and named. A voter's Raft log is not read: the node checks that when it starts. The node\n" +
			"may run. The exit code is 1 if anything is wrong.",
		Example: "  skein audit verify --data /var/lib/skein\n  skein audit verify --backup geese.skein-backup",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.settings.load(cmd.Flags())
			if err != nil {
				return err
			}
			report, err := runAudit(cmd.Context(), c.Data, file)
			if err != nil {
				return rescueCode(err)
			}
			if err := a.print(report, func(w io.Writer) { auditHuman(w, report) }); err != nil {
				return err
			}
			if !report.OK() {
				return fmt.Errorf("%s wrong; %s", things(report.Wrong), remedy(file))
			}
			return nil
		},
	}
	r.register(cmd)
	cmd.Flags().StringVar(&file, "backup", "", "verify this backup instead of a node's log")
	cmd.MarkFlagsMutuallyExclusive("backup", "data")
	return cmd
}

func things(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}

func remedy(backup string) string {
	if backup != "" {
		return "use another backup, or make a new one"
	}
	return "stop the node and run `skein resync`, and have the disk checked"
}

func runAudit(ctx context.Context, data, file string) (*audit.Report, error) {
	if file != "" {
		return audit.Backup(ctx, file)
	}
	return rescue.Audit(ctx, data)
}

func auditHuman(w io.Writer, r *audit.Report) {
	events := "none"
	if r.Counts.Events > 0 {
		events = fmt.Sprintf("%d to %d", r.First, r.Last)
	}
	seals := "none: only the chain proves this log"
	if r.SealedSeq > 0 {
		seals = fmt.Sprintf("cover up to event %d, %d good; the newest by %s at %s", r.SealedSeq, r.Counts.Seals, r.SealedBy.Short(), r.SealedAt.UTC().Format(time.DateTime))
	}
	fields(w,
		"Audited", r.Source,
		"Fleet", r.FleetName,
		"Log", r.History,
		"Events", events,
		"Hash", r.Hash,
		"Seals", seals,
		"Read", fmt.Sprintf("%d files, %d bytes, %d checkpoints", r.Counts.Files, r.Counts.Bytes, r.Counts.Checkpoints))
	if r.First > 1 {
		fmt.Fprintf(w, "\nEvents before %d are not here: retention dropped them, or the node joined later.\n", r.First)
	}
	if r.OK() {
		fmt.Fprintln(w, "\nEverything is in order.")
		return
	}
	fmt.Fprintln(w)
	for i, f := range r.Findings {
		if i == findingsShown {
			fmt.Fprintf(w, "and %d more; --json shows up to 100\n", r.Wrong-findingsShown)
			break
		}
		fmt.Fprintf(w, "WRONG  %s\n", clean(f.String()))
	}
}
