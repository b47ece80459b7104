package rest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"skein/agent/telemetry"
	"skein/consensus/event"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a node as rest sees it, that a test changes. It is everything that
// rest asks for but auth.
type fleet struct {
	key  ident.Key // this node's: a voter
	root ident.Key

	mu       sync.Mutex
	persons  map[string]auth.Person
	robots   []view.Robot
	events   []view.Event
	held     uint64
	watching int
	onWatch  func()
	reason   string // why it is not ready
	left     bool
	refusal  error
	delay    time.Duration
	tokens   []string // with which something was proposed
	awaited  []view.Read
	unfresh  error // why reads cannot be made fresh
	leader   ident.NodeID
	backup   func(context.Context, io.Writer) error
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{persons: map[string]auth.Person{}, backup: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "a backup")
		return err
	}}
	var err error
	if f.key, err = ident.NewKey(); err != nil {
		t.Fatal(err)
	}
	if f.root, err = ident.NewKey(); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) KeyOf(id ident.NodeID) (ed25519.PublicKey, bool) {
	return f.key.Public(), id == f.key.ID()
}
func (f *fleet) Voters() []ident.NodeID { return []ident.NodeID{f.key.ID()} }

func (f *fleet) Person(name string) (auth.Person, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, there := f.persons[name]
	return p, there
}

func (f *fleet) OpenLogin(context.Context, ident.NodeID) (net.Conn, error) {
	return nil, errors.New("there is no other node")
}

func (f *fleet) Header() view.Fleet     { return f.Look().Fleet }
func (f *fleet) Robots() view.RobotRows { return f.Look().Rows() }

// Robot leaves it to the server to find robots.
func (f *fleet) Robot(string) (view.OneRobot, bool) { return view.OneRobot{}, false }

func (f *fleet) AsOf() view.AsOf { return f.Look().Fleet.AsOf }

func (f *fleet) Look() view.Picture {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := view.Picture{
		Fleet:  view.Fleet{Name: "geese", AsOf: view.AsOf{AgeMillis: 900, Stale: true, Cursor: view.Cursor{History: "h", Seq: uint64(len(f.events)), Hash: "x"}}},
		Robots: slices.Clone(f.robots),
	}
	if f.leader != "" {
		p.Fleet.Leader = &view.NodeRef{ID: f.leader, Name: "gander"}
	}
	return p
}

func (f *fleet) Nodes() view.Nodes { return view.Nodes{Nodes: []view.Node{{ID: "n"}}} }
func (f *fleet) Raft() view.Raft {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leader != "" && f.leader != f.key.ID() {
		return view.Raft{Node: f.key.ID(), State: "follower"}
	}
	return view.Raft{Node: f.key.ID(), State: "leader", Voters: []ident.NodeID{f.key.ID(), "second"}, Follow: &view.Follow{}}
}

func (f *fleet) Watch() (<-chan struct{}, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watching++
	if f.onWatch != nil {
		go f.onWatch()
	}
	return nil, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watching--
	}
}

func (f *fleet) watchers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watching
}

func (f *fleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fleet) Query(_ context.Context, q view.EventQuery) (view.EventPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal != nil {
		return view.EventPage{}, f.refusal
	}
	page := view.EventPage{Compacted: q.After < f.held}
	for _, e := range f.events {
		if e.Seq > max(q.After, f.held) && (q.Stream == "" || e.Stream == q.Stream) && strings.HasPrefix(e.Type, q.Type) {
			if page.More = len(page.Events) == q.Limit; page.More {
				break
			}
			page.Events = append(page.Events, e)
		}
	}
	return page, nil
}

// The fleet's past and its reads; tests of the past have a real one.
func (f *fleet) PictureAt(context.Context, view.At) (view.Picture, error) {
	return view.Picture{Fleet: view.Fleet{AsOf: view.AsOf{At: &view.Moment{}}}}, nil
}
func (f *fleet) NodesAt(context.Context, view.At) (view.Nodes, error)      { return view.Nodes{}, nil }
func (f *fleet) Decided(context.Context, *view.At) (view.Decided, error)   { return view.Decided{}, nil }
func (f *fleet) Diff(context.Context, view.At, view.At) (view.Diff, error) { return view.Diff{}, nil }

