package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/consensus/event"
	"skein/node/client"
	"skein/node/gateway/view"
)

func (a *app) robotsCommand() *cobra.Command {
	list := a.robotsList()
	return group("robots", "Show robots, label them, lead them through their lives", list,
		append([]*cobra.Command{list, a.robotsShow(), a.robotsLabel()}, a.robotSteps()...)...)
}

func (a *app) robotsList() *cobra.Command {
	return a.asking(&cobra.Command{Use: "list", Short: "List the robots", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Robots(ctx)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) { robotsHuman(w, list) })
		}, withRead, withAt)
}

func robotsHuman(w io.Writer, list view.Robots) {
	if len(list.Robots) == 0 {
		fmt.Fprintln(w, "No robots yet. Make a token with `skein token create`, and type the line it prints on a robot.")
		freshness(w, list.AsOf)
		return
	}
	rows := [][]string{{"NAME", "ID", "TYPE", "STATUS", "STATE", "ROLE", "CPU", "MEMORY", "TEMP", "BATTERY", "NEWS"}}
	for _, r := range list.Robots {
		cpu, memory, temperature, battery := "", "", "", ""
		if t := r.Telemetry; t != nil {
			cpu = fmt.Sprintf("%.0f%%", t.CPUPercent)
			if t.MemTotalBytes > 0 {
				memory = fmt.Sprintf("%.0f%%", 100*float64(t.MemUsedBytes)/float64(t.MemTotalBytes))
			}
			temperature, battery = optional(t.TemperatureC, "°C"), optional(t.BatteryPercent, "%")
		}
		rows = append(rows, []string{r.Name, r.ID.Short(), r.Type, string(r.Status), r.Lifecycle.State, string(r.Role), cpu, memory, temperature, battery, heard(r)})
	}
	table(w, rows)
	freshness(w, list.AsOf)
}

func optional(v *float64, unit string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%s", *v, unit)
}

func heard(r view.Robot) string {
	if r.HeardAgeMillis == nil {
		return ""
	}
	return ageMillis(*r.HeardAgeMillis)
}

// robot finds the robot that a person named.
func robot(ctx context.Context, c *client.Client, which string) (view.Robot, error) {
	list, err := c.Robots(ctx)
	if err != nil {
		return view.Robot{}, err
	}
	return client.FindRobot(list.Robots, which)
}

func (a *app) robotsShow() *cobra.Command {
	return a.asking(&cobra.Command{Use: "show ROBOT", Short: "Show everything about one robot", Args: exactly("ROBOT")},
		func(ctx context.Context, c *client.Client, args []string) error {
			list, err := c.Robots(ctx)
			if err != nil {
				return err
			}
			r, err := client.FindRobot(list.Robots, args[0])
			if err != nil {
				return err
			}
			return a.print(view.OneRobot{Robot: r, AsOf: list.AsOf}, func(w io.Writer) {
				robotHuman(w, r, a.now())
				freshness(w, list.AsOf)
			})
		}, withRead, withAt)
}

func robotHuman(w io.Writer, r view.Robot, now time.Time) {
	pairs := []string{
		"Name", r.Name,
		"ID", string(r.ID),
		"Type", r.Type,
		"Status", fmt.Sprintf("%s for %s", r.Status, age(now.Sub(r.StatusSince))),
		"State", lifecycle(r, now),
		"Role", string(r.Role),
		"Voter", fmt.Sprintf("eligible: %s, approved: %s", yesNo(r.VoterEligible), yesNo(r.VoterApproved)),
		"Computer", r.Hostname,
		"Deployed", deployed(r, now),
		"Version", fmt.Sprintf("%s (%s/%s)", r.Version, r.OS, r.Arch),
		"Labels", labels(r),
		"Groups", strings.Join(r.Groups, ", "),
		"Console", r.HTTP,
		"Last news", heard(r),
	}
	if t := r.Telemetry; t != nil {
		const mib = 1 << 20
		pairs = append(pairs,
			"CPU", fmt.Sprintf("%.1f%%, load %.2f", t.CPUPercent, t.Load1),
			"Memory", fmt.Sprintf("%d of %d MB", t.MemUsedBytes/mib, t.MemTotalBytes/mib),
			"Disk", fmt.Sprintf("%d of %d MB", t.DiskUsedBytes/mib, t.DiskTotalBytes/mib),
			"Network", fmt.Sprintf("%.0f B/s in, %.0f B/s out", t.NetRxBytesPerSec, t.NetTxBytesPerSec),
			"Temperature", optional(t.TemperatureC, " °C"),
			"Battery", optional(t.BatteryPercent, " %"),
			"Up for", age(time.Duration(t.UptimeSeconds*float64(time.Second))))
	}
	fields(w, pairs...)
}

// lifecycle is where a robot is in its life, with its last failure.
func lifecycle(r view.Robot, now time.Time) string {
	l := r.Lifecycle
	text := l.State
	if l.Since != nil {
		text += " for " + age(now.Sub(*l.Since))
	}
	if f := l.LastFailure; f != nil {
		text += fmt.Sprintf("; last failure %s ago: %s (%s)", age(now.Sub(f.At)), f.Message, f.Kind)
	}
	return text
}

func deployed(r view.Robot, now time.Time) string {
	if r.Deployed == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s), %s for %s", r.Deployed.Version, r.Deployed.Deployment, r.Deployed.Status, age(now.Sub(r.Deployed.Since)))
}

func labels(r view.Robot) string {
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(r.Labels)) {
		texts = append(texts, key+"="+r.Labels[key])
	}
	return strings.Join(texts, ", ")
}

func (a *app) robotsLabel() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:     "label ROBOT KEY=VALUE... KEY-...",
		Short:   "Set labels of a robot (KEY=VALUE) and remove them (KEY-)",
		Example: "  skein robots label gander site=north floor-",
		Args:    atLeast(2, "ROBOT", "KEY=VALUE", "..."),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		change, err := parseLabels(args[1:])
		if err != nil {
			return usage(err)
		}
		r, err := robot(ctx, c, args[0])
		if err != nil {
			return err
		}
		return a.decide(ctx, c, r, "has new labels", change.Draft(r.ID))
	})
}

func parseLabels(args []string) (event.RobotLabelsChanged, error) {
	change := event.RobotLabelsChanged{Set: map[string]string{}}
	for _, arg := range args {
		if key, value, ok := strings.Cut(arg, "="); ok && key != "" {
			change.Set[key] = value
			continue
		}
		key, ok := strings.CutSuffix(arg, "-")
		if !ok || key == "" || strings.Contains(key, "=") {
			return change, fmt.Errorf("%q is no label; write KEY=VALUE to set one, KEY- to remove one", arg)
		}
		change.Remove = append(change.Remove, key)
	}
	for _, key := range change.Remove {
		if _, both := change.Set[key]; both {
			return change, fmt.Errorf("label %q cannot be set and removed at once; keep one of the two", key)
		}
	}
	if len(change.Set)+len(change.Remove) == 0 {
		return change, errors.New("no label was given; write KEY=VALUE to set one, KEY- to remove one")
	}
	return change, nil
}
