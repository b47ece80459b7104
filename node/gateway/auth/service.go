package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"skein/mesh/ident"
	"skein/node/gateway/view"
)

const (
	// CodeTTL is how long a one-time code is good unless its maker says otherwise.
	CodeTTL = 2 * time.Minute
	// maxCodeTTL bounds what a maker may say.
	maxCodeTTL = 24 * time.Hour
	// loginWindow is how far the time in a signed login may be from the issuer's.
	loginWindow = 5 * time.Minute
	// A nonce is long enough never to repeat by chance, short enough to hold.
	minNonce, maxNonce = 16, 64
)

// Config is what a Service needs.
type Config struct {
	// Key is this node's key; tokens are signed with it.
	Key   ident.Key
	Fleet ident.FleetID
	// Directory is the replicated state; Forwarder reaches voters.
	Directory Directory
	Forwarder Forwarder
	// Ready reports whether the directory has come up to what the fleet decides
	// now. After a start it may know less, and then a token that it cannot judge
	// is not called bad. Nil is always.
	Ready func() bool
	// Now is the wall clock.
	Now func() time.Time
	Log *slog.Logger
}

// Service logs people in and checks their tokens. Safe for concurrent use.
type Service struct {
	key       ident.Key
	self      ident.NodeID
	fleet     ident.FleetID
	directory Directory
	forwarder Forwarder
	ready     func() bool
	now       func() time.Time
	log       *slog.Logger
	parser    *jwt.Parser
	codes     *expiring[grant]
	nonces    *expiring[struct{}]
	peers     *Limiter
	verified  verified
}

// grant is what a one-time code is worth.
type grant struct {
	person string
	scopes []string
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Ready == nil {
		cfg.Ready = func() bool { return true }
	}
	return &Service{
		key:       cfg.Key,
		self:      cfg.Key.ID(),
		fleet:     cfg.Fleet,
		directory: cfg.Directory,
		forwarder: cfg.Forwarder,
		ready:     cfg.Ready,
		now:       cfg.Now,
		log:       cfg.Log,
		parser:    newParser(cfg.Fleet, cfg.Now),
		codes:     newExpiring[grant](maxCodes),
		nonces:    newExpiring[struct{}](maxNonces),
		peers:     NewLimiter(),
	}
}

// issues reports whether tokens that this node signs are worth anything.
func (s *Service) issues() bool {
	_, voter := s.directory.KeyOf(s.self)
	return voter
}

// Info says what a person has to sign to log in here.
func (s *Service) Info(ctx context.Context) (view.LoginInfo, error) {
	if s.issues() {
		return view.LoginInfo{FleetID: s.fleet, Issuer: s.self, Now: s.now().UTC()}, nil
	}
	a, err := s.askAnyVoter(ctx, question{Info: true})
	if err != nil {
		return view.LoginInfo{}, err
	}
	return *a.Info, nil
}

// Login checks a login, here or at the voter that can, and returns a session.
// Errors are *view.Problem.
func (s *Service) Login(ctx context.Context, l view.Login) (view.Session, error) {
	signed := l.Person != "" || l.Issuer != "" || l.At != nil || l.Nonce != "" || len(l.Signature) != 0
	if (l.Code != "") == signed {
		return view.Session{}, refuse(422, "invalid", "a login has either a code, or person, issuer, at, nonce and signature",
			"send one of the two")
	}
	issuer := l.Issuer
	if l.Code != "" {
		prefix, _, _ := strings.Cut(l.Code, ".")
		issuer = ident.NodeID(prefix)
	}
	if _, err := ident.ParseNodeID(string(issuer)); err != nil {
		return view.Session{}, badLogin(l)
	}
	if issuer == s.self {
		return s.loginHere(l)
	}
	// Only voters are asked, so that nobody makes this node call whom he likes.
	if _, voter := s.directory.KeyOf(issuer); !voter {
		return view.Session{}, badLogin(l)
	}
	a, err := s.ask(ctx, issuer, question{Login: &l})
	if err != nil {
		return view.Session{}, err
	}
	return *a.Session, nil
}

// badLogin says the same whatever was wrong, so that nothing can be probed.
func badLogin(l view.Login) *view.Problem {
	if l.Code != "" {
		return unauthenticated("this login code is unknown, used, or expired", "ask for a new one: `skein dev` prints one, and `skein fleet login` makes one")
	}
	return unauthenticated("no person of this fleet has this name and key", "check --identity, and the person's name with an admin")
}

