package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// outputBytes bounds what is kept of one test; the end of a log says more than
// its beginning.
const outputBytes = 256 << 10

// report prints what happens while it happens and remembers what did not.
type report struct {
	out     io.Writer
	output  map[place]string
	skipped map[string][]string // reason → tests
	failed  []string            // innermost tests, else packages, else what fail was told
	passed  int
}

// place is a test, or a package as a whole when test is empty.
type place struct{ pkg, test string }

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[place]string{}, skipped: map[string][]string{}}
}

func (r *report) say(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

// event takes in one event of go test.
func (r *report) event(e event) {
	at := place{e.Package, e.Test}
	switch e.Action {
	case "output":
		text := r.output[at] + e.Output
		r.output[at] = text[max(0, len(text)-outputBytes):]
	case "build-output":
		r.say("%s", e.Output)
	case "pass":
		r.pass(at, e)
	case "fail":
		r.failTest(at, e)
	case "skip":
		if e.Test != "" { // else a package without tests
			r.skip(e.Package+"."+e.Test, reason(r.output[at]))
		}
		delete(r.output, at)
	}
}

func (r *report) pass(at place, e event) {
	delete(r.output, at)
	if e.Test != "" {
		r.passed++
		return
	}
	r.say("ok    %s  %.1fs\n", e.Package, e.Elapsed)
}

// failTest shows what a failed test or package wrote. A test that failed because
// a part of it did is not listed again.
func (r *report) failTest(at place, e event) {
	r.say("%s", r.output[at])
	delete(r.output, at)
	name, inner := e.Package, e.Package+"."
	if e.Test != "" {
		name = e.Package + "." + e.Test
		inner = name + "/"
	} else {
		r.say("FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
	}
	if !slices.ContainsFunc(r.failed, func(known string) bool { return strings.HasPrefix(known, inner) }) {
		r.failed = append(r.failed, name)
	}
}

// fail notes a failure that no event tells.
func (r *report) fail(what string) {
	r.say("FAIL  %s\n", what)
	r.failed = append(r.failed, what)
}

func (r *report) skip(what, why string) { r.skipped[why] = append(r.skipped[why], what) }

// reason finds what was given to t.Skip: the last "file.go:12: text" line.
func reason(output string) string {
	why := "no reason given"
	for line := range strings.Lines(output) {
		if place, text, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.Contains(place, ".go:") {
			why = text
		}
	}
	return why
}

// end prints the summary and gives the exit code.
func (r *report) end(took time.Duration, noSkip bool) int {
	skips := 0
	for _, why := range slices.Sorted(maps.Keys(r.skipped)) {
		if skips == 0 {
			r.say("\nNot run:\n")
		}
		skips += len(r.skipped[why])
		r.say("  %s\n    %s\n", why, strings.Join(slices.Sorted(slices.Values(r.skipped[why])), "\n    "))
	}
	if len(r.failed) > 0 {
		r.say("\nFailed:\n  %s\n", strings.Join(r.failed, "\n  "))
	}
	r.say("\n%d tests passed, %d failed, %d not run, %v\n", r.passed, len(r.failed), skips, took.Round(time.Second))
	switch {
	case len(r.failed) > 0:
		return 1
	case skips > 0 && noSkip:
		r.say("SKEIN_NO_SKIP=1 allows no test that is not run\n")
		return 1
	}
	return 0
}
