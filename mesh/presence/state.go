package presence

import (
	"encoding/json"
	"time"

	"skein/mesh/ident"
)

// Times and bounds of what is remembered.
const (
	renewEvery  = 10 * time.Second
	interestTTL = 30 * time.Second
	// reportTTL is when a report is too old to be of use to anyone. An interest
	// that has ended is remembered as long, so that a late copy cannot revive it.
	reportTTL = 5 * time.Minute
	// renewLeast is the least time between two own renewals.
	renewLeast = time.Second
	reportsMax = 4096
	originsMax = 1024
)

// state is what a node knows, and to which edge it must still tell it. It has
// no lock and no clock: Service guards it and passes now.
type state struct {
	self ident.NodeID
	boot uint64
	// watchers is how many viewers this node has; asked is the newest own
	// interest, of askedAt; the next is due at renewAt.
	watchers         int
	asked            uint64
	askedAt, renewAt time.Time
	said             uint64 // number of own reports

	interests map[ident.NodeID]*interest
	reports   map[ident.NodeID]*entry
	edges     map[*edge]struct{}
}

// interest is what is known of another origin.
type interest struct {
	version version
	expires time.Time
	// path is the edge towards the origin; nil when it has expired or broken.
	path *edge
	// heard are the edges that brought this version. A neighbour passes it on to
	// all but the one it has it from, so these are the neighbours that know
	// another way than over this node, at the first hop at least.
	heard map[*edge]struct{}
}

// entry is the newest report of a node.
type entry struct {
	version version
	// saidAt is the moment of the report on this node's monotonic clock.
	saidAt time.Time
	data   json.RawMessage
	// from is the edge it came by; nil for the own one, or if the edge is gone.
	from *edge
}

func newState(self ident.NodeID, boot uint64) *state {
	return &state{
		self: self, boot: boot,
		interests: make(map[ident.NodeID]*interest), reports: make(map[ident.NodeID]*entry),
		edges: make(map[*edge]struct{}),
	}
}

// interested reports whether anybody looks: here, or anywhere else.
func (st *state) interested(now time.Time) bool {
	if st.watchers > 0 {
		return true
	}
	for _, i := range st.interests {
		if i.expires.After(now) {
			return true
		}
	}
	return false
}

// attach begins to use an edge: it is told of all live interests.
func (st *state) attach(e *edge, now time.Time) {
	st.edges[e] = struct{}{}
	if st.watchers > 0 {
		e.ask(st.self)
	}
	for origin, i := range st.interests {
		if i.expires.After(now) {
			e.ask(origin)
		}
	}
}

// detach ends an edge; paths over it move to edges that brought the same
// interest. If this node looks, its next renewal is due: others may have had
// their path over this edge. Several changes in a row share one.
func (st *state) detach(e *edge, now time.Time) {
	delete(st.edges, e)
	if soon := st.askedAt.Add(renewLeast); soon.Before(st.renewAt) {
		st.renewAt = soon
	}
	for _, i := range st.interests {
		delete(i.heard, e)
		if i.path != e {
			continue
		}
		st.setPath(i, nil)
		if !i.expires.After(now) {
			continue
		}
		for other := range i.heard {
			st.setPath(i, other)
			break
		}
	}
	for _, r := range st.reports {
		if r.from == e {
			r.from = nil
		}
	}
}

// setPath makes e the way to an origin. An edge that becomes somebody's path is
// offered all reports that it has not had.
func (st *state) setPath(i *interest, e *edge) {
	if i.path == e {
		return
	}
	if i.path != nil {
		i.path.lead(-1)
	}
	i.path = e
	if e == nil {
		return
	}
	if e.lead(+1); e.leads > 1 {
		return
	}
	for node, r := range st.reports {
		if r.from != e {
			e.tell(node, r.version)
		}
	}
}

// renew makes the own interest newer and tells every edge.
func (st *state) renew(now time.Time) {
	st.asked++
	st.askedAt, st.renewAt = now, now.Add(renewEvery)
	for e := range st.edges {
		e.ask(st.self)
	}
}

// hearInterest takes an interest that came by e.
func (st *state) hearInterest(e *edge, q inquiry, now time.Time) {
	v := version{q.Boot, q.N}
	i := st.interests[q.Origin]
	switch {
	case q.Origin == st.self:
		return
	case i != nil && v == i.version:
		i.heard[e] = struct{}{}
		if i.path == nil && i.expires.After(now) {
			st.setPath(i, e)
		}
		return
	case i != nil && !v.newerThan(i.version), q.AgeMillis >= interestTTL.Milliseconds():
		return
	case i == nil && len(st.interests) >= originsMax:
		return
	case i == nil:
		i = &interest{heard: make(map[*edge]struct{})}
		st.interests[q.Origin] = i
	}
	i.version = v
	i.expires = now.Add(interestTTL - time.Duration(q.AgeMillis)*time.Millisecond)
	clear(i.heard)
	i.heard[e] = struct{}{}
	e.unask(q.Origin)
	st.setPath(i, e)
	for other := range st.edges {
		if other != e {
			other.ask(q.Origin)
		}
	}
}

