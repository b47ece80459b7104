package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/node/client"
	"skein/node/config"
	"skein/node/gateway/view"
)

// exitCase is a command and how it ends.
type exitCase struct {
	name    string
	prepare func(*fakeFleet, *shell)
	args    string
	code    int
	says    string
}

// exitCases are failures of every kind.
func exitCases(t *testing.T) []exitCase {
	const robots = "GET /api/v1/robots"
	const propose = "POST /api/v1/events"
	return []exitCase{
		{"fine", nil, "robots list", exitOK, "gander"},
		{"conflict", func(f *fakeFleet, _ *shell) {
			f.refuse(propose, 409, "conflict", "it was revoked before", "look at `skein node list`")
		}, "node revoke gander --yes", exitFailed, "it was revoked before; look at `skein node list`"},
		{"a bug in the node", func(f *fakeFleet, _ *shell) { f.refuse(robots, 500, "internal", "this node failed", "see its log") }, "robots list", exitFailed, "see its log"},
		{"another server", func(f *fakeFleet, _ *shell) {
			f.handle(robots, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })
		}, "robots list", exitFailed, "check --http"},

		{"unknown command", nil, "robits", exitUsage, "did you mean `skein robots`"},
		{"unknown subcommand", nil, "robots shw", exitUsage, "did you mean `skein robots show`"},
		{"unknown subcommand of completion", nil, "completion tcsh", exitUsage, "unknown command"},
		{"unknown flag", nil, "robots list --colour", exitUsage, "`skein robots list --help`"},
		{"wrong flag value", nil, "robots list --timeout soon", exitUsage, "--timeout takes a duration like 90s or 24h, not \"soon\"; `skein robots list --help`"},
		{"no number", nil, "events query --since 10m", exitUsage, "--since takes a whole number, 0 or more, not \"10m\""},
		{"no time at all", nil, "robots list --timeout 0s", exitUsage, "--timeout"},
		{"missing argument", nil, "robots show", exitUsage, "ROBOT is missing"},
		{"too many arguments", nil, "status now", exitUsage, "one word too many"},
		{"bad address", nil, "status --http ftp://x", exitUsage, "http://127.0.0.1:7780"},
		{"ambiguous name", nil, "robots show goose", exitUsage, string(gooseID) + " (goose), " + string(goose2ID)},
		{"no label", nil, "robots label gander site", exitUsage, "KEY=VALUE"},
		{"refused as invalid", func(f *fakeFleet, _ *shell) { f.refuse(propose, 422, "invalid", "the key is too long", "shorten it") }, "robots label gander a=b", exitUsage, "shorten it"},
		{"missing identity file", func(_ *fakeFleet, s *shell) { s.env["SKEIN_IDENTITY"] = "/nonexistent/admin.json" }, "status", exitUsage, "`skein fleet init`"},

		{"no such robot", nil, "robots show nobody", exitNotFound, "`skein robots list`"},
		{"not found by the node", func(f *fakeFleet, _ *shell) { f.refuse(propose, 404, "not_found", "no such enrolment", "list them") },
			"fleet enrolment revoke " + string(ganderID), exitNotFound, "no such enrolment"},

		{"not allowed", func(f *fakeFleet, _ *shell) {
			f.refuse(propose, 403, "not_allowed", "this needs the scope admin", "ask an admin")
		}, "node revoke gander --yes", exitNotAllowed, "ask an admin"},
		{"no identity", func(_ *fakeFleet, s *shell) { delete(s.env, "SKEIN_IDENTITY") }, "status", exitNotAllowed, "--identity FILE"},
		{"somebody else's identity", func(_ *fakeFleet, s *shell) { s.env["SKEIN_IDENTITY"] = newFakeFleet(s.t).identity }, "status", exitNotAllowed, "person or signature is wrong"},

		{"nobody there", func(_ *fakeFleet, s *shell) { s.env["SKEIN_HTTP"] = refusedAddress(s.t) }, "status", exitUnreachable, "`skein run`"},
		{"no socket", func(_ *fakeFleet, s *shell) { delete(s.env, "SKEIN_HTTP") }, "status --data " + filepath.Join(t.TempDir(), "none"), exitUnreachable, "control.sock"},
		{"no leader", func(f *fakeFleet, _ *shell) {
			f.refuse(propose, 503, "no_leader", "the fleet has no leader", "bring back a voter")
		}, "node approve gander", exitUnreachable, "bring back a voter"},
		{"busy", func(f *fakeFleet, _ *shell) { f.refuse(propose, 503, "busy", "too much to do", "retry after 50 ms") }, "node approve gander", exitUnreachable, "retry"},
		{"status without a leader", func(f *fakeFleet, _ *shell) {
			fleet := sampleFleet()
			fleet.Leader = nil
			f.json("GET /api/v1/fleet", fleet)
		}, "status", exitUnreachable, "none known"},

		{"no answer in time", func(f *fakeFleet, _ *shell) {
			f.handle(robots, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, "robots list --timeout 30ms", exitTimeout, "longer --timeout"},
		{"outcome unknown", func(f *fakeFleet, _ *shell) {
			f.refuse(propose, 504, "unknown_outcome", "it may have been decided", "look before you try again")
		}, "node approve gander", exitTimeout, "look before"},
	}
}

// Every kind of failure against a real server gives its code, one line on
// standard error with a next step, and nothing on standard output.
func TestExitCodes(t *testing.T) {
	for _, c := range exitCases(t) {
		t.Run(c.name, func(t *testing.T) {
			f := newFakeFleet(t)
			s := f.shell(t)
			if c.prepare != nil {
				c.prepare(f, s)
			}
			r := s.run(strings.Fields(c.args)...)
			r.want(t, c.code, c.says)
			if c.code != exitOK && c.name != "status without a leader" && r.out != "" {
				t.Errorf("a failure wrote to standard output: %q", r.out)
			}
		})
	}
}

func TestExitCodeOfErrors(t *testing.T) {
	_, configErr := config.Parse("htpp = 1", "f")
	_, tokenErr := ident.ParseJoinToken("x")
	cases := []struct {
		err  error
		code int
	}{
		{nil, exitOK},
		{errors.New("anything"), exitFailed},
		{configErr, exitUsage},
		{tokenErr, exitUsage},
		{&join.Refusal{Code: join.CodeTokenUsed}, exitNotAllowed},
		{&join.Refusal{Code: join.CodeTokenExpired}, exitNotAllowed},
		{&join.Refusal{Code: join.CodeTokenUnknown}, exitNotAllowed},
		{&join.Refusal{Code: join.CodeEnrolmentRevoked}, exitNotAllowed},
		{&join.Refusal{Code: join.CodeRevoked}, exitNotAllowed},
		{&join.Refusal{Code: join.CodeWrongFleet}, exitNotAllowed},
		{&join.Refusal{Code: join.CodeNoLeader}, exitUnreachable},
		{&join.Refusal{Code: join.CodeBusy}, exitUnreachable},
		{&join.Refusal{Code: join.CodeClockSkew}, exitFailed},
		{&event.Fault{Code: event.CodeNotFound}, exitNotFound},
		{&view.Problem{Status: 404, Code: "brand_new"}, exitNotFound},
		{&view.Problem{Status: 418, Code: "brand_new"}, exitFailed},
		{withCode(exitTimeout, errors.New("x")), exitTimeout},
		{context.DeadlineExceeded, exitTimeout},
		{fmt.Errorf("%w: %w", client.ErrUnreachable, fs.ErrPermission), exitNotAllowed},
		{fmt.Errorf("%w: %w", client.ErrUnreachable, client.ErrMaybeDone), exitUnreachable},
	}
	for _, c := range cases {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.code)
		}
		if c.err == nil {
			continue
		}
		if wrapped := exitCode(fmt.Errorf("while working: %w", c.err)); wrapped != c.code {
			t.Errorf("%v, wrapped: exit code %d, want %d", c.err, wrapped, c.code)
		}
	}
	// Every code that the log or a joining robot can be refused with is mapped.
	for _, code := range []event.Code{event.CodeInvalid, event.CodeNotAllowed, event.CodeConflict, event.CodeNotFound,
		event.CodeBusy, event.CodeNoLeader, event.CodeUnknownOutcome, event.CodeUnknownType} {
		if _, ok := problemCodes[string(code)]; !ok {
			t.Errorf("event code %q has no exit code", code)
		}
	}
}

