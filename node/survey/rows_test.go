package survey

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skein/agent/telemetry"
	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/member"
	"skein/mesh/presence"
	"skein/node/gateway/view"
)

// drawn is the answer about all robots, drawn from nothing that was kept. It is
// the judge of rows.
func (w *world) drawn() view.Robots {
	l := w.surveyor().look()
	out := view.Robots{Robots: []view.Robot{}, AsOf: l.asOf(event.Cursor{History: "h1", Seq: w.state.Seq()})}
	for _, r := range w.state.Robots() {
		n, ok := w.state.Node(r.ID)
		if !ok {
			continue
		}
		row := view.Robot{
			ID: r.ID, Name: r.Name, Labels: r.Labels, Groups: r.Groups, Machine: machine(r), Life: life(r),
			Vote: view.Vote{Role: l.role(r.ID), VoterEligible: n.VoterEligible, VoterApproved: n.VoterApproved},
		}
		row.Status, row.StatusSince = l.status(r, n)
		if m, ok := w.members[r.ID]; ok && m.HTTPPort != 0 && len(m.Addrs) > 0 {
			row.HTTP = "http://" + net.JoinHostPort(httpHost(m.Addrs), strconv.Itoa(int(m.HTTPPort)))
		}
		if report, ok := w.reports[r.ID]; ok {
			var sample telemetry.Sample
			if json.Unmarshal(report.Data, &sample) == nil {
				row.Telemetry, row.HeardAgeMillis = &sample, &report.AgeMillis
			}
		}
		out.Robots = append(out.Robots, row.Filled())
	}
	slices.SortFunc(out.Robots, func(a, b view.Robot) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out
}

// asRows is a list of rows as it goes out.
func asRows(rows []view.HeardRow) string {
	text := []byte("[")
	for i, r := range rows {
		if i > 0 {
			text = append(text, ',')
		}
		text = r.AppendJSON(text)
	}
	return string(append(text, ']'))
}

// asPlain is v as the standard library writes it into answers.
func asPlain(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// gossip changes what is heard of random nodes.
func (w *world) gossip(choose func(int) int) {
	for range choose(4) {
		i := choose(6)
		id := fleettest.Node(i)
		switch choose(8) {
		case 0:
			delete(w.members, id)
		case 1:
			delete(w.reports, id)
		case 2:
			w.reports[id] = presence.Report{AgeMillis: int64(choose(9000)), Data: json.RawMessage(fmt.Sprintf(`{"cpuPercent":%d}`, choose(3)))}
		case 3:
			w.reports[id] = presence.Report{Data: json.RawMessage(`{"cpuPercent":`)}
		case 4:
			m := w.members[id]
			m.ID, m.HTTPPort = id, uint16(choose(3))
			m.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(choose(3))})}
			w.members[id] = m
		case 5:
			r := w.reports[id]
			r.AgeMillis += 1000
			w.reports[id] = r
		case 6:
			w.standing = Standing{Leader: fleettest.Node(choose(3)), Voters: w.state.Voters(), Age: time.Duration(choose(20)) * time.Second}
		default:
			w.hear(i, []member.State{member.Alive, member.Dead, member.Left}[choose(3)])
		}
	}
}

// compare holds what a surveyor that has kept much shows against what one shows
// that has kept nothing.
func (w *world) compare(t *rapid.T, s *Surveyor) {
	t.Helper()
	want := w.drawn()
	got := s.Robots()
	if got.AsOf.Cursor != want.AsOf.Cursor || asRows(got.Rows) != asPlain(want.Robots) {
		t.Fatalf("robots as kept: %s\ndrawn anew: %s", asRows(got.Rows), asPlain(want.Robots))
	}
	if p := asPlain(s.Picture().Filled().Robots); p != asPlain(want.Robots) {
		t.Fatalf("picture: %s\ndrawn anew: %s", p, asPlain(want.Robots))
	}
	fresh := w.surveyor()
	if got, want := asPlain(s.Picture()), asPlain(fresh.Picture()); got != want {
		t.Fatalf("picture as kept: %s\nof who kept nothing: %s", got, want)
	}
	if got, want := asPlain(s.Header()), asPlain(fresh.Picture().Fleet); got != want {
		t.Fatalf("header as kept: %s\nof who kept nothing: %s", got, want)
	}
	rebuilt := views.New()
	rebuilt.Reset(w.state)
	alerts, _ := s.Alerts(t.Context(), nil)
	deployments, _ := s.Deployments(t.Context(), nil)
	inGroups, _ := s.Groups(t.Context(), nil)
	judge := groups(w.state)
	if judge == nil {
		judge = []view.Group{}
	}
	for what, c := range map[string]struct {
		kept []byte
		want any
	}{
		"alerts": {alerts.JSON(), rebuilt.Alerts()}, "deployments": {deployments.JSON(), rebuilt.Deployments()}, "groups": {inGroups.JSON(), judge},
	} {
		if want := asPlain(c.want); string(c.kept) != want {
			t.Fatalf("%s as kept: %s\nbuilt anew: %s", what, c.kept, want)
		}
	}
}

