package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"skein/consensus/event"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/datadir"
	"skein/node/gateway/view"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares with testdata/name, or rewrites it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if that is wanted run `go test ./node/cmd/skein -update`\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// The command tree is an interface that scripts and documents rely on.
func TestCommandTree(t *testing.T) {
	a, _, _ := (&shell{t: t}).app()
	var b strings.Builder
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return
		}
		var flags []string
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags = append(flags, "--"+f.Name)
			}
		})
		fmt.Fprintf(&b, "%s: %s. %s\n", c.UseLine(), c.Short, strings.Join(flags, " "))
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(newRootCommand(a))
	golden(t, "commands.txt", strings.ReplaceAll(b.String(), " [flags]", ""))
}

func TestHumanOutput(t *testing.T) {
	f := newFakeFleet(t)
	for _, c := range []string{"status", "robots list", "robots show gander", "node list", "node show gander", "raft", "fleet show", "events list", "token create", "fleet login",
		"events at 7", "events diff 1 7", "groups list", "alerts", "raft transfer gander", "robots list --at 7", "robots list --read leased"} {
		r := f.shell(t).run(strings.Fields(c)...)
		r.want(t, exitOK)
		golden(t, strings.ReplaceAll(c, " ", "-")+".txt", r.out)
	}
}

// With --json standard output holds exactly one JSON value, and no list is null.
func TestJSONOutput(t *testing.T) {
	f := newFakeFleet(t)
	commands := []string{
		"status", "alerts", "robots", "robots list", "robots show gander", "robots label gander a=b", "node", "node list", "node show gander",
		"node revoke gander --yes", "node approve gander", "node withdraw gander", "raft", "fleet", "fleet show", "fleet login",
		"fleet enrolment", "fleet enrolment list", "fleet enrolment revoke " + string(ganderID), "events", "events list", "events list --since 3",
		"events types", "token create", "token list", "leave --yes", "version", "events query --type robot. --newest", "events at 7", "events diff 1 2", "groups",
		"groups create north", "groups delete north", "groups add north gander", "groups remove north gander", "raft show", "raft transfer gander",
		"robots activate gander", "robots deactivate gander", "robots maintenance gander", "robots maintenance gander --end", "robots recover gander",
		"robots retire gander --yes", "robots provision gander --version 2", "robots fail gander --message stuck", "robots --at 7 --read linearizable",
	}
	for _, c := range commands {
		r := f.shell(t).run(append(strings.Fields(c), "--json")...)
		r.want(t, exitOK)
		d := json.NewDecoder(strings.NewReader(r.out))
		var v any
		if err := d.Decode(&v); err != nil {
			t.Errorf("%s --json: %v in %q", c, err, r.out)
		}
		if _, err := d.Token(); err != io.EOF {
			t.Errorf("%s --json: more than one value: %q", c, r.out)
		}
		if r.err != "" {
			t.Errorf("%s --json wrote to standard error: %q", c, r.err)
		}
		for _, list := range []string{`"robots": null`, `"changes": null`, `"groups": null`, `"events": null`, `"nodes": null`, `"enrolments": null`, `"tokens": null`} {
			if strings.Contains(r.out, list) {
				t.Errorf("%s --json: %s", c, list)
			}
		}
	}
}

