package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"skein/node/gateway/view"
)

// print writes v as JSON if the person asked for that, else calls human.
func (a *app) print(v any, human func(w io.Writer)) error {
	if a.json {
		return a.printJSON(v)
	}
	human(a.out)
	return nil
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes rows under a header, in columns. The first row is the header.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
			if cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	t.Flush()
}

// fields writes name and value pairs, one a line.
func fields(w io.Writer, pairs ...string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		value := clean(pairs[i+1])
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(t, "%s\t%s\n", pairs[i], value)
	}
	t.Flush()
}

// clean replaces what could move the cursor or change colours: names and
// reasons are written by others.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// age says how long ago something was, in one unit.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "now"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func ageMillis(millis int64) string {
	if millis < 0 {
		return "never"
	}
	return age(time.Duration(millis) * time.Millisecond)
}

// longIDs are node ids, enrolment ids and token hashes inside a text.
var longIDs = regexp.MustCompile(`\b[a-z2-7]{24}\b`)

// shortIDs cuts every id in text to its first 8 characters, for people.
func shortIDs(text string) string {
	return longIDs.ReplaceAllStringFunc(text, func(id string) string { return id[:8] })
}

// freshness says under a table what kind of read it is of, of which event and
// how old; and warns when it is the past, or old.
func freshness(w io.Writer, asOf view.AsOf) {
	if at := asOf.At; at != nil {
		if at.Seq == 0 {
			fmt.Fprintln(w, "\nThis is the past: nothing had been decided yet.")
			return
		}
		when := ""
		if at.Time != nil {
			when = ", " + at.Time.UTC().Format(time.DateTime) + " UTC"
		}
		fmt.Fprintf(w, "\nThis is the past: what was decided up to event %d%s.\n", at.Seq, when)
		return
	}
	switch {
	case asOf.AgeMillis < 0:
		fmt.Fprintln(w, "\nThis node has not heard from a leader since it started: this is what it knew before.")
	case asOf.Stale:
		fmt.Fprintf(w, "\nThis is old: the node that answered last heard from the leader %s ago.\n", ageMillis(asOf.AgeMillis))
	default:
		fmt.Fprintf(w, "\n%s read, event %d, at most %s old.\n", readName(asOf.Read), asOf.Cursor.Seq, ageMillis(asOf.AgeMillis))
	}
}

func readName(r view.Read) string {
	switch r {
	case view.Leased:
		return "Leased"
	case view.Linearizable:
		return "Linearizable"
	}
	return "Local"
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