// TestKeptIsAsDrawn: after every step of random runs, in which things are
// decided and heard, what a surveyor kept is to the byte what it would draw anew.
func TestKeptIsAsDrawn(t *testing.T) {
	var asked view.Asked
	rapid.Check(t, func(rt *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		w := newWorld(t, 3, 1)
		s := w.surveyor()
		run, tx := fleettest.New(choose), w.state.Begin()
		for range 40 {
			if choose(3) == 0 {
				w.gossip(choose)
			} else {
				run.At(w.state.Seq(), w.state.History())
				if v, err := tx.Check(run.Next(), noon); err == nil {
					tx.Commit()
					w.models.Applied(w.state, v.Events)
				}
			}
			w.compare(rt, s)
		}
		for i, v := range s.Asked().Views {
			if len(asked.Views) <= i {
				asked.Views = append(asked.Views, view.AskedView{View: v.View, Kept: v.Kept})
			}
			asked.Views[i].Queries += v.Queries
			asked.Views[i].Rebuilds += v.Rebuilds
		}
	})
	for _, v := range asked.Views {
		if v.Kept && (v.Rebuilds == 0 || v.Rebuilds > v.Queries/2) {
			t.Errorf("%s were built %d times for %d questions; it was not what is kept that was compared", v.View, v.Rebuilds, v.Queries)
		}
	}
}

// TestRowsAreKept: what is not otherwise is not encoded again.
func TestRowsAreKept(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.reports[fleettest.Node(1)] = presence.Report{AgeMillis: 250, Data: json.RawMessage(`{"cpuPercent":12.5}`)}
	// Heard of and decided at the same time: of all that is heard only the status
	// will be another.
	hear := func(state member.State) {
		w.hear(3, state)
		m := w.members[fleettest.Node(3)]
		m.Since = noon
		w.members[m.ID] = m
	}
	hear(member.Alive)
	s := w.surveyor()
	before := s.Robots().Rows
	w.reports[fleettest.Node(1)] = presence.Report{AgeMillis: 950, Data: json.RawMessage(`{"cpuPercent":12.5}`)}
	w.admin(event.RobotLabelsChanged{Set: map[string]string{"task": "carry"}}.Draft(fleettest.Node(2)))
	hear(member.Dead)
	after := s.Robots().Rows
	for i, same := range []bool{true, true, false, false} {
		if (before[i].Row == after[i].Row) != same {
			t.Errorf("robot %d: the row is the same: %v, want %v", i, !same, same)
		}
	}
	if before[3].Status != view.Online || after[3].Status != view.Offline {
		t.Errorf("who fell silent was %s and is %s", before[3].Status, after[3].Status)
	}
	if before[1].AgeMillis != 250 || after[1].AgeMillis != 950 {
		t.Errorf("news is %d and then %d ms old", before[1].AgeMillis, after[1].AgeMillis)
	}
}

// TestOneRobot: by id, or by a name that one member's robot has.
func TestOneRobot(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.reports[fleettest.Node(1)] = presence.Report{AgeMillis: 250, Data: json.RawMessage(`{"cpuPercent":12.5}`)}
	w.admin(event.RobotConfigChanged{Name: "b"}.Draft(fleettest.Node(2)))
	s := w.surveyor()
	all := map[ident.NodeID]view.Robot{}
	for _, r := range s.Picture().Robots {
		all[r.ID] = r
	}
	for which, want := range map[string]ident.NodeID{
		string(fleettest.Node(2)): fleettest.Node(2), "a": fleettest.Node(0), "d": fleettest.Node(3),
		"b": "", "": "", string(fleettest.Node(2)[:8]): "", "z": "", string(fleettest.Node(9)): "",
	} {
		got, ok := s.Robot(which)
		if ok != (want != "") || got.ID != want {
			t.Errorf("%q finds %q, %v; want %q", which, got.ID, ok, want)
		}
		if ok && (asPlain(got.Robot) != asPlain(all[want]) || got.AsOf.Cursor.Seq != w.state.Seq()) {
			t.Errorf("%q is %s in a picture, and alone %s", which, asPlain(all[want]), asPlain(got))
		}
	}
	w.admin(event.NodeRevoked{}.Draft(fleettest.Node(1)))
	if got, ok := s.Robot("b"); !ok || got.ID != fleettest.Node(2) {
		t.Errorf("beside one that was revoked: %q, %v", got.ID, ok)
	}
}

// TestAsked: each question about the present counts for its view, each about the
// past for the past.
func TestAsked(t *testing.T) {
	w := newWorld(t, 2, 1)
	s := w.surveyor()
	for range 3 {
		s.Overview(t.Context(), nil)
		s.Alerts(t.Context(), nil)
		s.Robots()
	}
	w.leader(event.RobotOnline{}.Draft(fleettest.Node(1)))
	w.leader(event.RobotOffline{LastHeardSeconds: 30}.Draft(fleettest.Node(1)))
	s.Alerts(t.Context(), nil)
	s.Robot("a")
	got := map[string]view.AskedView{}
	for _, v := range s.Asked().Views {
		got[v.View] = v
	}
	want := map[string]view.AskedView{
		"overview": {Queries: 3}, "alerts": {Queries: 4, Kept: true, Rebuilds: 2}, "deployments": {Kept: true}, "groups": {Kept: true},
		"robots": {Queries: 3}, "robot": {Queries: 1},
	}
	for name, v := range want {
		if v.View = name; got[name] != v {
			t.Errorf("%+v, want %+v", got[name], v)
		}
	}
}
