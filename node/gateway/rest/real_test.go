package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/member"
	"skein/mesh/presence"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
	"skein/node/survey"
)

// deep is a node with a real copy of the log: what is proposed is applied, and
// every past can be asked for.
type deep struct {
	*survey.Surveyor
	store *replica.Replica

	mu    sync.Mutex
	index uint64
	now   time.Time
}

// began is when the log of a deep node begins; every batch is a minute later.
var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newDeep(t testing.TB, o replica.Options) *deep {
	t.Helper()
	models := views.New()
	o.Observer = models
	store, err := replica.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	d := &deep{store: store, now: began}
	d.Surveyor = survey.New(survey.Sources{
		Self: fleettest.Node(0), View: store.ViewAt, Past: store, Models: models,
		Standing: func() survey.Standing { return survey.Standing{Age: 1500 * time.Millisecond} },
		Members:  func() []member.Member { return nil },
		Reports:  func() map[ident.NodeID]presence.Report { return nil },
		Skew:     func(ident.NodeID) (time.Duration, bool) { return 0, false },
		Now:      func() time.Time { return began.Add(240 * time.Hour) },
	})
	d.decide(t, fleettest.Genesis())
	return d
}

// decide applies a batch and gives its last event.
func (d *deep) decide(t testing.TB, b event.Batch) uint64 {
	t.Helper()
	last, err := d.apply(b)
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func (d *deep) apply(b event.Batch) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: d.now.UnixMilli(), Batches: []event.Batch{b}})
	if err != nil {
		return 0, err
	}
	d.index++
	d.now = d.now.Add(time.Minute)
	out, err := d.store.ApplyEntry(d.index, 1, data)
	if err != nil {
		return 0, err
	}
	return out[0].Last, out[0].Err
}

func (d *deep) Look() view.Picture { return d.Picture() }
func (d *deep) Nodes() view.Nodes  { return d.Surveyor.Nodes() }
func (d *deep) Raft() view.Raft    { return view.Raft{} }

func (d *deep) Watch() (<-chan struct{}, func()) { return nil, func() {} }

func (d *deep) Query(ctx context.Context, q view.EventQuery) (view.EventPage, error) {
	p, err := d.store.Query(ctx, replica.Query{
		Filter: replica.Filter{Stream: q.Stream, Type: q.Type, Actor: q.Actor, From: q.From, Until: q.Until},
		After:  q.After, Before: q.Before, Newest: q.Newest, Limit: q.Limit,
	})
	return view.EventPage{Events: p.Events, Compacted: p.Compacted, More: p.More}, err
}

func (d *deep) Propose(_ context.Context, _ string, drafts []view.Draft) (view.Receipt, error) {
	last, err := d.apply(event.Batch{Actor: fleettest.Admin("ada"), Drafts: drafts})
	return view.Receipt{First: last, Last: last, Cursor: d.store.Cursor()}, err
}

