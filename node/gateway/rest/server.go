package rest

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/exact"
	"skein/node/gateway/view"
)

// Fleet is what this node knows, ready to be shown. Methods answer at once.
type Fleet interface {
	Rows
	// Look is one consistent picture.
	Look() view.Picture
	Nodes() view.Nodes
	Raft() view.Raft
	// Watch says that somebody looks: until release, telemetry flows here and
	// changed signals (coalesced) that Look may show something new.
	Watch() (changed <-chan struct{}, release func())
}

// Rows are parts of Look; they cost what they have that is new.
type Rows interface {
	AsOf() view.AsOf
	Header() view.Fleet
	Robots() view.RobotRows
	// Robot is the robot with this id, or else the only one of a member with this
	// name. Not ok: there is none, or not only one; Look has those who may be meant.
	Robot(which string) (robot view.OneRobot, ok bool)
}

// Events reads the log.
type Events interface {
	// Query returns events that fit, at most q.Limit. Where the first that are
	// asked for are not held here, the page is compacted and starts at the first
	// that is.
	Query(ctx context.Context, q view.EventQuery) (view.EventPage, error)
}

// Past is what the fleet had decided at a moment; a nil moment is the present.
// Errors are *view.Problem where the moment is to blame.
type Past interface {
	Moments
	Models
}

// Moments are the rows of a moment, and what differs between two.
type Moments interface {
	PictureAt(ctx context.Context, at view.At) (view.Picture, error)
	NodesAt(ctx context.Context, at view.At) (view.Nodes, error)
	Groups(ctx context.Context, at *view.At) (view.GroupList, error)
	Decided(ctx context.Context, at *view.At) (view.Decided, error)
	Diff(ctx context.Context, a, b view.At) (view.Diff, error)
}

// Reads brings this node's copy of the log up to what a read asks for.
type Reads interface {
	// Await returns when it is. Refusals are *event.Fault: "no_leader", "timeout".
	Await(ctx context.Context, read view.Read) (view.Fresh, error)
}

// Proposer gets things decided.
type Proposer interface {
	// Propose returns when the drafts are decided and, if that comes soon, this
	// node shows them. Refusals are *event.Fault or *view.Problem.
	Propose(ctx context.Context, token string, drafts []view.Draft) (view.Receipt, error)
}

// Node is what may be asked of this process itself.
type Node interface {
	// Ready is "" when the node can serve, else why it cannot.
	Ready() string
	// Leave makes this node leave the fleet and then stop.
	Leave(ctx context.Context) error
	// URL is the console's address as others know it, "http://ip:port".
	URL() string
	// TransferLeader hands leadership over to a voter, or for "" to the best one,
	// and returns when that is done. It is asked of the leader only.
	TransferLeader(ctx context.Context, to ident.NodeID) error
	// Backup writes a whole backup of the fleet's log. It may take minutes.
	Backup(ctx context.Context, w io.Writer) error
}

// Config is what a Server needs.
type Config struct {
	Root     ed25519.PublicKey
	Version  string
	Auth     *auth.Service
	Fleet    Fleet
	Past     Past
	Reads    Reads
	Events   Events
	Proposer Proposer
	Node     Node
	// AllowOrigin says whether a page of that origin is one of this fleet's.
	AllowOrigin func(origin string) bool
	Now         func() time.Time
	Log         *slog.Logger
}

// Server answers HTTP requests. Make it with New, end it with Close.
type Server struct {
	cfg     Config
	api     huma.API
	mux     *http.ServeMux
	limiter *auth.Limiter
	looker  *looker
	texts   texts
	spec    []byte
}

// New makes a server; it starts nothing.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, mux: http.NewServeMux(), limiter: auth.NewLimiter(), looker: &looker{fleet: cfg.Fleet}}
	s.api = humago.New(s.mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Skein", Version: cfg.Version,
				Description: "Any robot of a fleet answers these. Every answer says with asOf how fresh it is. Errors are application/problem+json."},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", BearerFormat: "JWT"}},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{asProblem},
	})
	s.health()
	s.reads()
	s.pasts()
	s.models()
	s.logins()
	s.requests()
	s.lives()
	s.groups()
	s.operations()
	// The framework's own handler for this builds it at the first request, in a
	// data race; and its page to browse it would load scripts from elsewhere.
	schemas := s.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	var err error
	if s.spec, err = json.Marshal(s.api.OpenAPI()); err != nil {
		return nil, fmt.Errorf("describe the HTTP interface: %w", err)
	}
	s.mux.HandleFunc("GET /openapi.json", s.openAPI)
	s.mux.HandleFunc("/api/", s.noSuch)
	return s, nil
}

// jsonFormat is the form of bodies. withBody has checked those that come.
var jsonFormat = huma.Format{Marshal: marshal, Unmarshal: exact.Unmarshal}

// Close ends what requests have started: the interest in telemetry.
func (s *Server) Close() { s.looker.close() }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	w.Write(s.spec)
}

// noSuch answers what no operation fits, with 405 where another method would.
func (s *Server) noSuch(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		probe := *r
		probe.Method = method
		if _, pattern := s.mux.Handler(&probe); pattern != "/api/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		WriteProblem(w, problem(http.StatusNotFound, "not_found", "there is nothing at "+clip(r.URL.Path), "GET /openapi.json lists what there is").Problem)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	WriteProblem(w, problem(http.StatusMethodNotAllowed, codeOf(http.StatusMethodNotAllowed),
		clip(r.URL.Path)+" does not take the method "+clip(r.Method), "use "+strings.Join(allowed, " or ")).Problem)
}

