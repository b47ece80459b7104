package auth

import (
	"context"
	"crypto/ed25519"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// Principal is who makes a request. The zero Principal may do nothing.
type Principal struct {
	// Local is the owner of this process, on the control socket: may read, and
	// make this node leave.
	Local bool
	// Person is who the token names; empty for Local.
	Person string
	// Scopes are those of the token that the log still gives the person.
	Scopes []string
	// Issuer is the voter that issued the token, Expires when it ends.
	Issuer  ident.NodeID
	Expires time.Time
}

// MayRead reports whether the fleet may be shown. Scopes do not imply each
// other, but whoever may change the fleet is told what it looks like.
func (p Principal) MayRead() bool {
	return p.Local || p.May(event.ScopeViewer) || p.May(event.ScopeOperator) || p.May(event.ScopeAdmin)
}

// May reports whether the principal is a person with scope.
func (p Principal) May(scope string) bool { return slices.Contains(p.Scopes, scope) }

// Actor is the principal as the log names it. Only for persons.
func (p Principal) Actor() event.Actor {
	return event.Actor{Kind: event.KindPerson, ID: p.Person, Scopes: p.Scopes}
}

// Person is what the log says about somebody.
type Person struct {
	PublicKey ed25519.PublicKey
	Scopes    []string
}

// Directory is what this package asks of the replicated state. Its answers may
// lag behind the leader; they never wait.
type Directory interface {
	// KeyOf is the public key of a node that is a voter now and not revoked.
	KeyOf(kid ident.NodeID) (ed25519.PublicKey, bool)
	// Voters are the voters now, the leader first if it is known.
	Voters() []ident.NodeID
	// Person finds somebody who has not been removed.
	Person(name string) (Person, bool)
}

func refuse(status int, code, detail, next string) *view.Problem {
	return &view.Problem{Status: status, Code: code, Detail: detail, Next: next}
}

func unauthenticated(detail, next string) *view.Problem {
	return refuse(401, "unauthenticated", detail, next)
}

func unreachable(detail, next string) *view.Problem {
	return refuse(503, "unreachable", detail, next)
}

type localKey struct{}

// WithLocal marks the requests of a connection as the local owner's. Only the
// control socket's listener does that.
func WithLocal(ctx context.Context) context.Context { return context.WithValue(ctx, localKey{}, true) }

// IsLocal reports whether WithLocal marked the request.
func IsLocal(ctx context.Context) bool { return ctx.Value(localKey{}) != nil }
