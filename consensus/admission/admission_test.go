package admission

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/mesh/ident"
	"skein/mesh/join"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// root and enrolment are the keys of fleettest's fleet.
var (
	root      = fleettest.Key(99)
	enrolment = fleettest.Key(100)
)

// registry is a replicated state whose only copy is here.
type registry struct {
	mu     sync.Mutex
	state  *fleet.State
	now    time.Time
	leader ident.NodeID
	// fails is what Record answers instead of deciding.
	fails error
}

func (r *registry) View(f func(*fleet.State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.state)
}

func (r *registry) Leader() (ident.NodeID, bool) { return r.leader, r.leader != "" }

func (r *registry) Record(_ context.Context, drafts ...event.Draft) error {
	return r.decide(fleettest.Leader(fleettest.Node(0)), drafts...)
}

func (r *registry) Voters() []ident.Endpoint { return []ident.Endpoint{{ID: fleettest.Node(0)}} }

func (r *registry) decide(by event.Actor, drafts ...event.Draft) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails != nil {
		return r.fails
	}
	verdict, err := r.state.Check(event.Batch{Actor: by, Drafts: drafts}, r.now)
	if err != nil {
		return err
	}
	for _, e := range verdict.Events {
		if err := r.state.Apply(e); err != nil {
			return err
		}
	}
	return nil
}

// admin decides as the fleet's admin; it must succeed.
func (r *registry) admin(t *testing.T, drafts ...event.Draft) {
	t.Helper()
	if err := r.decide(fleettest.Admin("ada"), drafts...); err != nil {
		t.Fatal(err)
	}
}

// switchboard connects offices by pipes.
type switchboard struct {
	offices map[ident.NodeID]*Office
	from    ident.NodeID
	served  *sync.WaitGroup
}

func (s switchboard) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	to, ok := s.offices[id]
	if !ok {
		return nil, errors.New("unreachable")
	}
	here, there := net.Pipe()
	s.served.Go(func() { to.Handle(ctx, there, s.from) })
	return here, nil
}

// town is a fleet: the founder, Key(0), leads; Key(1) is a member that forwards.
type town struct {
	t        *testing.T
	registry *registry
	leader   *Office
	member   *Office
}

func newTown(t *testing.T) *town {
	t.Helper()
	r := &registry{state: fleet.New(), now: noon, leader: fleettest.Node(0)}
	g := fleettest.Genesis()
	if err := r.decide(g.Actor, g.Drafts...); err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(served.Wait)
	offices := map[ident.NodeID]*Office{}
	id := ident.FleetIDOf(root.Public())
	above := ident.NewChain(id, fleettest.Key(0).Public(), true, noon, root, nil)
	office := func(i int, chain ident.Chain) *Office {
		o := New(Config{
			Key: fleettest.Key(i), Chain: func() ident.Chain { return chain }, Fleet: r,
			GossipKeys: func() (json.RawMessage, error) { return json.RawMessage(`"keys"`), nil },
			Link:       switchboard{offices, fleettest.Node(i), &served}, Now: func() time.Time { return noon }, Log: slog.New(slog.DiscardHandler),
		})
		offices[fleettest.Node(i)] = o
		return o
	}
	return &town{t, r, office(0, above), office(1, ident.NewChain(id, fleettest.Key(1).Public(), false, noon, fleettest.Key(0), above))}
}

func byToken(i int, secret string) join.Request {
	return join.Request{PublicKey: fleettest.Key(i).Public(), Name: "robot", TokenSecret: []byte(secret)}
}

// token makes a token with this secret.
func (w *town) token(secret string, ttlSeconds uint64) {
	w.t.Helper()
	w.registry.admin(w.t, event.TokenCreated{TTLSeconds: ttlSeconds}.Draft(ident.JoinToken{Secret: []byte(secret)}.Hash()))
}

// admit asks an office for the i-th robot.
func (w *town) admit(o *Office, r join.Request) (join.Grant, error) {
	return o.Admit(w.t.Context(), ident.IDOf(r.PublicKey), r, []byte("nonce"))
}

// refused checks the code of a refusal, and that it says what to do.
func refused(t *testing.T, err error, code join.Code) {
	t.Helper()
	refusal, ok := errors.AsType[*join.Refusal](err)
	if !ok {
		t.Fatalf("error is %v, want a refusal", err)
	}
	if refusal.Code != code || refusal.Message == "" {
		t.Errorf("refused with %s (%s), want %s", refusal.Code, refusal, code)
	}
	if refusal.Next == "" && code != join.CodeInvalid {
		t.Errorf("%s does not say what to do: %s", code, refusal)
	}
}

// granted checks that a grant makes subject a member, and no issuer.
func granted(t *testing.T, g join.Grant, subject ident.Key) {
	t.Helper()
	leaf, err := g.Chain.Verify(root.Public())
	if err != nil || !leaf.PublicKey.Equal(subject.Public()) || leaf.MayIssue {
		t.Errorf("certificate %+v of chain, error %v", leaf, err)
	}
	if string(g.Keys) != `"keys"` || g.FleetName != "test fleet" || len(g.Voters) != 1 || !g.LeaderTime.Equal(noon) {
		t.Errorf("grant %+v", g)
	}
}

