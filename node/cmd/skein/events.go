package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
)

const (
	// pageEvents is how many events one request asks for at most.
	pageEvents = 500
	// maxPollInterval is how far the interval grows while no node answers.
	maxPollInterval = 5 * time.Second
	// maxEvents bounds --limit.
	maxEvents = 100_000
	// dataWidth is how much of an event's payload fits into a line for people.
	dataWidth = 100
)

func (a *app) eventsCommand() *cobra.Command {
	list := a.eventsList()
	return group("events", "Read what the fleet has decided", list,
		list, a.eventsTail(), a.eventsWatch(), a.eventsQuery(), a.eventsAt(), a.eventsDiff(), a.eventsTypes())
}

// selection is the flags that choose events.
type selection struct {
	filter view.EventFilter
	limit  int
	// since and before bound the numbers, both exclusive; 0 is no bound.
	since, before uint64
	newest        bool
}

func (s *selection) register(cmd *cobra.Command, limit int) {
	flags := cmd.Flags()
	flags.StringVar(&s.filter.Stream, "stream", "", "only this stream, like robot/NAME or group/NAME, or all of a kind, like robot/")
	flags.StringVar(&s.filter.Type, "type", "", "only this type, or types that start so, like robot.")
	flags.IntVar(&s.limit, "limit", limit, "how many at most")
}

// check refuses a bad choice, and puts the id for a robot's name into a stream.
func (s *selection) check(ctx context.Context, c *client.Client, minimum int) error {
	if s.limit < minimum || s.limit > maxEvents {
		return usage(fmt.Errorf("--limit %d must be %d to %d", s.limit, minimum, maxEvents))
	}
	kind, subject, _ := strings.Cut(s.filter.Stream, "/")
	if _, err := ident.ParseNodeID(subject); err == nil || subject == "" || kind != "robot" && kind != "node" {
		return nil
	}
	named, err := c.Robot(ctx, subject)
	if err != nil {
		return err
	}
	s.filter.Stream = kind + "/" + string(named.Robot.ID)
	return nil
}

func (a *app) eventsList() *cobra.Command {
	var s selection
	var since uint64
	var follow bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List events: the newest, or those after --since",
		Args:  exactly(),
	}
	s.register(cmd, 50)
	cmd.Flags().Uint64Var(&since, "since", 0, "list from the event after this number on, oldest first")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "then wait for more, until interrupted")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		if err := s.check(ctx, c, 1); err != nil {
			return err
		}
		var events view.Events
		var err error
		if s.newest = !cmd.Flags().Changed("since"); !s.newest {
			s.since = since
		}
		events, err = read(ctx, c, s)
		if s.newest {
			since = events.AsOf.Cursor.Seq
		}
		if err != nil {
			return err
		}
		if follow {
			return a.followAfter(ctx, c, s.filter, events, since)
		}
		return a.print(events, func(w io.Writer) { eventsHuman(w, events) })
	}, withRead)
}

func eventsHuman(w io.Writer, events view.Events) {
	for _, e := range events.Events {
		fmt.Fprintln(w, eventLine(e))
	}
	if len(events.Events) == 0 {
		fmt.Fprintln(w, "No event is like that.")
	}
	if events.Compacted {
		fmt.Fprintln(w, "\nOlder events are not held by the node that answered; ask a voter with --http.")
	}
	freshness(w, events.AsOf)
}

func (a *app) eventsTail() *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the newest events and wait for more, until interrupted",
		Long: "Show the newest events and wait for more, until interrupted. With --json each event is\n" +
			"one line. If the node dies it goes on at the next address of --http, where it stopped.",
		Args: exactly(),
	}
	s.register(cmd, 10)
	return a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		if err := s.check(ctx, c, 0); err != nil {
			return err
		}
		if s.newest = true; s.limit == 0 { // only those that come
			fleet, err := c.Fleet(ctx)
			if err != nil {
				return err
			}
			return a.followAfter(ctx, c, s.filter, view.Events{AsOf: fleet.AsOf}, fleet.AsOf.Cursor.Seq)
		}
		events, err := read(ctx, c, s)
		if err != nil {
			return err
		}
		return a.followAfter(ctx, c, s.filter, events, events.AsOf.Cursor.Seq)
	})
}

// eachEvent calls f for every event after seq since that filter lets through.
// It reports whether the node no longer holds some of them.
func eachEvent(ctx context.Context, c *client.Client, filter view.EventFilter, since uint64, f func(view.Event)) (compacted bool, err error) {
	for {
		page, err := c.Events(ctx, since, filter, pageEvents)
		if err != nil {
			return compacted, err
		}
		compacted = compacted || page.Compacted
		for _, e := range page.Events {
			f(e)
			since = e.Seq
		}
		if !page.More || len(page.Events) == 0 {
			return compacted, nil
		}
	}
}