func TestJSONIsTheNodesAnswer(t *testing.T) {
	f := newFakeFleet(t)
	var got view.Robots
	r := f.shell(t).run("robots", "list", "--json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(view.Robots{Robots: sampleRobots(), AsOf: sampleAsOf()})
	again, _ := json.Marshal(got)
	if !bytes.Equal(want, again) {
		t.Errorf("got  %s\nwant %s", again, want)
	}
}

func TestNamesCannotTouchTheTerminal(t *testing.T) {
	f := newFakeFleet(t)
	robots := sampleRobots()
	robots[0].Name = "evil\x1b]0;title\x07\tname\n"
	f.json("GET /api/v1/robots", view.Robots{Robots: robots, AsOf: sampleAsOf()})
	r := f.shell(t).run("robots", "list")
	r.want(t, exitOK, "evil?]0;title??name?")
	if lines := strings.Count(r.out, "\n"); lines != 1+len(robots)+2 { // a header, and what read it was
		t.Errorf("%d lines for %d robots: %q", lines, len(robots), r.out)
	}
}

func TestStaleAnswersSaySo(t *testing.T) {
	f := newFakeFleet(t)
	old := sampleAsOf()
	old.AgeMillis, old.Stale = 95_000, true
	f.json("GET /api/v1/robots", view.Robots{Robots: sampleRobots(), AsOf: old})
	f.shell(t).run("robots", "list").want(t, exitOK, "last heard from the leader 95s ago")
	past := sampleAsOf()
	past.At = &view.Moment{}
	f.json("GET /api/v1/robots", view.Robots{Robots: []view.Robot{}, AsOf: past})
	f.shell(t).run("robots", "list").want(t, exitOK, "nothing had been decided yet")
	f.json("GET /api/v1/robots", view.Robots{Robots: []view.Robot{}, AsOf: old})
	f.shell(t).run("robots", "list").want(t, exitOK, "`skein token create`")
}

func TestRaftOfAFollower(t *testing.T) {
	f := newFakeFleet(t)
	raft := sampleRaft()
	raft.State, raft.LastContactMillis = "follows", -1
	raft.Follow = &view.Follow{Parent: gooseID, Path: []ident.NodeID{ganderID, gooseID}, MarkAgeMillis: 2100}
	f.json("GET /api/v1/raft", raft)
	r := f.shell(t).run("raft")
	r.want(t, exitOK, "applied 50\n", "ganderga, goosegoo\n", "2.1s\n")
	if strings.Contains(r.out, "never") || strings.Contains(r.out, "committed") {
		t.Errorf("a follower shows figures of Raft: %s", r.out)
	}
}

func TestNoAlerts(t *testing.T) {
	f := newFakeFleet(t)
	f.json("GET /api/v1/alerts", view.Alerts{Alerts: []views.Alert{}, AsOf: sampleAsOf()})
	f.shell(t).run("alerts").want(t, exitOK, "Nothing is wrong.", "event 40")
}

func TestFullDiskIsShown(t *testing.T) {
	f := newFakeFleet(t)
	raft := sampleRaft()
	raft.NoSpace = true
	f.json("GET /api/v1/raft", raft)
	f.shell(t).run("raft").want(t, exitOK, "nearly full")
	f.shell(t).run("status").want(t, exitOK, "nearly full")
	f.shell(t).run("status", "--json").want(t, exitOK, `"noSpace": true`)
}

func TestChangesProposeTheRightEvent(t *testing.T) {
	cases := []struct{ args, want string }{
		{"node revoke gander --reason lost --yes", `node.revoked node/` + string(ganderID) + ` {"reason":"lost"}`},
		{"node approve " + string(gooseID), `voter.approved node/` + string(gooseID) + ` {}`},
		{"node withdraw ganderg", `voter.withdrawn node/` + string(ganderID) + ` {}`},
		{"robots label gander site=north url=a=b floor-", `robot.labels_changed robot/` + string(ganderID) + ` {"set":{"site":"north","url":"a=b"},"remove":["floor"]}`},
		{"fleet enrolment revoke " + string(goose2ID) + " --reason stolen", `enrolment.revoked enrolment/` + string(goose2ID) + ` {"reason":"stolen"}`},
	}
	for _, c := range cases {
		f := newFakeFleet(t)
		f.shell(t).run(strings.Fields(c.args)...).want(t, exitOK, "event 41")
		if got := f.proposals(); len(got) != 1 || got[0] != c.want {
			t.Errorf("skein %s proposed %q\nwant %q", c.args, got, c.want)
		}
	}
}

func TestRevokeAsks(t *testing.T) {
	cases := []struct {
		tty    bool
		answer string
		flags  []string
		code   int
		done   bool
	}{
		{true, "y\n", nil, exitOK, true},
		{true, "YES\n", nil, exitOK, true},
		{true, "\n", nil, exitFailed, false},
		{true, "no\n", nil, exitFailed, false},
		{true, "", nil, exitFailed, false}, // end of input
		{true, "n\n", []string{"--yes"}, exitOK, true},
		{false, "", []string{"--yes"}, exitOK, true},
		{false, "y\n", nil, exitUsage, false}, // nobody is asked, so nobody has agreed
	}
	for _, c := range cases {
		f := newFakeFleet(t)
		s := f.shell(t)
		s.tty, s.in = c.tty, c.answer
		a, out, stderr := s.app()
		code := a.run(t.Context(), append([]string{"node", "revoke", "gander"}, c.flags...))
		if code != c.code || (len(f.proposals()) == 1) != c.done {
			t.Errorf("%+v: exit code %d, proposed %v", c, code, f.proposals())
		}
		asked := strings.Contains(stderr.String(), "Expel gander") && strings.Contains(stderr.String(), "[y/N]")
		if c.code == exitUsage && !strings.Contains(stderr.String(), "add --yes") {
			t.Errorf("%+v: standard error %q does not say what to do", c, stderr)
		}
		if asked != (c.tty && c.flags == nil) || strings.Contains(out.String(), "Expel") {
			t.Errorf("%+v: asked %v on standard error; standard output %q", c, asked, out)
		}
	}
}

func TestTokenLifetime(t *testing.T) {
	f := newFakeFleet(t)
	var asked view.TokenRequest
	f.handle("POST /api/v1/tokens", func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&asked)
		writeJSON(w, 200, view.Token{Token: "skein-join-abc", ExpiresAt: testNow})
	})
	f.shell(t).run("token", "create", "--ttl", "168h").want(t, exitOK, "\n  skein join skein-join-abc\n")
	if asked.TTLSeconds != event.MaxTokenSeconds {
		t.Errorf("asked for %d s", asked.TTLSeconds)
	}
	for _, ttl := range []string{"0s", "-1s", "168h0m1s", "1500ms"} {
		f.shell(t).run("token", "create", "--ttl", ttl).want(t, exitUsage, "--ttl")
	}
}

