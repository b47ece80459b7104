package gateway

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
	"skein/node/gateway/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is all that a gateway asks of the composer: one voter with one admin.
type node struct {
	key ident.Key
	ada ident.Key
	// propose decides; nil decides at once.
	propose func(context.Context) error

	mu    sync.Mutex
	nodes []view.Node
	left  bool
}

func newKey(t testing.TB) ident.Key {
	t.Helper()
	k, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newNode(t testing.TB) *node { return &node{key: newKey(t), ada: newKey(t)} }

func (n *node) KeyOf(id ident.NodeID) (ed25519.PublicKey, bool) {
	return n.key.Public(), id == n.key.ID()
}
func (n *node) Voters() []ident.NodeID { return []ident.NodeID{n.key.ID()} }
func (n *node) Person(name string) (auth.Person, bool) {
	return auth.Person{PublicKey: n.ada.Public(), Scopes: []string{"viewer", "admin"}}, name == "ada"
}
func (n *node) OpenLogin(context.Context, ident.NodeID) (net.Conn, error) {
	return nil, errors.New("there is no other node")
}

func (n *node) Header() view.Fleet     { return n.Look().Fleet }
func (n *node) Robots() view.RobotRows { return n.Look().Rows() }

// Robot leaves it to the server to find robots.
func (n *node) Robot(string) (view.OneRobot, bool) { return view.OneRobot{}, false }

func (n *node) AsOf() view.AsOf { return n.Look().Fleet.AsOf }

func (n *node) Asked() view.Asked {
	return view.Asked{Log: 20, Scanned: 1, Past: 2, Views: []view.AskedView{{View: "alerts", Queries: 7, Kept: true, Rebuilds: 3}, {View: "robot", Queries: 5}}}
}

func (n *node) Look() view.Picture {
	return view.Picture{Fleet: view.Fleet{Name: "geese", AsOf: view.AsOf{Cursor: view.Cursor{History: "h", Seq: 3, Hash: "x"}}}}
}

func (n *node) Nodes() view.Nodes {
	n.mu.Lock()
	defer n.mu.Unlock()
	return view.Nodes{Nodes: n.nodes}
}
func (n *node) Raft() view.Raft                  { return view.Raft{} }
func (n *node) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func (n *node) Events(_ context.Context, since uint64, _ view.EventFilter, limit int) ([]view.Event, bool, error) {
	var out []view.Event
	for seq := since + 1; seq <= 3 && len(out) < limit; seq++ {
		out = append(out, view.Event{Seq: seq, Data: json.RawMessage(`{}`)})
	}
	return out, false, nil
}

func (n *node) Query(ctx context.Context, q view.EventQuery) (view.EventPage, error) {
	events, _, err := n.Events(ctx, q.After, q.EventFilter, q.Limit)
	return view.EventPage{Events: events}, err
}

// The log as a watcher of events sees it: whole, and nothing of it to read.
func (n *node) Cursor() view.Cursor                                { return view.Cursor{History: "h", Seq: 3, Hash: "x"} }
func (n *node) First() uint64                                      { return 1 }
func (n *node) Held(c view.Cursor) bool                            { return c.Seq <= 3 }
func (n *node) Records(uint64, int) ([]history.Record, bool)       { return nil, false }
func (n *node) Subscribe() (<-chan struct{}, func())               { return nil, func() {} }
func (n *node) TransferLeader(context.Context, ident.NodeID) error { return nil }

func (n *node) Backup(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, strings.Repeat("backup", 100_000))
	return err
}

func (n *node) Propose(ctx context.Context, _ string, _ []view.Draft) (view.Receipt, error) {
	if n.propose != nil {
		if err := n.propose(ctx); err != nil {
			return view.Receipt{}, err
		}
	}
	return view.Receipt{First: 4, Last: 4}, nil
}

func (n *node) Ready() string { return "" }
func (n *node) URL() string   { return "http://192.0.2.1:7780" }
func (n *node) Leave(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.left = true
	return nil
}

