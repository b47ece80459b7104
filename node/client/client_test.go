package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode answers like a node, as far as a client can tell. It checks logins
// by the same helper as a real one.
type fakeNode struct {
	t      *testing.T
	admin  ident.Key
	fleet  ident.FleetID
	token  atomic.Value // string: the one that is good now
	logins atomic.Int64
	calls  atomic.Int64
	answer http.HandlerFunc // for everything but logging in
}

func newFakeNode(t *testing.T) *fakeNode {
	admin, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{t: t, admin: admin, fleet: ident.FleetIDOf(admin.Public())}
	n.token.Store("token-1")
	n.answer = func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, view.Fleet{Name: "geese"}) }
	return n
}

func (n *fakeNode) identity() *Identity { return &Identity{"admin", n.admin} }

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/login" {
		n.calls.Add(1)
		if auth := r.Header.Get("Authorization"); auth != "" && auth != "Bearer "+n.token.Load().(string) {
			writeProblem(w, view.Problem{Status: 401, Code: "unauthenticated", Detail: "the token is not good"})
			return
		}
		n.answer(w, r)
		return
	}
	issuer := n.admin.ID()
	if r.Method == http.MethodGet {
		writeJSON(w, 200, view.LoginInfo{FleetID: n.fleet, Issuer: issuer, Now: nodeNow})
		return
	}
	n.logins.Add(1)
	var l view.Login
	if err := json.NewDecoder(r.Body).Decode(&l); err != nil || l.Person != "admin" || !l.SignedBy(n.admin.Public(), n.fleet) {
		writeProblem(w, view.Problem{Status: 401, Code: "unauthenticated", Detail: "the signature is wrong"})
		return
	}
	writeJSON(w, 200, view.Session{Token: n.token.Load().(string), ExpiresAt: nodeNow.Add(time.Hour), Person: l.Person})
}

func now() time.Time { return time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC) }