func (f *fleet) Overview(context.Context, *view.At) (view.Overview, error) {
	return view.Overview{}, nil
}
func (f *fleet) Groups(context.Context, *view.At) (view.GroupList, error) {
	return view.GroupList{Kept: view.NewKept[view.Group](nil)}, nil
}
func (f *fleet) Deployments(context.Context, *view.At) (view.DeploymentList, error) {
	return view.DeploymentList{Kept: view.NewKept[views.Deployment](nil)}, nil
}
func (f *fleet) Alerts(context.Context, *view.At) (view.AlertList, error) {
	return view.AlertList{Kept: view.NewKept[views.Alert](nil)}, nil
}

func (f *fleet) Await(ctx context.Context, read view.Read) (view.Fresh, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaited = append(f.awaited, read)
	return view.Fresh{Age: 3 * time.Millisecond}, f.unfresh
}

func (f *fleet) TransferLeader(_ context.Context, to ident.NodeID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leader = to
	return f.refusal
}

func (f *fleet) Backup(ctx context.Context, w io.Writer) error { return f.backup(ctx, w) }

// Propose decides whatever it is given, as a leader would that has verified the token.
func (f *fleet) Propose(ctx context.Context, token string, drafts []view.Draft) (view.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.delay > 0 {
		f.mu.Unlock()
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return view.Receipt{}, fmt.Errorf("propose: %w", ctx.Err())
		}
	}
	if f.refusal != nil {
		return view.Receipt{}, f.refusal
	}
	f.tokens = append(f.tokens, token)
	r := view.Receipt{First: uint64(len(f.events) + 1)}
	for _, d := range drafts {
		f.events = append(f.events, view.Event{Seq: uint64(len(f.events) + 1), Time: decided, Stream: d.Stream, Type: d.Type, Data: d.Data})
	}
	r.Last = uint64(len(f.events))
	r.Cursor = view.Cursor{History: "h", Seq: r.Last}
	return r, nil
}

var decided = time.Date(2026, 7, 7, 7, 7, 7, 0, time.UTC)

func (f *fleet) Ready() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reason
}

func (f *fleet) Leave(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = true
	return f.refusal
}

func (f *fleet) URL() string { return "http://192.0.2.1:7780" }

// face is a real HTTP server in front of a fleet.
type face struct {
	*fleet
	t      testing.TB
	url    string
	client *http.Client
	auth   *auth.Service
	keys   map[string]ident.Key
}

