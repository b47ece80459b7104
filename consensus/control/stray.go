package control

import (
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

// stray finds a node that Raft sends the log to without a vote, although nothing
// comes of it: it left, was revoked or withdrawn while it was brought up to date, or
// died, and is a candidate again when it is back. Nothing depends on it, so it is
// taken out whoever else is silent.
func stray(s *fleet.State, w world) (ident.NodeID, bool) {
	for _, id := range w.learners {
		if n, ok := s.Node(id); !ok || !n.Member() || !n.VoterApproved || !w.alive(id) {
			return id, true
		}
	}
	return "", false
}