func TestErrorsAreOnePrintableLine(t *testing.T) {
	f := newFakeFleet(t)
	f.refuse("GET /api/v1/robots", 409, "conflict", "first\nsecond \x1b[31mred\x07", "next\r\nstep")
	r := f.shell(t).run("robots", "list")
	r.want(t, exitFailed, "first; second ?[31mred?")
	if strings.ContainsAny(r.err, "\x1b\x07\r") {
		t.Errorf("control characters reach the terminal: %q", r.err)
	}
}

func TestExplainAddsWhatTheErrorCannotKnow(t *testing.T) {
	cases := []struct {
		err  error
		want string
	}{
		{&view.Problem{Path: "drafts[0].data.name", Detail: "is too long", Next: "shorten it"}, "name is too long; shorten it"},
		{fmt.Errorf("%w at x: %w: EOF", client.ErrUnreachable, client.ErrMaybeDone), "look at the fleet before you try again"},
		{fmt.Errorf("ask x: %w: %w", client.ErrMaybeDone, context.DeadlineExceeded), "look at the fleet before you try again"},
		{context.DeadlineExceeded, "or ask another node with --http"},
		{fmt.Errorf("%w at x: %w", client.ErrUnreachable, fs.ErrPermission), "for example with sudo"},
		{errors.New("plain"), "plain"},
	}
	for _, c := range cases {
		if got := explain(c.err); !strings.HasSuffix(got, c.want) {
			t.Errorf("got %q, want it to end with %q", got, c.want)
		}
	}
}

