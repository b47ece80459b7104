package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/gateway/view"
)

// eventsAt is what the fleet had decided at a moment.
func (a *app) eventsAt() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:   "at WHEN",
		Short: "Show what the fleet had decided at a moment, in figures that two nodes can compare",
		Long: "Show what the fleet had decided at a moment, in figures that two nodes can compare. WHEN is\n" +
			"the number of an event, a time like 2026-07-07T14:00:00Z, or 10m for ten minutes ago.\n" +
			"`skein robots --at WHEN` and the like show the fleet of that moment.",
		Args: exactly("WHEN"),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		at, err := moment(args[0], a.now())
		if err != nil {
			return usage(err)
		}
		d, err := c.Decided(ctx, at)
		if err != nil {
			return err
		}
		return a.print(d, func(w io.Writer) { decidedHuman(w, d) })
	}, withRead)
}

func decidedHuman(w io.Writer, d view.Decided) {
	fields(w,
		"Fleet", fmt.Sprintf("%s (%s)", d.Name, d.FleetID),
		"Event", fmt.Sprint(d.AsOf.Cursor.Seq),
		"History", d.AsOf.Cursor.History,
		"Chain hash", d.AsOf.Cursor.Hash,
		"State hash", d.StateHash,
		"Nodes", fmt.Sprintf("%d members of %d, %d voters", d.Counts.Members, d.Counts.Nodes, d.Counts.Voters),
		"Robots", fmt.Sprint(d.Counts.Robots),
		"Groups", fmt.Sprint(d.Counts.Groups),
		"Persons", fmt.Sprint(d.Counts.Persons),
		"Enrolments", fmt.Sprint(d.Counts.Enrolments),
		"Event level", fmt.Sprint(d.Ceiling),
		"Recoveries", fmt.Sprint(d.Recoveries))
	freshness(w, d.AsOf)
}

func (a *app) eventsDiff() *cobra.Command {
	return a.asking(&cobra.Command{
		Use:     "diff WHEN WHEN",
		Short:   "Show what is otherwise at one moment than at another",
		Example: "  skein events diff 120 180\n  skein events diff 1h 0",
		Args:    exactly("WHEN", "WHEN"),
	}, func(ctx context.Context, c *client.Client, args []string) error {
		var at [2]string
		for i := range at {
			var err error
			if at[i], err = moment(args[i], a.now()); err != nil {
				return usage(err)
			}
		}
		d, err := c.Diff(ctx, at[0], at[1])
		if err != nil {
			return err
		}
		return a.print(d, func(w io.Writer) { diffHuman(w, d) })
	}, withRead)
}

func diffHuman(w io.Writer, d view.Diff) {
	fmt.Fprintf(w, "From event %d to event %d:\n", d.From.Seq, d.To.Seq)
	if len(d.Changes) == 0 {
		fmt.Fprintln(w, "  nothing is otherwise")
	}
	for _, c := range d.Changes {
		name := shortIDs(c.ID)
		if c.Name != "" {
			name = fmt.Sprintf("%s (%s)", c.Name, name)
		}
		sign := map[string]string{"added": "+", "removed": "-"}[c.What]
		if sign == "" {
			sign = "~"
		}
		fmt.Fprintln(w, clean(fmt.Sprintf("%s %s %s", sign, c.Kind, name)))
		for _, f := range c.Fields {
			fmt.Fprintln(w, "    "+clean(fmt.Sprintf("%s: %s -> %s", f.Field, orNothing(f.From), orNothing(f.To))))
		}
	}
	if d.More {
		fmt.Fprintln(w, "There is more; choose moments that are nearer to each other.")
	}
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return shortIDs(text)
}

// eventsQuery is every way to choose events.
func (a *app) eventsQuery() *cobra.Command {
	var s selection
	var from, until string
	cmd := &cobra.Command{
		Use:     "query",
		Short:   "Find events by stream, type, actor and time",
		Example: "  skein events query --type robot. --actor anna --from 24h\n  skein events query --stream robot/gander --newest --limit 5",
		Args:    exactly(),
	}
	s.register(cmd, 50)
	flags := cmd.Flags()
	flags.StringVar(&s.filter.Actor, "actor", "", "only what this person, or the node with this id, is responsible for")
	flags.StringVar(&from, "from", "", "only from this time on, like 2026-07-07T14:00:00Z, or 24h for a day ago")
	flags.StringVar(&until, "until", "", "only up to this time")
	flags.Uint64Var(&s.since, "since", 0, "only after the event of this number")
	flags.Uint64Var(&s.before, "before", 0, "only before the event of this number")
	flags.BoolVar(&s.newest, "newest", false, "the last that fit instead of the first")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		if err := s.check(ctx, c, 1); err != nil {
			return err
		}
		for _, bound := range []struct {
			name, text string
			to         *time.Time
		}{{"from", from, &s.filter.From}, {"until", until, &s.filter.Until}} {
			t, err := timeOf(bound.text, a.now())
			if err != nil {
				return usage(fmt.Errorf("--%s %w", bound.name, err))
			}
			*bound.to = t
		}
		events, err := read(ctx, c, s)
		if err != nil {
			return err
		}
		return a.print(events, func(w io.Writer) { eventsHuman(w, events) })
	}, withRead)
}

