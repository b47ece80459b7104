package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skein/sim/live"
)

// devControls are the commands to a fleet that `skein dev` runs.
func (a *app) devControls() []*cobra.Command {
	return []*cobra.Command{
		a.devControl("list", "", "List the robots of the running fleet"),
		a.devControl("add", "", "Boot one more robot"),
		a.devControl("kill", "ROBOT", "End a robot as a power cut would: it says no goodbye"),
		a.devControl("start", "ROBOT", "Boot a robot that was killed"),
	}
}

func (a *app) devControl(action, argument, short string) *cobra.Command {
	var data string
	use, args := action, exactly()
	if argument != "" {
		use, args = action+" "+argument, exactly(argument)
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			robot := ""
			if len(args) > 0 {
				robot = args[0]
			}
			robots, err := a.starters.CommandDev(cmd.Context(), data, action, robot)
			if err != nil {
				return devCode(err)
			}
			return a.print(map[string][]DevRobot{"robots": robots}, func(w io.Writer) { printDevRobots(w, robots) })
		},
	}
	cmd.Flags().StringVar(&data, "data", devFolder, "folder of the fleet")
	return cmd
}

// devCode gives errors of a running fleet their exit codes.
func devCode(err error) error {
	switch {
	case errors.Is(err, live.ErrNoSuchRobot):
		return withCode(exitNotFound, err)
	case errors.Is(err, live.ErrNotRunning):
		return withCode(exitUnreachable, err)
	case errors.Is(err, context.DeadlineExceeded):
		return withCode(exitTimeout, err)
	}
	return err
}

func printDevRobots(w io.Writer, robots []DevRobot) {
	for _, r := range robots {
		state := r.HTTP
		if state == "" {
			state = "dead"
		}
		fmt.Fprintf(w, "%s\t%s\n", r.Name, state)
	}
}