// nodeNow is the node's clock, far from the client's: neither need be right.
var nodeNow = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func writeProblem(w http.ResponseWriter, p view.Problem) {
	w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func connect(t *testing.T, o Options) *Client {
	t.Helper()
	o.Now = now
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// refused is an address where nothing listens.
func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestLoginIsMadeOnceAndRenewedWhenRefused(t *testing.T) {
	n := newFakeNode(t)
	c := connect(t, Options{Addresses: []string{serve(t, n)}, Identity: n.identity()})
	for range 3 {
		if _, err := c.Fleet(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.logins.Load(); got != 1 {
		t.Errorf("%d logins for three questions, want 1", got)
	}
	n.token.Store("token-2")
	if _, err := c.Fleet(t.Context()); err != nil {
		t.Errorf("the token was not renewed: %v", err)
	}
	if got := n.logins.Load(); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
}

func TestTokenIsRenewedBeforeItExpires(t *testing.T) {
	n := newFakeNode(t)
	clock := now()
	c, err := New(Options{Addresses: []string{serve(t, n)}, Identity: n.identity(), Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, step := range []struct {
		at     time.Time
		logins int64
	}{{now(), 1}, {now().Add(59 * time.Minute), 1}, {now().Add(time.Hour - expiryMargin - 1), 1}, {now().Add(time.Hour - expiryMargin), 2}} {
		clock = step.at
		if _, err := c.Fleet(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := n.logins.Load(); got != step.logins {
			t.Errorf("at %s: %d logins, want %d", step.at, got, step.logins)
		}
	}
}

func TestForeignPersonIsRefusedWithoutLooping(t *testing.T) {
	n := newFakeNode(t)
	stranger, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, Options{Addresses: []string{serve(t, n)}, Identity: &Identity{"admin", stranger}})
	_, err = c.Fleet(t.Context())
	p, ok := errors.AsType[*view.Problem](err)
	if !ok || p.Status != 401 || n.logins.Load() != 1 {
		t.Errorf("got %v after %d logins, want one 401", err, n.logins.Load())
	}
	// A node that refuses even a fresh token must not be asked for ever.
	n2 := newFakeNode(t)
	n2.answer = func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, view.Problem{Status: 401, Code: "unauthenticated"})
	}
	c2 := connect(t, Options{Addresses: []string{serve(t, n2)}, Identity: n2.identity()})
	if _, err := c2.Fleet(t.Context()); err == nil || n2.calls.Load() != 2 {
		t.Errorf("got %v after %d calls, want an error after 2", err, n2.calls.Load())
	}
}

func TestMovesToTheNextNode(t *testing.T) {
	n := newFakeNode(t)
	dead := refused(t)
	c := connect(t, Options{Addresses: []string{dead, serve(t, n)}, Identity: n.identity()})
	if _, err := c.Fleet(t.Context()); err != nil {
		t.Fatalf("the second address was not asked: %v", err)
	}
	// A change too, when the connection could not even be made.
	if _, err := c.Propose(t.Context(), event.VoterApproved{}.Draft(n.admin.ID())); err != nil {
		t.Fatal(err)
	}
	c = connect(t, Options{Addresses: []string{dead}})
	_, err := c.Fleet(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), dead) || strings.Count(err.Error(), "127.0.0.1") != 1 {
		t.Errorf("got %v, want ErrUnreachable naming the address once", err)
	}
}

// breaking closes the connection in the middle of an answer.
func breaking(calls *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(200)
		w.Write([]byte(`{"first":`))
		panic(http.ErrAbortHandler)
	}
}

func TestLostAnswers(t *testing.T) {
	n := newFakeNode(t)
	var breaks atomic.Int64
	n.answer = breaking(&breaks)
	healthy := newFakeNode(t)
	healthy.admin, healthy.fleet = n.admin, n.fleet
	c := connect(t, Options{Addresses: []string{serve(t, n), serve(t, healthy)}, Identity: n.identity()})

	_, err := c.Propose(t.Context(), event.VoterApproved{}.Draft(n.admin.ID()))
	if !errors.Is(err, ErrMaybeDone) || healthy.calls.Load() != 0 {
		t.Errorf("a change whose answer was lost gave %v and %d calls elsewhere; it must not be sent twice", err, healthy.calls.Load())
	}
	if _, err := c.Fleet(t.Context()); err != nil || healthy.calls.Load() != 1 {
		t.Errorf("a question whose answer was lost gave %v and %d calls elsewhere; it is harmless to ask again", err, healthy.calls.Load())
	}
	if breaks.Load() != 2 {
		t.Errorf("the breaking node was called %d times, want 2", breaks.Load())
	}
}

// TestTimeUpAfterAChangeWasSent: it is not said that it can be tried again.
func TestTimeUpAfterAChangeWasSent(t *testing.T) {
	n := newFakeNode(t)
	arrived := make(chan struct{})
	n.answer = func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	c := connect(t, Options{Addresses: []string{serve(t, n)}, Identity: n.identity()})
	for _, ask := range []struct {
		send  func(context.Context) error
		maybe bool
	}{
		{func(ctx context.Context) error {
			_, err := c.Propose(ctx, event.VoterApproved{}.Draft(n.admin.ID()))
			return err
		}, true},
		{func(ctx context.Context) error { _, err := c.Fleet(ctx); return err }, false},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-arrived; cancel(nil) }()
		err := ask.send(ctx)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrMaybeDone) != ask.maybe {
			t.Errorf("got %v, want that it may be done: %v", err, ask.maybe)
		}
	}
}

func TestAnswersThatAreNotANodes(t *testing.T) {
	cases := map[string]http.HandlerFunc{
		"html":       func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello</html>") },
		"html error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", 404) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"other JSON": func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, []int{1}) },
		"damaged problem": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(500)
			io.WriteString(w, "{")
		},
		"empty answer 200": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/json") },
	}
	for name, h := range cases {
		c := connect(t, Options{Addresses: []string{serve(t, h)}})
		if _, err := c.Fleet(t.Context()); !errors.Is(err, ErrNotSkein) {
			t.Errorf("%s: got %v, want ErrNotSkein", name, err)
		}
	}
}

func TestHugeAnswerIsCut(t *testing.T) {
	endless := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		block := []byte(strings.Repeat(" ", 1<<20))
		for range maxAnswerBytes>>20 + 1 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	c := connect(t, Options{Addresses: []string{serve(t, http.HandlerFunc(endless))}})
	if _, err := c.Fleet(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v, want a refusal of the size", err)
	}
}