// clip keeps what a stranger sent from filling an answer.
func clip(text string) string {
	const most = 100
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// WriteProblem answers with a problem outside of this package's operations.
func WriteProblem(w http.ResponseWriter, p *view.Problem) {
	f := failure{p}
	maps.Copy(w.Header(), f.GetHeaders())
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// caller is who makes a request and from where. Handlers find it in the context.
type caller struct {
	auth.Principal
	token  string
	remote string
	host   string
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// rule says who may call an operation.
type rule func(auth.Principal) *view.Problem

// anyone needs no token.
func anyone(auth.Principal) *view.Problem { return nil }

func readers(p auth.Principal) *view.Problem {
	if p.MayRead() {
		return nil
	}
	return forbidden("this person may not look at the fleet", "ask an admin for the scope viewer")
}

func persons(p auth.Principal) *view.Problem {
	if !p.Local {
		return nil
	}
	return forbidden("the control socket may read and make this node leave, no more", "log in: use --identity")
}

func withScope(scope string, orLocal bool) rule {
	return func(p auth.Principal) *view.Problem {
		switch {
		case p.May(scope), orLocal && p.Local:
			return nil
		case p.Local:
			return persons(p)
		}
		return forbidden("this needs the scope "+scope, "ask an admin to do it, or for the scope")
	}
}

func forbidden(detail, next string) *view.Problem {
	return &view.Problem{Status: http.StatusForbidden, Code: "not_allowed", Detail: detail, Next: next}
}

// guard finds out who calls and whether the rule lets them, before the
// framework looks at the input.
func (s *Server) guard(open bool, may rule) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		c := caller{remote: auth.RemoteKey(ctx.RemoteAddr()), host: ctx.Host()}
		if !open {
			var headers []string
			ctx.EachHeader(func(name, value string) {
				if name == "Authorization" {
					headers = append(headers, value)
				}
			})
			var err error
			if c.token, c.Principal, err = s.admit(ctx.Context(), headers, may); err != nil {
				refuse(ctx, fail(err).(failure))
				return
			}
		}
		next(huma.WithValue(ctx, callerKey{}, c))
	}
}

func refuse(ctx huma.Context, f failure) {
	for name, values := range f.GetHeaders() {
		ctx.SetHeader(name, values[0])
	}
	ctx.SetHeader("Content-Type", problemType)
	ctx.SetStatus(f.Status)
	json.NewEncoder(ctx.BodyWriter()).Encode(f)
}

// admit finds out who calls, and whether the rule lets them.
func (s *Server) admit(ctx context.Context, headers []string, may rule) (string, auth.Principal, error) {
	token, who, err := s.identify(ctx, headers)
	if err != nil {
		return "", auth.Principal{}, err
	}
	if p := may(who); p != nil {
		return "", auth.Principal{}, p
	}
	return token, who, nil
}

// identify reads the Authorization headers. Without one, the control socket is
// the local owner and the network is nobody.
func (s *Server) identify(ctx context.Context, headers []string) (string, auth.Principal, error) {
	if len(headers) == 0 {
		if auth.IsLocal(ctx) {
			return "", auth.Principal{Local: true}, nil
		}
		return "", auth.Principal{}, problem(http.StatusUnauthorized, "unauthenticated", "this needs a token",
			"send `Authorization: Bearer …`; POST /api/v1/login gives one").Problem
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", auth.Principal{}, problem(http.StatusUnauthorized, "unauthenticated", "the Authorization header is not `Bearer` and one token", "send one such header").Problem
	}
	p, err := s.cfg.Auth.Verify(token)
	return token, p, err
}

// route is one operation.
type route struct {
	method, path, id, summary string
	may                       rule
	maxBody                   int64
	timeout                   time.Duration
}

const (
	readTimeout    = 5 * time.Second
	decideTimeout  = 15 * time.Second
	smallBodyBytes = 8 << 10 // the most that most bodies may have
)

// add registers an operation: guard, deadline, errors as Problems.
func add[I, O any](s *Server, r route, handle func(context.Context, *I) (*O, error)) {
	if r.timeout == 0 {
		r.timeout = readTimeout
	}
	if r.maxBody == 0 {
		r.maxBody = smallBodyBytes
	}
	open := r.may == nil
	if open {
		r.may = anyone
	}
	op := huma.Operation{
		OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary,
		MaxBodyBytes: r.maxBody + 1, BodyReadTimeout: readTimeout, // withBody reads no more
		Middlewares: huma.Middlewares{s.guard(open, r.may)},
		Responses: map[string]*huma.Response{"default": {
			Description: "What went wrong",
			Content: map[string]*huma.MediaType{problemType: {
				Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[view.Problem](), true, "Problem")}},
		}},
	}
	if in, has := reflect.TypeFor[I]().FieldByName("Body"); has {
		op.Middlewares = append(op.Middlewares, withBody(r.maxBody, in.Type))
	}
	if !open {
		op.Security = []map[string][]string{{"token": {}}}
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		out, err := handle(ctx, in)
		if err != nil {
			return nil, fail(err)
		}
		return out, nil
	})
}

// body is an answer with nothing but a body.
type body[T any] struct{ Body T }

func answer[T any](v T, err error) (*body[T], error) { return &body[T]{v}, err }
