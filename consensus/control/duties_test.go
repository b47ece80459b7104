package control

import (
	"slices"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/mesh/ident"
)

// voters makes the house one of n voters, the founder among them, whose builds
// know level.
func (h *house) voters(n int, level uint64) (others []ident.NodeID) {
	h.t.Helper()
	for i := 1; i < n; i++ {
		id := h.robot(i)
		h.approve(id)
		h.levels[id], h.offsets[id] = level, 0
		h.w.raftVoters = append(h.w.raftVoters, id)
		others = append(others, id)
	}
	h.next() // records who votes and who is online
	return others
}

func TestTheCeilingIsWhatAllVotersKnow(t *testing.T) {
	if event.Level < 2 {
		t.Skip("this build knows one level only")
	}
	h := newHouse(t)
	h.w.ownLevel = 2
	h.levels[fleettest.Node(1)] = 1
	others := h.voters(3, 1)
	if got := h.state.Ceiling(); got != 1 {
		t.Fatalf("with a voter of level 1 the ceiling is %d", got)
	}
	h.levels[others[0]] = 2
	h.expect("one is left behind")
	h.levels[others[1]] = 0 // a first build tells nothing
	h.expect("one tells nothing")
	delete(h.levels, others[1])
	h.expect("one is away, maybe for its upgrade")
	h.levels[others[1]] = 3 // it is ahead of the leader
	steps := h.expect("all know level 2", "raiseCeiling")
	if got := h.state.Ceiling(); got != 2 {
		t.Fatalf("the ceiling is %d, want 2; steps %+v", got, steps)
	}
	h.levels[others[0]] = 1
	h.expect("it is never lowered")
	h.w.raftVoters = h.w.raftVoters[:1]
	if got := kinds(h.next()); got[0] != "recordVoters" || slices.Contains(got, "raiseCeiling") {
		t.Fatalf("a single voter: %v", got)
	}
}

func TestAVoterMustKnowWhatTheLogHolds(t *testing.T) {
	if event.Level < 2 {
		t.Skip("this build knows one level only")
	}
	h := newHouse(t)
	h.leader(event.CeilingRaised{Level: 2}.Draft())
	old, fresh := h.robot(1), h.robot(2)
	h.approve(old)
	h.next()
	h.levels[old] = 1
	h.expect("its build is too old")
	delete(h.levels, old)
	if steps := h.expect("what it knows is not known, so it is asked", "addVoter"); steps[0].node != old || steps[0].ceiling != 2 {
		t.Fatalf("%+v", steps)
	}
	h.plan.failed[old] = h.w.now
	h.approve(fresh)
	if steps := h.expect("it was too old", "addVoter"); steps[0].node != fresh {
		t.Fatalf("adds %s, which failed a moment ago, before %s", steps[0].node, fresh)
	}
}

// fill makes the log n events longer.
func (h *house) fill(n int) {
	h.t.Helper()
	for range n {
		h.leader(event.GossipKeyRotated{Epoch: h.state.GossipEpoch() + 1}.Draft())
	}
	h.w.ringEpoch = h.state.GossipEpoch()
}

// seal records a seal as the controller does.
func (h *house) seal() {
	h.t.Helper()
	hash := "00000000000000000000000000000000000000000000000000000000000000ff"
	h.leader(event.Seal(fleettest.Key(0), h.state.History(), h.state.Seq(), hash).Draft())
}

func TestTheLogIsSealedForNewsOnly(t *testing.T) {
	if event.Level < 2 {
		t.Skip("this build cannot seal")
	}
	h := newHouse(t)
	h.fill(sealEvents)
	h.expect("the fleet may not seal yet")
	h.leader(event.CeilingRaised{Level: 2}.Draft())
	h.w.at = event.Cursor{History: "h1", Seq: h.state.Seq(), Hash: "ff"}
	if steps := h.expect("a thousand events", "sealLog"); steps[0].at != h.w.at {
		t.Fatalf("seals %+v, want %+v", steps[0].at, h.w.at)
	}
	h.seal()
	h.later(10 * sealAfter)
	h.expect("nothing new but the seal")
	h.fill(1)
	h.expect("one event")
	h.later(sealAfter - time.Second)
	h.expect("not an hour")
	h.later(time.Second)
	h.expect("an hour", "sealLog")
	h.seal()
	h.fill(1)
	h.expect("another event")
	h.fill(sealEvents - 2)
	h.expect("not a thousand")
	h.fill(1)
	h.expect("a thousand", "sealLog")
	h.w.term++
	h.expect("also for the next leader", "sealLog")
}

