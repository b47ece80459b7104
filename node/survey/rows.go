package survey

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"skein/agent/telemetry"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// rows are the robots' rows, kept from one look to the next, because most of
// them are as they were. A row is made anew when something was decided about
// its robot or node (the read models' turns say so) or when what is heard of it
// differs. Bounded by the number of robots.
type rows struct {
	mu sync.Mutex
	// turn is up to which turn of the models sources are as they were decided.
	turn    uint64
	sources map[ident.NodeID]*source
	// sorted has the sources by name, then id.
	sorted []*source
}

// source is what a robot's row is made of, and the row while it is good.
type source struct {
	robot fleet.Robot
	node  fleet.Node
	heard heard
	// row is nil if something was decided since it was made.
	row *view.Row
}

// heard is what a row has from elsewhere than the log.
type heard struct {
	status view.Status
	since  time.Time
	role   view.Role
	face
	news
}

// face is where a robot's own face is: its URL, as made of address and port.
type face struct {
	addrs []netip.Addr
	port  uint16
	url   string
}

// news is a robot's newest report, as it was said and as it was read.
type news struct {
	data   json.RawMessage
	sample *telemetry.Sample
}

// decided brings sources up to the state.
func (r *rows) decided(state *fleet.State, models *views.Views) {
	turn := models.Turn()
	if r.sources != nil && turn == r.turn {
		return
	}
	resort := false
	if r.sources == nil || models.Touched(r.turn, func(id ident.NodeID) { resort = r.renew(state, id) || resort }) {
		r.sources, resort = map[ident.NodeID]*source{}, true
		for _, n := range state.Nodes() {
			r.renew(state, n.ID)
		}
	}
	r.turn = turn
	if resort {
		r.sort()
	}
}

// renew takes what was decided about a node and its robot. It reports whether
// the order of rows may be another.
func (r *rows) renew(state *fleet.State, id ident.NodeID) (resort bool) {
	node, admitted := state.Node(id)
	robot, ok := state.Robot(id)
	old := r.sources[id]
	if !ok || !admitted {
		delete(r.sources, id)
		return old != nil
	}
	if old == nil {
		r.sources[id] = &source{robot: robot, node: node}
		return true
	}
	renamed := old.robot.Name != robot.Name
	old.robot, old.node, old.row = robot, node, nil
	return renamed
}

func (r *rows) sort() {
	r.sorted = r.sorted[:0]
	for _, s := range r.sources {
		r.sorted = append(r.sorted, s)
	}
	slices.SortFunc(r.sorted, func(a, b *source) int {
		return cmp.Or(cmp.Compare(a.robot.Name, b.robot.Name), cmp.Compare(a.robot.ID, b.robot.ID))
	})
}

// all gives all rows with what is heard now.
func (r *rows) all(l look) []view.HeardRow {
	out := make([]view.HeardRow, len(r.sorted))
	for i, s := range r.sorted {
		out[i] = s.hear(l)
	}
	return out
}

// hear gives the row with what is heard now.
func (s *source) hear(l look) view.HeardRow {
	h := heard{role: l.role(s.robot.ID)}
	h.status, h.since = l.status(s.robot, s.node)
	h.face = s.heard.face.now(l, s.robot.ID)
	report := l.reports[s.robot.ID]
	h.news = s.heard.news.now(report.Data)
	if s.row == nil || !h.equal(s.heard) {
		s.row = view.NewRow(h.shown(s.robot, s.node))
	}
	s.heard = h
	return view.HeardRow{Row: s.row, AgeMillis: report.AgeMillis}
}

func (h heard) equal(g heard) bool {
	return h.status == g.status && h.since.Equal(g.since) && h.role == g.role && h.url == g.url && h.sample == g.sample
}

// shown is the robot's row, without the age of its news.
func (h heard) shown(r fleet.Robot, n fleet.Node) view.Robot {
	return view.Robot{
		ID: r.ID, Name: r.Name, Labels: r.Labels, Groups: r.Groups, Status: h.status, StatusSince: h.since,
		Machine:   machine(r),
		Vote:      view.Vote{Role: h.role, VoterEligible: n.VoterEligible, VoterApproved: n.VoterApproved},
		Life:      life(r),
		HTTP:      h.url,
		Telemetry: h.sample,
	}
}

// now is the face as it is now; f is what it was.
func (f face) now(l look, id ident.NodeID) face {
	m := l.members[id]
	if m == nil || m.HTTPPort == 0 || len(m.Addrs) == 0 {
		return face{}
	}
	if f.port == m.HTTPPort && slices.Equal(f.addrs, m.Addrs) {
		return f
	}
	return face{m.Addrs, m.HTTPPort, "http://" + net.JoinHostPort(httpHost(m.Addrs), strconv.Itoa(int(m.HTTPPort)))}
}

// now is the news as it is now; n is what it was. What cannot be read is none.
func (n news) now(data json.RawMessage) news {
	if data == nil {
		return news{}
	}
	if bytes.Equal(n.data, data) {
		return n
	}
	sample := &telemetry.Sample{}
	if json.Unmarshal(data, sample) != nil {
		sample = nil
	}
	return news{data, sample}
}

// Robots are all robots with what is heard of them, sorted by name, then id.
func (s *Surveyor) Robots() view.RobotRows {
	s.asked.views[robotsView].queries.Add(1)
	l := s.look()
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	var out view.RobotRows
	s.src.View(func(state *fleet.State, cursor event.Cursor) {
		out.AsOf = l.asOf(cursor)
		s.rows.decided(state, s.src.Models)
	})
	out.Rows = s.rows.all(l)
	return out
}

// Robot is the robot that has this id, or else the only one of a member that has
// this name; not ok if there is none, or not only one.
func (s *Surveyor) Robot(which string) (out view.OneRobot, ok bool) {
	s.asked.views[robotView].queries.Add(1)
	l := s.look()
	s.src.View(func(state *fleet.State, cursor event.Cursor) {
		id, node, robot := ident.NodeID(which), fleet.Node{}, fleet.Robot{}
		if robot, ok = state.Robot(id); !ok {
			if id, ok = s.src.Models.Named(which); ok {
				robot, ok = state.Robot(id)
			}
		}
		if ok {
			node, ok = state.Node(id)
		}
		if ok {
			one := source{robot: robot, node: node}
			out = view.OneRobot{Robot: one.hear(l).Whole(), AsOf: l.asOf(cursor)}
		}
	})
	return out, ok
}

// Header is the fleet without its robots.
func (s *Surveyor) Header() (out view.Fleet) {
	l := s.look()
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	s.src.View(func(state *fleet.State, cursor event.Cursor) { out = s.header(l, state, cursor) })
	return out
}

// header is the fleet without its robots. Callers hold rows.mu and the state.
func (s *Surveyor) header(l look, state *fleet.State, cursor event.Cursor) view.Fleet {
	s.rows.decided(state, s.src.Models)
	f := l.header(state, cursor)
	f.Members, f.Robots = s.src.Models.Members(), len(s.rows.sources)
	return f
}

// Picture is one consistent look at the fleet.
func (s *Surveyor) Picture() view.Picture {
	l := s.look()
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	var p view.Picture
	s.src.View(func(state *fleet.State, cursor event.Cursor) { p.Fleet = s.header(l, state, cursor) })
	for _, row := range s.rows.all(l) {
		p.Robots = append(p.Robots, row.Whole())
		if row.HTTP != "" && row.Status == view.Online {
			p.Peers = append(p.Peers, view.Peer{ID: row.ID, Name: row.Name, HTTP: row.HTTP})
		}
	}
	return p
}
