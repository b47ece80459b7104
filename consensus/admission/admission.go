// Package admission decides who becomes a member, and gives members the
// certificates they need.
//
// Whoever asks to join may ask any member (package join). That member forwards
// the whole proof to the leader over admit/1, because only the leader can tell
// in one atomic step that a token was not yet used: it proposes node.admitted,
// and the state machine lets one of two racing robots win. The leader then
// signs the certificate.
//
// A voter needs more: a certificate that lets it sign others. A node that the
// log names a voter asks any voter for it over the same protocol.
//
// Secrets (the token, the gossip keys) pass only inside authenticated streams
// and are never written to the log.
package admission

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/mesh/wire"
)

const (
	// askTimeout bounds one forwarded question, answer included.
	askTimeout = 8 * time.Second
	// proposeTimeout bounds the leader's own decision.
	proposeTimeout = 5 * time.Second
)

// Fleet is the replicated state and the way to change it.
type Fleet interface {
	View(func(*fleet.State))
	// Leader is who leads as far as this node knows.
	Leader() (ident.NodeID, bool)
	// Record proposes facts as the leader; it fails on any other node.
	Record(ctx context.Context, drafts ...event.Draft) error
	// Voters says where the voters are, for a newcomer's address book.
	Voters() []ident.Endpoint
}

// Link opens streams to members.
type Link interface {
	Open(ctx context.Context, id ident.NodeID) (net.Conn, error)
}

// Config is what an Office works with. All fields are required.
type Config struct {
	Key ident.Key
	// Chain is this node's own certificate chain now.
	Chain func() ident.Chain
	// GossipKeys is the current gossip key ring, encoded for the newcomer.
	GossipKeys func() (json.RawMessage, error)
	Fleet      Fleet
	Link       Link
	Now        func() time.Time
	Log        *slog.Logger
}

// Office answers requests for admission and for certificates.
type Office struct{ cfg Config }

// New returns an Office.
func New(cfg Config) *Office { return &Office{cfg} }

// question is a request on its way from the member that was asked to the leader.
type question struct {
	// Join is set for a newcomer, absent for a voter that wants to issue.
	Join  *join.Request `json:"join,omitempty"`
	Nonce []byte        `json:"nonce,omitempty"`
}

type answer struct {
	Grant   *join.Grant   `json:"grant,omitempty"`
	Chain   ident.Chain   `json:"chain,omitempty"`
	Refusal *join.Refusal `json:"refusal,omitempty"`
}

// Admit implements join.Authority: it decides if this node leads, and else
// asks the leader. Errors are *join.Refusal.
func (o *Office) Admit(ctx context.Context, remote ident.NodeID, r join.Request, nonce []byte) (join.Grant, error) {
	if ident.IDOf(r.PublicKey) != remote {
		return join.Grant{}, refuse(join.CodeInvalid, "the request is for another key than the one that connected", "")
	}
	leader, ok := o.cfg.Fleet.Leader()
	if !ok {
		return join.Grant{}, refuse(join.CodeNoLeader, "the fleet has no leader at the moment", "wait; joining is tried again")
	}
	if leader == o.cfg.Key.ID() {
		return o.decide(ctx, r, nonce)
	}
	a, err := o.ask(ctx, leader, question{Join: &r, Nonce: nonce})
	if refusal, ok := errors.AsType[*join.Refusal](err); ok {
		return join.Grant{}, refusal // the leader's decision, not a fault on the way
	}
	if err != nil {
		o.cfg.Log.Warn("leader did not answer a request to join", "leader", leader, "error", err)
		return join.Grant{}, refuse(join.CodeNoLeader, "the fleet's leader does not answer", "wait; joining is tried again")
	}
	if a.Grant == nil {
		return join.Grant{}, refuse(join.CodeNoLeader, "the leader gave an empty answer", "wait; joining is tried again")
	}
	return *a.Grant, nil
}

// RequestIssuing asks a voter for a certificate with which this node, a voter
// by the log, may sign others.
func (o *Office) RequestIssuing(ctx context.Context, voter ident.NodeID) (ident.Chain, error) {
	a, err := o.ask(ctx, voter, question{})
	if err != nil {
		return nil, fmt.Errorf("ask %s for an issuing certificate: %w", voter.Short(), err)
	}
	return a.Chain, nil
}

func (o *Office) ask(ctx context.Context, to ident.NodeID, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := o.cfg.Link.Open(ctx, to)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	if err := wire.WriteJSON(conn, q, wire.MaxControl); err != nil {
		return answer{}, err
	}
	var a answer
	if err := wire.ReadJSON(conn, &a, wire.MaxControl); err != nil {
		return answer{}, err
	}
	if a.Refusal != nil {
		return answer{}, a.Refusal
	}
	return a, nil
}

// Handle serves admit/1: one question, one answer. remote is the member that asks.
func (o *Office) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(askTimeout)) != nil {
		return
	}
	var q question
	if err := wire.ReadJSON(conn, &q, wire.MaxControl); err != nil {
		o.cfg.Log.Debug("unreadable question", "remote", remote, "error", err)
		return
	}
	a, err := o.answer(ctx, q, remote)
	if err != nil {
		refusal := &join.Refusal{}
		if !errors.As(err, &refusal) {
			refusal = &join.Refusal{Code: join.CodeNoLeader, Message: err.Error(), Next: "try again"}
		}
		a = answer{Refusal: refusal}
	}
	if err := wire.WriteJSON(conn, a, wire.MaxControl); err != nil {
		o.cfg.Log.Debug("answer not delivered", "remote", remote, "error", err)
	}
}

