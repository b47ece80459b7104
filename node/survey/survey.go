// Package survey draws the picture of the fleet that a node shows: what was
// decided (replicated state), what is heard (gossip and presence) and how old
// each of them is. It decides nothing, and keeps nothing that it could not draw
// again: rows and lists, while nothing that they are made of has changed.
//
// Live status comes from gossip and presence, with its age; the events
// robot.online and robot.offline are history. So a robot that died two seconds
// ago is shown as offline although no event says so yet, and one that is heard
// again is shown as online at once.
//
// Only package node imports it.
package survey

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/member"
	"skein/mesh/presence"
	"skein/node/gateway/view"
)

// StaleAfter is the age of the leader's last mark at which people are warned:
// two marks (5 s each) missed, and a little.
const StaleAfter = 12 * time.Second

// Standing is what this node knows of the Raft group.
type Standing struct {
	// Leader is "" while none is known.
	Leader ident.NodeID
	Term   uint64
	Voters []ident.NodeID
	// Age is that of the newest news from the leader; negative: never heard.
	Age time.Duration
	// Path is how the news came, leader first, this node last.
	Path []ident.NodeID
}

// Sources is where a Surveyor looks. All fields are required.
type Sources struct {
	Self ident.NodeID
	// View gives the state and the cursor that belongs to it.
	View func(func(*fleet.State, event.Cursor))
	// Past gives states of the past.
	Past Past
	// Models are the read models of the state that View gives; they are read
	// inside View only.
	Models   *views.Views
	Standing func() Standing
	Members  func() []member.Member
	Reports  func() map[ident.NodeID]presence.Report
	// Skew is a node's wall clock minus ours, if they were compared.
	Skew func(ident.NodeID) (time.Duration, bool)
	Now  func() time.Time
}

// Surveyor looks on demand. Safe for concurrent use.
type Surveyor struct {
	src   Sources
	rows  rows
	lists lists
	asked asked
}

// New returns a Surveyor.
func New(src Sources) *Surveyor { return &Surveyor{src: src} }

// look is everything that one picture is drawn from.
type look struct {
	self     ident.NodeID
	standing Standing
	members  map[ident.NodeID]*member.Member
	reports  map[ident.NodeID]presence.Report
}

func (s *Surveyor) look() look {
	members := s.src.Members()
	l := look{
		self:     s.src.Self,
		standing: s.src.Standing(),
		members:  make(map[ident.NodeID]*member.Member, len(members)),
		reports:  s.src.Reports(),
	}
	for i := range members {
		l.members[members[i].ID] = &members[i]
	}
	return l
}

// Nodes is every node that was ever admitted, as membership sees it.
func (s *Surveyor) Nodes() view.Nodes {
	l := s.look()
	var out view.Nodes
	s.src.View(func(state *fleet.State, cursor event.Cursor) {
		out.AsOf = l.asOf(cursor)
		for _, n := range state.Nodes() {
			row := view.Node{
				ID: n.ID, Name: n.Name, Role: l.role(n.ID), State: l.gossip(n.ID),
				AdmittedAt: n.AdmittedAt, By: string(n.By), Revoked: n.Revoked,
			}
			if r, ok := state.Robot(n.ID); ok {
				row.Name, row.Version = r.Name, r.Version
			}
			if m, ok := l.members[n.ID]; ok {
				for _, a := range m.Addrs {
					row.Addrs = append(row.Addrs, a.String())
				}
				row.LinkPort, row.GossipPort, row.HTTPPort = m.LinkPort, m.GossipPort, m.HTTPPort
			}
			if skew, ok := s.src.Skew(n.ID); ok {
				millis := skew.Milliseconds()
				row.ClockSkewMillis = &millis
			}
			out.Nodes = append(out.Nodes, row)
		}
	})
	return out
}

// header is the fleet but for its counts.
func (l look) header(state *fleet.State, cursor event.Cursor) view.Fleet {
	f := view.Fleet{Term: l.standing.Term, AsOf: l.asOf(cursor)}
	if decided, ok := state.Fleet(); ok {
		f.Name, f.FleetID = decided.Name, ident.FleetIDOf(decided.Root)
	}
	reachable := 0
	for _, id := range l.standing.Voters {
		v := view.Voter{ID: id, Name: nameOf(state, id), Reachable: l.live(id)}
		if v.Reachable {
			reachable++
		}
		f.Voters = append(f.Voters, v)
	}
	f.CanLose, f.CanLoseReason = margin(len(f.Voters), reachable)
	// Who led before the news stopped, or the majority, is no leader any more.
	if id := l.standing.Leader; id != "" && reachable >= quorum(len(f.Voters)) && l.standing.Age <= StaleAfter {
		f.Leader = &view.NodeRef{ID: id, Name: nameOf(state, id)}
	}
	if f.Leader == nil && f.CanLose > 0 {
		f.CanLose, f.CanLoseReason = 0, "no leader is known at the moment: nothing can be decided"
	}
	return f
}

