package member

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"skein/mesh/ident"
)

// Bounds of the table.
const (
	// MaxNodes is how many nodes a list holds; more are not let in.
	MaxNodes = 4096
	// MaxGone is how many Dead and Left nodes it remembers; the longest gone are
	// forgotten first.
	MaxGone = 1024
	// RememberGone is for how long a node that is gone is listed.
	RememberGone = 24 * time.Hour
	// blockFor is for how long packets and streams from a refused node's last
	// address are dropped: until its gossip key is worth nothing. Not longer,
	// because another robot may get that address.
	blockFor = time.Minute
)

// errStale: the same boot of the node has said something newer.
var errStale = errors.New("metadata is older than what is known")

// errFull: MaxNodes are known.
var errFull = fmt.Errorf("%d nodes are known; no more are let in", MaxNodes)

// State is how a member looks from here. A hint: see the package comment.
type State string

// The states of a member. memberlist's "suspect" is not among them: it does not
// tell, and it lasts about a second.
const (
	// Alive: it answers probes, or somebody says so.
	Alive State = "alive"
	// Dead: it stopped answering.
	Dead State = "dead"
	// Left: it said that it stops, and signed that.
	Left State = "left"
)

// Member is one node of the mesh as it looks from here.
type Member struct {
	ident.Endpoint
	// Boot differs at every start of that node.
	Boot  uint64
	State State
	// Since is the local time (with monotonic part) of the last change of State.
	Since time.Time
}

// row is what is known of one node.
type row struct {
	member Member
	// listed: memberlist has taken the node in. Rows without it are statements
	// that memberlist has not (yet) acted on; they are not shown.
	listed    bool
	refused   bool
	refusedAt time.Time
	// newest is the latest verified statement and raw its bytes, so that the
	// same bytes, which gossip brings many times, are verified once.
	newest statement
	raw    []byte
}

// nameLength is how much of a node's id is its name in memberlist: 80 bits of
// the hash of its key, enough that nobody can make a key for a name that is
// taken. Each probe carries two names, so a third of each is 9 % of all traffic.
const nameLength = 16

// nameOf is the node's name in memberlist, and the key of table.rows.
func nameOf(id ident.NodeID) string { return string(id[:min(len(id), nameLength)]) }

// table turns memberlist's callbacks into a list of members. memberlist calls
// it with its own lock held, so nothing here may call memberlist.
type table struct {
	self    string // our name
	refused func(ident.NodeID) error
	now     func() time.Time
	// foreign is called when another boot than ours speaks with our key.
	foreign func(statement)
	// changed has room for one signal: somebody should look again.
	changed chan struct{}
	// lost likewise: a member died, so try harder to find it again.
	lost chan struct{}
	// behind has room for one node to exchange lists with, because what it does
	// shows that one of us is wrong; the zero endpoint means anyone.
	behind chan ident.Endpoint
	// marks tell what to make of packets by where they come from.
	marks atomic.Pointer[marks]

	mu   sync.Mutex
	rows map[string]*row
}

func newTable(self ident.NodeID, refused func(ident.NodeID) error) *table {
	return &table{
		self:    nameOf(self),
		refused: refused,
		now:     time.Now,
		foreign: func(statement) {},
		changed: make(chan struct{}, 1),
		lost:    make(chan struct{}, 1),
		behind:  make(chan ident.Endpoint, 1),
		rows:    make(map[string]*row),
	}
}

