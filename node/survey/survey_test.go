package survey

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/member"
	"skein/mesh/presence"
	"skein/node/gateway/view"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is what a surveyor looks at; node 0 is the founder, and looks.
type world struct {
	t        *testing.T
	state    *fleet.State
	models   *views.Views
	standing Standing
	members  map[ident.NodeID]member.Member
	reports  map[ident.NodeID]presence.Report
	skews    map[ident.NodeID]time.Duration
}

// newWorld has robots many robots, all alive, and the first of them as voters.
func newWorld(t *testing.T, robots, voters int) *world {
	t.Helper()
	w := &world{
		t: t, state: fleet.New(), models: views.New(), members: map[ident.NodeID]member.Member{},
		reports: map[ident.NodeID]presence.Report{}, skews: map[ident.NodeID]time.Duration{},
	}
	w.apply(fleettest.Genesis())
	for i := range robots {
		id := fleettest.Node(i)
		if i > 0 {
			w.leader(event.NodeAdmitted{PublicKey: fleettest.Key(i).Public(), Name: "new", By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft())
		}
		w.itself(i, event.RobotRegistered{Name: string(rune('a' + i)), Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(id))
		if i > 0 && i < voters {
			w.itself(i, event.VoterEligible{Eligible: true}.Draft(id))
			w.admin(event.VoterApproved{}.Draft(id))
			w.leader(event.VoterAdded{}.Draft(id))
		}
		w.hear(i, member.Alive)
	}
	w.standing = Standing{Leader: fleettest.Node(0), Term: 7, Voters: w.state.Voters(), Path: []ident.NodeID{fleettest.Node(0)}}
	return w
}

func (w *world) apply(b event.Batch) {
	w.t.Helper()
	verdict, err := w.state.Check(b, noon)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range verdict.Events {
		if err := w.state.Apply(e); err != nil {
			w.t.Fatal(err)
		}
	}
	w.models.Applied(w.state, verdict.Events)
}

func (w *world) leader(drafts ...event.Draft) {
	w.t.Helper()
	w.apply(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: drafts})
}

func (w *world) itself(i int, drafts ...event.Draft) {
	w.t.Helper()
	w.apply(event.Batch{Actor: fleettest.Itself(fleettest.Node(i)), Drafts: drafts})
}

func (w *world) admin(drafts ...event.Draft) {
	w.t.Helper()
	w.apply(event.Batch{Actor: fleettest.Admin("ada"), Drafts: drafts})
}

// hear is what gossip says of a node since a minute past noon.
func (w *world) hear(i int, s member.State) {
	key := fleettest.Key(i)
	w.members[key.ID()] = member.Member{State: s, Since: noon.Add(time.Minute), Endpoint: ident.Endpoint{
		ID: key.ID(), PublicKey: key.Public(), LinkPort: 7781, GossipPort: 7782, HTTPPort: 7780,
		Addrs: []netip.Addr{netip.MustParseAddr("169.254.0.9"), netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})},
	}}
}

func (w *world) surveyor() *Surveyor {
	return New(Sources{
		Self:     fleettest.Node(0),
		View:     func(f func(*fleet.State, event.Cursor)) { f(w.state, event.Cursor{History: "h1", Seq: w.state.Seq()}) },
		Models:   w.models,
		Standing: func() Standing { return w.standing },
		Members: func() (out []member.Member) {
			for _, m := range w.members {
				out = append(out, m)
			}
			return out
		},
		Reports: func() map[ident.NodeID]presence.Report { return w.reports },
		Skew:    func(id ident.NodeID) (time.Duration, bool) { skew, ok := w.skews[id]; return skew, ok },
		Now:     func() time.Time { return noon },
	})
}

// row is how a robot is shown.
func (w *world) row(i int) view.Robot {
	w.t.Helper()
	for _, r := range w.surveyor().Picture().Robots {
		if r.ID == fleettest.Node(i) {
			return r
		}
	}
	w.t.Fatalf("robot %d is not shown", i)
	return view.Robot{}
}