// quorum is how many voters decide.
func quorum(voters int) int { return voters/2 + 1 }

// margin is how many more voters may fail before nothing can be decided.
func margin(voters, reachable int) (canLose int, reason string) {
	needed := quorum(voters)
	canLose = max(0, reachable-needed)
	switch {
	case voters == 0:
		return 0, "no voters are known yet"
	case reachable < needed:
		return 0, fmt.Sprintf("only %d of %d voters are reachable and %d are needed: nothing can be decided", reachable, voters, needed)
	case voters == 1:
		return 0, "one voter only: set `voter = true` on another robot and run `skein node approve NAME`"
	case canLose == 0 && reachable < voters:
		return 0, fmt.Sprintf("%d of %d voters do not answer: bring one back", voters-reachable, voters)
	case canLose == 0:
		return 0, fmt.Sprintf("%d voters need each other: approve one more with `skein node approve NAME`", voters)
	}
	return canLose, fmt.Sprintf("%d of %d voters are reachable, %d are needed", reachable, voters, needed)
}

func (l look) asOf(cursor event.Cursor) view.AsOf {
	a := view.AsOf{
		Read:      view.Local,
		Cursor:    cursor,
		AgeMillis: -1, Path: l.standing.Path, Stale: true,
	}
	if l.standing.Age >= 0 {
		a.AgeMillis = l.standing.Age.Milliseconds()
		a.Stale = l.standing.Age > StaleAfter
	}
	return a
}

// AsOf is how fresh an answer of now is.
func (s *Surveyor) AsOf() (asOf view.AsOf) {
	l := look{standing: s.src.Standing()}
	s.src.View(func(_ *fleet.State, cursor event.Cursor) { asOf = l.asOf(cursor) })
	return asOf
}

func machine(r fleet.Robot) view.Machine {
	return view.Machine{Type: string(r.Type), Hostname: r.Registered.Hostname, Version: r.Version, Arch: r.Arch, OS: r.OS}
}

// life is what the fleet decided that the robot may be used for.
func life(r fleet.Robot) view.Life {
	l := view.Life{Lifecycle: view.Lifecycle{State: string(r.Lifecycle.State), Failures: r.Lifecycle.Failures}}
	if since := r.Lifecycle.Since; !since.IsZero() {
		l.Lifecycle.Since = &since
	}
	if f := r.Lifecycle.LastFailure; f != (fleet.Failure{}) {
		l.Lifecycle.LastFailure = &view.Failure{Message: f.Message, Code: f.Code, Kind: string(f.Kind), At: f.At}
	}
	if d := r.Deployed; d != (fleet.Deployed{}) {
		l.Deployed = &view.Deployed{Deployment: d.Deployment, Version: d.Version, Status: string(d.Status), Since: d.Since}
	}
	return l
}

// httpHost is the address a browser on the LAN can use.
func httpHost(addrs []netip.Addr) string {
	for _, a := range addrs {
		if !a.IsLinkLocalUnicast() {
			return a.String()
		}
	}
	return addrs[0].String()
}

// status is the live one where something is heard, else what was decided.
func (l look) status(r fleet.Robot, n fleet.Node) (view.Status, time.Time) {
	m, known := l.members[r.ID]
	switch {
	case n.Revoked:
		return view.Revoked, r.StatusSince
	case n.Left:
		return view.Left, r.StatusSince
	case l.live(r.ID) && r.Online:
		return view.Online, r.StatusSince
	case l.live(r.ID) && known:
		return view.Online, m.Since.UTC()
	case l.live(r.ID):
		return view.Online, r.StatusSince
	case known && r.Online:
		return view.Offline, m.Since.UTC()
	}
	return view.Offline, r.StatusSince
}

// live: this node itself, or one that gossip hears.
func (l look) live(id ident.NodeID) bool {
	m, ok := l.members[id]
	return id == l.self || ok && (m.State == member.Alive)
}

func (l look) role(id ident.NodeID) view.Role {
	switch {
	case id == l.standing.Leader:
		return view.Leader
	case slices.Contains(l.standing.Voters, id):
		return view.VoterNow
	}
	return view.Follower
}

func (l look) gossip(id ident.NodeID) view.State {
	m, ok := l.members[id]
	if !ok {
		return view.Unknown
	}
	return map[member.State]view.State{
		member.Alive: view.Alive, member.Dead: view.Dead, member.Left: view.Gone,
	}[m.State]
}

// nameOf is the robot's name, else the name it was admitted under.
func nameOf(state *fleet.State, id ident.NodeID) string {
	if r, ok := state.Robot(id); ok {
		return r.Name
	}
	if n, ok := state.Node(id); ok {
		return n.Name
	}
	return id.Short()
}