// What a command sends is its own business: no path into it reaches a person.
func TestErrorsHaveNoPathsIntoRequests(t *testing.T) {
	for path, want := range map[string]string{
		"drafts[0].data.set.site": "skein: robots label: set.site is too long; shorten it\n",
		"drafts[12].data":         "skein: robots label: is too long; shorten it\n",
		"drafts[0].type":          "skein: robots label: is too long; shorten it\n",
		"drafts[0].stream":        "skein: robots label: is too long; shorten it\n",
		"drafts[0]":               "skein: robots label: is too long; shorten it\n",
		"":                        "skein: robots label: is too long; shorten it\n",
		"query.limit":             "skein: robots label: query.limit is too long; shorten it\n",
	} {
		f := newFakeFleet(t)
		f.handle("POST /api/v1/events", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(422)
			json.NewEncoder(w).Encode(view.Problem{Status: 422, Code: "invalid", Path: path, Detail: "is too long", Next: "shorten it"})
		})
		if r := f.shell(t).run("robots", "label", "gander", "site=x"); r.err != want || r.code != exitUsage {
			t.Errorf("%q: %d %q, want %q", path, r.code, r.err, want)
		}
	}
	fault := &event.Fault{Code: event.CodeInvalid, Path: "drafts[0].data.name", Message: "is too long", Next: "shorten it"}
	if got := explain(fmt.Errorf("register this robot: %w", fault)); got != "register this robot: name is too long; shorten it" {
		t.Errorf("a fault: %q", got)
	}
}

func TestInterruptIsNoFailure(t *testing.T) {
	f := newFakeFleet(t)
	s := f.shell(t)
	entered := make(chan struct{}, 1)
	f.handle("GET /api/v1/robots", func(_ http.ResponseWriter, r *http.Request) { entered <- struct{}{}; <-r.Context().Done() })
	ctx, interrupt := context.WithCancel(t.Context())
	a, _, stderr := s.app()
	code := make(chan int, 1)
	go func() { code <- a.run(ctx, []string{"robots", "list"}) }()
	<-entered
	interrupt()
	select {
	case got := <-code:
		if got != exitOK || stderr.String() != "" {
			t.Errorf("exit code %d, %q", got, stderr)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command did not end")
	}
}
