package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/agent/telemetry"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/doctor"
	"skein/node/gateway/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// output is a buffer that a command writes while a test reads.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{} // a token after each write
}

func newOutput() *output { return &output{written: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.written <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// waitFor waits until the output holds text.
func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.written:
		case <-deadline:
			t.Fatalf("waited for %q, got:\n%s", text, o)
		}
	}
}

// shell runs commands as a person would, with its own environment.
type shell struct {
	t    *testing.T
	env  map[string]string
	in   string
	tty  bool
	with func(*app)
}

// result is what a command left behind.
type result struct {
	code     int
	out, err string
}

func (s *shell) app() (*app, *output, *output) {
	out, err := newOutput(), newOutput()
	a := &app{
		in: strings.NewReader(s.in), out: out, err: err,
		env:      func(key string) string { return s.env[key] },
		now:      func() time.Time { return testNow },
		terminal: func() bool { return s.tty },
		starters: Starters{},
		machine: doctor.Machine{
			Now:       func() time.Time { return testNow },
			ClockSync: func() (doctor.ClockSync, error) { return doctor.ClockSync{Synchronised: true}, nil },
			Memory:    func() (doctor.Memory, error) { return doctor.Memory{AvailableBytes: 1 << 30, TotalBytes: 2 << 30}, nil },
			Space:     func(string) (doctor.Space, error) { return doctor.Space{FreeBytes: 1 << 32, TotalBytes: 1 << 33}, nil },
		},
		pollInterval: time.Millisecond,
	}
	if s.with != nil {
		s.with(a)
	}
	return a, out, err
}

func (s *shell) run(args ...string) result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	a, out, err := s.app()
	code := a.run(ctx, args)
	r := result{code, out.String(), err.String()}
	if code != exitOK && (strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "skein: ")) {
		s.t.Errorf("skein %s: the error is not one line of ours: %q", strings.Join(args, " "), r.err)
	}
	return r
}

// want fails unless the command ended with code and said all of texts.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("%q is missing in\nstdout: %s\nstderr: %s", text, r.out, r.err)
		}
	}
}

// fakeFleet is a node's API with canned answers. Tests replace handlers.
type fakeFleet struct {
	t        *testing.T
	admin    ident.Key
	identity string // path of the admin's identity file
	url      string

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc // by "METHOD /path"
	proposed []view.Draft
}

func newFakeFleet(t *testing.T) *fakeFleet {
	t.Helper()
	admin, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &fakeFleet{t: t, admin: admin, identity: filepath.Join(dir, "admin.json"), handlers: map[string]http.HandlerFunc{}}
	key := filepath.Join(dir, "admin.key")
	if err := errors.Join(admin.Save(key), client.IdentityFile{Person: "admin", Key: "admin.key"}.Save(f.identity)); err != nil {
		t.Fatal(err)
	}
	f.url = f.serve(t)
	f.json("GET /api/v1/fleet", sampleFleet())
	f.json("GET /api/v1/nodes", view.Nodes{Nodes: sampleNodes(), AsOf: sampleAsOf()})
	f.json("GET /api/v1/raft", sampleRaft())
	f.json("GET /api/v1/alerts", view.Alerts{Alerts: sampleAlerts(), AsOf: sampleAsOf()})
	f.json("GET /api/v1/events/types", view.EventTypes{})
	f.past()
	for _, step := range []string{"provision", "activate", "deactivate", "maintenance", "maintenance/end", "recover", "retire", "fail"} {
		f.json("POST /api/v1/robots/"+string(ganderID)+"/"+step, sampleDone())
	}
	f.json("POST /api/v1/groups", sampleDone())
	f.json("DELETE /api/v1/groups/north", sampleDone())
	f.json("POST /api/v1/groups/north/robots", sampleDone())
	f.json("DELETE /api/v1/groups/north/robots/"+string(ganderID), sampleDone())
	f.json("POST /api/v1/raft/transfer", view.Transferred{From: view.NodeRef{ID: gooseID, Name: "goose"}, To: &view.NodeRef{ID: ganderID, Name: "gander"}})
	f.json("GET /api/v1/login", view.LoginInfo{FleetID: ident.FleetIDOf(admin.Public()), Issuer: admin.ID(), Now: testNow})
	f.handle("POST /api/v1/login", f.login)
	f.handle("POST /api/v1/events", f.propose)
	f.json("POST /api/v1/tokens", view.Token{Token: "skein-join-abc", ExpiresAt: testNow.Add(10 * time.Minute)})
	f.json("POST /api/v1/login/code", view.LoginCode{Code: "c0de", URL: "http://10.0.0.1:7780/#login=c0de", ExpiresAt: testNow.Add(2 * time.Minute)})
	f.json("POST /api/v1/leave", view.LeaveAnswer{Left: true})
	f.events(sampleEvents(), false)
	return f
}

