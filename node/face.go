package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/propose"
	"skein/consensus/replica"
	"skein/console"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/node/config"
	"skein/node/gateway"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
	"skein/node/survey"
)

const loginProtocol link.Protocol = auth.Protocol

// decideTimeout bounds what people ask to be decided. It is shorter than the 10 s
// that a command waits, so that its answer is "no leader" and not silence.
const decideTimeout = 8 * time.Second

// readyAge is how old the leader's last word may be on a node that calls itself ready.
const readyAge = 15 * time.Second

// face is what people see of the node: console, REST and WebSocket.
type face struct {
	gateway *gateway.Gateway
	auth    *auth.Service
	addr    netip.Addr // of other interfaces when it listens on all
}

// directory answers what auth asks of the replicated state.
type directory struct {
	store  *replica.Replica
	leader func() (ident.NodeID, bool)
}

// KeyOf implements auth.Directory.
func (d directory) KeyOf(kid ident.NodeID) (key ed25519.PublicKey, ok bool) {
	d.store.View(func(s *fleet.State) {
		if n, there := s.Node(kid); there && n.Voter && n.Member() {
			key, ok = n.PublicKey, true
		}
	})
	return key, ok
}

// Voters implements auth.Directory: the leader first.
func (d directory) Voters() (voters []ident.NodeID) {
	d.store.View(func(s *fleet.State) { voters = slices.Clone(s.Voters()) })
	if leader, ok := d.leader(); ok {
		if i := slices.Index(voters, leader); i > 0 {
			voters[0], voters[i] = voters[i], voters[0]
		}
	}
	return voters
}

// Person implements auth.Directory.
func (d directory) Person(name string) (p auth.Person, ok bool) {
	d.store.View(func(s *fleet.State) {
		if person, there := s.Person(name); there {
			p, ok = auth.Person{PublicKey: person.PublicKey, Scopes: person.Scopes}, true
		}
	})
	return p, ok
}

// loginForwarder opens streams to voters for auth.
type loginForwarder struct{ host *link.Host }

// OpenLogin implements auth.Forwarder.
func (f loginForwarder) OpenLogin(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	return f.host.Open(ctx, id, loginProtocol)
}

// window is what the face shows: the survey, the log and the way to change it.
// It implements the interfaces that the gateway asks for.
type window struct {
	body *body
	look *survey.Surveyor
}

// Look implements rest.Fleet.
func (w *window) Look() view.Picture { return w.look.Picture() }

// AsOf implements rest.Fleet.
func (w *window) AsOf() view.AsOf { return w.look.AsOf() }

// Nodes implements rest.Fleet.
func (w *window) Nodes() view.Nodes { return w.look.Nodes() }

// Raft implements rest.Fleet.
func (w *window) Raft() view.Raft { return w.body.raftStatus() }

// Header implements rest.Rows.
func (w *window) Header() view.Fleet { return w.look.Header() }

// Robots implements rest.Rows.
func (w *window) Robots() view.RobotRows { return w.look.Robots() }

// Robot implements rest.Rows.
func (w *window) Robot(which string) (view.OneRobot, bool) { return w.look.Robot(which) }

// Asked is what this node was asked since it started.
func (w *window) Asked() view.Asked {
	asked, log := w.look.Asked(), w.body.store.Stats()
	asked.Log, asked.Scanned = log.Queries, log.Scanned
	return asked
}

// Watch implements rest.Fleet: telemetry flows here until release.
func (w *window) Watch() (<-chan struct{}, func()) {
	return w.body.shown.watch(w.body.mesh.presence.Watch())
}

// Events implements ws.Events.
func (w *window) Events(ctx context.Context, since uint64, fit view.EventFilter, limit int) ([]view.Event, bool, error) {
	store, compacted := w.body.store, false
	filter := filterOf(fit)
	for {
		events, err := store.Events(ctx, since, filter, limit)
		if !errors.Is(err, replica.ErrCompacted) {
			return events, compacted, err
		}
		// What is held may shrink between the question and the answer; each
		// round starts later.
		compacted, since = true, store.First()-1
	}
}

