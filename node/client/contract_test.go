package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/views"
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
	leader      ident.NodeID
	read        view.Read
	breaks      bool // backups break midway
}

func (f *realFace) KeyOf(kid ident.NodeID) (ed25519.PublicKey, bool) {
	return f.node.Public(), kid == f.node.ID()
}
func (f *realFace) Voters() []ident.NodeID { return []ident.NodeID{f.node.ID()} }
func (f *realFace) Person(name string) (auth.Person, bool) {
	return auth.Person{PublicKey: f.admin.Public(), Scopes: []string{event.ScopeAdmin, event.ScopeViewer}}, name == "admin"
}

func (f *realFace) Header() view.Fleet     { return f.Look().Fleet }
func (f *realFace) Robots() view.RobotRows { return f.Look().Rows() }

// Robot leaves it to the server to find robots.
func (f *realFace) Robot(string) (view.OneRobot, bool) { return view.OneRobot{}, false }

func (f *realFace) AsOf() view.AsOf { return f.Look().Fleet.AsOf }

func (f *realFace) Look() view.Picture {
	p := view.Picture{
		Fleet:  view.Fleet{Name: "geese", AsOf: view.AsOf{Cursor: view.Cursor{History: "h", Seq: uint64(len(f.log))}}},
		Robots: []view.Robot{{ID: f.node.ID(), Name: "grey goose/1", Status: view.Offline}},
	}
	if f.leader != "" {
		p.Fleet.Leader = &view.NodeRef{ID: f.leader}
	}
	return p
}
func (f *realFace) Nodes() view.Nodes {
	return view.Nodes{Nodes: []view.Node{{ID: f.node.ID(), Name: "grey goose/1"}}}
}
func (f *realFace) Raft() view.Raft {
	return view.Raft{Node: f.node.ID(), State: "leader", Voters: []ident.NodeID{"v"}}
}
func (f *realFace) Watch() (<-chan struct{}, func()) {
	return nil, func() {}
}

func (f *realFace) Query(_ context.Context, q view.EventQuery) (view.EventPage, error) {
	var page view.EventPage
	for _, e := range f.log {
		if e.Seq > q.After && strings.HasPrefix(e.Type, q.Type) && len(page.Events) < q.Limit {
			page.Events = append(page.Events, e)
		}
	}
	return page, nil
}

func (f *realFace) Await(_ context.Context, read view.Read) (view.Fresh, error) {
	f.read = read
	return view.Fresh{}, nil
}

func (f *realFace) PictureAt(_ context.Context, at view.At) (view.Picture, error) {
	p := f.Look()
	p.Fleet.AsOf.At = &view.Moment{Seq: at.Seq}
	return p, nil
}

func (f *realFace) NodesAt(_ context.Context, at view.At) (view.Nodes, error) {
	return view.Nodes{AsOf: view.AsOf{At: &view.Moment{Seq: at.Seq}}}, nil
}

func (f *realFace) Groups(_ context.Context, at *view.At) (view.GroupList, error) {
	return view.GroupList{Kept: view.NewKept([]view.Group{{Name: "g", Robots: []view.NodeRef{}}}), AsOf: view.AsOf{At: &view.Moment{Seq: at.Seq}}}, nil
}

func (f *realFace) Decided(_ context.Context, at *view.At) (view.Decided, error) {
	return view.Decided{StateHash: "h", AsOf: view.AsOf{At: &view.Moment{Seq: at.Seq}}}, nil
}

func (f *realFace) Diff(_ context.Context, a, b view.At) (view.Diff, error) {
	return view.Diff{From: view.Moment{Seq: a.Seq}, To: view.Moment{Seq: b.Seq}}, nil
}

func (f *realFace) Overview(context.Context, *view.At) (view.Overview, error) {
	return view.Overview{}, nil
}
func (f *realFace) Deployments(context.Context, *view.At) (view.DeploymentList, error) {
	return view.DeploymentList{Kept: view.NewKept[views.Deployment](nil)}, nil
}
func (f *realFace) Alerts(context.Context, *view.At) (view.AlertList, error) {
	return view.AlertList{Kept: view.NewKept[views.Alert](nil)}, nil
}

func (f *realFace) TransferLeader(_ context.Context, to ident.NodeID) error {
	f.leader = to
	return nil
}

func (f *realFace) Backup(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, strings.Repeat("backup ", 1<<20))
	if err == nil && f.breaks {
		err = errors.New("the disk failed")
	}
	return err
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
		Root: f.admin.Public(), Auth: service, Fleet: f, Past: f, Reads: f, Events: f, Proposer: f, Node: f,
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

