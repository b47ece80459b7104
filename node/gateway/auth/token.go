package auth

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"skein/mesh/ident"
	"skein/node/gateway/view"
)

const (
	// TokenTTL is how long a token is good; a verifier accepts none that is
	// good for longer, whatever its issuer signed.
	TokenTTL = 12 * time.Hour
	// maxTokenBytes bounds what is looked at; tokens made here are under 500.
	maxTokenBytes = 4096
	// leeway forgives clocks of robots that differ a little.
	leeway = time.Minute
)

const logInAgain = "log in again"

// claims are what a token says: iss and the header's kid are the issuing voter,
// aud the fleet, sub the person.
type claims struct {
	jwt.RegisteredClaims
	Scopes []string `json:"scp"`
}

// sign makes a token. The JWT's own prefix keeps its signature apart from
// ident's, whose messages begin with "skein/".
func sign(key ident.Key, fleet ident.FleetID, person string, scopes []string, now time.Time, id string) (string, time.Time, error) {
	now = now.UTC().Truncate(time.Second)
	expires := now.Add(TokenTTL)
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    string(key.ID()),
			Subject:   person,
			Audience:  jwt.ClaimStrings{string(fleet)},
			ExpiresAt: jwt.NewNumericDate(expires),
			IssuedAt:  jwt.NewNumericDate(now),
			ID:        id,
		},
		Scopes: scopes,
	})
	t.Header["kid"] = string(key.ID())
	text, err := t.SignedString(key.Private())
	return text, expires, err
}

var errIssuer = errors.New("issuer is no voter")

// unknown is the refusal of what the directory does not know, or, where it has
// not caught up after a start, that it cannot tell yet: nobody is logged out
// because a node was.
func (s *Service) unknown(refusal *view.Problem) *view.Problem {
	if s.ready() {
		return refusal
	}
	return &view.Problem{Status: 503, Code: "not_ready", Detail: "this node has just started and has not caught up with the fleet, so it cannot judge this token yet",
		Next: "try again in a moment, or at another node", RetryAfterMillis: notReadyMillis}
}

// notReadyMillis is when to ask a node again that has just started.
const notReadyMillis = 1000

// Verify checks a token and returns whose it is. Errors are *view.Problem with
// status 401, or 503 and "not_ready" while the node cannot tell.
func (s *Service) Verify(token string) (Principal, error) {
	if token == "" || len(token) > maxTokenBytes {
		return Principal{}, unauthenticated("there is no token, or it is not one of this fleet", logInAgain)
	}
	if p, ok, err := s.again(token); ok {
		return p, err
	}
	var c claims
	var issuer ident.NodeID
	var key ed25519.PublicKey
	_, err := s.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, err := kidOf(t)
		if err != nil {
			return nil, err
		}
		var ok bool
		if key, ok = s.directory.KeyOf(kid); !ok {
			return nil, errIssuer
		}
		issuer = kid
		return key, nil
	})
	switch {
	case errors.Is(err, errIssuer):
		return Principal{}, s.unknown(unauthenticated(explain(err), logInAgain))
	case err != nil:
		return Principal{}, unauthenticated(explain(err), logInAgain)
	}
	if c.Issuer != string(issuer) || c.IssuedAt == nil || c.ExpiresAt.Sub(c.IssuedAt.Time) > TokenTTL {
		return Principal{}, unauthenticated("the token says what no voter may sign", logInAgain)
	}
	p := Principal{Person: c.Subject, Scopes: c.Scopes, Issuer: issuer, Expires: c.ExpiresAt.Time}
	s.verified.put(token, seen{p, key})
	return s.current(p)
}

// kidOf reads the key's name from a header that has nothing else in it: a token
// that brings its own key (jwk, jku, x5c) or asks for extensions (crit) is not ours.
func kidOf(t *jwt.Token) (ident.NodeID, error) {
	for name := range t.Header {
		if name != "alg" && name != "kid" && name != "typ" {
			return "", errors.New("unexpected field in the token's header")
		}
	}
	text, _ := t.Header["kid"].(string)
	return ident.ParseNodeID(text)
}

// explain is for people; what exactly was wrong with a forged token is nobody's business.
func explain(err error) string {
	if errors.Is(err, jwt.ErrTokenExpired) {
		return "the token has expired"
	}
	return "the token is not one of this fleet, or the voter that issued it is no voter any more"
}

// Still reports, as Verify does, whether a principal from Verify is still good.
// It is cheap: nothing is parsed or verified again.
func (s *Service) Still(p Principal) error {
	if p.Local {
		return nil
	}
	if !s.now().Before(p.Expires) {
		return unauthenticated("the token has expired", logInAgain)
	}
	if _, ok := s.directory.KeyOf(p.Issuer); !ok {
		return unauthenticated("the voter that issued the token is no voter any more", logInAgain)
	}
	_, err := s.current(p)
	return err
}

// current narrows p to what the log gives the person now.
func (s *Service) current(p Principal) (Principal, error) {
	person, ok := s.directory.Person(p.Person)
	if !ok {
		return Principal{}, s.unknown(unauthenticated("this person is not, or no longer, of the fleet", "ask an admin"))
	}
	p.Scopes = both(p.Scopes, person.Scopes)
	if len(p.Scopes) == 0 {
		return Principal{}, unauthenticated("the token allows nothing any more", logInAgain)
	}
	return p, nil
}

// both are the scopes in a that are also in b.
func both(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

func newParser(fleet ident.FleetID, now func() time.Time) *jwt.Parser {
	return jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithAudience(string(fleet)),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(leeway),
		jwt.WithTimeFunc(now),
		jwt.WithStrictDecoding(),
	)
}

// session signs a token for person and describes it.
func (s *Service) session(person string, scopes []string) (view.Session, error) {
	token, expires, err := sign(s.key, s.fleet, person, scopes, s.now(), randomID())
	if err != nil {
		return view.Session{}, err
	}
	return view.Session{Token: token, ExpiresAt: expires, Person: person, Scopes: scopes}, nil
}