func TestCorrection(t *testing.T) {
	const h = time.Hour
	for name, c := range map[string]struct {
		offsets []time.Duration
		want    time.Duration
	}{
		"nobody":                     {nil, 0},
		"alone":                      {[]time.Duration{0}, 0},
		"two disagree":               {[]time.Duration{0, h}, 0},
		"an hour ahead of two":       {[]time.Duration{0, -h, -h - 1}, -h},
		"an hour behind two":         {[]time.Duration{0, h, h + 1}, h},
		"one other is off":           {[]time.Duration{0, time.Second, h}, time.Second},
		"all three differ":           {[]time.Duration{-h, 0, h}, 0},
		"two of four":                {[]time.Duration{0, 0, h, h}, 0},
		"three of four":              {[]time.Duration{0, h, h + 2, h + 4}, h},
		"three of four, behind":      {[]time.Duration{0, -h, -h - 2, -h - 4}, -h},
		"two of five, an hour ahead": {[]time.Duration{0, 1, -h, -h, -h}, -h},
	} {
		if got := Correction(c.offsets); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestALeaderWhoseClockIsOffHandsOver(t *testing.T) {
	h := newHouse(t)
	others := h.voters(3, 1)
	set := func(a, b time.Duration) { h.offsets[others[0]], h.offsets[others[1]] = a, b }
	set(-clockFar, -clockFar)
	h.expect("five seconds are not far")
	set(-time.Hour, -clockFar-time.Second)
	h.expect("one says so, and the other's clock is wrong itself", "handOver")
	set(0, -time.Hour)
	h.later(handOverAgain)
	h.expect("one other is off")
	set(-time.Hour, -time.Hour-time.Second)
	if steps := h.expect("both say so", "handOver"); !slices.Contains(others, steps[0].node) {
		t.Fatalf("hands over to %s", steps[0].node)
	}
	h.expect("it is being tried")
	h.later(handOverAgain)
	h.dead[others[1]] = true
	if steps := h.expect("again, to who is there", "handOver"); steps[0].node != others[0] {
		t.Fatalf("hands over to %s, want %s", steps[0].node, others[0])
	}
	h.later(handOverAgain)
	delete(h.offsets, others[0])
	h.expect("two clocks cannot tell who is wrong")
}

func TestASpareTakesThePlaceOfADeadVoter(t *testing.T) {
	h := newHouse(t)
	h.w.replaceAfter = 10 * time.Minute
	others := h.voters(3, 1)
	spare := h.robot(3)
	h.approve(spare)
	h.next()
	h.expect("all are there")
	lost := others[0]
	h.dead[lost] = true
	h.expect("it has gone a moment ago")
	h.later(10*time.Minute - time.Second)
	if got := kinds(h.next()); slices.Contains(got, "replaceVoter") {
		t.Fatalf("before its time: %v", got)
	}
	h.later(time.Second)
	steps := h.expect("ten minutes", "replaceVoter")
	if steps[0].node != spare || steps[0].gone != lost {
		t.Fatalf("%s takes the place of %s", steps[0].node, steps[0].gone)
	}
	h.w.raftVoters = append(h.w.raftVoters, spare)
	steps = h.next()
	if got := kinds(steps); !slices.Equal(got, []string{"recordVoters", "removeVoter"}) || steps[1].node != lost {
		t.Fatalf("the spare votes: %v", got)
	}
	h.w.raftVoters = slices.DeleteFunc(h.w.raftVoters, func(id ident.NodeID) bool { return id == lost })
	h.expect("it has gone", "recordVoters")
	h.dead[lost] = false
	h.expect("it is back, as a spare", "online")
	h.expect("and nothing more")
}

func TestWithoutASpareADeadVoterStays(t *testing.T) {
	h := newHouse(t)
	h.w.replaceAfter = time.Minute
	others := h.voters(3, 1)
	h.dead[others[0]] = true
	h.later(time.Hour)
	h.next()
	h.expect("nobody can take its place")
	h.w.replaceAfter = 0
	h.approve(h.robot(3))
	h.next()
	h.expect("replacing is off")
}

func TestAVoterThatComesBackDuringItsReplacement(t *testing.T) {
	h := newHouse(t)
	h.w.replaceAfter = time.Minute
	others := h.voters(3, 1)
	spare := h.robot(3)
	h.approve(spare)
	h.next()
	h.dead[others[0]] = true
	h.later(time.Minute)
	if got := kinds(h.next()); !slices.Contains(got, "replaceVoter") {
		t.Fatalf("%v", got)
	}
	h.w.raftVoters = append(h.w.raftVoters, spare)
	h.dead[others[0]] = false
	steps := h.next()
	last := steps[len(steps)-1]
	if last.kind != removeVoter || last.node == h.w.self {
		t.Fatalf("four vote, all are there: %v", kinds(steps))
	}
}

// TestWhoAnswersIsNotTakenFromTheSilent: a leader that removes one that answers
// could be left with a majority of silent ones, and never decide again.
func TestWhoAnswersIsNotTakenFromTheSilent(t *testing.T) {
	h := newHouse(t)
	others := h.voters(5, 1)
	withdrawn := others[2]
	remove := func(when string) ident.NodeID {
		t.Helper()
		steps := h.next()
		last := steps[len(steps)-1]
		if last.kind != removeVoter {
			t.Fatalf("%s: steps %v", when, kinds(steps))
		}
		h.w.raftVoters = slices.DeleteFunc(h.w.raftVoters, func(id ident.NodeID) bool { return id == last.node })
		return last.node
	}
	h.dead[others[0]], h.dead[others[1]] = true, true
	h.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterWithdrawn{}.Draft(withdrawn)}})
	if id := remove("of five, two are silent"); !h.dead[id] {
		t.Fatal("of five, two are silent, and one that answers is removed")
	}
	if id := remove("of four, one is silent: two of three will answer"); id != withdrawn {
		t.Fatalf("removed %s, want the one withdrawn", id)
	}
	h = newHouse(t)
	others = h.voters(3, 1)
	h.dead[others[0]] = true
	h.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterWithdrawn{}.Draft(others[1])}})
	h.expect("of three, one is silent: the leader would need it")
	h.dead[others[0]] = false
	h.expect("it is back", "removeVoter")
}
