package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/gateway/view"
)

// robotSteps are the commands that lead a robot through its life. Whether it can
// go there from where it is, the fleet decides and says.
func (a *app) robotSteps() []*cobra.Command {
	return []*cobra.Command{
		a.robotProvision(),
		a.robotStep("activate", "activate", "Put a ready robot to work", "is active"),
		a.robotStep("deactivate", "deactivate", "End the work of an active robot in good order", "is ready"),
		a.robotMaintenance(),
		a.robotFail(),
		a.robotStep("recover", "recover", "End a robot's failure", "has recovered"),
		a.robotRetire(),
	}
}

// robotStep is a command for a step that needs a reason at most.
func (a *app) robotStep(name, step, short, outcome string) *cobra.Command {
	var why view.Why
	cmd := &cobra.Command{Use: name + " ROBOT", Short: short, Args: exactly("ROBOT")}
	cmd.Flags().StringVar(&why.Reason, "reason", "", "why, for the log")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		return a.step(ctx, c, args[0], step, why, outcome)
	})
}

// step finds the robot, asks for the step, and says what has become of it.
func (a *app) step(ctx context.Context, c *client.Client, which, step string, body any, outcome string) error {
	r, err := robot(ctx, c, which)
	if err != nil {
		return err
	}
	done, err := c.Step(ctx, r.ID, step, body)
	if err != nil {
		return err
	}
	return a.print(decision{view.NodeRef{ID: r.ID, Name: r.Name}, done.Receipt}, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s) %s, event %d.\n", clean(r.Name), r.ID.Short(), outcome, done.Receipt.Last)
	})
}

func (a *app) robotProvision() *cobra.Command {
	var p view.Provision
	cmd := &cobra.Command{
		Use: "provision ROBOT", Short: "Say that a robot is being made ready; and again, with --version, that it is", Args: exactly("ROBOT"),
		Example: "  skein robots provision gander --firmware 1.4 --capability arm\n  skein robots provision gander --version 2.0.1",
	}
	cmd.Flags().StringVar(&p.Firmware, "firmware", "", "build of its firmware")
	cmd.Flags().StringVar(&p.Version, "version", "", "build of what it runs; the second time the robot is ready with it")
	cmd.Flags().StringSliceVar(&p.Capabilities, "capability", nil, "what it can do, like arm or camera; may be given several times")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		return a.step(ctx, c, args[0], "provision", p, "is provisioned")
	})
}

func (a *app) robotMaintenance() *cobra.Command {
	var why view.Why
	var end bool
	cmd := &cobra.Command{Use: "maintenance ROBOT", Short: "Take a robot into maintenance, or with --end give it back", Args: exactly("ROBOT")}
	cmd.Flags().StringVar(&why.Reason, "reason", "", "why, for the log")
	cmd.Flags().BoolVar(&end, "end", false, "give it back; it is ready then")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		if end {
			return a.step(ctx, c, args[0], "maintenance/end", view.Why{}, "is back from maintenance")
		}
		return a.step(ctx, c, args[0], "maintenance", why, "is in maintenance")
	})
}

func (a *app) robotFail() *cobra.Command {
	var f view.Fail
	cmd := &cobra.Command{Use: "fail ROBOT --message TEXT", Short: "Say that a robot cannot do its work", Args: exactly("ROBOT")}
	cmd.Flags().StringVar(&f.Message, "message", "", "what is wrong, one line")
	cmd.Flags().StringVar(&f.Code, "code", "", "the same for programs, like E17")
	cmd.Flags().StringVar(&f.Kind, "kind", "unknown", "connection, deployment, hardware, software or unknown")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		if f.Message == "" {
			return usage(fmt.Errorf("--message is missing; say what is wrong"))
		}
		return a.step(ctx, c, args[0], "fail", f, "has failed")
	})
}

func (a *app) robotRetire() *cobra.Command {
	var why view.Why
	var yes bool
	cmd := &cobra.Command{Use: "retire ROBOT", Short: "Take a robot out of service until it registers anew", Args: exactly("ROBOT")}
	cmd.Flags().StringVar(&why.Reason, "reason", "", "why, for the log")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		r, err := robot(ctx, c, args[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, fmt.Sprintf("Take %s (%s) out of service?", r.Name, r.ID)); err != nil {
			return err
		}
		return a.step(ctx, c, string(r.ID), "retire", why, "is retired")
	})
}
