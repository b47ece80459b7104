package control

import (
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

// candidateAgain is how long a node that could not be made a voter stands behind
// others that may.
const candidateAgain = time.Minute

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

// reshape finds the one change of Raft's configuration that is due.
func (p *planner) reshape(s *fleet.State, w world) (step, bool) {
	want, dead := wanted(s), p.dead(w)
	if id, ok := unwanted(s, w); ok {
		return step{kind: removeVoter, node: id}, true
	}
	if id, ok := surplus(w, want, dead); ok {
		return step{kind: removeVoter, node: id}, true
	}
	if len(w.raftVoters)-len(dead) >= want || len(w.raftVoters) > want {
		return step{}, false
	}
	id, ok := p.candidate(s, w)
	switch {
	case !ok:
		return step{}, false
	case len(w.raftVoters) < want:
		return step{kind: addVoter, node: id}, true
	}
	// All places are taken, one by somebody who is gone. The spare comes first and
	// the other goes then: so the spare is known to hold the log, and if it never
	// comes to that, nothing is lost.
	return step{kind: replaceVoter, node: id, gone: dead[0]}, true
}

// wanted is how many nodes are to vote: three, or five where five are approved.
// An even number could lose no more than one less.
func wanted(s *fleet.State) int {
	approved := 0
	for _, n := range s.Nodes() {
		if n.VoterEligible && n.VoterApproved && n.Member() {
			approved++
		}
	}
	if approved >= 5 {
		return 5
	}
	return 3
}

// dead are the voters that have been silent for so long that a spare takes their
// place, the longest silent first.
func (p *planner) dead(w world) (ids []ident.NodeID) {
	if w.replaceAfter <= 0 {
		return nil
	}
	for _, id := range w.raftVoters {
		if id != w.self && p.quiet(id, w) >= w.replaceAfter {
			ids = append(ids, id)
		}
	}
	slices.SortStableFunc(ids, func(a, b ident.NodeID) int { return p.lastHeard[a].Compare(p.lastHeard[b]) })
	return ids
}

// unwanted finds a voter that may no longer be one. The last voter stays: a
// fleet without voters could never decide again.
func unwanted(s *fleet.State, w world) (ident.NodeID, bool) {
	if len(w.raftVoters) < 2 {
		return "", false
	}
	for _, id := range w.raftVoters {
		n, ok := s.Node(id)
		if (!ok || n.Revoked || n.Left || !n.VoterApproved) && w.spares(id) {
			return id, true
		}
	}
	return "", false
}

// spared reports whether the others can decide without a voter: those of them
// that answer are a majority. With others silent, taking away one that answers
// could leave a group that cannot decide until one of the silent is back.
func spared(voters []ident.NodeID, id ident.NodeID, answers func(ident.NodeID) bool) bool {
	count := 0
	for _, other := range voters {
		if other != id && answers(other) {
			count++
		}
	}
	return count > (len(voters)-1)/2
}

// spares is spared as far as gossip knows.
func (w world) spares(id ident.NodeID) bool {
	return spared(w.raftVoters, id, func(other ident.NodeID) bool { return other == w.self || w.alive(other) })
}

// surplus finds a voter to remove when there are more than wanted: one that is
// dead, else one that is silent, else one that does not lead.
func surplus(w world, want int, dead []ident.NodeID) (ident.NodeID, bool) {
	if len(w.raftVoters) <= want {
		return "", false
	}
	if len(dead) > 0 {
		return dead[0], w.spares(dead[0])
	}
	found := ident.NodeID("")
	for _, id := range slices.Backward(slices.Sorted(slices.Values(w.raftVoters))) {
		if id != w.self && (found == "" || w.alive(found) && !w.alive(id)) {
			found = id
		}
	}
	return found, found != "" && w.spares(found)
}

// candidate finds the next node to make a voter: eligible, approved, alive, and
// of a build that knows what the log holds. One that failed a moment ago comes
// after the others.
func (p *planner) candidate(s *fleet.State, w world) (best ident.NodeID, found bool) {
	for _, n := range s.Nodes() {
		if !n.VoterEligible || !n.VoterApproved || n.Revoked || n.Left || !w.alive(n.ID) || slices.Contains(w.raftVoters, n.ID) {
			continue
		}
		if level, known := w.level(n.ID); known && max(level, 1) < s.Ceiling() {
			continue
		}
		if failed, ok := p.failed[n.ID]; !ok || w.now.Sub(failed) >= candidateAgain {
			return n.ID, true
		}
		if best == "" || p.failed[n.ID].Before(p.failed[best]) {
			best = n.ID
		}
	}
	return best, best != ""
}
