package control

import (
	"slices"
	"testing"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
)

// Who leaves or is withdrawn while it is brought up to date does not stay in
// Raft's configuration.
func TestWhoLeftIsSentTheLogNoMore(t *testing.T) {
	h := newHouse(t)
	gone, stays := h.robot(1), h.robot(2)
	h.approve(gone)
	h.approve(stays)
	h.next()
	h.w.learners = append(h.w.learners, gone)
	h.expect("it is on its way to a vote", "addVoter")
	h.decide(event.Batch{Actor: fleettest.Itself(gone), Drafts: []event.Draft{event.NodeLeft{}.Draft(gone)}})
	h.dead[fleettest.Node(2)] = true
	steps := h.next()
	if got := kinds(steps); !slices.Contains(got, "removeVoter") || steps[len(steps)-1].node != gone {
		t.Fatalf("it has left: steps %v, want it removed", got)
	}
	h.w.learners = nil
	for _, s := range h.next() {
		if s.kind == removeVoter {
			t.Fatalf("removes %s, which is not there", s.node)
		}
	}

	h.dead[stays] = false
	h.w.learners = append(h.w.learners, stays)
	h.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterWithdrawn{}.Draft(stays)}})
	if steps := h.next(); len(steps) == 0 || steps[len(steps)-1].kind != removeVoter || steps[len(steps)-1].node != stays {
		t.Fatalf("it was withdrawn: steps %v, want it removed", kinds(steps))
	}
}

// Nor does who dies meanwhile; when it is back it is asked again.
func TestWhoDiedIsSentTheLogNoMore(t *testing.T) {
	h := newHouse(t)
	dies := h.robot(1)
	h.approve(dies)
	h.next()
	h.w.learners = append(h.w.learners, dies)
	h.dead[dies] = true
	if steps := h.next(); len(steps) == 0 || steps[len(steps)-1].kind != removeVoter || steps[len(steps)-1].node != dies {
		t.Fatalf("it has died: steps %v, want it removed", kinds(steps))
	}
	h.w.learners = nil
	h.dead[dies] = false
	if steps := h.next(); len(steps) == 0 || steps[len(steps)-1].kind != addVoter || steps[len(steps)-1].node != dies {
		t.Fatalf("it is back: steps %v, want it added", kinds(steps))
	}
}