func TestEveryCallIsBounded(t *testing.T) {
	release := make(chan struct{})
	stuck := func(http.ResponseWriter, *http.Request) {
		select {
		case <-release:
		case <-time.After(5 * time.Second): // so that a missing bound fails this test
		}
	}
	address := serve(t, http.HandlerFunc(stuck))
	t.Cleanup(func() { close(release) }) // before the server closes
	c := connect(t, Options{Addresses: []string{address}, Timeout: 50 * time.Millisecond})
	if _, err := c.Fleet(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Fleet(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancellation", err)
	}
}

func TestControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	n := newFakeNode(t)
	server := httptest.NewUnstartedServer(n)
	server.Listener.Close()
	server.Listener = l
	server.Start()
	defer server.Close()

	c := connect(t, Options{Addresses: []string{"unix:" + path}, Identity: n.identity()})
	if _, err := c.Fleet(t.Context()); err != nil || n.logins.Load() != 0 {
		t.Errorf("reading gave %v after %d logins; the socket itself is the permission", err, n.logins.Load())
	}
	n.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/leave" && r.Header.Get("Authorization") != "" {
			t.Error("leaving over the control socket sent a token")
		}
		writeJSON(w, 200, map[string]any{})
	}
	if err := c.Leave(t.Context()); err != nil || n.logins.Load() != 0 {
		t.Errorf("leaving gave %v after %d logins", err, n.logins.Load())
	}
	if _, err := c.NewToken(t.Context(), time.Minute); err != nil || n.logins.Load() != 1 {
		t.Errorf("a change gave %v after %d logins, want 1: it needs a person", err, n.logins.Load())
	}

	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	gone := connect(t, Options{Addresses: []string{"unix:" + path}})
	if _, err := gone.Fleet(t.Context()); !errors.Is(err, ErrUnreachable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrUnreachable for a socket that is not there", err)
	}
}

func TestChangeWithoutIdentity(t *testing.T) {
	n := newFakeNode(t)
	c := connect(t, Options{Addresses: []string{serve(t, n)}})
	if _, err := c.NewLoginCode(t.Context()); !errors.Is(err, ErrNoIdentity) || n.calls.Load() != 0 {
		t.Errorf("got %v after %d calls, want ErrNoIdentity before any", err, n.calls.Load())
	}
}

func TestReadingWithoutIdentityOverTheNetwork(t *testing.T) {
	n := newFakeNode(t)
	n.answer = func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, view.Problem{Status: 401, Code: "unauthenticated", Detail: "this needs a token"})
	}
	c := connect(t, Options{Addresses: []string{serve(t, n)}})
	if _, err := c.Fleet(t.Context()); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("got %v, want ErrNoIdentity", err)
	}
}