// made is an event of the fake log.
func made(seq uint64, typ, stream, data string) view.Event {
	return view.Event{Seq: seq, Time: testNow.Add(time.Duration(seq) * time.Second), Stream: stream, Version: 1, Type: typ,
		Actor: event.Actor{Kind: event.KindPerson, ID: "admin"}, Data: json.RawMessage(data)}
}

func sampleEvents() []view.Event {
	robot := "robot/" + string(ganderID)
	return []view.Event{
		made(38, "robot.labels_changed", robot, `{"set":{"site":"north"},"remove":[]}`),
		made(39, "robot.offline", robot, `{"lastHeardSeconds":31}`),
		made(40, "robot.online", robot, `{}`),
	}
}

// answerEvents is a node's answer to GET /api/v1/events.
func answerEvents(r *http.Request, all []view.Event, compacted bool, history string) view.Events {
	q := r.URL.Query()
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(q.Get(name), 10, 64)
		return n
	}
	limit, newest := int(number("limit")), q.Get("newest") == "true"
	page := view.Events{Events: []view.Event{}, Compacted: compacted, AsOf: sampleAsOf()}
	page.AsOf.Cursor.History = history
	from, _ := time.Parse(time.RFC3339Nano, q.Get("from"))
	for _, e := range all {
		page.AsOf.Cursor.Seq = max(page.AsOf.Cursor.Seq, e.Seq)
		if e.Seq > number("since") && (number("before") == 0 || e.Seq < number("before")) && !e.Time.Before(from) &&
			fits(q.Get("stream"), e.Stream, "/") && fits(q.Get("type"), e.Type, ".") && (q.Get("actor") == "" || q.Get("actor") == e.Actor.ID) {
			page.Events = append(page.Events, e)
		}
	}
	if n := len(page.Events) - limit; n > 0 {
		page.More = true
		if newest {
			page.Events = page.Events[n:]
		} else {
			page.Events = page.Events[:limit]
		}
	}
	return page
}

func seqs(t *testing.T, out string) []uint64 {
	t.Helper()
	var answer view.Events
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	list := []uint64{}
	for _, e := range answer.Events {
		list = append(list, e.Seq)
	}
	return list
}

