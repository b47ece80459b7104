package ws

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/coder/websocket"

	"skein/consensus/watch"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

// Gate says who a token is of.
type Gate interface {
	Verify(token string) (auth.Principal, error)
	// Still reports cheaply whether a principal is still good.
	Still(auth.Principal) error
}

// Config is what a Server needs.
type Config struct {
	Self   ident.NodeID
	Gate   Gate
	Fleet  Fleet
	Events Events
	// Past is what the fleet had decided at a moment.
	Past Past
	// History is this node's copy of the log.
	History watch.Log
	// AllowOrigin says whether a page of that origin, which is not this node's
	// own, is one of this fleet's.
	AllowOrigin func(origin string) bool
	Metrics     *metrics.Set
	Log         *slog.Logger
}

// Server is the WebSocket endpoints. Its Run has to run for clients to be served.
type Server struct {
	cfg  Config
	hub  *hub
	feed *watch.Hub
	ends func(code string) *metrics.Counter

	mu       sync.Mutex
	stopping bool
	clients  map[*client]net.Conn
	watchers map[*watcher]net.Conn
	handlers sync.WaitGroup
}

// New makes a server.
func New(cfg Config) *Server { return newServer(cfg, shippedTiming()) }

func newServer(cfg Config, times timing) *Server {
	s := &Server{
		cfg: cfg, hub: newHub(cfg.Fleet, cfg.Events, times, cfg.Log), feed: watch.New(cfg.History),
		clients: map[*client]net.Conn{}, watchers: map[*watcher]net.Conn{},
	}
	s.hub.held = cfg.History.Held
	s.hub.onTick = s.check
	s.ends = func(code string) *metrics.Counter {
		return cfg.Metrics.GetOrCreateCounter(`skein_console_closed_total{code="` + code + `"}`)
	}
	cfg.Metrics.NewGauge("skein_console_clients", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.clients))
	})
	cfg.Metrics.NewGauge("skein_event_watchers", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.watchers))
	})
	return s
}

// Run feeds the clients until ctx ends, then says goodbye to them within a
// second and returns nil.
func (s *Server) Run(ctx context.Context) error {
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	var hubs sync.WaitGroup
	hubs.Go(func() { s.hub.run(hubCtx) })
	// It ends with ctx, and with it every watcher.
	hubs.Go(func() { s.feed.Run(ctx) })
	<-ctx.Done()
	s.mu.Lock()
	s.stopping = true
	for c := range s.clients {
		c.queue.finish(endStopped)
	}
	s.mu.Unlock()
	// Who does not answer the goodbye is hung up on.
	force := time.AfterFunc(s.hub.goodbye, s.hangUp)
	s.handlers.Wait()
	force.Stop()
	stopHub()
	hubs.Wait()
	return nil
}

func (s *Server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.clients {
		conn.Close()
	}
	for _, conn := range s.watchers {
		conn.Close()
	}
}

// accept upgrades a request to a WebSocket of a subprotocol, or refuses it.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, subprotocol string) (*websocket.Conn, *hijacked) {
	if !offers(r, subprotocol) {
		http.Error(w, "this is a WebSocket of subprotocol "+subprotocol, http.StatusBadRequest)
		return nil, nil
	}
	raw := &hijacked{ResponseWriter: w}
	conn, err := websocket.Accept(raw, r, &websocket.AcceptOptions{
		Subprotocols:    []string{subprotocol},
		OriginPatterns:  s.origins(r),
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		s.cfg.Log.Debug("connection refused", "remote", r.RemoteAddr, "subprotocol", subprotocol, "err", err)
		return nil, nil
	}
	conn.SetReadLimit(maxClientBytes)
	return conn, raw
}

// ServeHTTP upgrades a console's request and serves it until it ends.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, raw := s.accept(w, r, Subprotocol)
	if conn == nil {
		return
	}
	c := &client{conn: conn, queue: newQueue(), timing: s.hub.timing}
	if !s.add(c, raw.conn) {
		raw.conn.Close()
		conn.CloseNow()
		return
	}
	defer s.remove(c)
	defer conn.CloseNow()
	// The request's context means nothing for a hijacked connection.
	c.run(context.WithoutCancel(r.Context()), s)
}

// hijacked remembers the connection under the WebSocket, to hang up by force.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack hands the connection over.
func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}

func (s *Server) add(c *client, conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.clients[c] = conn
	s.handlers.Add(1)
	return true
}

func (s *Server) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	s.handlers.Done()
}

// origins lets the library's check pass a page of another node of the fleet.
func (s *Server) origins(r *http.Request) []string {
	origin := r.Header.Get("Origin")
	u, err := url.Parse(origin)
	if origin == "" || err != nil || u.Host == "" || !s.cfg.AllowOrigin(origin) {
		return nil
	}
	return []string{u.Scheme + "://" + literal.Replace(u.Host)}
}

// literal makes a host a pattern that fits only itself: IPv6 has brackets.
var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func offers(r *http.Request, subprotocol string) bool {
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(header, ",") {
			if strings.EqualFold(strings.TrimSpace(offer), subprotocol) {
				return true
			}
		}
	}
	return false
}

// check ends the connections of those whose token is no longer good.
func (s *Server) check(clients []*client) {
	for _, c := range clients {
		if err := s.cfg.Gate.Still(c.who); err != nil {
			c.queue.finish(endUnauthenticated(err))
		}
	}
}

func (s *Server) count(end *ending) {
	if end != nil {
		s.ends(end.code).Inc()
	}
}

// self is this node with the name the fleet knows it by.
func (s *Server) self(p *picture) view.NodeRef {
	for i := range p.Robots {
		if p.Robots[i].ID == s.cfg.Self {
			return view.NodeRef{ID: s.cfg.Self, Name: p.Robots[i].Name}
		}
	}
	return view.NodeRef{ID: s.cfg.Self, Name: s.cfg.Self.Short()}
}

func asProblem(err error) (*view.Problem, bool) { return errors.AsType[*view.Problem](err) }