func TestRequests(t *testing.T) {
	n := newFakeNode(t)
	var seen string
	n.answer = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body)
		writeJSON(w, 200, map[string]any{})
	}
	c := connect(t, Options{Addresses: []string{serve(t, n)}, Identity: n.identity()})
	ctx := t.Context()
	id := n.admin.ID()
	cases := []struct {
		call func() error
		want string
	}{
		{func() error { _, err := c.Fleet(ctx); return err }, "GET /api/v1/fleet "},
		{func() error { _, err := c.Robots(ctx); return err }, "GET /api/v1/robots "},
		{func() error { _, err := c.Robot(ctx, "a b/../c"); return err }, "GET /api/v1/robots/a%20b%2F..%2Fc "},
		{func() error { _, err := c.Nodes(ctx); return err }, "GET /api/v1/nodes "},
		{func() error { _, err := c.Raft(ctx); return err }, "GET /api/v1/raft "},
		{func() error { _, err := c.EventTypes(ctx); return err }, "GET /api/v1/events/types "},
		{func() error { _, err := c.Events(ctx, 7, view.EventFilter{}, 0); return err }, "GET /api/v1/events?since=7 "},
		{func() error {
			_, err := c.Events(ctx, 7, view.EventFilter{Stream: "robot/x", Type: "robot."}, 9)
			return err
		},
			"GET /api/v1/events?limit=9&since=7&stream=robot%2Fx&type=robot. "},
		{func() error { _, err := c.NewToken(ctx, 10*time.Minute); return err }, `POST /api/v1/tokens {"ttlSeconds":600}`},
		{func() error { _, err := c.NewLoginCode(ctx); return err }, "POST /api/v1/login/code {}"},
		{func() error { return c.Leave(ctx) }, "POST /api/v1/leave {}"},
		{func() error { _, err := c.Propose(ctx, event.VoterApproved{}.Draft(id)); return err },
			fmt.Sprintf(`POST /api/v1/events {"drafts":[{"stream":"node/%s","type":"voter.approved","schema":1,"data":{}}]}`, id)},
	}
	for _, tc := range cases {
		if err := tc.call(); err != nil || seen != tc.want {
			t.Errorf("got %q (%v)\nwant %q", seen, err, tc.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:7780", "https://robot.local/", "127.0.0.1:7780", "unix:/run/x", "http://[::1]:7780"} {
		if c, err := New(Options{Addresses: []string{good}}); err != nil {
			t.Errorf("%q: %v", good, err)
		} else {
			c.Close()
		}
	}
	for _, bad := range []string{"", "ftp://x", "http://", "http://x/path", "http://x?y=1", "http://a b", "http://x:port"} {
		if _, err := New(Options{Addresses: []string{bad}}); !errors.Is(err, ErrBadAddress) {
			t.Errorf("%q: got %v, want ErrBadAddress", bad, err)
		}
	}
	if _, err := New(Options{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no address: got %v", err)
	}
}

func TestIdentityFiles(t *testing.T) {
	dir := t.TempDir()
	key, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) string {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	if err := errors.Join(key.Save(in("admin.key")), IdentityFile{"admin", "admin.key"}.Save(in("admin.json"))); err != nil {
		t.Fatal(err)
	}
	seed, err := json.Marshal(key.Seed())
	if err != nil {
		t.Fatal(err)
	}
	write("seed.json", fmt.Sprintf(`{"person":"admin","key":%s}`, seed))
	write("absolute.json", fmt.Sprintf(`{"person":"admin","key":%q}`, in("admin.key")))
	for _, name := range []string{"admin.json", "seed.json", "absolute.json"} {
		id, err := LoadIdentity(in(name))
		if err != nil || id.Person != "admin" || id.Key.ID() != key.ID() {
			t.Errorf("%s: got %v, %v", name, id, err)
		}
	}
	for name, want := range map[string]error{
		write("rubbish.json", "rubbish"):                               ErrBadIdentity,
		write("empty.json", "{}"):                                      ErrBadIdentity,
		write("nokey.json", `{"person":"admin","key":"nosuch.key"}`):   fs.ErrNotExist,
		write("damaged.json", `{"person":"admin","key":"empty.json"}`): ident.ErrKeyDamaged,
		in("absent.json"):                                              fs.ErrNotExist,
	} {
		if _, err := LoadIdentity(name); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	for _, exposed := range []string{"admin.key", "admin.json"} {
		if err := os.Chmod(in(exposed), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(in("admin.json")); !errors.Is(err, ident.ErrKeyExposed) {
			t.Errorf("%s readable by others: got %v", exposed, err)
		}
		if err := os.Chmod(in(exposed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDevFleetFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.json")
	want := DevFleet{[]string{"http://127.0.0.1:7780"}, "robot-1/admin.json"}
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadDevFleet(path)
	if err != nil || got.HTTP[0] != want.HTTP[0] || got.Identity != filepath.Join(filepath.Dir(path), want.Identity) {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDevFleet(path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v for a file without addresses", err)
	}
	if _, err := LoadDevFleet(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for no file", err)
	}
}

func TestFindRobot(t *testing.T) {
	robot := func(id, name string, status view.Status) view.Robot {
		return view.Robot{ID: ident.NodeID(id), Name: name, Status: status}
	}
	fleet := []view.Robot{
		robot("aaaaaaaa", "gander", view.Online),
		robot("aabbbbbb", "goose", view.Online),
		robot("cccccccc", "goose", view.Offline),
		robot("dddddddd", "wiped", view.Revoked),
		robot("eeeeeeee", "wiped", view.Online),
		robot("ffffffff", "lost", view.Revoked),
		robot("gggggggg", "lost", view.Left),
		robot("hhhhhhhh", "aa", view.Online),
	}
	cases := []struct {
		which, id string
		err       error
	}{
		{"gander", "aaaaaaaa", nil},
		{"cccccccc", "cccccccc", nil},
		{"cc", "cccccccc", nil},
		{"aaa", "aaaaaaaa", nil},
		{"aa", "hhhhhhhh", nil}, // a name wins over the start of an id
		{"a", "", ErrAmbiguous},
		{"goose", "", ErrAmbiguous},
		{"wiped", "eeeeeeee", nil},
		{"dddddddd", "dddddddd", nil},
		{"lost", "", ErrAmbiguous},
		{"", "", ErrNoSuchRobot},
		{"nobody", "", ErrNoSuchRobot},
		{"Gander", "", ErrNoSuchRobot},
	}
	for _, c := range cases {
		r, err := FindRobot(fleet, c.which)
		if string(r.ID) != c.id || !errors.Is(err, c.err) {
			t.Errorf("%q: got %s, %v; want %s, %v", c.which, r.ID, err, c.id, c.err)
		}
	}
	if _, err := FindRobot(fleet, "goose"); !strings.Contains(err.Error(), "aabbbbbb (goose), cccccccc (goose)") {
		t.Errorf("the error does not list the candidates: %v", err)
	}
	var many []view.Robot
	for i := range 50 {
		many = append(many, robot(fmt.Sprintf("x%02d", i), "same", view.Online))
	}
	if _, err := FindRobot(many, "same"); !strings.Contains(err.Error(), "42 more") || strings.Contains(err.Error(), "x08") {
		t.Errorf("the list of candidates is not bounded: %v", err)
	}
}