// newDeepFace serves a deep node in which one robot is registered.
func newDeepFace(t testing.TB) (*face, *deep) {
	d := newDeep(t, replica.Options{})
	id := fleettest.Node(0)
	d.decide(t, event.Batch{Actor: event.Actor{Kind: event.KindLeader, ID: string(id)}, Drafts: []event.Draft{event.CeilingRaised{Level: 2}.Draft()}})
	d.decide(t, event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
		event.RobotRegistered{Name: "goose", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux", Hostname: "goose-pi"}.Draft(id)}})
	return newFaceWith(t, func(c *Config) { c.Fleet, c.Past, c.Events, c.Proposer = d, d, d, d }), d
}

// registered is the event with which the robot of newDeepFace is there.
const registered = 9

func TestThePast(t *testing.T) {
	f, d := newDeepFace(t)
	into[view.Done](t, f.do("omar", "POST", "/api/v1/robots/goose/provision", `{"version":"2.0"}`))
	into[view.Done](t, f.do("omar", "POST", "/api/v1/robots/goose/provision", `{"version":"2.0"}`))
	into[view.Done](t, f.do("omar", "POST", "/api/v1/robots/goose/activate", `{"reason":"work"}`))
	into[view.Done](t, f.do("omar", "POST", "/api/v1/groups", `{"name":"north","description":"d"}`))
	into[view.Done](t, f.do("omar", "POST", "/api/v1/groups/north/robots", `{"robot":"goose"}`))
	state := func(at string) string {
		t.Helper()
		r := into[view.OneRobot](t, f.do("anna", "GET", "/api/v1/robots/goose?at="+url.QueryEscape(at), ""))
		if r.AsOf.At == nil || r.AsOf.Read != view.Local || r.AsOf.Cursor.Seq != r.AsOf.At.Seq {
			t.Errorf("at %s: asOf %+v does not say that it is the past", at, r.AsOf)
		}
		return r.Lifecycle.State
	}
	for i, want := range []string{"discovered", "provisioning", "ready", "active", "active"} {
		if got := state(strconv.Itoa(registered + i)); got != want {
			t.Errorf("at event %d: %s, want %s", registered+i, got, want)
		}
		// The robot was registered by the third batch, two minutes after the first.
		at := began.Add(time.Duration(2+i)*time.Minute + 59*time.Second)
		if got := state(at.Format(time.RFC3339)); got != want {
			t.Errorf("at %s: %s, want %s", at, got, want)
		}
	}
	f.do("anna", "GET", "/api/v1/robots/goose?at=8", "").problem(t, 404, "not_found")
	now := into[view.Robots](t, f.do("anna", "GET", "/api/v1/robots", ""))
	if now.AsOf.At != nil || now.Robots[0].Lifecycle.State != "active" || now.Robots[0].Hostname != "goose-pi" {
		t.Errorf("now: %+v", now)
	}
	for path, want := range map[string]string{
		"/api/v1/fleet?at=9": "test fleet", "/api/v1/nodes?at=9": "goose", "/api/v1/nodes?at=8": "founder", "/api/v1/groups?at=13": "north", "/api/v1/state?at=0": `"robots":0`,
	} {
		if r := f.do("anna", "GET", path, ""); r.StatusCode != 200 || !strings.Contains(string(r.body), want) || strings.Contains(string(r.body), `"at":null`) {
			t.Errorf("%s: %s %s", path, r.Status, r.body)
		}
	}
	// Figures that two nodes can compare: those of a past moment are those that
	// were read then.
	was := into[view.Decided](t, f.do("anna", "GET", "/api/v1/state", ""))
	d.decide(t, event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.GroupCreated{}.Draft("south")}})
	then := into[view.Decided](t, f.do("anna", "GET", "/api/v1/state?at="+strconv.FormatUint(was.AsOf.Cursor.Seq, 10), ""))
	if was.AsOf.At != nil || then.AsOf.At == nil || then.AsOf.Cursor != was.AsOf.Cursor || then.StateHash != was.StateHash || then.Counts != was.Counts || was.Ceiling != 2 {
		t.Errorf("was %+v, and is remembered as %+v", was, then)
	}
}

