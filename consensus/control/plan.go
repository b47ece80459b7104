package control

import (
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

const (
	// offlineAfter is how long a robot must be silent before "offline" becomes
	// an event (DESIGN.md section 1). Live views show it much earlier.
	offlineAfter = 30 * time.Second
	// offlineEvery is the least time between two offline events of one robot.
	offlineEvery = 5 * time.Minute
	// keyLostAfter is how long a leader looks for the gossip keys of the decided
	// epoch before it has new ones made.
	keyLostAfter = 15 * time.Second
)

// kind names what a step does.
type kind int

const (
	recordVoters kind = iota
	removeVoter
	addVoter
	rotateKey
	online
	silent
)

func (k kind) String() string {
	return [...]string{"recordVoters", "removeVoter", "addVoter", "rotateKey", "online", "offline"}[k]
}

// step is one thing to do, small enough to be tried again.
type step struct {
	kind   kind
	node   ident.NodeID
	epoch  uint64
	drafts []event.Draft
}

// world is what the planner cannot read from the replicated state.
type world struct {
	now        time.Time
	term       uint64
	raftVoters []ident.NodeID
	alive      func(ident.NodeID) bool
	// ringEpoch is that of the gossip keys this node holds.
	ringEpoch uint64
}

// planner decides. It is pure but for its timers, which it keeps between rounds
// of one term.
type planner struct {
	term uint64
	// lastHeard is when each robot was last alive, by the leader's clock.
	lastHeard map[ident.NodeID]time.Time
	// keyMissing is since when the keys of the decided epoch are looked for.
	keyMissing time.Time
}

// next lists the steps that are due, most urgent first. At most one changes
// the Raft configuration, because such changes are safe only one at a time.
func (p *planner) next(s *fleet.State, w world) []step {
	if p.term != w.term || p.lastHeard == nil {
		p.term, p.lastHeard, p.keyMissing = w.term, map[ident.NodeID]time.Time{}, time.Time{}
	}
	var steps []step
	if drafts := voterFacts(s, w); len(drafts) > 0 {
		steps = append(steps, step{kind: recordVoters, drafts: drafts})
	}
	if p.rotationDue(s, w) {
		epoch := max(s.GossipEpoch(), w.ringEpoch) + 1
		steps = append(steps, step{kind: rotateKey, epoch: epoch, drafts: []event.Draft{event.GossipKeyRotated{Epoch: epoch}.Draft()}})
	}
	steps = append(steps, p.presence(s, w)...)
	if id, ok := unwanted(s, w); ok {
		return append(steps, step{kind: removeVoter, node: id})
	}
	if id, ok := p.candidate(s, w); ok {
		return append(steps, step{kind: addVoter, node: id})
	}
	return steps
}

// voterFacts are the events that make the state say what Raft's configuration says.
func voterFacts(s *fleet.State, w world) (drafts []event.Draft) {
	for _, n := range s.Nodes() {
		inRaft := slices.Contains(w.raftVoters, n.ID)
		switch {
		case inRaft && !n.Voter && !n.Revoked && !n.Left:
			drafts = append(drafts, event.VoterAdded{}.Draft(n.ID))
		case !inRaft && n.Voter:
			drafts = append(drafts, event.VoterRemoved{}.Draft(n.ID))
		}
	}
	return drafts
}

// unwanted finds a voter that may no longer be one. The last voter stays: a
// fleet without voters could never decide again.
func unwanted(s *fleet.State, w world) (ident.NodeID, bool) {
	if len(w.raftVoters) < 2 {
		return "", false
	}
	for _, id := range w.raftVoters {
		if n, ok := s.Node(id); !ok || n.Revoked || n.Left || !n.VoterApproved {
			return id, true
		}
	}
	return "", false
}

// candidate finds the next node to make a voter: eligible, approved and alive.
// Three vote, or five where five are approved.
func (p *planner) candidate(s *fleet.State, w world) (ident.NodeID, bool) {
	approved := 0
	for _, n := range s.Nodes() {
		if n.VoterEligible && n.VoterApproved && n.Member() {
			approved++
		}
	}
	want := 3 // an even number could lose no more than one less
	if approved >= 5 {
		want = 5
	}
	if len(w.raftVoters) >= want {
		return "", false
	}
	for _, n := range s.Nodes() {
		if n.VoterEligible && n.VoterApproved && !n.Revoked && !n.Left && w.alive(n.ID) && !slices.Contains(w.raftVoters, n.ID) {
			return n.ID, true
		}
	}
	return "", false
}

// rotationDue: somebody who is gone knows the gossip keys; or the keys of the
// decided epoch are lost, because the leader that was to make them died first
// and nobody has been found for keyLostAfter who holds them.
func (p *planner) rotationDue(s *fleet.State, w world) bool {
	if f, ok := s.Fleet(); !ok || f.GossipExposed {
		return ok
	}
	if s.GossipEpoch() <= w.ringEpoch {
		p.keyMissing = time.Time{}
		return false
	}
	if p.keyMissing.IsZero() {
		p.keyMissing = w.now
	}
	return w.now.Sub(p.keyMissing) >= keyLostAfter
}

// presence lists robots that came back, and robots silent for too long.
func (p *planner) presence(s *fleet.State, w world) (steps []step) {
	var back []event.Draft
	for _, r := range s.Robots() {
		n, ok := s.Node(r.ID)
		if !ok || n.Revoked || n.Left {
			continue
		}
		if w.alive(r.ID) {
			p.lastHeard[r.ID] = w.now
			if !r.Online && len(back) < event.MaxDrafts {
				back = append(back, event.RobotOnline{}.Draft(r.ID))
			}
			continue
		}
		last, known := p.lastHeard[r.ID]
		if !known {
			p.lastHeard[r.ID], last = w.now, w.now
		}
		quiet := w.now.Sub(last)
		if r.Online && quiet >= offlineAfter && w.now.Sub(r.OfflineAt) >= offlineEvery {
			steps = append(steps, step{kind: silent, node: r.ID, drafts: []event.Draft{
				event.RobotOffline{LastHeardSeconds: uint64(quiet.Seconds())}.Draft(r.ID)}})
		}
	}
	if len(back) > 0 {
		steps = append([]step{{kind: online, drafts: back}}, steps...)
	}
	return steps
}

// heard notes that a robot which gossip had lost did answer.
func (p *planner) heard(id ident.NodeID, now time.Time) { p.lastHeard[id] = now }
