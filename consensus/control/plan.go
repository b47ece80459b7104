package control

import (
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
	raiseCeiling
	removeVoter
	addVoter
	replaceVoter
	rotateKey
	sealLog
	handOver
	online
	silent
)

func (k kind) String() string {
	return [...]string{"recordVoters", "raiseCeiling", "removeVoter", "addVoter", "replaceVoter", "rotateKey", "sealLog", "handOver",
		"online", "offline"}[k]
}

// step is one thing to do, small enough to be tried again.
type step struct {
	kind kind
	node ident.NodeID
	// gone is the voter whose place node takes.
	gone   ident.NodeID
	epoch  uint64
	drafts []event.Draft
	// at is the place of the log to seal.
	at event.Cursor
	// ceiling is what a voter's build must know.
	ceiling uint64
}

// world is what the planner cannot read from the replicated state.
type world struct {
	// now is for measuring how long something lasts; wall is the clock that
	// entries are stamped with, to compare with times in the log.
	now, wall  time.Time
	term       uint64
	self       ident.NodeID
	raftVoters []ident.NodeID
	// learners are in Raft's configuration without a vote.
	learners []ident.NodeID
	alive    func(ident.NodeID) bool
	// level is the newest level of event types that a node knows, if it has told,
	// and ownLevel this build's.
	level    func(ident.NodeID) (uint64, bool)
	ownLevel uint64
	// offsets are the voters' wall clocks minus this node's, of those compared.
	offsets map[ident.NodeID]time.Duration
	// ringEpoch is that of the gossip keys this node holds.
	ringEpoch uint64
	// replaceAfter is how long a voter may be silent; 0 is for ever.
	replaceAfter time.Duration
	// at is the cursor of the state.
	at event.Cursor
}

// planner decides. It is pure but for its timers, which it keeps between rounds
// of one term.
type planner struct {
	term uint64
	// lastHeard is when each robot and voter was last alive, by the leader's clock.
	lastHeard map[ident.NodeID]time.Time
	// keyMissing is since when the keys of the decided epoch are looked for.
	keyMissing time.Time
	// sealed is up to where the log was sealed when unsealed was set: since then
	// there are events that no seal covers.
	sealed   uint64
	unsealed time.Time
	// handedOver is when this node last tried to hand over.
	handedOver time.Time
	// failed is when a node last could not be made a voter.
	failed map[ident.NodeID]time.Time
}

// next lists the steps that are due, most urgent first. At most one changes
// the Raft configuration or the leader, because such changes are safe only one
// at a time.
func (p *planner) next(s *fleet.State, w world) []step {
	if p.term != w.term || p.lastHeard == nil {
		*p = planner{term: w.term, lastHeard: map[ident.NodeID]time.Time{}, failed: map[ident.NodeID]time.Time{}}
	}
	p.listen(s, w)
	var steps []step
	if drafts := voterFacts(s, w); len(drafts) > 0 {
		steps = append(steps, step{kind: recordVoters, drafts: drafts})
	}
	if level, due := ceiling(s, w); due {
		steps = append(steps, step{kind: raiseCeiling, drafts: []event.Draft{event.CeilingRaised{Level: level}.Draft()}})
	}
	if p.rotationDue(s, w) {
		epoch := max(s.GossipEpoch(), w.ringEpoch) + 1
		steps = append(steps, step{kind: rotateKey, epoch: epoch, drafts: []event.Draft{event.GossipKeyRotated{Epoch: epoch}.Draft()}})
	}
	steps = append(steps, p.presence(s, w)...)
	if p.sealDue(s, w) {
		steps = append(steps, step{kind: sealLog, at: w.at})
	}
	if to, due := p.handOver(w); due {
		return append(steps, step{kind: handOver, node: to})
	}
	if id, due := stray(s, w); due {
		return append(steps, step{kind: removeVoter, node: id})
	}
	if change, due := p.reshape(s, w); due {
		change.ceiling = s.Ceiling()
		steps = append(steps, change)
	}
	return steps
}

// listen notes who is alive. Who is met for the first time in this term counts as
// just heard: this leader has not listened before.
func (p *planner) listen(s *fleet.State, w world) {
	hear := func(id ident.NodeID) {
		if _, known := p.lastHeard[id]; !known || w.alive(id) {
			p.lastHeard[id] = w.now
		}
	}
	for _, r := range s.Robots() {
		hear(r.ID)
	}
	for _, id := range w.raftVoters {
		hear(id)
	}
}

// quiet is how long a robot or voter has been silent.
func (p *planner) quiet(id ident.NodeID, w world) time.Duration { return w.now.Sub(p.lastHeard[id]) }

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
			if !r.Online && len(back) < event.MaxDrafts {
				back = append(back, event.RobotOnline{}.Draft(r.ID))
			}
			continue
		}
		quiet := p.quiet(r.ID, w)
		if r.Online && quiet >= offlineAfter && w.wall.Sub(r.OfflineAt) >= offlineEvery {
			steps = append(steps, step{kind: silent, node: r.ID, drafts: []event.Draft{
				event.RobotOffline{LastHeardSeconds: uint64(quiet.Seconds())}.Draft(r.ID)}})
		}
	}
	if len(back) > 0 {
		steps = append([]step{{kind: online, drafts: back}}, steps...)
	}
	return steps
}

// heard notes that somebody whom gossip had lost did answer. Before the first plan
// there is nothing to note it in, nor a need.
func (p *planner) heard(id ident.NodeID, now time.Time) {
	if p.lastHeard != nil {
		p.lastHeard[id] = now
	}
}