func TestTheRealServerUnderstandsWhatIsNew(t *testing.T) {
	f, address := startRealFace(t)
	o := Options{Addresses: []string{address}, Identity: &Identity{"admin", f.admin}, Read: view.Linearizable, At: "7"}
	c := connect(t, o)
	ctx, id := t.Context(), f.node.ID()
	must := func(what string, asOf *view.AsOf, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if asOf != nil && (asOf.At == nil || asOf.At.Seq != 7 || asOf.Read != view.Linearizable || f.read != view.Linearizable) {
			t.Errorf("%s: asOf %+v", what, asOf)
		}
		f.read = ""
	}
	fleet, err := c.Fleet(ctx)
	must("fleet", &fleet.AsOf, err)
	robots, err := c.Robots(ctx)
	must("robots", &robots.AsOf, err)
	robot, err := c.Robot(ctx, "grey goose/1")
	must("robot", &robot.AsOf, err)
	nodes, err := c.Nodes(ctx)
	must("nodes", &nodes.AsOf, err)
	groups, err := c.Groups(ctx)
	must("groups", &groups.AsOf, err)
	decided, err := c.Decided(ctx, "7")
	must("state", &decided.AsOf, err)
	diff, err := c.Diff(ctx, "3", "2026-01-01T00:00:00Z")
	must("diff", nil, err)
	if diff.From.Seq != 3 {
		t.Errorf("diff %+v", diff)
	}
	done, err := c.Step(ctx, id, "provision", view.Provision{Version: "2"})
	must("provision", nil, err)
	if done.Robot == nil || done.Robot.ID != id || done.Receipt.Last != 1 {
		t.Errorf("provision: %+v", done)
	}
	for _, step := range []string{"activate", "deactivate", "maintenance", "maintenance/end", "recover", "retire"} {
		_, err := c.Step(ctx, id, step, view.Why{Reason: "r"})
		must(step, nil, err)
	}
	_, err = c.Step(ctx, id, "fail", view.Fail{Message: "m", Kind: "hardware"})
	must("fail", nil, err)
	_, err = c.CreateGroup(ctx, view.NewGroup{Name: "a b"})
	must("create group", nil, err)
	_, err = c.AddToGroup(ctx, "a b", id)
	must("add to group", nil, err)
	_, err = c.RemoveFromGroup(ctx, "a b", id)
	must("remove from group", nil, err)
	_, err = c.DeleteGroup(ctx, "a b")
	must("delete group", nil, err)
	var types []string
	for _, e := range f.log {
		types = append(types, e.Type)
	}
	if got := strings.Join(types, " "); got != "robot.provisioned robot.activated robot.deactivated robot.maintenance_started robot.maintenance_ended robot.recovered robot.retired robot.failed "+
		"group.created group.robot_added group.robot_removed group.deleted" {
		t.Errorf("proposed: %s", got)
	}
	transferred, err := c.TransferLeader(ctx, "v")
	must("transfer", nil, err)
	if f.leader != "v" || transferred.From.ID != id {
		t.Errorf("transferred %+v to %s", transferred, f.leader)
	}
}

// A backup is passed on whole, or with an error.
func TestTheRealServersAnswerAsItIs(t *testing.T) {
	f, address := startRealFace(t)
	c := connect(t, Options{Addresses: []string{address}, Identity: &Identity{"admin", f.admin}})
	var copied bytes.Buffer
	if err := c.Copy(t.Context(), "/api/v1/robots/"+string(f.node.ID()), url.Values{"read": {"leased"}}, &copied); err != nil {
		t.Fatal(err)
	}
	var got view.OneRobot
	if err := json.Unmarshal(copied.Bytes(), &got); err != nil || got.ID != f.node.ID() || got.AsOf.Read != view.Leased {
		t.Errorf("%s: %v", copied.Bytes(), err)
	}
	copied.Reset()
	err := c.Copy(t.Context(), "/api/v1/robots/nobody", nil, &copied)
	if p, is := errors.AsType[*view.Problem](err); !is || p.Code != "not_found" || copied.Len() > 0 {
		t.Errorf("a robot that is not there: %v, %q", err, copied.Bytes())
	}
	if err := c.Copy(t.Context(), "/openapi.json", nil, &copied); !errors.Is(err, ErrNotSkein) || copied.Len() > 0 {
		t.Errorf("what is no answer: %v, %q", err, copied.Bytes())
	}
}

func TestTheRealServersBackup(t *testing.T) {
	f, address := startRealFace(t)
	c := connect(t, Options{Addresses: []string{address}, Identity: &Identity{"admin", f.admin}})
	var got strings.Builder
	if err := c.Backup(t.Context(), &got); err != nil || got.Len() != 7<<20 {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	f.breaks = true
	if err := c.Backup(t.Context(), io.Discard); err == nil {
		t.Error("a backup that broke looks whole")
	}
	anonymous := connect(t, Options{Addresses: []string{address}})
	if err := anonymous.Backup(t.Context(), io.Discard); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("without identity: %v", err)
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
