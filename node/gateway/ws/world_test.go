package ws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"skein/agent/telemetry"
	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen, on a machine that may
// be busy with ten other things.
const patience = time.Minute

// stock is a node's knowledge that a test changes: a log, robots, and a cursor
// that may lag behind another replica's.
type stock struct {
	mu       sync.Mutex
	history  string
	events   []view.Event // seq i+1 at index i
	held     uint64       // events up to this seq are no longer held
	robots   map[ident.NodeID]robot
	peers    []view.Peer
	term     uint64
	looks    int
	readErr  error
	slow     time.Duration // how long a reading of the log takes
	watchers map[chan struct{}]bool
}

// robot is a Robot with the time it was heard instead of an age.
type robot struct {
	view.Robot
	heard time.Time
}

func newStock() *stock {
	return &stock{history: "h1", robots: map[ident.NodeID]robot{}, watchers: map[chan struct{}]bool{}}
}

func (r *stock) AsOf() view.AsOf { return r.Look().Fleet.AsOf }

func (r *stock) Look() view.Picture {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks++
	p := view.Picture{Peers: slices.Clone(r.peers)}
	seq := uint64(len(r.events))
	p.Fleet = view.Fleet{FleetID: "f", Name: "geese", Term: r.term, Robots: len(r.robots),
		AsOf: view.AsOf{Cursor: view.Cursor{History: r.history, Seq: seq, Hash: hashAt(r.history, seq)}, AgeMillis: 7}}
	for _, x := range r.robots {
		row := x.Robot
		if !x.heard.IsZero() {
			age := time.Since(x.heard).Milliseconds()
			row.HeardAgeMillis = &age
		}
		p.Robots = append(p.Robots, row)
	}
	slices.SortFunc(p.Robots, func(a, b view.Robot) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return p
}

func hashAt(history string, seq uint64) string { return fmt.Sprintf("hash-%s-%d", history, seq) }

func (r *stock) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[c] = true
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, c)
	}
}

func (r *stock) Events(ctx context.Context, since uint64, _ view.EventFilter, limit int) ([]view.Event, bool, error) {
	time.Sleep(r.slow)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readErr != nil {
		return nil, false, r.readErr
	}
	from := max(since, r.held)
	if from >= uint64(len(r.events)) {
		return nil, since < r.held, ctx.Err()
	}
	page := r.events[from:]
	return slices.Clone(page[:min(limit, len(page))]), since < r.held, ctx.Err()
}

// PictureAt is what was decided at a moment: as many robots as the moment's number.
func (r *stock) PictureAt(_ context.Context, at view.At) (view.Picture, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readErr != nil {
		return view.Picture{}, r.readErr
	}
	if at.Seq > uint64(len(r.events)) {
		return view.Picture{}, &view.Problem{Status: 404, Code: "not_found", Detail: "it has not happened", Next: "wait"}
	}
	p := view.Picture{Fleet: view.Fleet{AsOf: view.AsOf{At: &view.Moment{Seq: at.Seq}, Cursor: view.Cursor{History: r.history, Seq: at.Seq}}}}
	for i := range at.Seq {
		p.Robots = append(p.Robots, view.Robot{ID: ident.NodeID(fmt.Sprint(i))})
	}
	return p, nil
}

// The log as a watcher of events sees it. Tests of that use a real one.
func (r *stock) Cursor() view.Cursor { return r.Look().Fleet.AsOf.Cursor }

func (r *stock) First() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held + 1
}

func (r *stock) Held(c view.Cursor) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.History == r.history && c.Seq >= r.held && c.Seq <= uint64(len(r.events)) && c.Hash == hashAt(r.history, c.Seq)
}

func (r *stock) Records(uint64, int) ([]history.Record, bool) { return nil, false }

func (r *stock) Subscribe() (<-chan struct{}, func()) { return r.Watch() }

// change changes the replica and tells who watches.
func (r *stock) change(f func()) {
	r.mu.Lock()
	f()
	for c := range r.watchers {
		signal(c)
	}
	r.mu.Unlock()
}

// decide appends n events, each with data of about size bytes.
func (r *stock) decide(n, size int) {
	r.change(func() { r.append(n, size) })
}

func (r *stock) append(n, size int) {
	for range n {
		seq := uint64(len(r.events) + 1)
		data := fmt.Sprintf(`{"history":%q,"seq":%d,"pad":%q}`, r.history, seq, strings.Repeat("x", size))
		r.events = append(r.events, view.Event{Seq: seq, Stream: "fleet", Version: seq, Type: "test.happened", Data: json.RawMessage(data)})
	}
}

// hear is a report of a robot with a load.
func (r *stock) hear(id ident.NodeID, load float64) {
	r.change(func() {
		x := robot{view.Robot{ID: id, Name: "robot " + string(id), Status: view.Online, Telemetry: &telemetry.Sample{Load1: load}}, time.Now()}
		r.robots[id] = x
	})
}

func (r *stock) watched() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.watchers)
}

