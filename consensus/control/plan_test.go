package control

import (
	"slices"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/mesh/ident"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// house is a fleet whose founder votes, with a planner on the founder.
type house struct {
	t     *testing.T
	state *fleet.State
	plan  planner
	w     world
	dead  map[ident.NodeID]bool
	// levels and offsets are those that are known.
	levels  map[ident.NodeID]uint64
	offsets map[ident.NodeID]time.Duration
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, state: fleet.New(), dead: map[ident.NodeID]bool{}, levels: map[ident.NodeID]uint64{}, offsets: map[ident.NodeID]time.Duration{}}
	h.w = world{now: noon, wall: noon, term: 1, self: fleettest.Node(0), raftVoters: []ident.NodeID{fleettest.Node(0)}, ringEpoch: 1,
		alive:    func(id ident.NodeID) bool { return !h.dead[id] },
		ownLevel: 1, level: func(id ident.NodeID) (uint64, bool) { l, ok := h.levels[id]; return l, ok },
		offsets: h.offsets}
	h.decide(fleettest.Genesis())
	return h
}

// decide has a batch accepted.
func (h *house) decide(b event.Batch) {
	h.t.Helper()
	v, err := h.state.Check(b, h.w.now)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range v.Events {
		if err := h.state.Apply(e); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *house) leader(drafts ...event.Draft) {
	h.t.Helper()
	h.decide(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: drafts})
}

// robot admits and registers the i-th node.
func (h *house) robot(i int) ident.NodeID {
	h.t.Helper()
	id := fleettest.Node(i)
	h.leader(event.NodeAdmitted{PublicKey: fleettest.Key(i).Public(), Name: "r", By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft())
	h.decide(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
		event.RobotRegistered{Name: "r", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(id)}})
	return id
}

func (h *house) approve(id ident.NodeID) {
	h.t.Helper()
	h.decide(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{event.VoterEligible{Eligible: true}.Draft(id)}})
	h.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterApproved{}.Draft(id)}})
}

// next plans one round and applies the facts among its steps.
func (h *house) next() []step {
	h.t.Helper()
	steps := h.plan.next(h.state, h.w)
	for _, s := range steps {
		if len(s.drafts) > 0 {
			h.leader(s.drafts...)
		}
	}
	return steps
}

func (h *house) later(d time.Duration) { h.w.now, h.w.wall = h.w.now.Add(d), h.w.wall.Add(d) }

func kinds(steps []step) (out []string) {
	for _, s := range steps {
		out = append(out, s.kind.String())
	}
	return out
}

func (h *house) expect(when string, want ...string) []step {
	h.t.Helper()
	steps := h.next()
	if got := kinds(steps); !slices.Equal(got, want) {
		h.t.Fatalf("%s: steps %v, want %v", when, got, want)
	}
	return steps
}

func TestVotersAreAddedOneAtATimeAndOnlyWhenApprovedAndAlive(t *testing.T) {
	h := newHouse(t)
	var ids []ident.NodeID
	for i := 1; i <= 3; i++ {
		ids = append(ids, h.robot(i))
	}
	h.next() // records who is online
	h.expect("nobody is approved")
	for _, id := range ids {
		h.approve(id)
	}
	slices.Sort(ids)
	h.dead[ids[0]] = true
	for _, want := range ids[1:3] {
		steps := h.expect("a place is free", "addVoter")
		if steps[0].node != want {
			t.Fatalf("adds %s, want %s, the first that is alive", steps[0].node, want)
		}
		h.w.raftVoters = append(h.w.raftVoters, want)
		// The fact is recorded in the round after, together with the next step.
		if got := kinds(h.next()); got[0] != "recordVoters" {
			t.Fatalf("after the change: %v, want recordVoters first", got)
		}
	}
	h.dead[ids[0]] = false
	h.expect("three is enough")
}

func TestARevokedVoterIsRemovedButNeverTheLast(t *testing.T) {
	h := newHouse(t)
	id := h.robot(1)
	h.approve(id)
	h.next()
	h.w.raftVoters = append(h.w.raftVoters, id)
	h.next()
	h.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.NodeRevoked{Reason: "stolen"}.Draft(id)}})
	steps := h.expect("after the revocation", "rotateKey", "removeVoter")
	if steps[1].node != id {
		t.Fatalf("removes %s, want %s", steps[1].node, id)
	}
	h.w.ringEpoch, h.w.raftVoters = steps[0].epoch, h.w.raftVoters[:1]
	h.expect("it is out of the configuration", "recordVoters")
	h.expect("all is done")

	// A configuration whose only voter the log does not want stays as it is.
	h.w.raftVoters = []ident.NodeID{id}
	for _, s := range h.plan.next(h.state, h.w) {
		if s.kind == removeVoter {
			t.Fatal("plans to remove the last voter")
		}
	}
}

func TestKeysRotateOnceForEachThatIsGone(t *testing.T) {
	h := newHouse(t)
	for i := 1; i <= 2; i++ {
		id := h.robot(i)
		h.next()
		h.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.NodeRevoked{}.Draft(id)}})
		steps := h.expect("after a revocation", "rotateKey")
		if want := h.w.ringEpoch + 1; steps[0].epoch != want {
			t.Fatalf("epoch %d, want %d, one after the keys that are in use", steps[0].epoch, want)
		}
		h.w.ringEpoch = steps[0].epoch
		h.expect("the keys are new")
	}
}

func TestKeysThatNobodyHasAreMadeAnew(t *testing.T) {
	h := newHouse(t)
	h.leader(event.GossipKeyRotated{Epoch: 2}.Draft()) // whose leader died before it made them
	h.expect("somebody may have them")
	h.later(keyLostAfter - time.Second)
	h.expect("still looking")
	h.later(time.Second)
	if steps := h.expect("nobody has them", "rotateKey"); steps[0].epoch != 3 {
		t.Fatalf("epoch %d, want 3: the lost one is never used", steps[0].epoch)
	}
}

func TestOfflineAfterThirtySecondsAndAtMostOnceInFiveMinutes(t *testing.T) {
	h := newHouse(t)
	id := h.robot(1)
	h.expect("it is heard", "online")
	h.dead[id] = true
	h.later(time.Second)
	h.next()
	h.later(offlineAfter - 2*time.Second)
	h.expect("29 s")
	h.later(time.Second)
	h.expect("30 s", "offline")
	h.dead[id] = false
	h.expect("it is back", "online")
	h.dead[id] = true
	h.later(offlineAfter)
	h.expect("silent again, but the last offline is 30 s ago")
	h.later(offlineEvery)
	h.expect("five minutes later", "offline")
}

func TestANewLeaderListensBeforeItJudges(t *testing.T) {
	h := newHouse(t)
	id := h.robot(1)
	h.next()
	h.dead[id] = true
	h.later(time.Hour)
	h.w.term = 2
	h.expect("the term is new")
	h.later(offlineAfter)
	h.expect("it has listened", "offline")
}

func TestFiveVoteWhereFiveAreApproved(t *testing.T) {
	h := newHouse(t)
	for i := 1; i <= 5; i++ {
		h.approve(h.robot(i))
	}
	for range 20 {
		for _, s := range h.next() {
			if s.kind == addVoter {
				h.w.raftVoters = append(h.w.raftVoters, s.node)
			}
		}
	}
	if n := len(h.w.raftVoters); n != 5 {
		t.Fatalf("%d voters, want 5", n)
	}
}
