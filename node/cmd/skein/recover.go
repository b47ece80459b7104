package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/config"
	"skein/node/rescue"
)

// rescueCommands work on a node that is stopped, or on files.
func (a *app) rescueCommands() []*cobra.Command {
	return []*cobra.Command{a.auditCommand(), a.backupCommand(), a.restoreCommand(), a.recoverCommand(), a.resyncCommand(), a.storeCommand()}
}

// rescueCode gives errors of package rescue their exit codes.
func rescueCode(err error) error {
	switch {
	case errors.Is(err, rescue.ErrNoNode):
		return withCode(exitNotFound, err)
	case errors.Is(err, rescue.ErrBadOption):
		return usage(err)
	case errors.Is(err, rescue.ErrNotAllowed):
		return withCode(exitNotAllowed, err)
	}
	return err
}

// rescuer is the flags of the commands that work on a stopped node.
type rescuer struct {
	settings settings
	identity string
	rootKey  string
	why      string
	yes      string
}

func (r *rescuer) register(cmd *cobra.Command, settings ...string) {
	r.settings.register(cmd.Flags(), append(settings, "config", "data")...)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
}

// registerPerson adds the flags that say who does it, and that they mean it.
func (r *rescuer) registerPerson(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.identity, "identity", "", "file that proves who you are, an admin (SKEIN_IDENTITY)")
	flags.StringVar(&r.rootKey, "root-key", "", "file of the fleet's root key, so that this node can admit others")
	flags.StringVar(&r.why, "reason", "", "why, for the log")
	flags.StringVar(&r.yes, "yes", "", "the fleet's name: do it without asking")
}

// person loads who acts: the file that was asked for, or the one beside the node.
func (a *app) person(r *rescuer, data string) (*client.Identity, error) {
	return a.identity(target{identity: r.identity}, filepath.Join(data, adminFileName))
}

// agree shows what is about to be done and asks for the fleet's name, which
// nobody types by mistake. Where nobody can answer, --yes must say it.
func (a *app) agree(yes, fleet string, show func(w io.Writer)) error {
	if yes != "" {
		if yes != fleet {
			return usage(fmt.Errorf("--yes %s is not the name of this fleet, %s; nothing was changed", shellQuote(yes), clean(fleet)))
		}
		return nil
	}
	show(a.err)
	if !a.terminal() {
		return usage(fmt.Errorf("nobody is here to agree; look at what stands above and add --yes %s", shellQuote(fleet)))
	}
	fmt.Fprintf(a.err, "\nType the fleet's name, %s, to go on: ", clean(fleet))
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != fleet {
		return errDeclined
	}
	return nil
}

// quietLog is where rescue says what a person need not read.
func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (a *app) recoverCommand() *cobra.Command {
	var r rescuer
	cmd := &cobra.Command{
		Use:   "recover-quorum",
		Short: "Make a stopped node the only voter of a fleet that lost most of its voters for good",
		Long: "Make a stopped node the only voter of a fleet that has lost most of its voters for good.\n" +
			"Every node that can be reached is asked how far its log is; the log goes on from the\n" +
			"highest, under a new name. What only the lost voters had is lost. They may never decide\n" +
			"again: should one come back, it gives up its seat, and may need `skein resync`.\n\n" +
			"Stop the node first. It needs an admin's identity file, for the log says who did it.\n" +
			"While a majority of voters is there it refuses: start them instead.",
		Example: "  systemctl stop skein\n  skein recover-quorum --identity admin.json --reason \"dock burnt down\"",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.settings.load(cmd.Flags())
			if err != nil {
				return err
			}
			return rescueCode(a.recoverQuorum(cmd.Context(), &r, c))
		},
	}
	r.register(cmd, "peer", "loopback")
	r.registerPerson(cmd)
	return cmd
}

func (a *app) recoverQuorum(ctx context.Context, r *rescuer, c config.Config) error {
	who, err := a.person(r, c.Data)
	if err != nil {
		return err
	}
	if who == nil {
		return client.ErrNoIdentity
	}
	done, err := rescue.RecoverQuorum(ctx, rescue.RecoverOptions{
		Data: c.Data, Mesh: c.Mesh, Store: c.Raft.Store, By: rescue.Person{Name: who.Person, Key: who.Key}, Why: r.why, RootKey: r.rootKey,
		Confirm: func(p rescue.Plan) error {
			return a.agree(r.yes, p.FleetName, func(w io.Writer) { recoverPlan(w, p) })
		},
		Now: a.now, Log: quietLog(),
	})
	if err != nil {
		return err
	}
	return a.print(done, func(w io.Writer) {
		fmt.Fprintf(w, "Fleet %s goes on: this node, %s, is its only voter.\n\n", clean(done.Plan.FleetName), clean(done.Plan.NodeName))
		fields(w, "Log", fmt.Sprintf("%s, at event %d", done.Cursor.History, done.Cursor.Seq),
			"Fetched", fmt.Sprintf("%d events from other nodes, %d entries from this node's Raft log", done.Fetched, done.FromRaft),
			"Old Raft log", done.Aside)
		nextSteps(w, done.MayIssue)
	})
}

// nextSteps says what is left to do after a recovery or a restore.
func nextSteps(w io.Writer, mayIssue bool) {
	fmt.Fprintln(w, "\nStart it with `skein run`, with `voter = true` in its configuration. Make two more nodes voters:\n`skein node approve ROBOT`. Old voters that come back give up their seats.")
	if !mayIssue {
		fmt.Fprintln(w, "It cannot admit new robots: its certificate may not issue others. Run this again with --root-key root.key.")
	}
}

// recoverPlan shows what is about to be done.
func recoverPlan(w io.Writer, p rescue.Plan) {
	fmt.Fprintf(w, "Fleet %s is to go on with node %s (%s) as its only voter.\n\n", clean(p.FleetName), clean(p.NodeName), p.Node)
	fmt.Fprintf(w, "This node's log ends with event %d", p.Cursor.Seq)
	if p.RaftEntries > 0 {
		fmt.Fprintf(w, "; its Raft log has %d entries more, which will be applied", p.RaftEntries)
	}
	fmt.Fprintln(w, ".")
	if p.RaftTrouble != "" {
		fmt.Fprintf(w, "Its Raft log cannot be read, what only that had is lost: %s\n", clean(p.RaftTrouble))
	}
	if p.From != nil {
		fmt.Fprintf(w, "%s has event %d: what this node lacks is fetched from there first.\n", clean(p.From.Name), p.FromSeq)
	}
	peersHuman(w, p)
	fmt.Fprintln(w, "\nWhat only nodes have that do not answer is LOST. They must never decide again on their own.")
}

func peersHuman(w io.Writer, p rescue.Plan) {
	rows := [][]string{{"NODE", "ID", "VOTER", "LOG"}}
	for _, peer := range p.Reached {
		at := "none yet"
		if c := peer.Standing.Cursor; c.Seq > 0 {
			at = fmt.Sprintf("event %d of %s", c.Seq, c.History)
		}
		rows = append(rows, []string{peer.Name, peer.ID.Short(), yesNo(peer.Voter), at})
	}
	for _, peer := range p.Unreached {
		rows = append(rows, []string{peer.Name, peer.ID.Short(), yesNo(peer.Voter), "NO ANSWER: " + peer.Why})
	}
	if len(rows) > 1 {
		fmt.Fprintln(w)
		table(w, rows)
	}
}