func TestEventsList(t *testing.T) {
	f := newFakeFleet(t)
	var all []view.Event
	for i := range uint64(5000) {
		typ := "robot.online"
		if i%1000 == 0 {
			typ = "robot.registered"
		}
		all = append(all, made(i+1, typ, "robot/"+string(ganderID), "{}"))
	}
	fleet := sampleFleet()
	fleet.AsOf.Cursor.Seq = 5000
	f.json("GET /api/v1/fleet", fleet)
	f.events(all, false)
	f.json("GET /api/v1/robots/gander", view.OneRobot{Robot: sampleRobots()[0], AsOf: sampleAsOf()})
	cases := []struct {
		args        string
		first, last uint64
		count       int
	}{
		{"", 4951, 5000, 50},
		{"--limit 3", 4998, 5000, 3},
		{"--since 0 --limit 2", 1, 2, 2},
		{"--since 10 --limit 1200", 11, 1210, 1200},
		{"--since 4999", 5000, 5000, 1},
		{"--limit 2000", 3001, 5000, 2000},
		{"--type robot.registered", 1, 4001, 5},
		{"--type robot.registered --limit 2", 3001, 4001, 2},
		{"--stream robot/gander --limit 2", 4999, 5000, 2},
		{"--stream robot/" + string(ganderID) + " --limit 2", 4999, 5000, 2},
		{"--stream robot/ --limit 2", 4999, 5000, 2},
	}
	for _, c := range cases {
		r := f.shell(t).run(append([]string{"events", "list", "--json"}, strings.Fields(c.args)...)...)
		r.want(t, exitOK)
		got := seqs(t, r.out)
		if len(got) != c.count || got[0] != c.first || got[len(got)-1] != c.last || !slices.IsSorted(got) {
			t.Errorf("events list %s: %d events %d..%d, want %d: %d..%d", c.args, len(got), got[0], got[len(got)-1], c.count, c.first, c.last)
		}
	}
	f.shell(t).run("events", "list", "--type", "nonsense").want(t, exitOK, "No event is like that.")
	f.shell(t).run("events", "list", "--limit", "0").want(t, exitUsage, "--limit")
	f.refuse("GET /api/v1/robots/emu", 404, "not_found", "no robot is called emu", "look at the list")
	f.shell(t).run("events", "list", "--stream", "robot/emu").want(t, exitNotFound, "no robot is called emu")
	f.events(all[4000:], true)
	f.shell(t).run("events", "list", "--since", "0", "--limit", "1").want(t, exitOK, "ask a voter")
}

func TestTokenAndEnrolmentLists(t *testing.T) {
	f := newFakeFleet(t)
	hash := func(c string) string { return strings.Repeat(c, 24) }
	f.events([]view.Event{
		made(1, event.TypeEnrolmentAdded, "enrolment/"+hash("a"), `{}`),
		made(2, event.TypeTokenCreated, "token/"+hash("b"), `{"ttlSeconds":600}`),
		made(3, event.TypeTokenCreated, "token/"+hash("c"), `{"ttlSeconds":600}`),
		made(4, event.TypeTokenCreated, "token/"+hash("d"), `{"ttlSeconds":1}`),
		made(5, event.TypeNodeAdmitted, "node/"+string(gooseID), `{"by":"token","ref":"`+hash("b")+`"}`),
		made(6, event.TypeNodeAdmitted, "node/"+string(goose2ID), `{"by":"enrolment","ref":"`+hash("c")+`"}`),
		made(7, event.TypeEnrolmentAdded, "enrolment/"+hash("e"), `{}`),
		made(8, event.TypeEnrolmentRevoked, "enrolment/"+hash("a"), `{"reason":"stolen"}`),
	}, false)
	s := f.shell(t)
	s.with = func(a *app) { a.now = func() time.Time { return testNow.Add(time.Minute) } }
	var list struct{ Tokens []tokenState }
	r := s.run("token", "list", "--json")
	if err := json.Unmarshal([]byte(r.out), &list); err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, token := range list.Tokens {
		states = append(states, token.State+token.UsedBy)
	}
	if want := "used" + string(gooseID) + " open expired"; strings.Join(states, " ") != want {
		t.Errorf("tokens are %v, want %s", states, want)
	}
	var enrolments struct{ Enrolments []enrolment }
	r = s.run("fleet", "enrolment", "list", "--json")
	if err := json.Unmarshal([]byte(r.out), &enrolments); err != nil {
		t.Fatal(err)
	}
	if e := enrolments.Enrolments; len(e) != 2 || !e[0].Revoked || e[0].Reason != "stolen" || e[1].Revoked {
		t.Errorf("enrolments are %+v", e)
	}
	s.run("fleet", "enrolment", "revoke", "aaa").want(t, exitOK, hash("a"))
	s.run("fleet", "enrolment", "revoke", "zzz").want(t, exitNotFound)
	s.run("fleet", "enrolment", "revoke", "").want(t, exitUsage, hash("a")+", "+hash("e"))
	f.events(nil, true)
	s.run("token", "list").want(t, exitOK, "may lack old entries")
}

