package fleet

import (
	"cmp"
	"slices"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// proposal is what became of one accepted proposal.
type proposal struct {
	N     uint64 `json:"n"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// session is one start of one node.
type session struct {
	// node is the place of the id in sessions.nodes.
	node uint32
	Boot uint64 `json:"boot"`
	// Floor is the highest number that may have been forgotten. Invariant: a
	// number above Floor that is not in Known was never accepted.
	Floor uint64 `json:"floor"`
	// Known is sorted by N; at most SessionWindow. It moves along in room, and back
	// to its start when there is no more.
	Known []proposal `json:"known,omitempty"`
	room  []proposal
}

// sessions remember accepted proposals. Of every node the two highest boots are
// kept, so that an answer from before a restart can still be found.
type sessions struct {
	byNode map[ident.NodeID][]session // 1 or 2, sorted by Boot
	// nodes are the keys of byNode, so that queue needs none: it is long, and has
	// nothing for the garbage collector to look at.
	nodes []ident.NodeID
	// queue has, from head on, every known proposal in the order of First, and some
	// that are forgotten already.
	queue []queued
	head  int
}

type queued struct {
	node           uint32
	boot, n, first uint64
}

func newSessions() sessions { return sessions{byNode: map[ident.NodeID][]session{}} }

func (s *session) find(n uint64) (int, bool) {
	if k := len(s.Known); k == 0 || s.Known[k-1].N < n {
		return k, false // the usual case: numbers grow
	}
	return slices.BinarySearchFunc(s.Known, n, func(p proposal, n uint64) int { return cmp.Compare(p.N, n) })
}

// lookup finds what became of p. known is false when it was not accepted as far
// as is remembered; lost says that it may have been.
func (ss *sessions) lookup(p event.Producer) (found proposal, known, lost bool) {
	boots := ss.byNode[p.Node]
	for i := range boots {
		s := &boots[i]
		if s.Boot != p.Boot {
			continue
		}
		if at, ok := s.find(p.N); ok {
			return s.Known[at], true, false
		}
		return proposal{}, false, p.N <= s.Floor
	}
	return proposal{}, false, len(boots) == 2 && p.Boot < boots[0].Boot
}

// note records that events first to last came of proposal p, in one call or
// in one for each event.
func (ss *sessions) note(p event.Producer, first, last uint64) {
	s := ss.open(p.Node, p.Boot)
	if s == nil {
		return
	}
	at, known := s.find(p.N)
	if known {
		s.Known[at].Last = last
		return
	}
	s.insert(at, proposal{p.N, first, last})
	ss.enqueue(queued{s.node, p.Boot, p.N, first})
	s.slide()
}

func (s *session) insert(at int, p proposal) {
	if len(s.Known) < cap(s.Known) {
		s.Known = slices.Insert(s.Known, at, p)
		return
	}
	if cap(s.room) >= 2*len(s.Known)+1 { // half of it was left behind
		s.Known = append(s.room[:0], s.Known...)
	} else {
		s.Known = append(make([]proposal, 0, 2*len(s.Known)+4), s.Known...)
		s.room = s.Known
	}
	s.Known = slices.Insert(s.Known, at, p)
}

// enqueue adds to the end of the queue, and makes room at its start when half of
// it is done with.
func (ss *sessions) enqueue(q queued) {
	if len(ss.queue) == cap(ss.queue) && ss.head > len(ss.queue)/2 {
		ss.queue = ss.queue[:copy(ss.queue, ss.queue[ss.head:])]
		ss.head = 0
	}
	ss.queue = append(ss.queue, q)
}

// open finds or makes the session of a boot; nil when it is older than the two
// that are kept.
func (ss *sessions) open(node ident.NodeID, boot uint64) *session {
	boots := ss.byNode[node]
	at, found := slices.BinarySearchFunc(boots, boot, func(s session, boot uint64) int { return cmp.Compare(s.Boot, boot) })
	if found {
		return &boots[at]
	}
	if len(boots) == 2 {
		if at == 0 {
			return nil
		}
		boots = boots[1:] // forget the oldest
		at--
	}
	s := session{node: uint32(len(ss.nodes)), Boot: boot}
	if len(boots) > 0 {
		s.node = boots[0].node
	} else {
		ss.nodes = append(ss.nodes, own(node))
	}
	boots = slices.Insert(slices.Clone(boots), at, s)
	ss.byNode[ss.nodes[s.node]] = boots
	return &boots[at]
}

// slide forgets what has left the window.
func (s *session) slide() {
	highest := s.Known[len(s.Known)-1].N
	if highest <= SessionWindow {
		return
	}
	out := highest - SessionWindow
	n := 0
	for s.Known[n].N <= out {
		n++
	}
	s.Known = s.Known[n:]
	s.Floor = max(s.Floor, out)
}

// expire forgets what is older than the horizon.
func (ss *sessions) expire(seq uint64) {
	for ss.head < len(ss.queue) && ss.queue[ss.head].first+SessionHorizon <= seq {
		ss.forget(ss.queue[ss.head])
		ss.head++
	}
}

func (ss *sessions) forget(q queued) {
	boots := ss.byNode[ss.nodes[q.node]]
	for i := range boots {
		s := &boots[i]
		if s.Boot != q.boot {
			continue
		}
		at, ok := s.find(q.n)
		switch {
		case !ok:
			continue
		case at == 0:
			s.Known = s.Known[1:]
		default:
			s.Known = slices.Delete(s.Known, at, at+1)
		}
		s.Floor = max(s.Floor, q.n)
	}
}

func (ss *sessions) clone() sessions {
	c := newSessions()
	for node, boots := range ss.byNode {
		boots = slices.Clone(boots)
		for i := range boots {
			boots[i].Known = slices.Clone(boots[i].Known)
			boots[i].room = nil
		}
		c.byNode[node] = boots
	}
	c.nodes = slices.Clone(ss.nodes)
	c.queue = slices.Clone(ss.queue[ss.head:])
	return c
}