func TestWhatChangedBetweenTwoMoments(t *testing.T) {
	f, d := newDeepFace(t)
	before := d.store.Cursor().Seq
	d.decide(t, event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{
		event.RobotLabelsChanged{Set: map[string]string{"site": "north"}}.Draft(fleettest.Node(0)),
		event.GroupCreated{}.Draft("g"),
		event.PersonAdded{PublicKey: fleettest.Key(51).Public(), Scopes: []string{event.ScopeViewer}}.Draft("bob"),
	}})
	after := d.store.Cursor().Seq
	diff := func(a, b uint64) view.Diff {
		t.Helper()
		return into[view.Diff](t, f.do("anna", "GET", "/api/v1/events/diff?a="+strconv.FormatUint(a, 10)+"&b="+strconv.FormatUint(b, 10), ""))
	}
	there := diff(before, after)
	if there.From.Seq != before || there.To.Seq != after || there.AsOf.At == nil || there.To.Time == nil || len(there.Changes) != 3 {
		t.Fatalf("%+v", there)
	}
	var kinds []string
	for _, c := range there.Changes {
		kinds = append(kinds, c.Kind+" "+c.What)
	}
	if got := strings.Join(kinds, ", "); got != "group added, person added, robot changed" {
		t.Errorf("changes: %s", got)
	}
	if c := there.Changes[2]; len(c.Fields) != 1 || c.Fields[0] != (view.FieldChange{Field: "label site", To: "north"}) || c.Name != "goose" {
		t.Errorf("the robot: %+v", c)
	}
	back := diff(after, before)
	if len(back.Changes) != 3 || back.Changes[0].What != "removed" || back.Changes[2].Fields[0].From != "north" {
		t.Errorf("backwards: %+v", back)
	}
	if none := diff(after, after); len(none.Changes) != 0 {
		t.Errorf("nothing: %+v", none)
	}
	voters := diff(0, before).Changes
	found := map[string]bool{}
	for _, c := range voters {
		found[c.Kind] = true
	}
	for _, kind := range []string{"fleet", "node", "voter", "robot", "person", "enrolment"} {
		if !found[kind] {
			t.Errorf("the founding does not show a %s: %+v", kind, voters)
		}
	}
}

func TestMomentsThatAreNone(t *testing.T) {
	f, _ := newDeepFace(t)
	for _, at := range []string{"-1", "1.5", "18446744073709551616", "9007199254740992", "yesterday", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00Z",
		"+2026-01-01T00:00:00Z", "%FF", "2026-01-01", "9999999999999999999999", "0x10", " 3", "3;4", "%00"} {
		for _, path := range []string{"/api/v1/fleet?at=", "/api/v1/robots?at=", "/api/v1/state?at=", "/api/v1/events/diff?a=1&b=", "/api/v1/events/diff?b=1&a="} {
			r := f.do("anna", "GET", path+strings.ReplaceAll(strings.ReplaceAll(at, " ", "%20"), ";", "%3B"), "")
			if p := r.problem(t, 422, "invalid"); len(p.Detail) > 300 {
				t.Errorf("%s: %s", at, p.Detail)
			}
		}
	}
	f.do("anna", "GET", "/api/v1/fleet?at=10", "").problem(t, 404, "not_found")
	f.do("anna", "GET", "/api/v1/fleet?at=9007199254740991", "").problem(t, 404, "not_found")
	f.do("anna", "GET", "/api/v1/fleet?at=2999-01-01T00:00:00Z", "").problem(t, 422, "invalid")
	f.do("anna", "GET", "/api/v1/events/diff?a=1", "").problem(t, 422, "invalid")
	f.do("anna", "GET", "/api/v1/fleet?at="+strings.Repeat("1", 65), "").problem(t, 422, "invalid")
	into[view.Fleet](t, f.do("anna", "GET", "/api/v1/fleet?at=1971-01-01T00:00:00Z", "")) // before it began
}

// What a node does not hold any more is said to be so, and where it is.
func TestAPastThatIsNotHeldHere(t *testing.T) {
	d := newDeep(t, replica.Options{TailBytes: 64 << 10})
	actor := fleettest.Admin("ada")
	id := fleettest.Node(0)
	registered := event.RobotRegistered{Name: "goose", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(id)
	registered.Schema = 1
	d.decide(t, event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{registered}})
	for i := range 2000 {
		change := event.RobotLabelsChanged{Set: map[string]string{"n": strconv.Itoa(i), "pad": strings.Repeat("x", 100)}}
		d.decide(t, event.Batch{Actor: actor, Drafts: []event.Draft{change.Draft(id)}})
	}
	if err := d.store.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	f := newFaceWith(t, func(c *Config) { c.Fleet, c.Past, c.Events = d, d, d })
	for _, path := range []string{"/api/v1/fleet?at=20", "/api/v1/state?at=20", "/api/v1/events/diff?a=20&b=2000", "/api/v1/fleet?at=" + began.Add(2*time.Minute).Format(time.RFC3339)} {
		f.do("anna", "GET", path, "").problem(t, 410, "not_held")
	}
	last := strconv.FormatUint(d.store.Cursor().Seq-1, 10)
	into[view.Fleet](t, f.do("anna", "GET", "/api/v1/fleet?at="+last, ""))
}