func (f *fleet) server(t testing.TB, change func(*Config)) (*Server, *auth.Service) {
	t.Helper()
	a := auth.New(auth.Config{Key: f.key, Fleet: ident.FleetIDOf(f.root.Public()), Directory: f, Forwarder: f, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	cfg := Config{
		Root: f.root.Public(), Version: "1.2.3", Auth: a, Fleet: f, Past: f, Reads: f, Events: f, Proposer: f, Node: f,
		AllowOrigin: func(o string) bool { return o == "http://192.0.2.2:7780" }, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, a
}

func newFace(t testing.TB) *face { return newFaceWith(t, nil) }

// newFaceWith changes what the server works with.
func newFaceWith(t testing.TB, change func(*Config)) *face {
	f := &face{fleet: newFleet(t), t: t, keys: map[string]ident.Key{}}
	s, a := f.server(t, change)
	f.auth = a
	// Requests with this header stand for those of the control socket.
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Test-Local") != "" {
			r = r.WithContext(auth.WithLocal(r.Context()))
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	f.url, f.client = h.URL, h.Client()
	f.person("anna", "viewer")
	f.person("omar", "operator")
	f.person("ada", "admin")
	f.person("nix", "unheard_of")
	return f
}

func (f *face) person(name string, scopes ...string) {
	key, err := ident.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	f.keys[name] = key
	f.set(func() { f.persons[name] = auth.Person{PublicKey: key.Public(), Scopes: scopes} })
}

// token is a token of that person, "" for nobody.
func (f *face) token(name string) string {
	f.t.Helper()
	if name == "" || name == "local" {
		return ""
	}
	code, err := f.auth.IssueCode(name, f.persons[name].Scopes, time.Minute)
	if err != nil {
		f.t.Fatal(err)
	}
	session, err := f.auth.Login(f.t.Context(), view.Login{Code: code.Code})
	if err != nil {
		f.t.Fatal(err)
	}
	return session.Token
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body []byte
}

func (f *face) do(as, method, path, body string, headers ...string) reply {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if t := f.token(as); t != "" {
		req.Header.Set("Authorization", "Bearer "+t)
	}
	if as == "local" {
		req.Header.Set("X-Test-Local", "1")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return reply{resp, text}
}

// into decodes an answer of status 200.
func into[T any](t testing.TB, r reply) T {
	t.Helper()
	var v T
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %s: %s", r.Status, r.Header.Get("Content-Type"), r.body)
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return v
}

// problem wants an error answer and returns it.
func (r reply) problem(t testing.TB, status int, code string) view.Problem {
	t.Helper()
	var p view.Problem
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatalf("%s: %q: %v", r.Status, r.body, err)
	}
	if r.StatusCode != status || p.Status != status || p.Code != code || r.Header.Get("Content-Type") != problemType {
		t.Fatalf("%s, %s, %s; want %d %s as %s", r.Status, r.Header.Get("Content-Type"), r.body, status, code, problemType)
	}
	if p.Title == "" || p.Detail == "" || p.Next == "" {
		t.Fatalf("problem %s says too little", r.body)
	}
	return p
}

const draft = `{"drafts":[{"stream":"group/a","type":"group.created","data":{"description":"x"}}]}`

// The whole table of who may do what.
func TestWhoMayDoWhat(t *testing.T) {
	reads := []string{"/api/v1/fleet", "/api/v1/robots", "/api/v1/nodes", "/api/v1/raft", "/api/v1/events", "/api/v1/events/types",
		"/api/v1/state", "/api/v1/groups", "/api/v1/overview", "/api/v1/alerts", "/api/v1/deployments", "/api/v1/events/diff?a=0&b=1", "/api/v1/robots?at=0"}
	type ask struct{ method, path, body string }
	var asks []ask
	may := map[ask][]string{}
	for _, path := range reads {
		a := ask{"GET", path, ""}
		asks, may[a] = append(asks, a), []string{"anna", "omar", "ada", "local"}
	}
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/api/v1/login"} {
		a := ask{"GET", path, ""}
		asks, may[a] = append(asks, a), []string{"", "anna", "omar", "ada", "nix", "local"}
	}
	propose, tokens := ask{"POST", "/api/v1/events", draft}, ask{"POST", "/api/v1/tokens", `{"ttlSeconds":60}`}
	code, leave := ask{"POST", "/api/v1/login/code", ""}, ask{"POST", "/api/v1/leave", ""}
	asks = append(asks, propose, tokens, code, leave)
	may[propose] = []string{"anna", "omar", "ada", "nix"} // the leader decides by type
	for _, a := range []ask{
		{"POST", "/api/v1/robots/kiwi/activate", ""}, {"POST", "/api/v1/robots/kiwi/deactivate", `{"reason":"r"}`},
		{"POST", "/api/v1/robots/kiwi/maintenance", ""}, {"POST", "/api/v1/robots/kiwi/maintenance/end", ""},
		{"POST", "/api/v1/robots/kiwi/recover", ""}, {"POST", "/api/v1/robots/kiwi/retire", ""},
		{"POST", "/api/v1/robots/kiwi/provision", `{"version":"1"}`}, {"POST", "/api/v1/robots/kiwi/fail", `{"message":"m","kind":"hardware"}`},
		{"POST", "/api/v1/groups", `{"name":"g"}`}, {"DELETE", "/api/v1/groups/g", ""},
		{"POST", "/api/v1/groups/g/robots", `{"robot":"kiwi"}`}, {"DELETE", "/api/v1/groups/g/robots/kiwi", ""},
	} {
		asks, may[a] = append(asks, a), may[propose]
	}
	backup := ask{"GET", "/api/v1/backup", ""}
	asks, may[backup] = append(asks, backup), []string{"ada", "local"}
	may[tokens] = []string{"ada"}
	may[code] = []string{"anna", "omar", "ada", "nix"}
	may[leave] = []string{"ada", "local"}

	f := newFace(t)
	f.set(func() { f.robots = []view.Robot{{ID: "aaa111", Name: "kiwi"}} })
	for _, a := range asks {
		for _, as := range []string{"", "anna", "omar", "ada", "nix", "local"} {
			got := f.do(as, a.method, a.path, a.body)
			switch {
			case slices.Contains(may[a], as):
				if got.StatusCode != 200 {
					t.Errorf("%s %s as %q: %s %s", a.method, a.path, as, got.Status, got.body)
				}
			case as == "":
				got.problem(t, 401, "unauthenticated")
				if got.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s %s: no WWW-Authenticate", a.method, a.path)
				}
			default:
				got.problem(t, 403, "not_allowed")
			}
		}
	}
}

// A refused request is refused before its input is looked at.
func TestAuthenticationComesFirst(t *testing.T) {
	f := newFace(t)
	f.do("", "POST", "/api/v1/tokens", "{nonsense").problem(t, 401, "unauthenticated")
	f.do("anna", "POST", "/api/v1/tokens", "{nonsense").problem(t, 403, "not_allowed")
	f.do("", "GET", "/api/v1/events?limit=-1", "").problem(t, 401, "unauthenticated")
}

func TestAuthorizationHeaders(t *testing.T) {
	f := newFace(t)
	good := f.token("anna")
	for _, h := range []string{"", "Bearer", "Bearer ", "Basic " + good, good, "Bearer " + good + " x", "Bearer  " + good, "Bearer forged", "Bearer " + strings.Repeat(".", 4000)} {
		f.do("", "GET", "/api/v1/fleet", "", "Authorization", h).problem(t, 401, "unauthenticated")
		// A bad token does not fall back to the control socket's rights.
		f.do("local", "GET", "/api/v1/fleet", "", "Authorization", h).problem(t, 401, "unauthenticated")
	}
	f.do("", "GET", "/api/v1/fleet", "", "Authorization", "Bearer "+good, "Authorization", "Bearer "+good).problem(t, 401, "unauthenticated")
	into[view.Fleet](t, f.do("", "GET", "/api/v1/fleet", "", "Authorization", "bearer "+good))
	// Over the control socket a token counts as the person, not the owner.
	f.do("local", "POST", "/api/v1/leave", "", "Authorization", "Bearer "+good).problem(t, 403, "not_allowed")
}

func TestListsAreNeverNull(t *testing.T) {
	f := newFace(t)
	f.set(func() { f.robots = []view.Robot{{ID: "a"}} })
	for _, path := range []string{"/api/v1/fleet", "/api/v1/robots", "/api/v1/robots/a", "/api/v1/nodes", "/api/v1/raft", "/api/v1/events", "/api/v1/groups"} {
		body := string(f.do("anna", "GET", path, "").body)
		for _, allowed := range []string{`"leader":null`, `"at":null`, `"since":null`, `"lastFailure":null`, `"deployed":null`, `"telemetry":null`, `"heardAgeMillis":null`, `"clockSkewMillis":null`} {
			body = strings.ReplaceAll(body, allowed, "")
		}
		if strings.Contains(body, "null") {
			t.Errorf("%s: %s", path, body)
		}
	}
}

// The field names are the contract with console, command line and scripts.
func TestTheFormOfARobot(t *testing.T) {
	f := newFace(t)
	age, temp := int64(1200), 41.5
	f.set(func() {
		f.robots = []view.Robot{{
			ID: "a", Name: "lekiwi-1", Machine: view.Machine{Type: "lekiwi", Version: "0.1", Arch: "arm64", OS: "linux"},
			Status: view.Online, StatusSince: decided, Vote: view.Vote{Role: view.Leader, VoterEligible: true, VoterApproved: true},
			HTTP: "http://192.0.2.1:7780", HeardAgeMillis: &age, Telemetry: &telemetry.Sample{CPUPercent: 5, TemperatureC: &temp},
		}}
	})
	want := `{"id":"a","name":"lekiwi-1","type":"lekiwi","hostname":"","version":"0.1","arch":"arm64","os":"linux","status":"online","statusSince":"2026-07-07T07:07:07Z",` +
		`"role":"leader","voterEligible":true,"voterApproved":true,"lifecycle":{"state":"discovered","since":null,"failures":0,"lastFailure":null},"deployed":null,"labels":{},"groups":[],"http":"http://192.0.2.1:7780","telemetry":{"cpuPercent":5,` +
		`"memUsedBytes":0,"memTotalBytes":0,"diskUsedBytes":0,"diskTotalBytes":0,"temperatureC":41.5,"batteryPercent":null,"netRxBytesPerSec":0,` +
		`"netTxBytesPerSec":0,"uptimeSeconds":0,"load1":0},"heardAgeMillis":1200,"asOf":{"read":"local","at":null,"cursor":{"history":"h","seq":0,"hash":"x"},"ageMillis":900,"path":[],"stale":true}}`
	if got := strings.TrimSpace(string(f.do("anna", "GET", "/api/v1/robots/a", "").body)); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFindingARobot(t *testing.T) {
	f := newFace(t)
	f.set(func() {
		f.robots = []view.Robot{
			{ID: "aaa111", Name: "kiwi"}, {ID: "aaa222", Name: "twin"}, {ID: "bbb333", Name: "twin"},
			{ID: "ccc444", Name: "wiped", Status: view.Left}, {ID: "ddd555", Name: "wiped"}, {ID: "eee666", Name: "gone", Status: view.Revoked},
			{ID: "fff777", Name: "aaa111x"}, {ID: "ggg888", Name: "two words/é"},
		}
	})
	for which, want := range map[string]string{
		"aaa111": "aaa111", "kiwi": "aaa111", "aaa1": "aaa111", "b": "bbb333", "wiped": "ddd555", "ccc": "ccc444", "gone": "eee666",
		"aaa111x": "fff777", "two%20words%2F%C3%A9": "ggg888",
	} {
		if r := into[view.OneRobot](t, f.do("anna", "GET", "/api/v1/robots/"+which, "")); string(r.ID) != want {
			t.Errorf("%q found %s, want %s", which, r.ID, want)
		}
	}
	f.do("anna", "GET", "/api/v1/robots/twin", "").problem(t, 409, "ambiguous")
	f.do("anna", "GET", "/api/v1/robots/aaa", "").problem(t, 409, "ambiguous")
	f.do("anna", "GET", "/api/v1/robots/nobody", "").problem(t, 404, "not_found")
	f.do("anna", "GET", "/api/v1/robots/"+strings.Repeat("x", 257), "").problem(t, 422, "invalid")
}

func TestEvents(t *testing.T) {
	f := newFace(t)
	f.set(func() {
		for i := range 30 {
			kind := "robot.online"
			if i%3 == 0 {
				kind = "group.created"
			}
			f.events = append(f.events, view.Event{Seq: uint64(i + 1), Type: kind, Stream: fmt.Sprintf("robot/%d", i%2), Data: json.RawMessage(`{}`)})
		}
	})
	get := func(query string) view.Events {
		t.Helper()
		return into[view.Events](t, f.do("anna", "GET", "/api/v1/events"+query, ""))
	}
	if e := get(""); len(e.Events) != 30 || e.Compacted || e.More || e.AsOf.Cursor.Seq != 30 || e.AsOf.Read != "local" {
		t.Fatalf("all: %d events, %+v", len(e.Events), e.AsOf)
	}
	if e := get("?since=10&limit=5"); len(e.Events) != 5 || e.Events[0].Seq != 11 || !e.More {
		t.Fatalf("page: %+v", e)
	}
	if e := get("?type=group.&stream=robot/1"); len(e.Events) != 5 {
		t.Fatalf("filtered: %+v", e)
	}
	if e := get("?since=30"); len(e.Events) != 0 || e.More {
		t.Fatalf("end: %+v", e)
	}
	f.set(func() { f.held = 12 })
	if e := get("?since=10"); !e.Compacted || e.Events[0].Seq != 13 {
		t.Fatalf("compacted: %+v", e)
	}
	// A page stops at 4 MB.
	f.set(func() {
		f.held, f.events = 0, nil
		for i := range 500 {
			f.events = append(f.events, view.Event{Seq: uint64(i + 1), Data: json.RawMessage(`"` + strings.Repeat("x", 16<<10-2) + `"`)})
		}
	})
	if e := get("?limit=1000"); len(e.Events) != maxPageBytes/(16<<10) || !e.More {
		t.Fatalf("%d large events, more %v", len(e.Events), e.More)
	}
}

func TestBadInput(t *testing.T) {
	f := newFace(t)
	for _, query := range []string{"?since=-1", "?since=x", "?since=18446744073709551616", "?limit=0", "?limit=1001", "?limit=1e3", "?sience=1", "?stream=" + strings.Repeat("x", 200)} {
		f.do("anna", "GET", "/api/v1/events"+query, "").problem(t, 422, "invalid")
	}
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"not JSON":        {`{"drafts":`, 400, "invalid"},
		"empty":           {``, 400, "invalid"},
		"no drafts":       {`{"drafts":[]}`, 422, "invalid"},
		"null drafts":     {`{"drafts":null}`, 422, "invalid"},
		"unknown field":   {`{"drafts":[],"draft":1}`, 422, "invalid"},
		"wrong type":      {`{"drafts":[{"stream":7,"type":"t","data":{}}]}`, 422, "invalid"},
		"no stream":       {`{"drafts":[{"type":"t","data":{}}]}`, 422, "invalid"},
		"513 drafts":      {`{"drafts":[` + strings.TrimSuffix(strings.Repeat(`{"stream":"s","type":"t","data":{}},`, 513), ",") + `]}`, 422, "invalid"},
		"over the bound":  {`{"drafts":[{"stream":"` + strings.Repeat("x", maxProposalBytes) + `","type":"t","data":{}}]}`, 413, "too_large"},
		"very deep":       {strings.Repeat(`[`, 100_000), 400, "invalid"},
		"an array":        {`[]`, 422, "invalid"},
		"trailing values": {draft + draft, 400, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			p := f.do("ada", "POST", "/api/v1/events", c.body).problem(t, c.status, c.code)
			if len(p.Detail) > 1000 {
				t.Fatalf("the answer repeats what was sent: %d bytes", len(p.Detail))
			}
		})
	}
	f.do("ada", "POST", "/api/v1/events", draft, "Content-Type", "text/plain") // both types: the first counts
	r := f.do("ada", "POST", "/api/v1/tokens", `{"ttlSeconds":60,"pad":"`+strings.Repeat("x", smallBodyBytes)+`"}`)
	r.problem(t, 413, "too_large")
	for _, ttl := range []string{"0", "-5", "604801", "1.5", `"60"`, "1e99"} {
		f.do("ada", "POST", "/api/v1/tokens", `{"ttlSeconds":`+ttl+`}`).problem(t, 422, "invalid")
	}
}