// signal leaves a mark in a channel of capacity one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// NotifyAlive implements memberlist.AliveDelegate: an error keeps the node out.
// Anything about ourselves passes, because memberlist then contradicts what is
// wrong in it.
func (t *table) NotifyAlive(n *memberlist.Node) error {
	st, err := t.read(n)
	if n.Name == t.self {
		t.checkOwn(st, err)
		return nil
	}
	if err != nil {
		return err
	}
	refusal := t.refused(st.endpoint.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[n.Name]
	t.judge(r, refusal != nil)
	switch {
	case refusal != nil:
		return refusal
	case r == nil && len(t.rows) >= MaxNodes:
		return errFull
	case r != nil && r.newest.boot == st.boot && st.n < r.newest.n:
		return errStale
	case r == nil:
		r = &row{}
		t.rows[n.Name] = r
	}
	r.newest, r.raw = st, bytes.Clone(n.Meta)
	return nil
}

// checkOwn looks at what others say that we said.
func (t *table) checkOwn(st statement, err error) {
	t.mu.Lock()
	r := t.rows[t.self]
	strange := err == nil && r != nil && st.boot != r.newest.boot
	t.mu.Unlock()
	if strange {
		t.foreign(st)
	}
}

// read verifies a node's metadata, or recognises it as what was verified before.
func (t *table) read(n *memberlist.Node) (statement, error) {
	t.mu.Lock()
	r := t.rows[n.Name]
	if r != nil && bytes.Equal(r.raw, n.Meta) {
		defer t.mu.Unlock()
		return r.newest, nil
	}
	t.mu.Unlock()
	st, err := decodeStatement(n.Meta)
	if err == nil && nameOf(st.endpoint.ID) != n.Name {
		err = fmt.Errorf("%w: %q speaks with the key of %s", errBadMeta, n.Name, st.endpoint.ID.Short())
	}
	return st, err
}

// NotifyJoin implements memberlist.EventDelegate.
func (t *table) NotifyJoin(n *memberlist.Node) { t.take(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (t *table) NotifyUpdate(n *memberlist.Node) { t.take(n) }

// take puts what memberlist has accepted into the list.
func (t *table) take(n *memberlist.Node) {
	st, err := t.read(n)
	if err != nil {
		return // only our own metadata comes here unchecked, and we write it well
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[n.Name]
	if r == nil {
		r = &row{newest: st, raw: bytes.Clone(n.Meta)}
		t.rows[n.Name] = r
	}
	if n.Name == t.self {
		r.newest, r.raw = st, bytes.Clone(n.Meta)
	}
	state := Alive
	if st.leaving {
		state = Left
	}
	if !r.listed || r.member.State != state {
		r.member.State, r.member.Since = state, t.now()
	}
	r.listed = true
	r.member.Endpoint, r.member.Boot = st.endpoint, st.boot
	t.mark()
	signal(t.changed)
}

// NotifyLeave implements memberlist.EventDelegate. It is called for dead nodes
// and for those that left; the signed statement tells them apart.
func (t *table) NotifyLeave(n *memberlist.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[n.Name]
	if r == nil || !r.listed || r.member.State == Left {
		return
	}
	r.member.State, r.member.Since = Dead, t.now()
	t.prune()
	t.mark()
	signal(t.changed)
	if !r.refused {
		signal(t.lost)
	}
}

// prune forgets nodes that are gone for too long, or too many.
func (t *table) prune() {
	gone := slices.Collect(maps.Keys(t.rows))
	gone = slices.DeleteFunc(gone, func(name string) bool {
		return t.rows[name].listed && t.rows[name].member.State == Alive
	})
	slices.SortFunc(gone, func(a, b string) int {
		return t.rows[b].member.Since.Compare(t.rows[a].member.Since)
	})
	for i, name := range gone {
		if i >= MaxGone || t.now().Sub(t.rows[name].member.Since) > RememberGone {
			delete(t.rows, name)
		}
	}
}

// refresh asks again who is refused.
func (t *table) refresh() {
	t.mu.Lock()
	ids := make([]ident.NodeID, 0, len(t.rows))
	for _, r := range t.rows {
		ids = append(ids, r.newest.endpoint.ID)
	}
	t.mu.Unlock()
	verdicts := make([]bool, len(ids))
	for i, id := range ids {
		verdicts[i] = t.refused(id) != nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, id := range ids {
		t.judge(t.rows[nameOf(id)], verdicts[i])
	}
}

// judge notes whether a node is refused.
func (t *table) judge(r *row, refused bool) {
	if r == nil || r.refused == refused {
		return
	}
	r.refused, r.refusedAt = refused, t.now()
	t.mark()
	signal(t.changed)
}

// marks are addresses whose packets say something.
type marks struct {
	// dead are the nodes that we take for dead, by where they were.
	dead map[netip.AddrPort]ident.Endpoint
	// blocked and blockedHosts are where refused nodes were, and until when that
	// counts. A host that is also a welcome node's is not blocked.
	blocked      map[netip.AddrPort]time.Time
	blockedHosts map[netip.Addr]time.Time
}

// mark works the marks out anew; they are few and change seldom.
func (t *table) mark() {
	m := marks{make(map[netip.AddrPort]ident.Endpoint), make(map[netip.AddrPort]time.Time), make(map[netip.Addr]time.Time)}
	for _, r := range t.rows {
		e := r.newest.endpoint
		for _, a := range e.Addrs {
			at := netip.AddrPortFrom(a, e.GossipPort)
			switch {
			case r.refused:
				m.blocked[at], m.blockedHosts[a] = r.refusedAt.Add(blockFor), r.refusedAt.Add(blockFor)
			case r.listed && r.member.State == Dead:
				m.dead[at] = e
			}
		}
	}
	for _, r := range t.rows {
		if r.refused || !r.listed || r.member.State != Alive {
			continue
		}
		for _, a := range r.member.Addrs {
			at := netip.AddrPortFrom(a, r.member.GossipPort)
			delete(m.dead, at)
			delete(m.blocked, at)
			delete(m.blockedHosts, a)
		}
	}
	t.marks.Store(&m)
}

// hear looks at where a packet comes from and reports whether to take it. One
// from a node that we take for dead is a reason to talk to that node.
func (t *table) hear(from netip.AddrPort) bool {
	m := t.marks.Load()
	if m == nil {
		return true
	}
	if until, ok := m.blocked[from]; ok && t.now().Before(until) {
		return false
	}
	if e, ok := m.dead[from]; ok {
		t.suggest(e)
	}
	return true
}

// admits reports whether to take a stream from a host.
func (t *table) admits(host netip.Addr) bool {
	m := t.marks.Load()
	if m == nil {
		return true
	}
	until, ok := m.blockedHosts[host]
	return !ok || t.now().After(until)
}

// suggest asks for an exchange of lists.
func (t *table) suggest(with ident.Endpoint) {
	select {
	case t.behind <- with:
	default:
	}
}

// members lists everyone that is not refused, ordered by id.
func (t *table) members() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prune()
	list := make([]Member, 0, len(t.rows))
	for _, r := range t.rows {
		if r.listed && !r.refused {
			m := r.member
			m.Addrs = slices.Clone(m.Addrs)
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// alive reports whether id is a member in state Alive.
func (t *table) alive(id ident.NodeID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[nameOf(id)]
	return r != nil && r.listed && r.member.State == Alive
}

// others lists the alive members besides ourselves.
func (t *table) others() []ident.Endpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []ident.Endpoint
	for name, r := range t.rows {
		if name != t.self && r.listed && !r.refused && r.member.State == Alive {
			list = append(list, r.member.Endpoint)
		}
	}
	return list
}

// where gives the addresses of a node, none if it is refused. An unknown name
// is a sign that some news has passed us by.
func (t *table) where(name string) (addrs []netip.Addr, port uint16, known bool) {
	if name == "" {
		return nil, 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[name]
	switch {
	case r == nil:
		t.suggest(ident.Endpoint{})
		return nil, 0, false
	case r.refused:
		return nil, 0, true
	case r.listed:
		return r.member.Addrs, r.member.GossipPort, true
	default:
		return r.newest.endpoint.Addrs, r.newest.endpoint.GossipPort, true
	}
}