func TestStatusIsWhatIsHeardElseWhatWasDecided(t *testing.T) {
	const robot = 1
	id := fleettest.Node(robot)
	for name, c := range map[string]struct {
		prepare func(w *world)
		want    view.Status
		since   time.Time
	}{
		"alive and decided online": {func(w *world) { w.leader(event.RobotOnline{}.Draft(id)) }, view.Online, noon},
		"dead two seconds ago, no event says so yet": {func(w *world) {
			w.leader(event.RobotOnline{}.Draft(id))
			w.hear(robot, member.Dead)
		}, view.Offline, noon.Add(time.Minute)},
		"left gossip":               {func(w *world) { w.leader(event.RobotOnline{}.Draft(id)); w.hear(robot, member.Left) }, view.Offline, noon.Add(time.Minute)},
		"never heard":               {func(w *world) { delete(w.members, id) }, view.Offline, noon},
		"heard, not decided online": {func(*world) {}, view.Online, noon.Add(time.Minute)},
		"revoked, still heard":      {func(w *world) { w.admin(event.NodeRevoked{Reason: "stolen"}.Draft(id)) }, view.Revoked, noon},
		"has left, still heard":     {func(w *world) { w.itself(robot, event.NodeLeft{}.Draft(id)) }, view.Left, noon},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3, 1)
			c.prepare(w)
			r := w.row(robot)
			if r.Status != c.want || !r.StatusSince.Equal(c.since) {
				t.Errorf("shown as %s since %s, want %s since %s", r.Status, r.StatusSince, c.want, c.since)
			}
		})
	}
	w := newWorld(t, 1, 1)
	w.members = nil
	if r := w.row(0); r.Status != view.Online {
		t.Errorf("a node that hears nobody shows itself as %s", r.Status)
	}
}

func TestMarginAndLeader(t *testing.T) {
	for name, c := range map[string]struct {
		voters  int
		dead    []int
		age     time.Duration
		canLose int
		reason  string
		leader  bool
	}{
		"one voter":                     {1, nil, 0, 0, "one voter only", true},
		"two voters":                    {2, nil, 0, 0, "approve one more", true},
		"two voters, one dead":          {2, []int{1}, 0, 0, "nothing can be decided", false},
		"three voters":                  {3, nil, 0, 1, "3 of 3", true},
		"three voters, one dead":        {3, []int{1}, 0, 0, "bring one back", true},
		"three voters, two dead":        {3, []int{1, 2}, 0, 0, "only 1 of 3", false},
		"five voters":                   {5, nil, 0, 2, "5 of 5", true},
		"five voters, two dead":         {5, []int{3, 4}, 0, 0, "bring one back", true},
		"five voters, three dead":       {5, []int{2, 3, 4}, 0, 0, "nothing can be decided", false},
		"news at the edge of stale":     {3, nil, StaleAfter, 1, "3 of 3", true},
		"news is stale":                 {3, nil, StaleAfter + time.Second, 0, "no leader is known", false},
		"nothing heard of marks so far": {3, nil, -1, 1, "3 of 3", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 5, c.voters)
			for _, i := range c.dead {
				w.hear(i, member.Dead)
			}
			w.standing.Age = c.age
			f := w.surveyor().Picture().Fleet
			if f.CanLose != c.canLose || !strings.Contains(f.CanLoseReason, c.reason) {
				t.Errorf("can lose %d (%s), want %d (%s)", f.CanLose, f.CanLoseReason, c.canLose, c.reason)
			}
			if (f.Leader != nil) != c.leader {
				t.Errorf("leader is %v, want one: %v", f.Leader, c.leader)
			}
		})
	}
	w := newWorld(t, 1, 1)
	w.standing = Standing{Age: -1}
	if f := w.surveyor().Picture().Fleet; f.Leader != nil || f.CanLose != 0 || f.CanLoseReason != "no voters are known yet" {
		t.Errorf("a node that knows nothing shows %+v", f)
	}
}