func TestAFormPostIsRefused(t *testing.T) {
	f := newFace(t)
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"} {
		req, err := http.NewRequest("POST", f.url+"/api/v1/events", strings.NewReader(draft))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Authorization", "Bearer "+f.token("ada"))
		resp, err := f.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		reply{resp, text}.problem(t, 415, "invalid")
	}
}

func TestProposing(t *testing.T) {
	f := newFace(t)
	r := into[view.Receipt](t, f.do("omar", "POST", "/api/v1/events", draft))
	if r.First != 1 || r.Last != 1 || r.Cursor.Seq != 1 {
		t.Fatalf("receipt %+v", r)
	}
	if p, err := f.auth.Verify(f.tokens[0]); err != nil || p.Person != "omar" {
		t.Fatalf("the leader gets the token of %+v, %v", p, err)
	}
	if d := string(f.events[0].Data); d != `{"description":"x"}` {
		t.Fatalf("data arrived as %s", d)
	}
}

// Each class of refusal has its status, code and next step.
func TestRefusals(t *testing.T) {
	f := newFace(t)
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{&event.Fault{Code: event.CodeInvalid, Path: "drafts[0].data.name", Message: "m", Next: "n"}, 422, "invalid", ""},
		{event.Refuse(event.CodeUnknownType, "", "n", "m"), 422, "unknown_type", ""},
		{event.Refuse(event.CodeNotAllowed, "", "n", "m"), 403, "not_allowed", ""},
		{event.Refuse(event.CodeConflict, event.ReasonVersion, "n", "m"), 409, "conflict", ""},
		{event.Refuse(event.CodeNotFound, "", "n", "m"), 404, "not_found", ""},
		{&event.Fault{Code: event.CodeBusy, Message: "m", Next: "n", RetryAfterMillis: 1200}, 503, "busy", "2"},
		{event.Refuse(event.CodeNoLeader, "", "n", "m"), 503, "no_leader", "1"},
		{event.Refuse(event.CodeUnknownOutcome, "", "n", "m"), 504, "unknown_outcome", ""},
		{fmt.Errorf("ask: %w", context.DeadlineExceeded), 504, "timeout", ""},
		{errors.New("disk on fire"), 500, "internal", ""},
		{&view.Problem{Status: 503, Code: "unreachable", Detail: "d", Next: "n"}, 503, "unreachable", ""},
	} {
		f.set(func() { f.refusal = fmt.Errorf("propose: %w", c.err) })
		r := f.do("ada", "POST", "/api/v1/events", draft)
		p := r.problem(t, c.status, c.code)
		if got := r.Header.Get("Retry-After"); got != c.retry {
			t.Errorf("%s: Retry-After %q, want %q", c.code, got, c.retry)
		}
		if c.code == "invalid" && p.Path != "drafts[0].data.name" {
			t.Errorf("path %q", p.Path)
		}
	}
}

