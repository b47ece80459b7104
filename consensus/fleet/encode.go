package fleet

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Errors of Unmarshal.
var (
	// ErrBadState: the bytes are no encoded state.
	ErrBadState = errors.New("encoded fleet state is not valid")
	// ErrUpgrade: a newer build wrote the state.
	ErrUpgrade = errors.New("encoded fleet state is of a newer build; upgrade skein")
)

// The first byte of an encoded state is its version. A state in which nothing of
// level 2 has happened has version 1 and the very form that builds of level 1
// write and read, so that voters of both can install each other's snapshots and
// have equal hashes until the ceiling is raised. After that a build of level 1
// refuses the state, and says that it needs an upgrade.
const (
	versionLevel1 = 1
	stateVersion  = 2
)

// version is that of the state's encoding.
func (s *State) version() byte {
	if f := s.fleet; f == nil || f.Ceiling == 0 && f.Recoveries == 0 && f.Seal == nil {
		return versionLevel1
	}
	return stateVersion
}

// wireState is a State in JSON. Lists are sorted, so that equal states have
// equal encodings.
type wireState struct {
	Seq        uint64            `json:"seq"`
	Fleet      *Fleet            `json:"fleet,omitempty"`
	Nodes      []Node            `json:"nodes"`
	Robots     []Robot           `json:"robots"`
	Tokens     []Token           `json:"tokens"`
	Enrolments []Enrolment       `json:"enrolments"`
	Persons    []Person          `json:"persons"`
	Groups     []Group           `json:"groups"`
	Versions   map[string]uint64 `json:"versions"` // encoding/json sorts keys
	Sessions   []wireSessions    `json:"sessions"`
}

type wireSessions struct {
	Node  ident.NodeID `json:"node"`
	Boots []session    `json:"boots"`
}

// Marshal is the canonical encoding: a version byte, then JSON.
func (s *State) Marshal() []byte {
	w := wireState{
		Seq: s.seq, Fleet: s.fleet,
		Nodes: sorted(s.nodes), Robots: wholes(s.robots), Tokens: sorted(s.tokens),
		Enrolments: sorted(s.enrolments), Persons: sorted(s.persons), Groups: sorted(s.groups),
		Versions: make(map[string]uint64, len(s.versions)), Sessions: []wireSessions{},
	}
	for stream, c := range s.versions {
		w.Versions[stream] = c.n
	}
	for _, node := range slices.Sorted(maps.Keys(s.sessions.byNode)) {
		w.Sessions = append(w.Sessions, wireSessions{node, s.sessions.byNode[node]})
	}
	text, err := json.Marshal(w)
	if err != nil { // every time in a state is one that event allows
		panic("encode fleet state: " + err.Error())
	}
	return append([]byte{s.version()}, text...)
}

// Hash is equal on two replicas exactly when their states are: SHA-256 of
// Marshal, in hex. It costs as much as Marshal.
func (s *State) Hash() string {
	sum := sha256.Sum256(s.Marshal())
	return hex.EncodeToString(sum[:])
}

// Unmarshal reads what Marshal wrote, and nothing else: what Marshal would not
// write back as it was is refused.
func Unmarshal(b []byte) (*State, error) {
	if len(b) == 0 || b[0] == 0 {
		return nil, fmt.Errorf("%w: it has no version", ErrBadState)
	}
	if newest := min(stateVersion, event.Level); uint64(b[0]) > newest {
		return nil, fmt.Errorf("%w: format %d, this build reads %d", ErrUpgrade, b[0], newest)
	}
	var w wireState
	d := json.NewDecoder(bytes.NewReader(b[1:]))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadState, err)
	}
	if (w.Seq == 0) != (w.Fleet == nil) {
		return nil, fmt.Errorf("%w: event %d and no fleet, or a fleet and no event", ErrBadState, w.Seq)
	}
	s := New()
	s.seq, s.fleet = w.Seq, w.Fleet
	fill(s.nodes, w.Nodes, func(n *Node) ident.NodeID { return n.ID })
	for _, r := range w.Robots {
		if r.Lifecycle.State == "" {
			r.Lifecycle.State = Discovered
		}
		s.robots[r.ID] = parted(r)
	}
	fill(s.tokens, w.Tokens, func(t *Token) string { return t.Hash })
	fill(s.enrolments, w.Enrolments, func(e *Enrolment) ident.NodeID { return e.ID })
	fill(s.persons, w.Persons, func(p *Person) string { return p.Name })
	fill(s.groups, w.Groups, func(g *Group) string { return g.Name })
	for stream, n := range w.Versions {
		s.versions[stream] = &counter{n}
	}
	for _, node := range w.Sessions {
		if err := s.sessions.load(node); err != nil {
			return nil, err
		}
	}
	s.sessions.requeue()
	if !bytes.Equal(s.Marshal(), b) {
		return nil, fmt.Errorf("%w: it is not in canonical form", ErrBadState)
	}
	return s, nil
}

func fill[K comparable, V any](m map[K]*V, values []V, key func(*V) K) {
	for i := range values {
		m[key(&values[i])] = &values[i]
	}
}

func (ss *sessions) load(w wireSessions) error {
	if len(w.Boots) == 0 || len(w.Boots) > 2 {
		return fmt.Errorf("%w: node %s has %d sessions", ErrBadState, w.Node, len(w.Boots))
	}
	for i, s := range w.Boots {
		ascending := slices.IsSortedFunc(s.Known, func(a, b proposal) int { return cmp.Compare(a.N, b.N) })
		if i > 0 && w.Boots[i-1].Boot >= s.Boot || len(s.Known) > SessionWindow || !ascending {
			return fmt.Errorf("%w: the sessions of node %s are not in order", ErrBadState, w.Node)
		}
	}
	if _, twice := ss.byNode[w.Node]; twice {
		return fmt.Errorf("%w: node %s has its sessions twice", ErrBadState, w.Node)
	}
	for i := range w.Boots {
		w.Boots[i].node = uint32(len(ss.nodes))
	}
	ss.nodes = append(ss.nodes, w.Node)
	ss.byNode[w.Node] = w.Boots
	return nil
}

// requeue rebuilds the order of what is known.
func (ss *sessions) requeue() {
	ss.queue, ss.head = nil, 0
	for _, boots := range ss.byNode {
		for _, s := range boots {
			for _, p := range s.Known {
				ss.queue = append(ss.queue, queued{s.node, s.Boot, p.N, p.First})
			}
		}
	}
	slices.SortFunc(ss.queue, func(a, b queued) int { return cmp.Compare(a.first, b.first) })
}