func TestTokenAdmitsOneRobotOnceAtAnyMember(t *testing.T) {
	w := newTown(t)
	w.token("secret", 60)
	g, err := w.admit(w.member, byToken(2, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	granted(t, g, fleettest.Key(2))
	again, err := w.admit(w.leader, byToken(2, "secret"))
	if err != nil {
		t.Fatalf("a robot whose answer was lost is refused: %v", err)
	}
	granted(t, again, fleettest.Key(2))
	for _, o := range []*Office{w.member, w.leader} {
		_, err = w.admit(o, byToken(3, "secret"))
		refused(t, err, join.CodeTokenUsed)
	}
}

func TestOfRacingRobotsOneWins(t *testing.T) {
	w := newTown(t)
	w.token("secret", 60)
	const racers = 8
	results := make(chan error, racers)
	for i := range racers {
		o := []*Office{w.leader, w.member}[i%2]
		go func() {
			_, err := w.admit(o, byToken(2+i, "secret"))
			results <- err
		}()
	}
	won := 0
	for range racers {
		if err := <-results; err == nil {
			won++
		} else {
			refused(t, err, join.CodeTokenUsed)
		}
	}
	if won != 1 {
		t.Errorf("%d robots won", won)
	}
	w.registry.View(func(s *fleet.State) {
		if n := len(s.Nodes()); n != 2 {
			t.Errorf("%d nodes in the log, want the founder and one", n)
		}
	})
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(w *town) join.Request
		code    join.Code
	}{
		"unknown token": {func(*town) join.Request { return byToken(2, "guess") }, join.CodeTokenUnknown},
		"expired token": {func(w *town) join.Request {
			w.token("secret", 1)
			w.registry.now = noon.Add(time.Minute)
			return byToken(2, "secret")
		}, join.CodeTokenExpired},
		"revoked robot": {func(w *town) join.Request {
			w.token("first", 60)
			w.token("second", 60)
			if _, err := w.admit(w.leader, byToken(2, "first")); err != nil {
				w.t.Fatal(err)
			}
			w.registry.admin(w.t, event.NodeRevoked{Reason: "stolen"}.Draft(fleettest.Node(2)))
			return byToken(2, "second")
		}, join.CodeRevoked},
		"revoked robot with the token it once used": {func(w *town) join.Request {
			w.token("first", 60)
			if _, err := w.admit(w.leader, byToken(2, "first")); err != nil {
				w.t.Fatal(err)
			}
			w.registry.admin(w.t, event.NodeRevoked{Reason: "stolen"}.Draft(fleettest.Node(2)))
			return byToken(2, "first")
		}, join.CodeRevoked},
		"wrong signature": {func(*town) join.Request {
			return join.Request{PublicKey: fleettest.Key(2).Public(), Name: "robot", EnrolmentKey: enrolment.Public(), Signature: make([]byte, 64)}
		}, join.CodeInvalid},
		"no leader": {func(w *town) join.Request {
			w.registry.leader = ""
			return byToken(2, "secret")
		}, join.CodeNoLeader},
		"leader unreachable": {func(w *town) join.Request {
			w.registry.leader = fleettest.Node(9)
			return byToken(2, "secret")
		}, join.CodeNoLeader},
		"leader lost its lead": {func(w *town) join.Request {
			w.token("secret", 60)
			w.registry.fails = event.Refuse(event.CodeNoLeader, "", "try again", "not the leader any more")
			return byToken(2, "secret")
		}, join.CodeNoLeader},
		"outcome unknown": {func(w *town) join.Request {
			w.token("secret", 60)
			w.registry.fails = errors.New("disk on fire")
			return byToken(2, "secret")
		}, join.CodeNoLeader},
	} {
		for _, at := range []string{"leader", "member"} {
			t.Run(name+" at the "+at, func(t *testing.T) {
				w := newTown(t)
				r := c.prepare(w)
				office := map[string]*Office{"leader": w.leader, "member": w.member}[at]
				_, err := w.admit(office, r)
				refused(t, err, c.code)
			})
		}
	}
}

func TestRequestForAnotherKeyIsRefused(t *testing.T) {
	w := newTown(t)
	w.token("secret", 60)
	_, err := w.leader.Admit(t.Context(), fleettest.Node(3), byToken(2, "secret"), []byte("nonce"))
	refused(t, err, join.CodeInvalid)
}

func TestOnlyVotersMayIssue(t *testing.T) {
	w := newTown(t)
	w.token("secret", 60)
	if _, err := w.admit(w.leader, byToken(1, "secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.member.RequestIssuing(t.Context(), fleettest.Node(0)); err == nil {
		t.Fatal("a node that is no voter got a certificate that may issue")
	}
	me := fleettest.Node(1)
	if err := w.registry.decide(fleettest.Itself(me), event.VoterEligible{Eligible: true}.Draft(me)); err != nil {
		t.Fatal(err)
	}
	w.registry.admin(t, event.VoterApproved{}.Draft(me))
	if err := w.registry.decide(fleettest.Leader(fleettest.Node(0)), event.VoterAdded{}.Draft(me)); err != nil {
		t.Fatal(err)
	}
	chain, err := w.member.RequestIssuing(t.Context(), fleettest.Node(0))
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err := chain.Verify(root.Public()); err != nil || !leaf.MayIssue || leaf.Node() != me {
		t.Errorf("issuing certificate %+v, error %v", leaf, err)
	}
}

// TestLeaderWithoutIssuingRight: a voter that leads before it has its issuing
// certificate must not use a token up for nothing.
func TestLeaderWithoutIssuingRight(t *testing.T) {
	w := newTown(t)
	w.token("secret", 60)
	w.registry.leader = fleettest.Node(1)
	_, err := w.admit(w.member, byToken(2, "secret"))
	refused(t, err, join.CodeNoLeader)
	w.registry.leader = fleettest.Node(0)
	g, err := w.admit(w.leader, byToken(2, "secret"))
	if err != nil {
		t.Fatalf("asking again at a leader that may issue: %v", err)
	}
	granted(t, g, fleettest.Key(2))
}

func TestHandleSurvivesGarbage(t *testing.T) {
	w := newTown(t)
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); w.leader.Handle(t.Context(), there, fleettest.Node(1)) }()
	if _, err := here.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	here.Close()
	<-done
}