func TestAJoinToken(t *testing.T) {
	f := newFace(t)
	got := into[view.Token](t, f.do("ada", "POST", "/api/v1/tokens", `{"ttlSeconds":600}`))
	token, err := ident.ParseJoinToken(got.Token)
	if err != nil || !token.Root.Equal(f.root.Public()) {
		t.Fatalf("token %+v, %v", token, err)
	}
	if !got.ExpiresAt.Equal(decided.Add(10 * time.Minute)) {
		t.Fatalf("expires at %v, want ten minutes after the log's time", got.ExpiresAt)
	}
	e := f.events[0]
	if e.Type != event.TypeTokenCreated || e.Stream != event.TokenStream(token.Hash()) || string(e.Data) != `{"ttlSeconds":600}` {
		t.Fatalf("proposed %+v", e)
	}
	if secret := got.Token[len("skein-join-"):]; strings.Contains(string(e.Data)+e.Stream, secret) {
		t.Fatal("the secret is in the log")
	}
}

func TestLoggingIn(t *testing.T) {
	f := newFace(t)
	info := into[view.LoginInfo](t, f.do("", "GET", "/api/v1/login", ""))
	body, err := json.Marshal(view.SignLogin(f.keys["omar"], info, "omar"))
	if err != nil {
		t.Fatal(err)
	}
	session := into[view.Session](t, f.do("", "POST", "/api/v1/login", string(body)))
	if session.Person != "omar" || !slices.Equal(session.Scopes, []string{"operator"}) {
		t.Fatalf("session %+v", session)
	}
	f.do("", "POST", "/api/v1/login", string(body)).problem(t, 401, "unauthenticated") // replayed

	code := into[view.LoginCode](t, f.do("", "POST", "/api/v1/login/code", "", "Authorization", "Bearer "+session.Token))
	if want := f.url + "/#login=" + code.Code; code.URL != want {
		t.Fatalf("url %s, want %s", code.URL, want)
	}
	local := into[view.LoginCode](t, f.do("local", "POST", "/api/v1/login/code", "", "Authorization", "Bearer "+session.Token))
	if want := "http://192.0.2.1:7780/#login=" + local.Code; local.URL != want {
		t.Fatalf("url %s, want %s", local.URL, want)
	}
	second := into[view.Session](t, f.do("", "POST", "/api/v1/login", `{"code":"`+code.Code+`"}`))
	if second.Person != "omar" {
		t.Fatalf("session %+v", second)
	}
	f.do("", "POST", "/api/v1/login", `{"code":"`+code.Code+`"}`).problem(t, 401, "unauthenticated")
}

