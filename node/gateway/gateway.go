package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"skein/consensus/watch"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/rest"
	"skein/node/gateway/view"
	"skein/node/gateway/ws"
)

const (
	// DefaultConns is how many connections are open at most unless Config says
	// otherwise.
	DefaultConns = 2048
	// maxHeaderBytes bounds the request line and headers; tokens are under 500 bytes.
	maxHeaderBytes = 12 << 10
	// headerTimeout, bodyTimeout and idleTimeout bound slow clients; answerTimeout
	// bounds a whole answer. None applies to a WebSocket.
	headerTimeout = 5 * time.Second
	bodyTimeout   = 15 * time.Second
	idleTimeout   = 60 * time.Second
	answerTimeout = 40 * time.Second
	// stopTimeout bounds the end of everything.
	stopTimeout = 2500 * time.Millisecond
)

// Events reads the log for both, REST and WebSocket.
type Events interface {
	rest.Events
	ws.Events
}

// Config is what a Gateway needs. The interfaces are those of rest; one value
// may satisfy several.
type Config struct {
	// HTTP is where to listen; port 0 is any.
	HTTP netip.AddrPort
	// ControlSocket is the path of the control socket, "" for none.
	ControlSocket string
	// MaxConns bounds open connections; 0 is DefaultConns.
	MaxConns int
	// Console serves the web app at "/", nil for none.
	Console http.Handler

	Self    ident.NodeID
	Root    ed25519.PublicKey
	Version string

	Auth *auth.Service
	Knows
	// Metrics is this node's set, written at /metrics.
	Metrics *metrics.Set
	Log     *slog.Logger
}

// Knows is whom a Gateway asks for what its visitors ask.
type Knows struct {
	Fleet    rest.Fleet
	Past     rest.Past
	Reads    rest.Reads
	Events   Events
	Proposer rest.Proposer
	Node     rest.Node
	// History is this node's copy of the log, for who watches it.
	History watch.Log
	// Asked is what was asked so far, for /metrics.
	Asked func() view.Asked
}

// Gateway is a node's HTTP face.
type Gateway struct {
	cfg      Config
	listener net.Listener
	control  net.Listener // nil if there is none
	rest     *rest.Server
	ws       *ws.Server
	http     *http.Server
	local    *http.Server
}

// New listens and puts everything together; nothing is served before Run. The
// caller runs Run or Close.
func New(cfg Config) (*Gateway, error) {
	tcp, err := listen(cfg.HTTP)
	if err != nil {
		return nil, err
	}
	var control net.Listener
	if cfg.ControlSocket != "" {
		if control, err = listenControl(cfg.ControlSocket); err != nil {
			tcp.Close()
			return nil, err
		}
	}
	g, err := assemble(cfg, tcp, control)
	if err != nil {
		tcp.Close()
		if control != nil {
			control.Close()
		}
		return nil, err
	}
	return g, nil
}

// assemble makes a gateway of listeners that are there already.
func assemble(cfg Config, tcp, control net.Listener) (*Gateway, error) {
	allow := func(origin string) bool { return fleetOrigin(origin, cfg.Fleet.Nodes().Nodes) }
	rests, err := rest.New(rest.Config{
		Root: cfg.Root, Version: cfg.Version, Auth: cfg.Auth, Fleet: cfg.Fleet, Past: cfg.Past, Reads: cfg.Reads, Events: cfg.Events,
		Proposer: cfg.Proposer, Node: cfg.Node, AllowOrigin: allow, Now: time.Now, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultConns
	}
	limited := newBounded(tcp, cfg.MaxConns, cfg.Metrics.NewCounter("skein_http_connections_refused_total").Inc)
	cfg.Metrics.NewGauge("skein_http_connections", func() float64 { return float64(limited.count()) })
	g := &Gateway{cfg: cfg, listener: limited, control: control, rest: rests}
	g.ws = ws.New(ws.Config{
		Self: cfg.Self, Gate: cfg.Auth, Fleet: cfg.Fleet, Events: cfg.Events, Past: cfg.Past, History: cfg.History,
		AllowOrigin: allow, Metrics: cfg.Metrics, Log: cfg.Log,
	})
	handler := g.handler()
	g.http, g.local = server(cfg.Log, handler), server(cfg.Log, handler)
	g.local.BaseContext = func(net.Listener) context.Context { return auth.WithLocal(context.Background()) }
	return g, nil
}

func server(log *slog.Logger, handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func (g *Gateway) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/ws", g.ws)
	mux.HandleFunc("GET /api/v1/watch", g.ws.Watch)
	mux.HandleFunc("GET /metrics", g.metrics)
	for _, path := range []string{"/api/", "/healthz", "/readyz", "/openapi.json"} {
		mux.Handle(path, g.rest)
	}
	console := g.cfg.Console
	if console == nil {
		console = http.NotFoundHandler()
	}
	mux.Handle("/", console)
	return counting(g.cfg.Metrics, g.cfg.Log, withHeaders(sameSite(mux)))
}

// Addr is where HTTP is served, with the real port.
func (g *Gateway) Addr() netip.AddrPort {
	return g.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Run serves until ctx ends, then ends within 3 s: consoles are told to move on,
// requests under way are finished if they are quick. It returns nil then, or
// why it could not serve.
func (g *Gateway) Run(ctx context.Context) error {
	consoles, endConsoles := context.WithCancel(context.WithoutCancel(ctx))
	consolesEnded := make(chan error, 1)
	go func() { consolesEnded <- g.ws.Run(consoles) }()
	served := make(chan error, 2)
	go func() { served <- serve(g.http, g.listener) }()
	running := 1
	if g.control != nil {
		running++
		go func() { served <- serve(g.local, g.control) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		running--
	}
	endConsoles()
	err = errors.Join(err, g.stop(), <-consolesEnded)
	for ; running > 0; running-- {
		err = errors.Join(err, <-served)
	}
	return err
}

// stop ends both servers, gently first.
func (g *Gateway) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for _, s := range []*http.Server{g.http, g.local} {
		if s.Shutdown(ctx) != nil {
			// What is still open then had its time.
			s.Close()
		}
	}
	return g.Close()
}

// Close gives up what New took. It is for a Gateway that is not run; Run does it.
func (g *Gateway) Close() error {
	g.rest.Close()
	err := closeOnce(g.listener)
	if g.control != nil {
		err = errors.Join(err, closeOnce(g.control))
	}
	return err
}

func closeOnce(l net.Listener) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func serve(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}