// timeOf reads a time, or how long ago; "" is none.
func timeOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago).UTC(), nil
	}
	at, err := view.ParseAt(text)
	if err != nil || at.Time.IsZero() {
		return time.Time{}, fmt.Errorf("%q is no time; write it like 2026-07-07T14:00:00Z, or 24h for a day ago", clean(text))
	}
	return at.Time, nil
}

// read reads up to s.limit events page by page.
func read(ctx context.Context, c *client.Client, s selection) (view.Events, error) {
	all := view.Events{Events: []view.Event{}}
	q := view.EventQuery{EventFilter: s.filter, After: s.since, Before: s.before, Newest: s.newest}
	if s.newest {
		// The answer's cursor is from before reading: nothing up to it is missing.
		fleet, err := c.Fleet(ctx)
		if err != nil {
			return all, err
		}
		all.AsOf = fleet.AsOf
		if head := fleet.AsOf.Cursor.Seq; q.Before == 0 || q.Before > head {
			q.Before = head + 1
		}
	}
	for {
		q.Limit = min(pageEvents, s.limit-len(all.Events))
		page, err := c.Query(ctx, q)
		if err != nil {
			return all, err
		}
		if s.newest {
			all.Events = append(slices.Clone(page.Events), all.Events...)
		} else {
			all.Events, all.AsOf = append(all.Events, page.Events...), page.AsOf
		}
		all.Compacted, all.More = all.Compacted || page.Compacted, page.More
		if !page.More || len(page.Events) == 0 || len(all.Events) >= s.limit {
			return all, nil
		}
		if s.newest {
			q.Before = page.Events[0].Seq
		} else {
			q.After = page.Events[len(page.Events)-1].Seq
		}
	}
}

// eventsWatch follows the log over a WebSocket, event by event as they come.
func (a *app) eventsWatch() *cobra.Command {
	var filter view.WatchFilter
	var since uint64
	var cursor string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow the log as it grows, from any place, over the loss of nodes",
		Long: "Follow the log as it grows, until interrupted: from the present, from --since a number, or from\n" +
			"--cursor, the cursor of an earlier frame. Each event comes once and in order; where that is\n" +
			"not possible, standard error says so (with --json: a frame on standard output). With --json\n" +
			"every line is a frame with the cursor to go on at. If the node dies, it goes on at the next\n" +
			"address of --http, where it stopped.",
		Args: exactly(),
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.Stream, "stream", "", "only this stream, like robot/ID, or streams that start so, like robot/")
	flags.StringVar(&filter.Type, "type", "", "only this type, or types that start so, like robot.")
	flags.StringVar(&filter.Actor, "actor", "", "only what this person, or the node with this id, is responsible for")
	flags.Uint64Var(&since, "since", 0, "from the event after this number on")
	flags.StringVar(&cursor, "cursor", "", `from this cursor on, as JSON: {"history":…,"seq":…,"hash":…}`)
	return a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		w := client.Watching{WatchRequest: view.WatchRequest{Filter: filter}, Each: a.showFrame, Lost: a.showLost}
		switch {
		case cursor != "" && flags.Changed("since"):
			return usage(fmt.Errorf("--since and --cursor both say where to begin; give one"))
		case cursor != "":
			w.Cursor = new(view.Cursor)
			if err := json.Unmarshal([]byte(cursor), w.Cursor); err != nil || w.Cursor.History == "" {
				return usage(fmt.Errorf("--cursor is no cursor; copy one from a frame of `skein events watch --json`"))
			}
		case flags.Changed("since"):
			w.Since = &since
		}
		return c.Watch(ctx, w)
	})
}

// showFrame prints a frame: events to standard output, what is amiss to standard
// error; with --json all but ticks as they are.
func (a *app) showFrame(f view.WatchFrame) error {
	if a.json {
		if f.Type == view.WatchTick {
			return nil
		}
		text, err := json.Marshal(f)
		if err == nil {
			_, err = fmt.Fprintln(a.out, string(text))
		}
		return err
	}
	for _, e := range f.Events {
		if err := a.printEvent(e); err != nil {
			return err
		}
	}
	switch f.Type {
	case view.WatchCompacted:
		a.noteWatch("%s; going on after event %d", f.Reason, f.Cursor.Seq)
	case view.WatchReset:
		kept := "look at the fleet anew, what was shown may not be part of it"
		if f.Kept {
			kept = "what was shown is part of it"
		}
		a.noteWatch("%s; %s; going on after event %d", f.Reason, kept, f.Cursor.Seq)
	case view.WatchBehind:
		a.noteWatch("this node is behind by %d events", f.By)
	}
	return nil
}

func (a *app) showLost(err error) { a.noteWatch("%s; going on at the next node", err) }

func (a *app) noteWatch(format string, args ...any) {
	fmt.Fprintln(a.err, "skein: events watch: "+oneLine(fmt.Sprintf(format, args...)))
}
