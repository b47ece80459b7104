package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// State is everything the log has decided so far. It is of kind "decided". It
// may be read by many at a time, and by none while it changes.
type State struct {
	// seq is the last event applied, and fleet nil before the first.
	seq   uint64
	fleet *Fleet

	// The values in these maps are never nil and never changed, only replaced.
	nodes      map[ident.NodeID]*Node
	robots     map[ident.NodeID]*robot
	tokens     map[string]*Token
	enrolments map[ident.NodeID]*Enrolment
	persons    map[string]*Person
	groups     map[string]*Group

	// versions counts the events of every stream.
	versions map[string]*counter
	// sessions is what is remembered of proposals.
	sessions sessions

	// scratch is reused by Apply.
	scratch *Tx
}

// New is the state before the first event.
func New() *State {
	return &State{
		nodes:      map[ident.NodeID]*Node{},
		robots:     map[ident.NodeID]*robot{},
		tokens:     map[string]*Token{},
		enrolments: map[ident.NodeID]*Enrolment{},
		persons:    map[string]*Person{},
		groups:     map[string]*Group{},
		versions:   map[string]*counter{},
		sessions:   newSessions(),
	}
}

// Clone is an independent copy. It copies maps, not what is in them.
func (s *State) Clone() *State {
	c := *s
	c.nodes, c.robots, c.tokens = maps.Clone(s.nodes), maps.Clone(s.robots), maps.Clone(s.tokens)
	c.enrolments, c.persons, c.groups = maps.Clone(s.enrolments), maps.Clone(s.persons), maps.Clone(s.groups)
	c.versions = make(map[string]*counter, len(s.versions))
	counters := make([]counter, 0, len(s.versions))
	for stream, n := range s.versions {
		counters = append(counters, *n)
		c.versions[stream] = &counters[len(counters)-1]
	}
	c.sessions = s.sessions.clone()
	c.scratch = nil
	return &c
}

// Seq is the last event applied; 0 before the first.
func (s *State) Seq() uint64 { return s.seq }

// Fleet is the fleet as a whole; false before fleet.created.
func (s *State) Fleet() (Fleet, bool) { return value(s.fleet) }

// History names the log; "" before fleet.created.
func (s *State) History() string {
	if s.fleet == nil {
		return ""
	}
	return s.fleet.History
}

// GossipEpoch is the newest generation of gossip keys; 0 before the first rotation.
func (s *State) GossipEpoch() uint64 {
	if s.fleet == nil {
		return 0
	}
	return s.fleet.GossipEpoch
}

// Ceiling is up to which level event types may be proposed; 1 until it is raised.
func (s *State) Ceiling() uint64 { return s.fleet.ceiling() }

func (f *Fleet) ceiling() uint64 {
	if f == nil {
		return 1
	}
	return max(f.Ceiling, 1)
}

// Recoveries counts how often the fleet lost its voters and was recovered: its
// epoch. What nodes of another epoch say of the log does not count.
func (s *State) Recoveries() uint64 {
	if s.fleet == nil {
		return 0
	}
	return s.fleet.Recoveries
}

// Seal is the newest of the log's seals; false before the first.
func (s *State) Seal() (Seal, bool) {
	if s.fleet == nil {
		return Seal{}, false
	}
	return value(s.fleet.Seal)
}

// Node finds a node by its id, former members included.
func (s *State) Node(id ident.NodeID) (Node, bool) { return value(s.nodes[id]) }

// Nodes are all nodes, former members included, sorted by id.
func (s *State) Nodes() []Node { return sorted(s.nodes) }

// Robot finds a robot by the id of its node.
func (s *State) Robot(id ident.NodeID) (Robot, bool) {
	r := s.robots[id]
	if r == nil {
		return Robot{}, false
	}
	return r.whole(), true
}

// Robots are all robots, sorted by id.
func (s *State) Robots() []Robot { return wholes(s.robots) }

// Token finds a join token by its hash. Long expired ones may be forgotten.
func (s *State) Token(hash string) (Token, bool) { return value(s.tokens[hash]) }

// Enrolment finds an enrolment key by its id.
func (s *State) Enrolment(id ident.NodeID) (Enrolment, bool) { return value(s.enrolments[id]) }

// Enrolments are all enrolment keys, sorted by id.
func (s *State) Enrolments() []Enrolment { return sorted(s.enrolments) }

// Person finds a person.
func (s *State) Person(name string) (Person, bool) { return value(s.persons[name]) }

// Persons are all persons, sorted by name.
func (s *State) Persons() []Person { return sorted(s.persons) }

// Group finds a group.
func (s *State) Group(name string) (Group, bool) { return value(s.groups[name]) }

// Groups are all groups, sorted by name.
func (s *State) Groups() []Group { return sorted(s.groups) }

// Voters are the ids of the nodes that the log says are voters, sorted.
func (s *State) Voters() []ident.NodeID {
	var ids []ident.NodeID
	for id, n := range s.nodes {
		if n.Voter {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// StreamVersion is how many events a stream has.
func (s *State) StreamVersion(stream string) uint64 {
	if c := s.versions[stream]; c != nil {
		return c.n
	}
	return 0
}

// Seen finds the events of an accepted proposal; false when there was none or
// it is forgotten.
func (s *State) Seen(p event.Producer) (first, last uint64, ok bool) {
	found, known, _ := s.sessions.lookup(p)
	return found.First, found.Last, known
}

// FindRobot finds the one robot meant by its id, its name, or the start of its
// id. The error is a *event.Fault; with event.ReasonAmbiguous its Next lists who
// could be meant.
func (s *State) FindRobot(query string) (Robot, error) {
	r, err := find("robot", query, s.robots, func(r *robot) string { return r.Name })
	if err != nil {
		return Robot{}, err
	}
	return r.whole(), nil
}

// FindNode is FindRobot for nodes, former members included.
func (s *State) FindNode(query string) (Node, error) {
	return find("node", query, s.nodes, func(n *Node) string { return n.Name })
}

func find[V any](what, query string, all map[ident.NodeID]*V, name func(*V) string) (V, error) {
	if v, ok := all[ident.NodeID(query)]; ok {
		return *v, nil
	}
	var none V
	var named, prefixed []ident.NodeID
	for id, v := range all {
		if name(v) == query {
			named = append(named, id)
		}
		if query != "" && strings.HasPrefix(string(id), query) {
			prefixed = append(prefixed, id)
		}
	}
	found := named
	if len(found) == 0 {
		found = prefixed
	}
	switch len(found) {
	case 0:
		return none, event.Refuse(event.CodeNotFound, "", "see `skein "+what+"s`", "there is no %s %.64q", what, query)
	case 1:
		return *all[found[0]], nil
	}
	slices.Sort(found)
	var ids []string
	for _, id := range found[:min(len(found), 8)] {
		ids = append(ids, string(id))
	}
	return none, event.Refuse(event.CodeConflict, event.ReasonAmbiguous, "say which by its id: "+strings.Join(ids, " "),
		"%d %ss are called %.64q", len(found), what, query)
}

func value[V any](p *V) (V, bool) {
	if p == nil {
		var none V
		return none, false
	}
	return *p, true
}

// sorted gives the values of m in the order of their keys.
func sorted[K cmp.Ordered, V any](m map[K]*V) []V {
	all := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, *m[k])
	}
	return all
}

// millis is t in the resolution of the log.
func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