// founded makes the fake's log start with its own founding.
func (f *fakeFleet) founded() {
	root := f.admin.Public()
	fleet := sampleFleet()
	fleet.FleetID = ident.FleetIDOf(root)
	f.json("GET /api/v1/fleet", fleet)
	created := event.FleetCreated{Name: "geese", Root: root, History: "h1"}.Draft()
	f.events([]view.Event{made(1, created.Type, created.Stream, string(created.Data))}, false)
}

func TestEnrolmentAdd(t *testing.T) {
	const propose = "POST /api/v1/events"
	out := filepath.Join(t.TempDir(), "new.json")
	add := []string{"fleet", "enrolment", "add", "--out", out}

	f := newFakeFleet(t)
	f.founded()
	s := f.shell(t)
	s.run("fleet", "enrolment", "add").want(t, exitUsage, "--out")
	s.run(add...).want(t, exitOK, out)
	file, err := ident.LoadFleetFile(out)
	if err != nil {
		t.Fatal(err)
	}
	key, err := file.Enrolment()
	if err != nil {
		t.Fatal(err)
	}
	if got := f.proposals(); len(got) != 1 || !strings.HasPrefix(got[0], "enrolment.added enrolment/"+string(key.ID())) {
		t.Errorf("proposed %q, the file's key is %s", got, key.ID())
	}
	before, _ := os.ReadFile(out)
	s.run(add...).want(t, exitFailed, "choose another --out")
	if after, _ := os.ReadFile(out); !bytes.Equal(before, after) {
		t.Error("an existing fleet file was changed")
	}

	for _, c := range []struct {
		status int
		code   string
		exit   int
		kept   bool
	}{{403, "not_allowed", exitNotAllowed, false}, {504, "unknown_outcome", exitTimeout, true}} {
		out := filepath.Join(t.TempDir(), "new.json")
		f.refuse(propose, c.status, c.code, "no", "")
		s.run("fleet", "enrolment", "add", "--out", out).want(t, c.exit)
		if _, err := os.Stat(out); (err == nil) != c.kept {
			t.Errorf("after %s the fleet file is there: %v", c.code, err == nil)
		}
	}

	// A node that lies about the root key would make a fleet file for another fleet.
	stranger := event.FleetCreated{Name: "foxes", Root: newFakeFleet(t).admin.Public(), History: "h1"}.Draft()
	f.events([]view.Event{made(1, stranger.Type, stranger.Stream, string(stranger.Data))}, false)
	other := filepath.Join(t.TempDir(), "new.json")
	s.run("fleet", "enrolment", "add", "--out", other).want(t, exitFailed, "not this fleet's")
	if _, err := os.Stat(other); err == nil {
		t.Error("a fleet file was written with a foreign root")
	}
}

func TestCompletion(t *testing.T) {
	f := newFakeFleet(t)
	s := f.shell(t)
	cases := []struct {
		args string
		want []string
	}{
		{"robots show ", []string{"gander\tganderga, online", "goose\tgoosegoo, offline", "goose\tgoozegoo, online"}},
		{"node revoke gan", []string{"gander\tganderga, online"}},
		{"robots label gooz", []string{string(goose2ID) + "\tgoose"}},
		{"robots show gander ", nil},
		{"token cr", []string{"create\tMake a token that lets one robot join, once"}},
	}
	for _, c := range cases {
		r := s.run(append([]string{"__complete"}, strings.Split(c.args, " ")...)...)
		lines := strings.Split(strings.TrimSpace(r.out), "\n")
		offers := lines[:len(lines)-1]
		if len(offers) == 0 {
			offers = nil
		}
		if lines[len(lines)-1] != ":4" || !slices.Equal(offers, c.want) {
			t.Errorf("%q offers %q", c.args, lines)
		}
	}
	s.env["SKEIN_HTTP"] = refusedAddress(t)
	if r := s.run("__complete", "robots", "show", ""); strings.TrimSpace(r.out) != ":4" {
		t.Errorf("without a node it offers %q", r.out)
	}
	s.run("completion", "bash").want(t, exitOK, "bash completion V2 for skein")
}