func (o *Office) answer(ctx context.Context, q question, remote ident.NodeID) (answer, error) {
	if q.Join != nil {
		grant, err := o.decide(ctx, *q.Join, q.Nonce)
		return answer{Grant: &grant}, err
	}
	node, ok := o.node(remote)
	if !ok || !node.Voter {
		return answer{}, refuse(join.CodeInvalid, "only voters may issue certificates", "")
	}
	chain, err := o.issue(node.PublicKey, true)
	return answer{Chain: chain}, err
}

// decide runs on the leader: check the proof, record the admission, sign.
func (o *Office) decide(ctx context.Context, r join.Request, nonce []byte) (join.Grant, error) {
	how, ref, err := o.proof(r, nonce)
	if err != nil {
		return join.Grant{}, err
	}
	id := ident.IDOf(r.PublicKey)
	node, known := o.node(id)
	switch {
	case known && node.Revoked:
		return join.Grant{}, refuse(join.CodeRevoked, "this robot was revoked", "make a new key with a new data directory, and have an admin admit it again")
	case known && !node.Left && (how == event.ByEnrolment || o.usedBy(ref) == id):
		// Admitted before, but the answer was lost on the way: sign again.
	default:
		ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
		draft := event.NodeAdmitted{PublicKey: r.PublicKey, Name: r.Name, By: how, Ref: ref}.Draft()
		if err := o.cfg.Fleet.Record(ctx, draft); err != nil {
			return join.Grant{}, o.whyRefused(err, id)
		}
		o.cfg.Log.Info("robot admitted", "node", id, "name", r.Name, "by", how)
	}
	chain, err := o.issue(r.PublicKey, false)
	if err != nil {
		return join.Grant{}, err
	}
	return o.grant(chain)
}

// grant assembles what a newcomer needs to take part.
func (o *Office) grant(chain ident.Chain) (join.Grant, error) {
	keys, err := o.cfg.GossipKeys()
	if err != nil {
		return join.Grant{}, fmt.Errorf("read gossip keys: %w", err)
	}
	g := join.Grant{Chain: chain, Keys: keys, Voters: o.cfg.Fleet.Voters(), LeaderTime: o.cfg.Now().UTC()}
	o.cfg.Fleet.View(func(s *fleet.State) {
		if f, ok := s.Fleet(); ok {
			g.FleetName = f.Name
		}
	})
	return g, nil
}

// proof checks the request's secret and names it as the log knows it.
func (o *Office) proof(r join.Request, nonce []byte) (how event.Admission, ref string, err error) {
	if len(r.TokenSecret) > 0 {
		return event.ByToken, ident.JoinToken{Secret: r.TokenSecret}.Hash(), nil
	}
	if err := join.VerifyEnrolment(r, nonce); err != nil {
		return "", "", refuse(join.CodeInvalid, "the enrolment signature is wrong", "copy the fleet file again from `skein fleet init`")
	}
	key := ident.IDOf(r.EnrolmentKey)
	ref = string(key)
	o.cfg.Fleet.View(func(s *fleet.State) {
		if e, ok := s.Enrolment(key); !ok || e.Revoked {
			err = refuse(join.CodeEnrolmentRevoked, "this fleet file's enrolment key is not valid any more",
				"ask an admin for a current fleet file or a join token")
		}
	})
	return event.ByEnrolment, ref, err
}

// whyRefused turns the log's refusal into one the newcomer understands. What
// the log could not decide now may be asked again.
func (o *Office) whyRefused(err error, id ident.NodeID) error {
	code := join.CodeInvalid
	fault, ok := event.FaultOf(err)
	switch {
	case !ok || fault.Code == event.CodeNoLeader || fault.Code == event.CodeBusy || fault.Code == event.CodeUnknownOutcome:
		return refuse(join.CodeNoLeader, "the fleet could not record the admission: "+err.Error(), "wait; joining is tried again")
	case fault.Reason == event.ReasonTokenUsed:
		code = join.CodeTokenUsed
	case fault.Reason == event.ReasonTokenExpired:
		code = join.CodeTokenExpired
	case fault.Reason == event.ReasonTokenUnknown:
		code = join.CodeTokenUnknown
	case fault.Reason == event.ReasonEnrolmentRevoked:
		code = join.CodeEnrolmentRevoked
	case fault.Reason == event.ReasonRevoked:
		code = join.CodeRevoked
	}
	o.cfg.Log.Info("robot refused", "node", id, "code", code)
	return refuse(code, fault.Message, fault.Next)
}

// usedBy is the node that a token admitted, or "".
func (o *Office) usedBy(token string) (id ident.NodeID) {
	o.cfg.Fleet.View(func(s *fleet.State) {
		if t, ok := s.Token(token); ok {
			id = t.UsedBy
		}
	})
	return id
}

// issue signs a certificate with this node's own issuing right.
func (o *Office) issue(subject ed25519.PublicKey, mayIssue bool) (ident.Chain, error) {
	above := o.cfg.Chain()
	if len(above) == 0 || !above[0].MayIssue {
		return nil, refuse(join.CodeNoLeader, "this voter may not issue certificates yet", "wait; joining is tried again")
	}
	if len(above) >= ident.MaxChain {
		return nil, refuse(join.CodeInvalid, "the certificate chain is at its longest", "re-sign the voters with the fleet's root key")
	}
	return ident.NewChain(above[0].Fleet, subject, mayIssue, o.cfg.Now(), o.cfg.Key, above), nil
}

func (o *Office) node(id ident.NodeID) (n fleet.Node, ok bool) {
	o.cfg.Fleet.View(func(s *fleet.State) { n, ok = s.Node(id) })
	return n, ok
}

func refuse(code join.Code, message, next string) *join.Refusal {
	return &join.Refusal{Code: code, Message: message, Next: next}
}