func (n *node) config() Config {
	log := slog.New(slog.DiscardHandler)
	return Config{
		HTTP: netip.MustParseAddrPort("127.0.0.1:0"), Self: n.key.ID(), Root: n.key.Public(), Version: "1",
		Auth:  auth.New(auth.Config{Key: n.key, Fleet: "fleet", Directory: n, Forwarder: n, Now: time.Now, Log: log}),
		Knows: Knows{Fleet: n, Events: n, Proposer: n, Node: n, History: n, Asked: n.Asked}, Metrics: metrics.NewSet(), Log: log,
		Console: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "console "+r.URL.Path) }),
	}
}

// serving is a gateway that runs.
type serving struct {
	*node
	t     testing.TB
	g     *Gateway
	cfg   Config
	base  string
	token string
	stop  func() time.Duration
}

func serveNode(t testing.TB, change func(*Config)) *serving {
	t.Helper()
	n := newNode(t)
	cfg := n.config()
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{node: n, t: t, g: g, cfg: cfg, base: "http://" + g.Addr().String()}
	s.stop = run(t, g)
	t.Cleanup(func() { s.stop() })
	s.token = n.token(t, cfg.Auth)
	return s
}

func (n *node) token(t testing.TB, a *auth.Service) string {
	t.Helper()
	code, err := a.IssueCode("ada", []string{"viewer", "admin"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	session, err := a.Login(t.Context(), view.Login{Code: code.Code})
	if err != nil {
		t.Fatal(err)
	}
	return session.Token
}

// run runs g until the result is called, which says how long the end took.
func run(t testing.TB, g *Gateway) func() time.Duration {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	return sync.OnceValue(func() time.Duration {
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		return time.Since(began)
	})
}

// client makes one connection per request, so that nothing is left open.
func client(network, addr string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
}

func (s *serving) do(method, path, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	return do(s.t, client("tcp", s.g.Addr().String()), method, s.base+path, body, headers...)
}

func do(t testing.TB, c *http.Client, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestTheFace(t *testing.T) {
	s := serveNode(t, nil)
	bearer := "Bearer " + s.token
	for path, want := range map[string]string{
		"/": "console /", "/robots/x": "console /robots/x", "/healthz": `{"status":"ok"}`,
		"/api/v1/fleet": `"name":"geese"`, "/metrics": "process_resident_memory_bytes", "/openapi.json": `"openapi":"3.1`,
	} {
		resp, text := s.do("GET", path, "", "Authorization", bearer)
		if resp.StatusCode != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %s %.200s", path, resp.Status, text)
		}
		for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"} {
			if resp.Header.Get(name) == "" {
				t.Errorf("%s has no %s", path, name)
			}
		}
	}
	resp, _ := s.do("GET", "/", "")
	for _, want := range []string{"connect-src 'self' ws: wss: http: https:", "default-src 'self'", "frame-ancestors 'none'"} {
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %q", csp, want)
		}
	}
	_, text := s.do("GET", "/metrics", "")
	for _, want := range []string{
		`skein_http_requests_total{route="GET /api/v1/fleet",code="200"} 1`, `skein_http_requests_total{route="/",code="200"}`,
		"skein_http_connections ", "skein_console_clients 0", `skein_http_request_seconds_count{route="GET /healthz"}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// What the node was asked is told under names with HELP and TYPE, which stand
// before the samples, and each node tells its own.
func TestMetricsOfQuestions(t *testing.T) {
	s := serveNode(t, nil)
	_, text := s.do("GET", "/metrics", "")
	for _, want := range []string{
		"# TYPE skein_log_queries_total counter\nskein_log_queries_total 20\n",
		"# TYPE skein_log_queries_scanned_total counter\nskein_log_queries_scanned_total 1\n",
		"# TYPE skein_past_queries_total counter\nskein_past_queries_total 2\n",
		"# TYPE skein_view_queries_total counter\nskein_view_queries_total{view=\"alerts\"} 7\nskein_view_queries_total{view=\"robot\"} 5\n",
		"# TYPE skein_view_rebuilds_total counter\nskein_view_rebuilds_total{view=\"alerts\"} 3\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %q:\n%s", want, text)
		}
		name := strings.Fields(want)[2]
		if strings.Count(text, "# HELP "+name+" ") != 1 {
			t.Errorf("%s is not explained once", name)
		}
	}
	other := serveNode(t, func(c *Config) { c.Asked = func() view.Asked { return view.Asked{Log: 1} } })
	if _, text := other.do("GET", "/metrics", ""); !strings.Contains(text, "\nskein_log_queries_total 1\n") || strings.Contains(text, `view="alerts"`) {
		t.Errorf("another node's metrics:\n%s", text)
	}
}

func TestRoutesOfStrangersMakeNoMetrics(t *testing.T) {
	s := serveNode(t, func(c *Config) { c.Console = nil })
	for i := range 20 {
		s.do("GET", fmt.Sprintf("/api/v1/nothing%d", i), "")
		s.do("GET", fmt.Sprintf("/nothing%d", i), "")
		s.do("GET", fmt.Sprintf("/api/v1/robots/%d", i), "")
	}
	if _, text := s.do("GET", "/metrics", ""); strings.Count(text, "skein_http_requests_total") > 4 {
		t.Fatalf("metrics:\n%s", text)
	}
}

func TestTheConsoleConnectsThroughEverything(t *testing.T) {
	s := serveNode(t, nil)
	s.node.mu.Lock()
	s.node.nodes = []view.Node{{ID: "other", State: view.Dead, Addrs: []string{"192.0.2.9"}, HTTPPort: 7780}}
	s.node.mu.Unlock()
	dial := func(origin string) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(t.Context(), s.base+"/api/v1/ws", &websocket.DialOptions{
			Subprotocols: []string{ws.Subprotocol}, HTTPHeader: http.Header{"Origin": {origin}}})
	}
	if _, resp, err := dial("http://evil.example"); err == nil || resp.StatusCode != 403 {
		t.Fatalf("a foreign page got in: %v", err)
	}
	c, _, err := dial("http://192.0.2.9:7780")
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"auth","token":"`+s.token+`"}`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.Read(t.Context()); err != nil || !strings.Contains(string(text), `"person":"ada"`) {
		t.Fatalf("%s, %v", text, err)
	}
	if err := c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"watch"}`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.Read(t.Context()); err != nil || !strings.Contains(string(text), `"events":[{"seq":1`) {
		t.Fatalf("%s, %v", text, err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, _, err := c.Read(t.Context()); err != nil {
				ended <- err
				return
			}
		}
	}()
	if d := s.stop(); d > 3*time.Second {
		t.Fatalf("stopping took %v", d)
	}
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Fatalf("the console was closed with %v", err)
	}
}

func TestCrossSitePostsAreRefused(t *testing.T) {
	s := serveNode(t, nil)
	bearer := "Bearer " + s.token
	for name, headers := range map[string][]string{
		"fetch metadata": {"Sec-Fetch-Site", "cross-site"},
		"same site":      {"Sec-Fetch-Site", "same-site"},
		"foreign origin": {"Origin", "http://evil.example"},
		"null origin":    {"Origin", "null"},
	} {
		resp, text := s.do("POST", "/api/v1/leave", "", append(headers, "Authorization", bearer)...)
		var p view.Problem
		if err := json.Unmarshal([]byte(text), &p); err != nil || resp.StatusCode != 403 || p.Code != "not_allowed" {
			t.Errorf("%s: %s %s", name, resp.Status, text)
		}
	}
	if s.left {
		t.Fatal("the node left")
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", s.base}, {}} {
		if resp, text := s.do("POST", "/api/v1/tokens", `{"ttlSeconds":9}`, append(headers, "Authorization", bearer)...); resp.StatusCode != 200 {
			t.Errorf("%v: %s %s", headers, resp.Status, text)
		}
	}
}

func TestAMegabyteOfDots(t *testing.T) {
	s := serveNode(t, nil)
	c, err := net.Dial("tcp", s.g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, "GET /api/v1/fleet HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+strings.Repeat(".", 1<<20)+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Fatalf("%s", resp.Status)
	}
	// What just passes that bound is refused by the token's own.
	if resp, _ := s.do("GET", "/api/v1/fleet", "", "Authorization", "Bearer "+strings.Repeat(".", 10<<10)); resp.StatusCode != 401 {
		t.Fatalf("%s", resp.Status)
	}
}

func TestAPortInUse(t *testing.T) {
	s := serveNode(t, nil)
	cfg := newNode(t).config()
	cfg.HTTP = s.g.Addr()
	_, err := New(cfg)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "`http`") || !strings.Contains(err.Error(), s.g.Addr().String()) {
		t.Fatalf("got %v", err)
	}
	cfg.HTTP = netip.MustParseAddrPort("192.0.2.77:0")
	if _, err = New(cfg); err == nil || !strings.Contains(err.Error(), "no such address") {
		t.Fatalf("got %v", err)
	}
}

func TestAGatewayThatNeverRan(t *testing.T) {
	cfg := newNode(t).config()
	cfg.ControlSocket = filepath.Join(t.TempDir(), "control.sock")
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(cfg.ControlSocket); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the socket remains: %v", err)
	}
	cfg.Metrics = metrics.NewSet()
	cfg.HTTP = g.Addr()
	if g, err = New(cfg); err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	g.Close()
}

func TestTheControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	s := serveNode(t, func(c *Config) { c.ControlSocket = path })
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket %v, %v", info, err)
	}
	local := client("unix", path)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/api/v1/robots", "", 200}, {"GET", "/api/v1/events", "", 200}, {"GET", "/readyz", "", 200},
		{"POST", "/api/v1/tokens", `{"ttlSeconds":5}`, 403},
		{"POST", "/api/v1/events", `{"drafts":[{"stream":"s","type":"t","data":{}}]}`, 403},
		{"POST", "/api/v1/login/code", "", 403},
		{"POST", "/api/v1/leave", "", 200},
	} {
		resp, text := do(t, local, c.method, "http://skein"+c.path, c.body)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, text)
		}
	}
	if !s.left {
		t.Error("the node did not leave")
	}
	// The network has none of these rights.
	if resp, _ := s.do("GET", "/api/v1/robots", ""); resp.StatusCode != 401 {
		t.Errorf("over the network: %s", resp.Status)
	}

	cfg := newNode(t).config()
	cfg.ControlSocket = path
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "another skein") {
		t.Errorf("two processes with one control socket: %v", err)
	}
	s.stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket remains after the end: %v", err)
	}
}

func TestASocketLeftByAKilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	serveNode(t, func(c *Config) { c.ControlSocket = path })
	if resp, _ := do(t, client("unix", path), "GET", "http://skein/healthz", ""); resp.StatusCode != 200 {
		t.Fatalf("%s", resp.Status)
	}
}

func TestASocketPathThatIsTooLong(t *testing.T) {
	cfg := newNode(t).config()
	cfg.ControlSocket = "/tmp/" + strings.Repeat("x", maxSocketPath)
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "`data`") {
		t.Fatalf("got %v", err)
	}
}

// Another user is turned away even where the file's mode would let him in.
func TestAnotherUserOnTheControlSocket(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	dir, err := os.MkdirTemp("/tmp", "skein")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "c")
	serveNode(t, func(c *Config) { c.ControlSocket = path })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	asNobody := make(chan error, 1)
	go func() {
		// This thread becomes nobody and ends with the goroutine.
		runtime.LockOSThread()
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); e != 0 {
			asNobody <- e
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		}
		if err != nil {
			asNobody <- err
			return
		}
		defer syscall.Close(fd)
		syscall.Write(fd, []byte("GET /api/v1/fleet HTTP/1.0\r\n\r\n"))
		if n, _ := syscall.Read(fd, make([]byte, 1)); n > 0 {
			asNobody <- errors.New("nobody was answered")
			return
		}
		asNobody <- nil
	}()
	if err := <-asNobody; err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := serveNode(t, func(c *Config) { c.MaxConns = 5 })
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range 5 {
		c, err := net.Dial("tcp", s.g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		// Answered, so it is surely counted.
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	one, err := net.Dial("tcp", s.g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	one.SetDeadline(time.Now().Add(headerTimeout / 2))
	io.WriteString(one, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if n, err := one.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the sixth connection is served or waits: %v", err)
	}
	held[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		resp, err := client("tcp", s.g.Addr().String()).Get(s.base + "/healthz")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a place that was given back is not given out: %v", err)
		}
	}
}

// pretend is a connection from an address.
type pretend struct {
	net.Conn
	from string
}

func (p pretend) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from))
}
func (p pretend) Close() error { return nil }

type pretendListener struct{ conns chan net.Conn }

func (l pretendListener) Accept() (net.Conn, error) {
	c, open := <-l.conns
	if !open {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (pretendListener) Close() error   { return nil }
func (pretendListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestOneRemoteCannotTakeAllConnections(t *testing.T) {
	conns := make(chan net.Conn, 4*maxConnsPerRemote)
	for i := range maxConnsPerRemote + 1 {
		conns <- pretend{from: fmt.Sprintf("[2001:db8:1:2::%x]:99", i+1)} // one machine
	}
	conns <- pretend{from: "192.0.2.1:99"}
	for range maxConnsPerRemote + 1 {
		conns <- pretend{from: "127.0.0.1:99"}
	}
	close(conns)
	refused := 0
	l := newBounded(pretendListener{conns}, 1<<20, func() { refused++ })
	var accepted []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		accepted = append(accepted, c)
	}
	if refused != 1 || len(accepted) != 2*maxConnsPerRemote+2 {
		t.Fatalf("%d refused, %d accepted", refused, len(accepted))
	}
	for _, c := range accepted {
		c.Close()
		c.Close() // twice counts once
	}
	if l.count() != 0 || len(l.remotes) != 0 {
		t.Fatalf("%d connections and %d remotes are still counted", l.count(), len(l.remotes))
	}
}

func TestAPanicIsAnAnswer(t *testing.T) {
	var log strings.Builder
	s := serveNode(t, func(c *Config) {
		c.Console = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a mistake") })
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	resp, text := s.do("GET", "/x", "")
	if resp.StatusCode != 500 || !strings.Contains(text, `"code":"internal"`) || strings.Contains(text, "mistake") {
		t.Fatalf("%s %s", resp.Status, text)
	}
	s.stop()
	if !strings.Contains(log.String(), "a mistake") {
		t.Fatalf("log: %s", log.String())
	}
}

func TestStoppingLetsQuickRequestsFinish(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	s := serveNode(t, nil)
	s.node.propose = func(context.Context) error {
		close(started)
		<-finish
		return nil
	}
	status := make(chan int, 1)
	go func() {
		resp, _ := s.do("POST", "/api/v1/tokens", `{"ttlSeconds":5}`, "Authorization", "Bearer "+s.token)
		status <- resp.StatusCode
	}()
	<-started
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	// Once new connections are refused, the end has begun.
	for {
		c, err := net.Dial("tcp", s.g.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	close(finish)
	if got := <-status; got != 200 {
		t.Fatalf("status %d", got)
	}
	<-stopped
}

func TestStoppingIsBounded(t *testing.T) {
	s := serveNode(t, nil)
	started := make(chan struct{})
	s.node.propose = func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		return ctx.Err()
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		req, _ := http.NewRequest("POST", s.base+"/api/v1/tokens", strings.NewReader(`{"ttlSeconds":5}`))
		req.Header.Set("Authorization", "Bearer "+s.token)
		req.Header.Set("Content-Type", "application/json")
		if resp, err := client("tcp", s.g.Addr().String()).Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-started
	began := time.Now()
	s.stop()
	<-gone
	if d := time.Since(began); d > 3*time.Second {
		t.Fatalf("stopping took %v", d)
	}
}

func TestFleetOrigins(t *testing.T) {
	nodes := []view.Node{
		{ID: "abc", Name: "Lekiwi-1", Addrs: []string{"192.0.2.9", "2001:db8::9"}, HTTPPort: 7780},
		{ID: "dead", State: view.Dead, Addrs: []string{"192.0.2.8"}, HTTPPort: 7783},
		{ID: "bad", Revoked: true, Addrs: []string{"192.0.2.66"}, HTTPPort: 7780},
		{ID: "web", Addrs: []string{"192.0.2.80"}, HTTPPort: 80},
		{ID: "hidden", Addrs: []string{"192.0.2.7"}},
	}
	for origin, want := range map[string]bool{
		"http://192.0.2.9:7780": true, "HTTP://192.0.2.9:7780": true, "http://[2001:DB8::9]:7780": true, "http://[::ffff:192.0.2.9]:7780": true,
		"http://abc.local:7780": true, "http://lekiwi-1.local:7780": true, "http://192.0.2.8:7783": true, "http://192.0.2.80": true,
		"http://localhost:7783": true, "http://[::1]:7783": true, "http://127.0.0.1:7780": true,
		"https://192.0.2.9:7780": false, "http://192.0.2.9:7781": false, "http://192.0.2.9": false, "http://localhost:7781": false,
		"http://192.0.2.66:7780": false, "http://192.0.2.7:0": false, "http://192.0.2.7": false, "http://192.0.2.8:7780": false,
		"http://192.0.2.10:7780": false, "http://abc.local.evil.io:7780": false, "http://evil.local:7780": false, "http://.local:7780": false,
		"http://hidden.local": false, "ftp://192.0.2.9:7780": false, "http://192.0.2.9:7780@evil.io": false,
		"null": false, "": false, "http://": false, "file://": false, "%": false,
	} {
		if got := fleetOrigin(origin, nodes); got != want {
			t.Errorf("origin %q: %v, want %v", origin, got, want)
		}
	}
}

// pipes is a listener whose connections are in memory, so that minutes of
// waiting pass at once in a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.conns <- far
	return near
}

// inBubble runs f with a gateway in virtual time.
func inBubble(t *testing.T, f func(n *node, token string, p *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		n, p := newNode(t), newPipes()
		cfg := n.config()
		g, err := assemble(cfg, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, g)
		f(n, n.token(t, cfg.Auth), p)
		stop()
	})
}

// Somebody who sends his request byte by byte is cut.
func TestSlowloris(t *testing.T) {
	inBubble(t, func(_ *node, _ string, p *pipes) {
		for name, begin := range map[string]string{
			"nothing at all": "",
			"headers":        "GET /healthz HTTP/1.1\r\nHost: x\r\n",
			"a body":         "POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		} {
			c := p.dial()
			began := time.Now()
			io.WriteString(c, begin)
			var drip sync.WaitGroup
			drip.Go(func() { // one byte a second, for ever
				for {
					if _, err := io.WriteString(c, "x"); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			})
			io.Copy(io.Discard, c)
			if d := time.Since(began); d > bodyTimeout {
				t.Errorf("%s: hung on for %v", name, d)
			}
			c.Close()
			drip.Wait()
		}
	})
}

func TestAnIdleConnectionEnds(t *testing.T) {
	inBubble(t, func(_ *node, _ string, p *pipes) {
		c := p.dial()
		defer c.Close()
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		began := time.Now()
		c.Read(make([]byte, 1))
		if d := time.Since(began); d != idleTimeout {
			t.Errorf("an idle connection was kept for %v", d)
		}
	})
}

// The deadline for reading a request must not end one that waits for the fleet:
// after the loss of a leader a proposal may take longer than its body may. Today
// net/http sees to it.
func TestAProposalMayTakeLongerThanItsBody(t *testing.T) {
	for _, waits := range []time.Duration{7 * time.Second, 14 * time.Second} {
		inBubble(t, func(n *node, token string, p *pipes) {
			n.propose = func(ctx context.Context) error {
				select {
				case <-time.After(waits):
					return nil
				case <-ctx.Done():
					return fmt.Errorf("after the request was given up: %w", context.Cause(ctx))
				}
			}
			body := `{"ttlSeconds":5}`
			c := p.dial()
			defer c.Close()
			go fmt.Fprintf(c, "POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 200 {
				t.Errorf("a proposal of %v: %s %s", waits, resp.Status, text)
			}
		})
	}
}