func TestQueryingEvents(t *testing.T) {
	f, d := newDeepFace(t)
	for i := range 40 {
		actor := fleettest.Admin([]string{"ada", "ada", "ada", "bob"}[i%4])
		if i == 3 {
			d.decide(t, event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.PersonAdded{PublicKey: fleettest.Key(51).Public(), Scopes: []string{event.ScopeAdmin, event.ScopeOperator, event.ScopeViewer}}.Draft("bob")}})
		}
		d.decide(t, event.Batch{Actor: actor, Drafts: []event.Draft{event.RobotLabelsChanged{Set: map[string]string{"n": strconv.Itoa(i)}}.Draft(fleettest.Node(0))}})
	}
	get := func(query string) view.Events {
		t.Helper()
		return into[view.Events](t, f.do("anna", "GET", "/api/v1/events?"+query, ""))
	}
	all := get("limit=1000").Events
	if len(all) != int(d.store.Cursor().Seq) {
		t.Fatalf("%d events", len(all))
	}
	// Every answer is what picking by hand gives.
	check := func(query string, fits func(view.Event) bool) {
		t.Helper()
		var want []uint64
		for _, e := range all {
			if fits(e) {
				want = append(want, e.Seq)
			}
		}
		got := get("limit=1000&" + query).Events
		if len(want) == 0 || len(got) != len(want) {
			t.Fatalf("%s: %d events, want %d", query, len(got), len(want))
		}
		for i, e := range got {
			if e.Seq != want[i] {
				t.Fatalf("%s: event %d, want %d", query, e.Seq, want[i])
			}
		}
	}
	middle := all[30].Time
	check("actor=bob", func(e view.Event) bool { return e.Actor.ID == "bob" })
	check("type=robot.&stream=robot/"+string(fleettest.Node(0)), func(e view.Event) bool { return strings.HasPrefix(e.Type, "robot.") })
	check("stream=person/", func(e view.Event) bool { return strings.HasPrefix(e.Stream, "person/") })
	check("from="+url.QueryEscape(middle.Format(time.RFC3339)), func(e view.Event) bool { return !e.Time.Before(middle) })
	check("until="+url.QueryEscape(middle.Format(time.RFC3339)), func(e view.Event) bool { return !e.Time.After(middle) })
	check("since=10&before=20", func(e view.Event) bool { return e.Seq > 10 && e.Seq < 20 })
	check("newest=true", func(view.Event) bool { return true })

	newest := get("newest=true&limit=3&actor=bob")
	if len(newest.Events) != 3 || !newest.More || newest.Events[0].Seq > newest.Events[2].Seq {
		t.Fatalf("the newest: %+v", newest)
	}
	older := get("newest=true&limit=3&actor=bob&before=" + strconv.FormatUint(newest.Events[0].Seq, 10))
	if len(older.Events) != 3 || older.Events[2].Seq >= newest.Events[0].Seq {
		t.Fatalf("those before: %+v", older)
	}
	for _, query := range []string{"from=1", "until=today", "newest=maybe", "before=-1", "actor=" + strings.Repeat("x", 129), "stream=%FF", "actor=%C3%28", "read=stale"} {
		f.do("anna", "GET", "/api/v1/events?"+query, "").problem(t, 422, "invalid")
	}
}

