package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/rest"
	"skein/node/gateway/view"
)

// realFace is the real REST server over a made-up fleet: what the client sends
// and what the server takes must be the same thing.
type realFace struct {
	node, admin ident.Key
	log         []view.Event
	left        bool
}

func (f *realFace) KeyOf(kid ident.NodeID) (ed25519.PublicKey, bool) {
	return f.node.Public(), kid == f.node.ID()
}
func (f *realFace) Voters() []ident.NodeID { return []ident.NodeID{f.node.ID()} }
func (f *realFace) Person(name string) (auth.Person, bool) {
	return auth.Person{PublicKey: f.admin.Public(), Scopes: []string{event.ScopeAdmin, event.ScopeViewer}}, name == "admin"
}

func (f *realFace) Look() view.Picture {
	return view.Picture{
		Fleet:  view.Fleet{Name: "geese", AsOf: view.AsOf{Cursor: view.Cursor{History: "h", Seq: uint64(len(f.log))}}},
		Robots: []view.Robot{{ID: f.node.ID(), Name: "grey goose/1", Status: view.Offline}},
	}
}
func (f *realFace) Nodes() view.Nodes {
	return view.Nodes{Nodes: []view.Node{{ID: f.node.ID(), Name: "grey goose/1"}}}
}
func (f *realFace) Raft() view.Raft { return view.Raft{Node: f.node.ID(), State: "leader"} }
func (f *realFace) Watch() (<-chan struct{}, func()) {
	return nil, func() {}
}

func (f *realFace) Events(_ context.Context, since uint64, fit view.EventFilter, limit int) ([]view.Event, bool, error) {
	var page []view.Event
	for _, e := range f.log {
		if e.Seq > since && strings.HasPrefix(e.Type, fit.Type) && len(page) < limit {
			page = append(page, e)
		}
	}
	return page, false, nil
}

func (f *realFace) Propose(_ context.Context, _ string, drafts []view.Draft) (view.Receipt, error) {
	for _, d := range drafts {
		if err := event.Validate(d); err != nil {
			return view.Receipt{}, err
		}
		f.log = append(f.log, view.Event{Seq: uint64(len(f.log) + 1), Time: now(), Stream: d.Stream, Type: d.Type, Data: d.Data})
	}
	return view.Receipt{First: uint64(len(f.log)), Last: uint64(len(f.log))}, nil
}

func (f *realFace) Ready() string               { return "" }
func (f *realFace) Leave(context.Context) error { f.left = true; return nil }
func (f *realFace) URL() string                 { return "http://10.0.0.1:7780" }

func startRealFace(t *testing.T) (f *realFace, address string) {
	t.Helper()
	f = &realFace{}
	var errNode, errAdmin error
	f.node, errNode = ident.NewKey()
	f.admin, errAdmin = ident.NewKey()
	if err := errors.Join(errNode, errAdmin); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	// A clock a year from the client's: a wrong clock must keep nobody out.
	clock := func() time.Time { return now().AddDate(-1, 0, 0) }
	service := auth.New(auth.Config{Key: f.node, Fleet: ident.FleetIDOf(f.admin.Public()), Directory: f, Now: clock, Log: quiet})
	server, err := rest.New(rest.Config{
		Root: f.admin.Public(), Auth: service, Fleet: f, Events: f, Proposer: f, Node: f,
		AllowOrigin: func(string) bool { return false }, Now: clock, Log: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return f, serve(t, http.Handler(server))
}

func TestTheRealServerUnderstandsTheClient(t *testing.T) {
	f, address := startRealFace(t)
	c := connect(t, Options{Addresses: []string{address}, Identity: &Identity{"admin", f.admin}})
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	fleet, err := c.Fleet(ctx)
	must("fleet", err)
	robots, err := c.Robots(ctx)
	must("robots", err)
	robot, err := c.Robot(ctx, "grey goose/1")
	must("robot by a name with a space and a slash", err)
	nodes, err := c.Nodes(ctx)
	must("nodes", err)
	raft, err := c.Raft(ctx)
	must("raft", err)
	id := f.node.ID()
	if fleet.Name != "geese" || len(robots.Robots) != 1 || robot.ID != id || len(nodes.Nodes) != 1 || raft.Node != id {
		t.Errorf("got %+v, %+v, %+v, %+v, %+v", fleet, robots, robot, nodes, raft)
	}

	_, err = c.Propose(ctx, event.VoterApproved{}.Draft(id), event.NodeRevoked{Reason: "lost"}.Draft(id))
	must("propose", err)
	token, err := c.NewToken(ctx, 10*time.Minute)
	must("token", err)
	if _, err := ident.ParseJoinToken(token.Token); err != nil {
		t.Errorf("token: %v", err)
	}
	events, err := c.Events(ctx, 0, view.EventFilter{Type: "node."}, 500)
	must("events", err)
	if len(events.Events) != 1 || events.Events[0].Type != event.TypeNodeRevoked || events.More {
		t.Errorf("got events %+v", events)
	}
	types, err := c.EventTypes(ctx)
	must("types", err)
	if !slices.EqualFunc(types.Types, event.Types(), func(a, b event.TypeInfo) bool { return a.Type == b.Type }) {
		t.Errorf("got types %+v", types)
	}
	code, err := c.NewLoginCode(ctx)
	must("login code", err)
	if !strings.Contains(code.URL, code.Code) {
		t.Errorf("got %+v", code)
	}
	must("leave", c.Leave(ctx))
	if !f.left {
		t.Error("the node did not leave")
	}
}

func TestTheRealServersRefusals(t *testing.T) {
	f, address := startRealFace(t)
	c := connect(t, Options{Addresses: []string{address}, Identity: &Identity{"admin", f.admin}})
	_, notFound := c.Robot(t.Context(), "nobody")
	_, invalid := c.Propose(t.Context(), view.Draft{Stream: "node/x", Type: "node.exploded", Data: []byte("{}")})
	_, tooLong := c.NewToken(t.Context(), 1000*time.Hour)
	for _, want := range []struct {
		err    error
		status int
		code   string
	}{{notFound, 404, "not_found"}, {invalid, 422, "unknown_type"}, {tooLong, 422, "invalid"}} {
		p, ok := errors.AsType[*view.Problem](want.err)
		if !ok || p.Status != want.status || p.Code != want.code || p.Detail == "" || p.Next == "" {
			t.Errorf("got %v (%+v), want %d %s with detail and next step", want.err, p, want.status, want.code)
		}
	}
	anonymous := connect(t, Options{Addresses: []string{address}})
	if _, err := anonymous.Fleet(t.Context()); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("without identity: %v", err)
	}
	stranger := connect(t, Options{Addresses: []string{address}, Identity: &Identity{"admin", f.node}})
	_, err := stranger.Fleet(t.Context())
	if p, ok := errors.AsType[*view.Problem](err); !ok || p.Status != 401 {
		t.Errorf("with another's key: %v", err)
	}
}
