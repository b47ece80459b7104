package auth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/mesh/ident"
	"skein/node/gateway/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a fleet of two voters and one other member that share a clock and a
// replicated state, and reach each other over pipes.
type world struct {
	fleet  ident.FleetID
	a, b   *Service // voters
	other  *Service // no voter
	anna   ident.Key
	opened atomic.Int64 // streams between nodes

	mu      sync.Mutex
	now     time.Time
	voters  map[ident.NodeID]ed25519.PublicKey
	order   []ident.NodeID
	persons map[string]Person
	nodes   map[ident.NodeID]func(net.Conn) // who answers, and how
}

func newKey(t testing.TB) ident.Key {
	t.Helper()
	k, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWorld(t testing.TB) *world {
	w := &world{
		now:     time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC),
		voters:  map[ident.NodeID]ed25519.PublicKey{},
		persons: map[string]Person{},
		nodes:   map[ident.NodeID]func(net.Conn){},
	}
	w.fleet = ident.FleetIDOf(newKey(t).Public())
	w.anna = newKey(t)
	w.persons["anna"] = Person{w.anna.Public(), []string{"viewer", "operator"}}
	w.a, w.b, w.other = w.node(t, true), w.node(t, true), w.node(t, false)
	return w
}

func (w *world) node(t testing.TB, voter bool) *Service {
	key := newKey(t)
	s := New(Config{Key: key, Fleet: w.fleet, Directory: w, Forwarder: caller{w, key.ID()}, Now: w.clock, Log: slog.New(slog.DiscardHandler)})
	w.mu.Lock()
	defer w.mu.Unlock()
	if voter {
		w.voters[key.ID()] = key.Public()
		w.order = append(w.order, key.ID())
	}
	w.nodes[key.ID()] = func(c net.Conn) { s.Serve(t.Context(), "caller", c) }
	return s
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) KeyOf(id ident.NodeID) (ed25519.PublicKey, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, there := w.voters[id]
	return k, there
}

func (w *world) Voters() []ident.NodeID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.order)
}

func (w *world) Person(name string) (Person, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, there := w.persons[name]
	return p, there
}

// put sets what the log says of a person; no scopes removes her.
func (w *world) put(name string, key ident.Key, scopes ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(scopes) == 0 {
		delete(w.persons, name)
		return
	}
	w.persons[name] = Person{key.Public(), scopes}
}

func (w *world) demote(s *Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.voters, s.self)
	w.order = slices.DeleteFunc(w.order, func(id ident.NodeID) bool { return id == s.self })
}

// behave replaces how a node answers; nil makes it unreachable.
func (w *world) behave(s *Service, answer func(net.Conn)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[s.self] = answer
}

// caller is one node's Forwarder.
type caller struct {
	*world
	self ident.NodeID
}

func (c caller) OpenLogin(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	c.opened.Add(1)
	c.mu.Lock()
	answer := c.nodes[id]
	c.mu.Unlock()
	if answer == nil {
		return nil, errors.New("no route to host")
	}
	near, far := net.Pipe()
	go answer(far)
	return near, nil
}

func (w *world) info(t testing.TB, s *Service) view.LoginInfo {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// login logs anna in at s by signature and returns her session.
func (w *world) login(t testing.TB, s *Service) view.Session {
	t.Helper()
	session, err := s.Login(t.Context(), view.SignLogin(w.anna, w.info(t, s), "anna"))
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// refused fails the test unless err is a Problem with status and code.
func refused(t testing.TB, err error, status int, code string) {
	t.Helper()
	p, is := errors.AsType[*view.Problem](err)
	if !is || p.Status != status || p.Code != code {
		t.Fatalf("got %#v, want a refusal with %d %s", err, status, code)
	}
	if p.Detail == "" || p.Next == "" {
		t.Fatalf("refusal %+v says too little", p)
	}
}