// A read is labelled with what it was, its cursor and its age.
func TestReadsAreLabelled(t *testing.T) {
	f := newFace(t)
	paths := []string{"fleet", "robots", "nodes", "groups", "state", "events", "events/diff?a=0&b=0", "robots?at=0"}
	for _, path := range paths {
		for _, read := range []view.Read{view.Local, view.Leased, view.Linearizable} {
			f.set(func() { f.awaited = nil })
			join := "?"
			if strings.Contains(path, "?") {
				join = "&"
			}
			got := f.do("anna", "GET", "/api/v1/"+path+join+"read="+string(read), "")
			if got.StatusCode != 200 || !strings.Contains(string(got.body), `"read":"`+string(read)+`"`) {
				t.Errorf("%s with read=%s: %s %s", path, read, got.Status, got.body)
			}
			if waited := len(f.awaited) > 0; waited != (read != view.Local) || waited && f.awaited[0] != read {
				t.Errorf("%s with read=%s waited for %v", path, read, f.awaited)
			}
			if read != view.Local && !strings.Contains(string(got.body), `"ageMillis":3,`) {
				t.Errorf("%s with read=%s: the age is not that of the read: %s", path, read, got.body)
			}
		}
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{event.Refuse(event.CodeNoLeader, "", "try again", "nobody leads"), http.StatusServiceUnavailable, "no_leader", "1"},
		{event.Refuse(codeTimeout, "", "try again", "too slow"), http.StatusGatewayTimeout, "timeout", ""},
		{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout", ""},
	} {
		f.set(func() { f.unfresh = c.err })
		for _, path := range paths[:6] {
			r := f.do("anna", "GET", "/api/v1/"+path+"?read=linearizable", "")
			r.problem(t, c.status, c.code)
			if got := r.Header.Get("Retry-After"); got != c.retry {
				t.Errorf("%s: Retry-After %q, want %q", path, got, c.retry)
			}
		}
		into[view.Fleet](t, f.do("anna", "GET", "/api/v1/fleet", "")) // a local read is always there
	}
	f.do("anna", "GET", "/api/v1/fleet?read=fresh", "").problem(t, 422, "invalid")
}

// A robot goes only where its life leads, and the refusal says where it can.
func TestRobotsLives(t *testing.T) {
	f, _ := newDeepFace(t)
	step := func(path, body string, status int, code string) {
		t.Helper()
		r := f.do("omar", "POST", "/api/v1/robots/goose/"+path, body)
		if status == 200 {
			if d := into[view.Done](t, r); d.Robot == nil || d.Robot.Name != "goose" || d.Receipt.Last == 0 {
				t.Fatalf("%s: %+v", path, d)
			}
			return
		}
		if p := r.problem(t, status, code); strings.Contains(p.Path, "drafts") {
			t.Errorf("%s: path %q", path, p.Path)
		}
	}
	step("activate", "", 409, "conflict")
	step("provision", `{"firmware":"f1","capabilities":["arm"]}`, 200, "")
	step("provision", `{"version":"2.0"}`, 200, "")
	step("activate", `{"reason":"a job"}`, 200, "")
	step("maintenance", `{"reason":"oil"}`, 200, "")
	step("deactivate", "", 409, "conflict")
	step("maintenance/end", "", 200, "")
	step("fail", `{"message":"stuck","kind":"hardware"}`, 200, "")
	step("recover", "", 200, "")
	step("retire", `{"reason":"old"}`, 200, "")
	step("activate", "", 409, "conflict")
	step("fail", `{"message":"stuck","kind":"mood"}`, 422, "invalid")
	step("fail", `{"kind":"hardware"}`, 422, "invalid")
	step("activate", `{"reason":"`+strings.Repeat("x", 2000)+`"}`, 422, "invalid")
	r := f.do("omar", "POST", "/api/v1/robots/goose/retire", `{"reason":"two\nlines"}`)
	if p := r.problem(t, 422, "invalid"); p.Path != "reason" {
		t.Errorf("path %q", p.Path)
	}
	f.do("omar", "POST", "/api/v1/robots/nobody/activate", "").problem(t, 404, "not_found")
	got := into[view.OneRobot](t, f.do("anna", "GET", "/api/v1/robots/goose", ""))
	if l := got.Lifecycle; l.State != "retired" || l.Since == nil || l.LastFailure == nil || l.LastFailure.Message != "stuck" {
		t.Errorf("lifecycle %+v", l)
	}
}

func TestGroups(t *testing.T) {
	f, _ := newDeepFace(t)
	into[view.Done](t, f.do("omar", "POST", "/api/v1/groups", `{"name":"north","description":"the hall"}`))
	f.do("omar", "POST", "/api/v1/groups", `{"name":"north"}`).problem(t, 409, "conflict")
	f.do("omar", "POST", "/api/v1/groups", `{"name":"two\nlines"}`).problem(t, 422, "invalid")
	f.do("omar", "POST", "/api/v1/groups/south/robots", `{"robot":"goose"}`).problem(t, 404, "not_found")
	f.do("omar", "POST", "/api/v1/groups/north/robots", `{"robot":"nobody"}`).problem(t, 404, "not_found")
	into[view.Done](t, f.do("omar", "POST", "/api/v1/groups/north/robots", `{"robot":"goose"}`))
	got := into[view.Groups](t, f.do("anna", "GET", "/api/v1/groups", ""))
	if len(got.Groups) != 1 || got.Groups[0].Description != "the hall" || len(got.Groups[0].Robots) != 1 || got.Groups[0].Robots[0].Name != "goose" {
		t.Fatalf("%+v", got)
	}
	into[view.Done](t, f.do("omar", "DELETE", "/api/v1/groups/north/robots/goose", ""))
	into[view.Done](t, f.do("omar", "DELETE", "/api/v1/groups/north", ""))
	if got := into[view.Groups](t, f.do("anna", "GET", "/api/v1/groups", "")); len(got.Groups) != 0 {
		t.Fatalf("%+v", got)
	}
	if was := into[view.Groups](t, f.do("anna", "GET", "/api/v1/groups?at=11", "")); len(was.Groups) != 1 {
		t.Fatalf("%+v", was)
	}
}

func TestTransferringLeadership(t *testing.T) {
	f := newFace(t)
	f.do("ada", "POST", "/api/v1/raft/transfer", `{"to":"nobody"}`).problem(t, 422, "invalid")
	f.do("ada", "POST", "/api/v1/raft/transfer", `{"to":"`+string(f.key.ID())+`"}`).problem(t, 409, "conflict")
	done := into[view.Transferred](t, f.do("ada", "POST", "/api/v1/raft/transfer", `{"to":"second"}`))
	if done.From.ID != f.key.ID() || done.To == nil || done.To.ID != "second" {
		t.Fatalf("%+v", done)
	}
	// Now another leads, and this node says where it is.
	f.set(func() { f.robots = []view.Robot{{ID: "second", Name: "gander", HTTP: "http://192.0.2.9:7780"}} })
	p := f.do("ada", "POST", "/api/v1/raft/transfer", "").problem(t, 409, "not_leader")
	if !strings.Contains(p.Next, "http://192.0.2.9:7780") {
		t.Errorf("next %q", p.Next)
	}
	f.do("omar", "POST", "/api/v1/raft/transfer", "").problem(t, 403, "not_allowed")
}

func TestBackups(t *testing.T) {
	f := newFace(t)
	r := f.do("ada", "GET", "/api/v1/backup", "")
	if r.StatusCode != 200 || string(r.body) != "a backup" || r.Header.Get("Content-Type") != backupType {
		t.Fatalf("%s %s %s", r.Status, r.Header.Get("Content-Type"), r.body)
	}
	f.set(func() {
		f.backup = func(context.Context, io.Writer) error {
			return &view.Problem{Status: 503, Code: "busy", Detail: "one is under way", Next: "wait", RetryAfterMillis: 10_000}
		}
	})
	if r := f.do("ada", "GET", "/api/v1/backup", ""); r.Header.Get("Retry-After") != "10" {
		r.problem(t, 503, "busy")
	}
	// A backup that fails midway must not look whole.
	f.set(func() {
		f.backup = func(_ context.Context, w io.Writer) error {
			io.WriteString(w, strings.Repeat("half a backup ", 10_000))
			return errors.New("the disk failed")
		}
	})
	req, err := http.NewRequest("GET", f.url+"/api/v1/backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token("ada"))
	resp, err := f.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a backup that was cut arrived as if it were whole")
	}
}

// A backup may take longer than any other answer, as long as it moves.
func TestALongBackup(t *testing.T) {
	const piece, pieces, every = 1 << 10, 10, 40 * time.Millisecond
	f := newFleet(t)
	f.backup = func(_ context.Context, w io.Writer) error {
		for range pieces {
			if _, err := io.WriteString(w, strings.Repeat("x", piece)); err != nil {
				return err
			}
			w.(*steady).control.Flush()
			time.Sleep(every) // the pace of a slow backup: all of it takes five times WriteTimeout
		}
		return nil
	}
	s, _ := f.server(t, nil)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r.WithContext(auth.WithLocal(r.Context())))
	}))
	h.Config.WriteTimeout = 2 * every
	h.Start()
	t.Cleanup(h.Close)
	resp, err := h.Client().Get(h.URL + "/api/v1/backup")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.Copy(io.Discard, resp.Body); err != nil || got != piece*pieces {
		t.Fatalf("%d bytes of %d: %v", got, piece*pieces, err)
	}
}

