package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/gateway/view"
)

// alertsCommand is what is wrong in the fleet, by what it decided.
func (a *app) alertsCommand() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:   "alerts",
		Short: "Show what is wrong: failed and silent robots, too few voters",
		Args:  exactly(),
	}, func(ctx context.Context, c *client.Client, _ []string) error {
		alerts, err := c.Alerts(ctx)
		if err != nil {
			return err
		}
		return a.print(alerts, func(w io.Writer) { alertsHuman(w, alerts) })
	}, withRead, withAt)
}

func alertsHuman(w io.Writer, alerts view.Alerts) {
	if len(alerts.Alerts) == 0 {
		fmt.Fprintln(w, "Nothing is wrong.")
		freshness(w, alerts.AsOf)
		return
	}
	rows := [][]string{{"SEVERITY", "ROBOT", "SINCE", "WHAT", "GROUPS"}}
	for _, alert := range alerts.Alerts {
		since := ""
		if !alert.Since.IsZero() {
			since = alert.Since.UTC().Format(time.DateTime)
		}
		rows = append(rows, []string{string(alert.Severity), alert.Name, since, alert.Message, strings.Join(alert.Groups, ", ")})
	}
	table(w, rows)
	freshness(w, alerts.AsOf)
}