func TestGuessingIsSlowed(t *testing.T) {
	f := newFace(t)
	limited := 0
	for range 30 {
		if r := f.do("", "POST", "/api/v1/login", `{"code":"`+string(f.key.ID())+`.guess"}`); r.StatusCode == 429 {
			r.problem(t, 429, "rate_limited")
			if r.Header.Get("Retry-After") == "" {
				t.Fatal("no Retry-After")
			}
			limited++
		}
	}
	if limited < 10 {
		t.Fatalf("%d of 30 guesses were slowed", limited)
	}
}

func TestReadiness(t *testing.T) {
	f := newFace(t)
	if r := into[view.Ready](t, f.do("", "GET", "/readyz", "")); !r.Ready {
		t.Fatalf("%+v", r)
	}
	f.set(func() { f.reason = "not admitted yet" })
	r := f.do("", "GET", "/readyz", "")
	if r.StatusCode != 503 || strings.TrimSpace(string(r.body)) != `{"ready":false,"reason":"not admitted yet"}` {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	if h := f.do("", "GET", "/healthz", ""); strings.TrimSpace(string(h.body)) != `{"status":"ok"}` {
		t.Fatalf("%s", h.body)
	}
}

func TestOnlyTheFleetsPagesSeeHealth(t *testing.T) {
	f := newFace(t)
	for origin, want := range map[string]string{"http://192.0.2.2:7780": "http://192.0.2.2:7780", "http://evil.example": "", "": ""} {
		r := f.do("", "GET", "/healthz", "", "Origin", origin)
		if got := r.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("origin %q is allowed as %q, want %q", origin, got, want)
		}
	}
	for _, path := range []string{"/readyz", "/api/v1/login", "/openapi.json"} {
		if r := f.do("", "GET", path, "", "Origin", "http://192.0.2.2:7780"); r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is open to other pages", path)
		}
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	f := newFace(t)
	for _, path := range []string{"/api/", "/api/v1/", "/api/v2/robots", "/api/v1/robots/a/b", "/api/v1/" + strings.Repeat("x", 1000)} {
		p := f.do("ada", "GET", path, "").problem(t, 404, "not_found")
		if len(p.Detail) > 200 {
			t.Errorf("detail of %d bytes", len(p.Detail))
		}
	}
	r := f.do("ada", "DELETE", "/api/v1/robots", "")
	if p := r.problem(t, 405, "invalid"); !strings.Contains(p.Detail, "DELETE") || p.Next != "use GET" {
		t.Errorf("%+v", p)
	}
	if r.Header.Get("Allow") != "GET" {
		t.Errorf("Allow %q", r.Header.Get("Allow"))
	}
	if r = f.do("ada", "PUT", "/api/v1/events", draft); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, POST" {
		t.Errorf("%s, Allow %q", r.Status, r.Header.Get("Allow"))
	}
}