func (s *Service) loginHere(l view.Login) (view.Session, error) {
	if !s.issues() {
		return view.Session{}, unreachable("this node is no voter any more and cannot log anybody in", "start the login anew")
	}
	g, err := s.redeem(l)
	if err != nil {
		return view.Session{}, err
	}
	person, there := s.directory.Person(g.person)
	scopes := both(g.scopes, person.Scopes)
	if !there || len(scopes) == 0 {
		return view.Session{}, badLogin(l)
	}
	session, err := s.session(g.person, scopes)
	if err != nil {
		return view.Session{}, err
	}
	s.log.Info("person logged in", "person", g.person, "scopes", strings.Join(scopes, " "), "byCode", l.Code != "")
	return session, nil
}

// redeem finds out whom a login is of.
func (s *Service) redeem(l view.Login) (grant, error) {
	now := s.now()
	if l.Code != "" {
		g, there := s.codes.take(l.Code, now)
		if !there {
			return grant{}, badLogin(l)
		}
		return g, nil
	}
	person, there := s.directory.Person(l.Person)
	if !there || l.Issuer != s.self || len(l.Nonce) < minNonce || len(l.Nonce) > maxNonce || !l.SignedBy(person.PublicKey, s.fleet) {
		return grant{}, badLogin(l)
	}
	if off := now.Sub(*l.At); off > loginWindow || off < -loginWindow {
		return grant{}, unauthenticated("the login was signed at "+l.At.UTC().Format(time.RFC3339)+", too far from this node's time", "ask GET /api/v1/login for the time and sign that")
	}
	// Remembered until the signature is too old by any reading of the clock.
	switch s.nonces.add(l.Person+"\x00"+l.Nonce, struct{}{}, now, now.Add(2*loginWindow)) {
	case known:
		return grant{}, unauthenticated("this login was already used", "sign a new one")
	case full:
		return grant{}, &view.Problem{Status: 503, Code: "busy", Detail: "too many logins in the last minutes", Next: "try again in a minute", RetryAfterMillis: 60_000}
	}
	return grant{l.Person, person.Scopes}, nil
}

// NewCode makes a one-time code for whom token names, at a voter. The caller
// adds the URL.
func (s *Service) NewCode(ctx context.Context, token string) (view.LoginCode, error) {
	if s.issues() {
		p, err := s.Verify(token)
		if err != nil {
			return view.LoginCode{}, err
		}
		return s.IssueCode(p.Person, p.Scopes, CodeTTL)
	}
	a, err := s.askAnyVoter(ctx, question{CodeFor: token})
	if err != nil {
		return view.LoginCode{}, err
	}
	return *a.Code, nil
}

// IssueCode makes a one-time code at this node, which must be a voter. It is
// for the composer (`skein dev` prints a login link); NewCode checks a token.
func (s *Service) IssueCode(person string, scopes []string, ttl time.Duration) (view.LoginCode, error) {
	if !s.issues() {
		return view.LoginCode{}, unreachable("this node is no voter and cannot make login codes", "ask a voter")
	}
	if ttl <= 0 || ttl > maxCodeTTL {
		return view.LoginCode{}, refuse(422, "invalid", "a login code is good for at most 24 hours", "ask for less")
	}
	now := s.now()
	code := view.LoginCode{Code: string(s.self) + "." + randomID(), ExpiresAt: now.Add(ttl).UTC()}
	if s.codes.add(code.Code, grant{person, scopes}, now, code.ExpiresAt) != ok {
		return view.LoginCode{}, &view.Problem{Status: 503, Code: "busy", Detail: "too many login codes wait to be used", Next: "use one of them, or wait until they expire", RetryAfterMillis: int64(CodeTTL / time.Millisecond)}
	}
	return code, nil
}

// randomID is 26 characters with 128 bits or more from the system's source.
func randomID() string { return rand.Text() }

// problemOf makes any error one that can travel.
func problemOf(err error) *view.Problem {
	if p, is := errors.AsType[*view.Problem](err); is {
		return p
	}
	return refuse(500, "internal", "the login failed inside this node", "see its log")
}