func TestWhichNodeIsAsked(t *testing.T) {
	fleet := newFakeFleet(t)
	dir := t.TempDir()
	t.Chdir(dir)
	identity := []string{"--identity", fleet.identity}
	dead := refusedAddress(t)
	withDev := func() {
		if err := os.MkdirAll(devFolder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := (client.DevFleet{HTTP: []string{dead, fleet.url}, Identity: fleet.identity}).Save(filepath.Join(devFolder, devFileName)); err != nil {
			t.Fatal(err)
		}
	}
	s := &shell{t: t, env: map[string]string{}}
	s.run(append(identity, "status", "--data", "none")...).want(t, exitUnreachable, "none/control.sock")
	s.run(append(identity, "status", "--http", fleet.url)...).want(t, exitOK)
	s.env["SKEIN_HTTP"] = dead + "," + fleet.url
	s.run(append(identity, "status")...).want(t, exitOK)
	s.env["SKEIN_HTTP"] = dead
	s.run(append(identity, "status", "--http", fleet.url)...).want(t, exitOK)
	s.run(append(identity, "status", "--data", "none")...).want(t, exitUnreachable, "none/control.sock")
	withDev()
	s.run(append(identity, "status")...).want(t, exitUnreachable, dead)
	delete(s.env, "SKEIN_HTTP")
	// The dev fleet's first robot is dead, its second answers, its admin logs in.
	s.run("status").want(t, exitOK, "geese")
	s.run("status", "--data", devFolder).want(t, exitOK, "geese")
	if err := os.WriteFile(filepath.Join(devFolder, devFileName), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("status").want(t, exitFailed, "damaged")
}

func TestFileNamesAreTheDataDirectorys(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, path := range map[string]string{
		nodeKeyName: dir.NodeKey(), membershipName: dir.Membership(), adminFileName: dir.AdminIdentity(),
		adminKeyName: dir.AdminKey(), rootKeyName: dir.RootKey(), fleetFileName: dir.FleetFile(),
	} {
		if filepath.Join(dir.Path(), name) != path {
			t.Errorf("%s is not %s", name, path)
		}
	}
}

func TestVersion(t *testing.T) {
	var b build
	r := (&shell{t: t}).run("version", "--json")
	if err := json.Unmarshal([]byte(r.out), &b); err != nil || b.Version == "" || b.Commit == "" || !strings.HasPrefix(b.Go, "go1.") || !strings.Contains(b.Platform, "/") {
		t.Errorf("got %+v, %v", b, err)
	}
	(&shell{t: t}).run("version").want(t, exitOK, b.Go, b.Platform)
}

func TestExposedIdentityIsRefused(t *testing.T) {
	f := newFakeFleet(t)
	if err := os.Chmod(f.identity, 0o644); err != nil {
		t.Fatal(err)
	}
	f.shell(t).run("status").want(t, exitFailed, "chmod 600 "+f.identity)
	if _, err := os.Stat(f.identity); err != nil {
		t.Fatal(fs.ErrNotExist)
	}
}

// A label argument never makes a change that the event package would refuse
// for its form alone.
func FuzzParseLabels(f *testing.F) {
	f.Add("site=north", "floor-")
	f.Add("a=", "=b")
	f.Add("-", "a=b-")
	f.Add("a=1", "a-")
	f.Fuzz(func(t *testing.T, one, two string) {
		change, err := parseLabels([]string{one, two})
		if err != nil {
			return
		}
		if len(change.Set)+len(change.Remove) == 0 {
			t.Errorf("%q %q changes nothing", one, two)
		}
		for _, key := range change.Remove {
			if _, both := change.Set[key]; both || key == "" {
				t.Errorf("%q %q: key %q is set and removed, or empty", one, two, key)
			}
		}
		if _, empty := change.Set[""]; empty {
			t.Errorf("%q %q: empty key", one, two)
		}
	})
}