// gate knows the tokens "good" and "blind" (may not read).
type gate struct {
	mu  sync.Mutex
	bad map[string]bool // persons whose token is no longer good
}

func (g *gate) Verify(token string) (auth.Principal, error) {
	switch token {
	case "good":
		return auth.Principal{Person: "anna", Scopes: []string{"viewer"}}, nil
	case "blind":
		return auth.Principal{Person: "bert", Scopes: []string{"other"}}, nil
	}
	if token == "early" {
		return auth.Principal{}, &view.Problem{Status: 503, Code: "not_ready", Detail: "just started", Next: "try again"}
	}
	return auth.Principal{}, &view.Problem{Status: 401, Code: "unauthenticated", Detail: "no such token", Next: "log in again"}
}

func (g *gate) Still(p auth.Principal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bad[p.Person] {
		return &view.Problem{Status: 401, Code: "unauthenticated", Detail: "the token has expired", Next: "log in again"}
	}
	return nil
}

// quickTiming makes waits that tests wait for short, and those that only guard
// against a stuck peer long.
func quickTiming() timing {
	t := shippedTiming()
	t.beat, t.pace, t.quiet = 50*time.Millisecond, 10*time.Millisecond, 40*time.Millisecond
	t.speak, t.writing, t.catchUp = patience, patience, patience
	return t
}

// node is a real HTTP server with the WebSocket endpoint.
type node struct {
	t       testing.TB
	replica *stock
	gate    *gate
	server  *Server
	url     string
	stop    func()
}

func newNode(t testing.TB, r *stock, times timing) *node {
	n := &node{t: t, replica: r, gate: &gate{bad: map[string]bool{}}}
	n.server = newServer(Config{
		Self: "self", Gate: n.gate, Fleet: r, Events: r, Past: r, History: r,
		AllowOrigin: func(origin string) bool {
			return origin == "http://192.0.2.9:7780" || origin == "http://[2001:db8::9]:7780"
		},
		Metrics: metrics.NewSet(), Log: slog.New(slog.DiscardHandler),
	}, times)
	h := httptest.NewServer(n.server)
	n.url = h.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.server.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		h.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// said is any message of the server.
type said struct {
	Type    string
	Node    view.NodeRef
	Fleet   *view.Fleet
	Person  string
	Peers   []view.Peer
	Cursor  view.Cursor
	Robots  []view.Robot
	Events  []view.Event
	Changed []view.Robot
	Removed []ident.NodeID
	Reset   bool
	Reason  string
	By      uint64
	At      string
	Problem *view.Problem
	Code    string
	Message string
	Next    string
}

// page is a client.
type page struct {
	t    testing.TB
	conn *websocket.Conn
}

func (n *node) dial(headers ...string) (*page, *http.Response, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	conn, resp, err := websocket.Dial(ctx, n.url+"/api/v1/ws", &websocket.DialOptions{Subprotocols: []string{Subprotocol}, HTTPHeader: h})
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(64 << 20)
	n.t.Cleanup(func() { conn.CloseNow() })
	return &page{n.t, conn}, resp, nil
}

// open connects and authenticates.
func (n *node) open() *page {
	n.t.Helper()
	p, _, err := n.dial()
	if err != nil {
		n.t.Fatal(err)
	}
	p.say(`{"type":"auth","token":"good"}`)
	if m := p.next(); m.Type != "welcome" {
		n.t.Fatalf("got %+v, want welcome", m)
	}
	return p
}

func (p *page) say(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := p.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *page) watch(cursor *view.Cursor, events int) {
	p.t.Helper()
	text, err := json.Marshal(map[string]any{"type": "watch", "cursor": cursor, "events": events})
	if err != nil {
		p.t.Fatal(err)
	}
	p.say(string(text))
}

// next is the next message, whatever it is.
func (p *page) next() said {
	p.t.Helper()
	m, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *page) read() (said, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	_, text, err := p.conn.Read(ctx)
	if err != nil {
		return said{}, err
	}
	var m said
	if err := json.Unmarshal(text, &m); err != nil {
		return said{}, fmt.Errorf("message %.200s: %w", text, err)
	}
	return m, nil
}

// until skips ticks and whatever else until a message of the type.
func (p *page) until(kind string) said {
	p.t.Helper()
	for {
		if m := p.next(); m.Type == kind {
			return m
		}
	}
}

// closed reads to the end and wants an error message with the code first, and
// the status.
func (p *page) closed(status websocket.StatusCode, code string) {
	p.t.Helper()
	var last said
	for {
		m, err := p.read()
		if err == nil {
			last = m
			continue
		}
		if got := websocket.CloseStatus(err); got != status {
			p.t.Fatalf("closed with %v (%v), want %v", got, err, status)
		}
		if code != "" && (last.Type != "error" || last.Code != code || last.Message == "" || last.Next == "") {
			p.t.Fatalf("last message %+v, want an error %s", last, code)
		}
		return
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

var errDisk = errors.New("input/output error")