// hearReport takes a report that came by e; it reports whether it was news.
func (st *state) hearReport(e *edge, p Report, now time.Time) bool {
	v := version{p.Boot, p.N}
	r := st.reports[p.Node]
	switch {
	case p.Node == st.self, p.AgeMillis >= reportTTL.Milliseconds():
		return false
	case r != nil && !v.newerThan(r.version):
		if v == r.version {
			e.has(p.Node, v)
		}
		return false
	case r == nil && len(st.reports) >= reportsMax:
		st.forgetStalest()
	}
	saidAt := now.Add(-p.Age())
	st.reports[p.Node] = &entry{version: v, saidAt: saidAt, data: p.Data, from: e}
	e.has(p.Node, v)
	st.spread(p.Node, v, e)
	return true
}

// say sets the own report.
func (st *state) say(data json.RawMessage, now time.Time) {
	st.said++
	v := version{st.boot, st.said}
	if st.reports[st.self] == nil && len(st.reports) >= reportsMax {
		st.forgetStalest()
	}
	st.reports[st.self] = &entry{version: v, saidAt: now, data: data}
	st.spread(st.self, v, nil)
}

func (st *state) spread(node ident.NodeID, v version, from *edge) {
	for e := range st.edges {
		if e != from && e.leads > 0 {
			e.tell(node, v)
		}
	}
}

func (st *state) forgetStalest() {
	var stalest ident.NodeID
	for node, r := range st.reports {
		if node != st.self && (stalest == "" || r.saidAt.Before(st.reports[stalest].saidAt)) {
			stalest = node
		}
	}
	st.forget(stalest)
}

func (st *state) forget(node ident.NodeID) {
	delete(st.reports, node)
	for e := range st.edges {
		delete(e.sent, node)
	}
}

// collect takes what e must be told now, as much as fits in a frame; more says
// that something is left.
func (st *state) collect(e *edge, now time.Time) (f frame, more bool) {
	for origin := range e.asks {
		if len(f.Interests) == frameInterests {
			return f, true
		}
		delete(e.asks, origin)
		if q, ok := st.inquiry(origin, now); ok {
			f.Interests = append(f.Interests, q)
		}
	}
	size := len(f.Interests) * 128
	for len(e.queue) > 0 {
		node := e.queue[0]
		r := st.reports[node]
		if r != nil && r.version.newerThan(e.sent[node]) {
			size += len(r.data) + reportOverhead
			if size > frameMax || len(f.Reports) == frameReports {
				return f, true
			}
			f.Reports = append(f.Reports, r.report(node, now))
			e.sent[node] = r.version
		}
		e.queue = e.queue[1:]
		delete(e.queued, node)
	}
	e.queue = nil // lets go of the array
	return f, false
}

// inquiry is an interest as it is passed on now, with its age.
func (st *state) inquiry(origin ident.NodeID, now time.Time) (inquiry, bool) {
	if origin == st.self {
		return inquiry{origin, st.boot, st.asked, now.Sub(st.askedAt).Milliseconds()}, st.watchers > 0
	}
	i := st.interests[origin]
	if i == nil || !i.expires.After(now) {
		return inquiry{}, false
	}
	age := interestTTL - i.expires.Sub(now)
	return inquiry{origin, i.version.boot, i.version.n, age.Milliseconds()}, true
}

func (r *entry) report(node ident.NodeID, now time.Time) Report {
	return Report{node, r.version.boot, r.version.n, now.Sub(r.saidAt).Milliseconds(), r.data}
}

// tick renews and forgets what is due at now. It returns when it must be called
// again; zero: not before something changes.
func (st *state) tick(now time.Time) (next time.Time) {
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if st.watchers > 0 {
		if !now.Before(st.renewAt) {
			st.renew(now)
		}
		sooner(st.renewAt)
	}
	for origin, i := range st.interests {
		switch forget := i.expires.Add(reportTTL); {
		case i.expires.After(now):
			sooner(i.expires)
		case !forget.After(now):
			delete(st.interests, origin)
		default:
			st.setPath(i, nil)
			clear(i.heard)
			sooner(forget)
		}
	}
	for node, r := range st.reports {
		if node == st.self {
			continue
		}
		if end := r.saidAt.Add(reportTTL); end.After(now) {
			sooner(end)
		} else {
			st.forget(node)
		}
	}
	return next
}