// follower prints the events that come, until its context ends. It asks for
// all and picks here: what a filtered answer left out could not be told from
// what had not happened yet, so the cursor could not move safely.
type follower struct {
	app    *app
	client *client.Client
	filter view.EventFilter
	at     view.Cursor // Hash is not used
}

// follow survives the loss of a node: it asks on, at all addresses, from where
// it stopped. Only an answer that will not change ends it.
func (f *follower) follow(ctx context.Context) error {
	interval := f.app.pollInterval
	for {
		page, err := f.client.Events(ctx, f.at.Seq, view.EventFilter{}, pageEvents)
		switch code := exitCode(err); {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			interval = f.app.pollInterval
			if err := f.print(page); err != nil {
				return err
			}
			if page.More {
				continue
			}
		case code != exitUnreachable && code != exitTimeout:
			return err
		default:
			if interval == f.app.pollInterval {
				f.note("%s; still trying", err)
			}
			interval = min(2*interval, maxPollInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

// note tells a person what a program cannot see in the events.
func (f *follower) note(format string, args ...any) {
	fmt.Fprintln(f.app.err, "skein: events: "+oneLine(fmt.Sprintf(format, args...)))
}

// print writes what the filter lets through and moves the cursor. A new
// history means that the fleet was recovered: what was shown may not be part
// of it.
func (f *follower) print(page view.Events) error {
	if now := page.AsOf.Cursor; now.History != f.at.History {
		f.note("the fleet was recovered into a new history; going on after its event %d", now.Seq)
		f.at = now
		return nil
	}
	if page.Compacted {
		f.note("some events after %d are no longer held by the node that answers", f.at.Seq)
	}
	for _, e := range page.Events {
		if f.matches(e) {
			if err := f.app.printEvent(e); err != nil {
				return err
			}
		}
		f.at.Seq = e.Seq
	}
	return nil
}

func (f *follower) matches(e view.Event) bool {
	return fits(f.filter.Stream, e.Stream, "/") && fits(f.filter.Type, e.Type, ".")
}

// fits reports whether a pattern selects text: the same, or, where it ends with
// the separator, all that begin so. A node says the same of its own filters.
func fits(pattern, text, separator string) bool {
	if strings.HasSuffix(pattern, separator) {
		return strings.HasPrefix(text, pattern)
	}
	return pattern == "" || pattern == text
}

// printEvent writes one event on one line, also as JSON.
func (a *app) printEvent(e view.Event) error {
	line := eventLine(e)
	if a.json {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		line = string(text)
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}

// followAfter prints events that were read and then those that come.
func (a *app) followAfter(ctx context.Context, c *client.Client, filter view.EventFilter, events view.Events, at uint64) error {
	for _, e := range events.Events {
		if err := a.printEvent(e); err != nil {
			return err
		}
		at = max(at, e.Seq)
	}
	f := follower{app: a, client: c, filter: filter, at: view.Cursor{History: events.AsOf.Cursor.History, Seq: at}}
	return f.follow(ctx)
}

// eventLine is one event on one line for people.
func eventLine(e view.Event) string {
	data := shortIDs(string(e.Data))
	if len(data) > dataWidth {
		data = strings.ToValidUTF8(data[:dataWidth], "") + "…"
	}
	who := string(e.Actor.Kind)
	if e.Actor.ID != "" {
		who = shortIDs(e.Actor.ID)
	}
	return clean(fmt.Sprintf("%6d  %s  %-26s %-18s %-10s %s", e.Seq, e.Time.UTC().Format(time.DateTime), e.Type, shortIDs(e.Stream), who, data))
}

func (a *app) eventsTypes() *cobra.Command {
	return a.asking(&cobra.Command{Use: "types", Short: "List the types of events, and who may propose them", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			types, err := c.EventTypes(ctx)
			if err != nil {
				return err
			}
			return a.print(types, func(w io.Writer) {
				rows := [][]string{{"TYPE", "SCHEMA", "STREAM", "BY", "FIELDS"}}
				for _, t := range types.Types {
					var names []string
					for _, f := range t.Fields {
						names = append(names, f.Name)
					}
					rows = append(rows, []string{t.Type, strconv.FormatUint(t.Schema, 10), t.Stream, strings.Join(t.Authority, ", "), strings.Join(names, ", ")})
				}
				table(w, rows)
			})
		})
}