// past answers what is asked about moments, and labels it as a node does.
func (f *fakeFleet) past() {
	label := func(r *http.Request) view.AsOf {
		asOf := sampleAsOf()
		if read := r.URL.Query().Get("read"); read != "" {
			asOf.Read, asOf.AgeMillis = view.Read(read), 3
		}
		if at := r.URL.Query().Get("at"); at != "" {
			seq, _ := strconv.ParseUint(at, 10, 64)
			asOf.At, asOf.Cursor.Seq = &view.Moment{Seq: seq, Time: &testNow}, seq
		}
		return asOf
	}
	f.handle("GET /api/v1/robots", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200, view.Robots{Robots: sampleRobots(), AsOf: label(r)})
	})
	f.handle("GET /api/v1/state", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200, view.Decided{FleetID: "fleetfleetfleetfleetflee", Name: "geese", StateHash: "abcd", Ceiling: 2,
			Counts: view.Counts{Nodes: 4, Members: 3, Voters: 2, Robots: 3, Persons: 1}, AsOf: label(r)})
	})
	f.handle("GET /api/v1/groups", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200, view.Groups{Groups: []view.Group{{Name: "north", Description: "the hall", Robots: []view.NodeRef{{ID: ganderID, Name: "gander"}}}}, AsOf: label(r)})
	})
	f.json("GET /api/v1/events/diff", view.Diff{From: view.Moment{Seq: 1}, To: view.Moment{Seq: 7}, Changes: []view.Change{
		{Kind: "group", ID: "north", What: "added", Fields: []view.FieldChange{}},
		{Kind: "robot", ID: string(ganderID), Name: "gander", What: "changed", Fields: []view.FieldChange{{Field: "state", From: "ready", To: "active"}, {Field: "label site", To: "north"}}},
	}})
}

func sampleDone() view.Done {
	return view.Done{Robot: &view.NodeRef{ID: ganderID, Name: "gander"}, Receipt: view.Receipt{First: 41, Last: 41, Cursor: view.Cursor{History: "h1", Seq: 41}}}
}

// serve listens at a new address, for tests that need several nodes.
func (f *fakeFleet) serve(t *testing.T) string {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

func (f *fakeFleet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	h := f.handlers[r.Method+" "+r.URL.Path]
	f.mu.Unlock()
	public := r.URL.Path == "/api/v1/login"
	switch {
	case h == nil:
		writeProblem(w, 404, "not_found", "no such resource", "")
	case !public && r.Header.Get("Authorization") != "Bearer good":
		writeProblem(w, 401, "unauthenticated", "this needs a token", "send one")
	default:
		h(w, r)
	}
}

func (f *fakeFleet) handle(route string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handlers[route] = h
}

func (f *fakeFleet) json(route string, v any) {
	f.handle(route, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, v) })
}

// refuse makes a route answer with a problem.
func (f *fakeFleet) refuse(route string, status int, code, detail, next string) {
	f.handle(route, func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, status, code, detail, next) })
}

func (f *fakeFleet) login(w http.ResponseWriter, r *http.Request) {
	var l view.Login
	if json.NewDecoder(r.Body).Decode(&l) != nil || !l.SignedBy(f.admin.Public(), ident.FleetIDOf(f.admin.Public())) {
		writeProblem(w, 401, "unauthenticated", "person or signature is wrong", "use the identity file of a person of this fleet")
		return
	}
	writeJSON(w, 200, view.Session{Token: "good", ExpiresAt: testNow.Add(time.Hour), Person: l.Person})
}

func (f *fakeFleet) propose(w http.ResponseWriter, r *http.Request) {
	var p view.Proposal
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		writeProblem(w, 400, "invalid", err.Error(), "")
		return
	}
	f.mu.Lock()
	f.proposed = append(f.proposed, p.Drafts...)
	f.mu.Unlock()
	writeJSON(w, 200, view.Receipt{First: 41, Last: 41, Cursor: view.Cursor{History: "h1", Seq: 41}})
}

// proposals returns what was proposed as "type stream data".
func (f *fakeFleet) proposals() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var texts []string
	for _, d := range f.proposed {
		texts = append(texts, strings.Join([]string{d.Type, d.Stream, string(d.Data)}, " "))
	}
	return texts
}