// endless is a body of a size, of which as little as possible should be read.
type endless struct {
	left int64
	read atomic.Int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := min(int64(len(p)), e.left)
	if n == 0 {
		return 0, io.EOF
	}
	for i := range p[:n] {
		p[i] = 'x'
	}
	e.left -= n
	e.read.Add(n)
	return int(n), nil
}

// A payload of a gigabyte is refused at once, announced or not, and not read.
func TestAGigabyte(t *testing.T) {
	f := newFace(t)
	for _, path := range []string{"/api/v1/events", "/api/v1/groups", "/api/v1/robots/x/activate", "/api/v1/raft/transfer"} {
		for _, announced := range []bool{true, false} {
			e := &endless{left: 1 << 30}
			req, err := http.NewRequest("POST", f.url+path, io.MultiReader(strings.NewReader(`{"name":"`), e))
			if err != nil {
				t.Fatal(err)
			}
			if announced {
				req.ContentLength = 9 + 1<<30
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+f.token("ada"))
			resp, err := f.client.Do(req)
			if err != nil {
				// Go's client gives the answer up where the connection ends under its body.
				if e.read.Load() > 32<<20 {
					t.Errorf("%s: %d bytes went out before %v", path, e.read.Load(), err)
				}
				continue
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			reply{resp, text}.problem(t, 413, "too_large")
			if e.read.Load() > 32<<20 {
				t.Errorf("%s: %d bytes were taken", path, e.read.Load())
			}
		}
	}
}

// Text that is no UTF-8 gets nowhere near the log.
func TestTextThatIsNoUTF8(t *testing.T) {
	f, d := newDeepFace(t)
	before := d.store.Cursor()
	for _, c := range []struct{ path, body string }{
		{"/api/v1/events", "{\"drafts\":[{\"stream\":\"group/a\",\"type\":\"group.created\",\"data\":{\"description\":\"\xff\xfe\"}}]}"},
		{"/api/v1/events", "{\"drafts\":[{\"stream\":\"group/\xff\",\"type\":\"group.created\",\"data\":{}}]}"},
		{"/api/v1/groups", "{\"name\":\"a\xffb\"}"},
		{"/api/v1/robots/goose/provision", "{\"version\":\"\xc3\x28\"}"},
		{"/api/v1/robots/goose/fail", "{\"kind\":\"hardware\",\"message\":\"\xed\xa0\x80\"}"},
	} {
		r := f.do("omar", "POST", c.path, c.body)
		if r.StatusCode < 400 || r.StatusCode > 499 {
			t.Errorf("%s %q: %s %s", c.path, c.body, r.Status, r.body)
		}
	}
	if d.store.Cursor() != before {
		t.Errorf("something was decided: %+v", d.Look())
	}
}
