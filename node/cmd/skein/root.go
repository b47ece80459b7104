package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The groups under which `skein help` lists commands.
const (
	groupStart  = "start"
	groupLook   = "look"
	groupChange = "change"
	groupRescue = "rescue"
)

// flagError says of a wrong value what a right one is, instead of how reading it
// failed.
func flagError(err error) error {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err
	}
	wanted := wrong.GetFlag().Value.Type()
	switch wanted {
	case "uint", "uint64", "int":
		wanted = "a whole number, 0 or more"
	case "duration":
		wanted = "a duration like 90s or 24h"
	case "bool":
		wanted = "true or false"
	default:
		return err
	}
	return fmt.Errorf("--%s takes %s, not %q", wrong.GetFlag().Name, wanted, wrong.GetValue())
}

// newRootCommand builds the whole command tree for a.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "skein",
		Short: "A robot fleet that forms by itself",
		Long: "Skein is one program that every robot of a fleet runs. Robots find each other on the\n" +
			"local network, agree on what was decided, and any of them shows the whole fleet.",
		Args: subcommandsOnly,
		RunE: showHelp,
		// Errors are printed by app.run, in one line.
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write JSON to standard output and nothing else")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; `%s --help` lists the flags", flagError(err), cmd.CommandPath()))
	})
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Start:"},
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupChange, Title: "Change:"},
		&cobra.Group{ID: groupRescue, Title: "Rescue:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupStart, a.devCommand(), a.runCommand(), a.joinCommand(), a.leaveCommand(), a.doctorCommand())
	add(groupLook, a.statusCommand(), a.alertsCommand(), a.robotsCommand(), a.eventsCommand(), a.raftCommand())
	add(groupChange, a.fleetCommand(), a.tokenCommand(), a.nodeCommand(), a.groupsCommand())
	add(groupRescue, a.rescueCommands()...)
	root.AddCommand(a.versionCommand())
	tidyCompletion(root)
	return root
}

// tidyCompletion makes cobra's completion command and gives it our errors.
func tidyCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err != nil {
		return // cobra makes it for every root that has commands
	}
	completion.Args = subcommandsOnly
	completion.RunE = showHelp
	for _, shell := range completion.Commands() {
		shell.Args = exactly()
	}
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// group is a command that only holds others. Without a word after it, it does
// what fallback does, or shows its help if that is nil.
func group(use, short string, fallback *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: subcommandsOnly, RunE: showHelp}
	if fallback != nil {
		g.RunE = fallback.RunE
		g.Flags().AddFlagSet(fallback.Flags())
		g.Long = fmt.Sprintf("%s.\n\nAlone it does the same as `%s %s`.", short, use, fallback.Name())
	}
	g.AddCommand(commands...)
	return g
}

// subcommandsOnly refuses words that are no subcommand, and names the nearest.
func subcommandsOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	near := ""
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
		near = fmt.Sprintf("did you mean `%s %s`? ", cmd.CommandPath(), names[0])
	}
	return usage(fmt.Errorf("unknown command %q; %s`%s --help` lists the commands", args[0], near, cmd.CommandPath()))
}

// upTo wants at most one argument.
func upTo(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(fmt.Errorf("%q is one word too many; write `%s [%s]`", args[1], cmd.CommandPath(), name))
		}
		return nil
	}
}

// exactly wants one argument for each name, in this order.
func exactly(names ...string) cobra.PositionalArgs { return atLeast(len(names), names...) }

// atLeast wants the first min of the named arguments; a last name that ends in
// "..." takes any number.
func atLeast(minimum int, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < minimum {
			return usage(fmt.Errorf("%s is missing; write `%s %s`", names[len(args)], cmd.CommandPath(), strings.Join(names, " ")))
		}
		open := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
		if len(args) > len(names) && !open {
			return usage(fmt.Errorf("%q is one word too many; write `%s`", args[len(names)], strings.TrimSpace(cmd.CommandPath()+" "+strings.Join(names, " "))))
		}
		return nil
	}
}