// events answers questions for events from all, like a node.
func (f *fakeFleet) events(all []view.Event, compacted bool) {
	f.handle("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, 200, answerEvents(r, all, compacted, "h1"))
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func writeProblem(w http.ResponseWriter, status int, code, detail, next string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(view.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Next: next})
}

// shell has this fleet in its environment.
func (f *fakeFleet) shell(t *testing.T) *shell {
	return &shell{t: t, env: map[string]string{"SKEIN_HTTP": f.url, "SKEIN_IDENTITY": f.identity}}
}

// refusedAddress is an address where nothing listens.
func refusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

const (
	ganderID = ident.NodeID("gandergandergandergander")
	gooseID  = ident.NodeID("goosegoosegoosegoosegoos")
	goose2ID = ident.NodeID("goozegoozegoozegoozegooz")
)

func sampleAsOf() view.AsOf {
	return view.AsOf{Read: "local", Cursor: view.Cursor{History: "h1", Seq: 40, Hash: "ff"}, AgeMillis: 1200, Path: []ident.NodeID{ganderID}}
}

func sampleFleet() view.Fleet {
	return view.Fleet{
		FleetID: "fleetfleetfleetfleetflee", Name: "geese", Leader: &view.NodeRef{ID: ganderID, Name: "gander"}, Term: 4,
		Voters:  []view.Voter{{ID: ganderID, Name: "gander", Reachable: true}, {ID: gooseID, Name: "goose"}},
		CanLose: 0, CanLoseReason: "one of two voters is unreachable", Members: 3, Robots: 3, AsOf: sampleAsOf(),
	}
}

func sampleRobots() []view.Robot {
	temperature, age := 51.2, int64(900)
	machine := view.Machine{Type: "lekiwi", Version: "v1.0.0", Arch: "arm64", OS: "linux"}
	since := testNow.Add(-90 * time.Minute)
	return []view.Robot{
		{ID: ganderID, Name: "gander", Machine: machine, Status: view.Online, StatusSince: since,
			Vote: view.Vote{Role: view.Leader, VoterEligible: true, VoterApproved: true}, Labels: map[string]string{"site": "north"},
			Groups: []string{}, HTTP: "http://10.0.0.1:7780", HeardAgeMillis: &age,
			Telemetry: &telemetry.Sample{CPUPercent: 12.4, MemUsedBytes: 1 << 30, MemTotalBytes: 4 << 30, TemperatureC: &temperature, UptimeSeconds: 7200}},
		{ID: gooseID, Name: "goose", Machine: machine, Status: view.Offline, StatusSince: since,
			Vote: view.Vote{Role: view.VoterNow}, Labels: map[string]string{}, Groups: []string{}},
		{ID: goose2ID, Name: "goose", Machine: machine, Status: view.Online, StatusSince: since,
			Vote: view.Vote{Role: view.Follower}, Labels: map[string]string{}, Groups: []string{}},
	}
}

func sampleNodes() []view.Node {
	skew := int64(-12)
	return []view.Node{
		{ID: ganderID, Name: "gander", Role: view.Leader, State: view.Alive, Addrs: []string{"10.0.0.1"}, LinkPort: 7781, GossipPort: 7782,
			HTTPPort: 7780, AdmittedAt: testNow, By: "genesis"},
		{ID: gooseID, Name: "goose", Role: view.VoterNow, State: view.Dead, Addrs: []string{}, AdmittedAt: testNow, By: "token", ClockSkewMillis: &skew},
	}
}

func sampleAlerts() []views.Alert {
	return []views.Alert{
		{Kind: views.QuorumAtRisk, Severity: views.Critical, Message: "one more voter lost stops decisions"},
		{Kind: views.RobotFailed, Severity: views.Warning, Robot: gooseID, Name: "goose", Groups: []string{"north"}, Since: testNow, Message: "failed: stuck"},
	}
}

func sampleRaft() view.Raft {
	return view.Raft{Node: ganderID, State: "leader", Leader: ganderID, Term: 4, LastIndex: 50, CommitIndex: 50, AppliedIndex: 50,
		Voters: []ident.NodeID{ganderID, gooseID}, Nonvoters: []ident.NodeID{}, StateHash: "abcd"}
}

// localOwner lets requests in as the control socket does: without a token.
func localOwner(f *fakeFleet) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			r.Header.Set("Authorization", "Bearer good")
		}
		f.ServeHTTP(w, r)
	})
}