func TestOpenAPI(t *testing.T) {
	f := newFace(t)
	r := f.do("", "GET", "/openapi.json", "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(r.body, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Paths["/api/v1/robots/{which}"]["get"].OperationID != "getRobot" || len(doc.Paths) != 33 {
		t.Fatalf("%s, %d paths", doc.OpenAPI, len(doc.Paths))
	}
	for _, name := range []string{"Problem", "Robot", "Fleet", "Sample"} {
		if doc.Components.Schemas[name] == nil {
			t.Errorf("no schema %s", name)
		}
	}
	if bytes.Contains(r.body, []byte("ErrorModel")) || bytes.Contains(r.body, []byte("://unpkg")) {
		t.Error("the framework's own error or documentation page shows")
	}
	for _, path := range []string{"/docs", "/openapi.yaml", "/schemas/Robot"} {
		if r := f.do("", "GET", path, ""); r.StatusCode != 404 {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
}

// looking is what looks at robots for the requests to a server.
func looking(t *testing.T, f *fleet) (*looker, func() []view.HeardRow) {
	s := &Server{cfg: Config{Fleet: f}, looker: &looker{fleet: f}}
	return s.looker, func() []view.HeardRow {
		robots, err := s.robots(t.Context(), &AtIn{})
		if err != nil {
			t.Error(err)
		}
		return robots.Rows
	}
}

// Nobody's telemetry flows until somebody asks; then the first answer waits a
// moment for it, and the interest lingers.
func TestTheFirstQuestionWaitsForTelemetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.robots = []view.Robot{{ID: "a", Status: view.Online}, {ID: "b", Status: view.Offline}}
		f.onWatch = func() {
			time.Sleep(120 * time.Millisecond) // the robot hears that somebody looks, and answers
			f.set(func() { f.robots[0].Telemetry = &telemetry.Sample{Load1: 1} })
		}
		l, look := looking(t, f)
		defer l.close()
		began := time.Now()
		rows := look()
		if d := time.Since(began); rows[0].Telemetry == nil || d > 150*time.Millisecond {
			t.Fatalf("after %v: %+v", d, rows[0])
		}
		time.Sleep(lingerFor + time.Second)
		if f.watchers() != 0 {
			t.Fatal("the interest outlives a single question")
		}
		look()
		time.Sleep(lingerFor - time.Second)
		look()
		time.Sleep(lingerFor - time.Second)
		if f.watchers() != 1 {
			t.Fatalf("%d watches while questions come", f.watchers())
		}
		time.Sleep(2 * time.Second)
		if f.watchers() != 0 {
			t.Fatal("the interest stays for ever")
		}
	})
}

func TestASilentRobotDelaysOnlyTheFirstQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.robots = []view.Robot{{ID: "a", Status: view.Online}}
		l, look := looking(t, f)
		began := time.Now()
		look()
		if d := time.Since(began); d != firstWait {
			t.Fatalf("waited %v", d)
		}
		began = time.Now()
		look()
		if d := time.Since(began); d != 0 {
			t.Fatalf("waited %v more", d)
		}
		l.close()
		if look(); f.watchers() != 0 {
			t.Fatal("watches after close")
		}
	})
}