// Propose implements rest.Proposer.
func (w *window) Propose(ctx context.Context, token string, drafts []view.Draft) (view.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	r, err := w.body.proposer.Propose(ctx, drafts, propose.Authority{Token: token})
	return view.Receipt{First: r.First, Last: r.Last, Cursor: r.Cursor}, err
}

// Ready implements rest.Node.
func (w *window) Ready() string {
	standing := w.body.standing()
	switch {
	case standing.Leader == "":
		return "no leader is known"
	case standing.Age < 0 || standing.Age > readyAge:
		return fmt.Sprintf("the leader was last heard %s ago", standing.Age.Round(time.Second))
	}
	return ""
}

// Leave implements rest.Node: the fleet forgets the node, and the node stops.
func (w *window) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	return w.body.leave(ctx)
}

// URL implements rest.Node: the address under which others know this node, or
// the one on this machine while there is none.
func (w *window) URL() string {
	if r, ok := w.Robot(string(w.body.self.key.ID())); ok && r.HTTP != "" {
		return r.HTTP
	}
	return w.body.face.url()
}

// verify says who a token names, for proposals, at the leader.
func verify(service *auth.Service) func(token string) (event.Actor, error) {
	return func(token string) (event.Actor, error) {
		p, err := service.Verify(token)
		if problem, is := errors.AsType[*view.Problem](err); is && problem.Status == http.StatusServiceUnavailable {
			// It has not caught up after a start; the proposer tries again.
			return event.Actor{}, event.Refuse(event.CodeNoLeader, "", problem.Next, "%s", problem.Detail)
		}
		if err != nil {
			return event.Actor{}, err
		}
		return p.Actor(), nil
	}
}

// newFace listens. Nothing is served before run.
func (b *body) newFace(w *window) (*face, error) {
	at, err := httpAddr(b.self.cfg.HTTP)
	if err != nil {
		return nil, err
	}
	f := &face{auth: b.auth}
	f.gateway, err = gateway.New(gateway.Config{
		HTTP: at, ControlSocket: b.self.dir.ControlSocket(), Console: console.Handler(),
		Self: b.self.key.ID(), Root: b.self.member.Load().Root, Version: b.self.version,
		Auth:    b.auth,
		Knows:   gateway.Knows{Fleet: w, Past: w.look, Reads: reading{b.answers.reads}, Events: w, Proposer: w, Node: w, History: b.store, Asked: w.Asked},
		Metrics: metrics.NewSet(), Log: b.self.log,
	})
	if err != nil {
		return nil, err
	}
	f.addr = f.gateway.Addr().Addr()
	return f, nil
}

// httpAddr reads the setting `http`, HOST:PORT, whose host may be empty or a
// name of this machine.
func httpAddr(setting string) (netip.AddrPort, error) {
	tcp, err := net.ResolveTCPAddr("tcp", setting)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen for HTTP on %q: %w; set `http` to HOST:PORT", setting, err)
	}
	addr, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		addr = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(tcp.Port)), nil
}

// port is the TCP port of the face.
func (f *face) port() uint16 { return f.gateway.Addr().Port() }

// url is the console's address: on this machine, unless it listens elsewhere.
func (f *face) url() string {
	host := f.addr
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "http://" + net.JoinHostPort(host.Unmap().String(), strconv.Itoa(int(f.port())))
}

// loginLink makes a link that logs person in once.
func (f *face) loginLink(person string, scopes []string, good time.Duration) (string, error) {
	code, err := f.auth.IssueCode(person, scopes, good)
	if err != nil {
		return "", err
	}
	return f.url() + "/#login=" + code.Code, nil
}

// showing tells those who look that there may be something new to see.
type showing struct {
	mu   sync.Mutex
	tell map[chan struct{}]bool
}

// watch registers one who looks; also ends what release ends.
func (s *showing) watch(also func()) (<-chan struct{}, func()) {
	changed := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tell == nil {
		s.tell = map[chan struct{}]bool{}
	}
	s.tell[changed] = true
	return changed, sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.tell, changed)
		s.mu.Unlock()
		also()
	})
}

// signal tells all; who has not looked since the last signal is told once.
func (s *showing) signal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for changed := range s.tell {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// Logger writes as the configuration says.
func Logger(c config.Config, out io.Writer) *slog.Logger {
	var level slog.Level
	if level.UnmarshalText([]byte(c.Log.Level)) != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