func TestAge(t *testing.T) {
	for age, want := range map[time.Duration]view.AsOf{
		-1:                            {AgeMillis: -1, Stale: true},
		0:                             {AgeMillis: 0},
		1500 * time.Millisecond:       {AgeMillis: 1500},
		StaleAfter:                    {AgeMillis: StaleAfter.Milliseconds()},
		StaleAfter + time.Millisecond: {AgeMillis: StaleAfter.Milliseconds() + 1, Stale: true},
	} {
		w := newWorld(t, 1, 1)
		w.standing.Age = age
		got := w.surveyor().Picture().Fleet.AsOf
		if got.AgeMillis != want.AgeMillis || got.Stale != want.Stale || got.Read != "local" || got.Cursor.Seq != w.state.Seq() {
			t.Errorf("age %s is shown as %+v", age, got)
		}
	}
}

func TestRowsAndPeers(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.reports[fleettest.Node(1)] = presence.Report{AgeMillis: 250, Data: json.RawMessage(`{"cpuPercent":12.5}`)}
	w.reports[fleettest.Node(2)] = presence.Report{Data: json.RawMessage(`{"cpuPercent":`)}
	w.hear(3, member.Dead)
	p := w.surveyor().Picture()
	var names, peers []string
	for _, r := range p.Robots {
		names = append(names, r.Name)
	}
	for _, r := range p.Peers {
		peers = append(peers, r.Name)
	}
	if got := strings.Join(names, ""); got != "abcd" {
		t.Errorf("robots are in the order %s", got)
	}
	if got := strings.Join(peers, ""); got != "abc" {
		t.Errorf("peers are %s, want those that are online", got)
	}
	if r := p.Robots[1]; r.HTTP != "http://10.0.0.2:7780" {
		t.Errorf("face is at %s, want the address that a browser can use", r.HTTP)
	}
	if r := p.Robots[1]; r.Telemetry == nil || r.Telemetry.CPUPercent != 12.5 || r.HeardAgeMillis == nil || *r.HeardAgeMillis != 250 {
		t.Errorf("telemetry is %+v", r.Telemetry)
	}
	if r := p.Robots[2]; r.Telemetry != nil || r.HeardAgeMillis != nil {
		t.Errorf("an unreadable report is shown as %+v", r.Telemetry)
	}
	for i, want := range []view.Role{view.Leader, view.VoterNow, view.VoterNow, view.Follower} {
		if p.Robots[i].Role != want {
			t.Errorf("robot %d is shown as %s, want %s", i, p.Robots[i].Role, want)
		}
	}
	if p.Fleet.Members != 4 || p.Fleet.Robots != 4 || p.Fleet.Term != 7 || p.Fleet.Name != "test fleet" {
		t.Errorf("header %+v", p.Fleet)
	}
}

func TestNodes(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.hear(1, member.Dead)
	w.hear(2, member.Left)
	delete(w.members, fleettest.Node(3))
	w.skews[fleettest.Node(1)] = -1500 * time.Millisecond
	states := map[ident.NodeID]view.State{
		fleettest.Node(0): view.Alive, fleettest.Node(1): view.Dead, fleettest.Node(2): view.Gone, fleettest.Node(3): view.Unknown,
	}
	nodes := w.surveyor().Nodes().Nodes
	if len(nodes) != len(states) {
		t.Fatalf("%d nodes are shown", len(nodes))
	}
	for _, n := range nodes {
		if n.State != states[n.ID] {
			t.Errorf("%s is shown as %s, want %s", n.Name, n.State, states[n.ID])
		}
		if known := n.ID != fleettest.Node(3); (len(n.Addrs) == 2) != known || (n.LinkPort == 7781) != known {
			t.Errorf("%s is shown at %v port %d", n.Name, n.Addrs, n.LinkPort)
		}
		if wantSkew := n.ID == fleettest.Node(1); (n.ClockSkewMillis != nil) != wantSkew || wantSkew && *n.ClockSkewMillis != -1500 {
			t.Errorf("%s has clock skew %v", n.Name, n.ClockSkewMillis)
		}
	}
}
