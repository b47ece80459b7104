package rescue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// leaderHeard is how fresh a node's word of a leader must be for the fleet to
// have one still.
const leaderHeard = 15 * time.Second

// Plan is what is about to be done, for a person to agree to.
type Plan struct {
	FleetName string       `json:"fleetName"`
	Node      ident.NodeID `json:"node"`
	NodeName  string       `json:"nodeName"`
	// Cursor is where the log ends that the fleet will go on with, before what is
	// fetched.
	Cursor event.Cursor `json:"cursor"`
	// Reached are the members that answered, Unreached those that did not. What
	// those hold and nobody else has is given up.
	Reached   []Peer `json:"reached"`
	Unreached []Peer `json:"unreached"`
	// From is the node from which the log is fetched first, because it has more;
	// its own log is at FromSeq. nil when this node has most.
	From    *Peer  `json:"from,omitempty"`
	FromSeq uint64 `json:"fromSeq,omitempty"`
	// RaftEntries are in this node's Raft log and not applied yet; they will be.
	// RaftTrouble says why that log cannot be read; what it had is given up then.
	RaftEntries int    `json:"raftEntries,omitempty"`
	RaftTrouble string `json:"raftTrouble,omitempty"`
}

// members lists who is to be asked: all members of the state but this node.
// Those without a known address are unreached at once.
func members(s *fleet.State, self ident.NodeID, known []ident.NodeID) (ask, unknown []Peer) {
	for _, n := range s.Nodes() {
		if n.ID == self || !n.Member() {
			continue
		}
		p := Peer{ID: n.ID, Name: n.Name, Voter: n.Voter}
		if slices.Contains(known, n.ID) {
			ask = append(ask, p)
			continue
		}
		p.Why = "no address of it is known here; name one with --peer HOST:PORT if it may be alive"
		unknown = append(unknown, p)
	}
	return ask, unknown
}

// survey asks everybody and fills in the plan. cursor is this node's, or that of
// the backup to restore.
func (p *Plan) survey(ctx context.Context, a *asker, s *fleet.State, cursor event.Cursor) error {
	known, err := a.find(ctx)
	if err != nil {
		return err
	}
	ask, unknown := members(s, p.Node, known)
	a.askAll(ctx, ask, cursor)
	if err := ctx.Err(); err != nil {
		return err
	}
	p.Cursor, p.Reached, p.Unreached = cursor, []Peer{}, append([]Peer{}, unknown...)
	for _, peer := range ask {
		if peer.Standing != nil {
			p.Reached = append(p.Reached, peer)
		} else {
			p.Unreached = append(p.Unreached, peer)
		}
	}
	return nil
}

// refusal says why something must not be done and what to do instead.
func refusal(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// checkAlive refuses while the fleet can decide, or may be able to.
func (p *Plan) checkAlive(recoveries uint64) error {
	for _, peer := range p.Unreached {
		if peer.silent {
			return refusal("%s is there and does not say how far its log is (%s); stop it or upgrade it, then try again", peer.label(), peer.Why)
		}
	}
	for _, peer := range p.Reached {
		s := peer.Standing
		age := time.Duration(s.LeaderAgeMillis) * time.Millisecond
		if s.Recoveries >= recoveries && s.Leader != "" && s.Leader != p.Node && age >= 0 && age < leaderHeard {
			return refusal("%s heard of a leader %.0f s ago, %s: the fleet can decide; start this node, or try again in %.0f s if that leader is gone",
				peer.label(), age.Seconds(), s.Leader.Short(), (leaderHeard-age).Seconds()+1)
		}
	}
	return nil
}

// checkOne refuses when the fleet was recovered elsewhere.
func (p *Plan) checkOne(recoveries uint64) error {
	for _, peer := range p.Reached {
		s := peer.Standing
		switch {
		case s.Recoveries > recoveries:
			return refusal("the fleet was recovered already: %s is at event %d of log %s; run `skein resync` here instead, and start this node",
				peer.label(), s.Cursor.Seq, s.Cursor.History)
		case s.Recoveries == recoveries && s.Cursor.History != "" && s.Cursor.History != p.Cursor.History:
			return refusal("%s was recovered on its own, as log %s, this one is %s; decide which of the two fleets stays, and run `skein resync` on the nodes of the other",
				peer.label(), s.Cursor.History, p.Cursor.History)
		}
	}
	return nil
}

// checkMajority refuses when enough voters are there to elect a leader once
// this node runs too.
func (p *Plan) checkMajority(s *fleet.State) error {
	voters := s.Voters()
	there := 0
	var names []string
	if slices.Contains(voters, p.Node) {
		there++
	}
	for _, peer := range p.Reached {
		if peer.Voter && peer.Standing.Recoveries == s.Recoveries() {
			there++
			names = append(names, peer.label())
		}
	}
	if there > len(voters)/2 && !p.lone(s) {
		return refusal("with this node, %d of %d voters are there (%v), which is a majority: start this node, and they elect a leader", there, len(voters), names)
	}
	return nil
}

// lone: this node is the only voter. When it has lost its Raft log, nobody else
// can help.
func (p *Plan) lone(s *fleet.State) bool { return slices.Equal(s.Voters(), []ident.NodeID{p.Node}) }

// chooseSource finds the node with the highest chain. Everybody's place must be
// on one chain.
func (p *Plan) chooseSource(ctx context.Context, a *asker, r *replica.Replica, recoveries uint64) error {
	var ahead []Peer
	for _, peer := range p.Reached {
		s := peer.Standing
		switch {
		case s.Recoveries < recoveries || s.Cursor.Seq == 0: // of the time before, or new
		case s.Cursor.Seq > p.Cursor.Seq && !s.Held, s.Cursor.Seq <= p.Cursor.Seq && !r.Held(s.Cursor) && s.Cursor.Seq >= r.First()-1:
			return diverged(peer, p.Cursor)
		case s.Cursor.Seq > p.Cursor.Seq:
			ahead = append(ahead, peer)
		}
	}
	if len(ahead) == 0 {
		return nil
	}
	best := slices.MaxFunc(ahead, func(x, y Peer) int { return cmp.Compare(x.Standing.Cursor.Seq, y.Standing.Cursor.Seq) })
	for _, peer := range ahead {
		if peer.ID == best.ID {
			continue
		}
		s, err := a.ask(ctx, best.ID, Question{Cursor: peer.Standing.Cursor}, nil)
		if err != nil {
			return fmt.Errorf("ask %s again: %w; try again", best.label(), err)
		}
		if !s.Held {
			return diverged(peer, best.Standing.Cursor)
		}
	}
	p.From, p.FromSeq = &best, best.Standing.Cursor.Seq
	return nil
}

func diverged(peer Peer, from event.Cursor) error {
	return refusal("the log of %s, at event %d, does not fit the one that ends with event %d: one of the two is not what the fleet decided; stop the node whose copy is wrong and run `skein resync` on it",
		peer.label(), peer.Standing.Cursor.Seq, from.Seq)
}

// lookUp gives the state's facts about this node and the person who acts.
func (p *Plan) lookUp(s *fleet.State) error {
	f, ok := s.Fleet()
	if !ok {
		return refusal("this node has no copy of the fleet's log; run it on a node that has one, or `skein restore` a backup")
	}
	n, ok := s.Node(p.Node)
	if !ok || !n.Member() {
		return refusal("node %s is no member of fleet %s as this log has it; run it on one that is", p.Node, f.Name)
	}
	p.FleetName, p.NodeName = f.Name, n.Name
	return nil
}

// Person is who acts, with the proof of it.
type Person struct {
	Name string
	Key  ident.Key
}

// may checks that the person is an admin of the fleet, by key.
func (w Person) may(s *fleet.State) error {
	person, ok := s.Person(w.Name)
	switch {
	case !ok:
		return fmt.Errorf("%w: the fleet has no person %q; use the identity file of one of its admins", ErrNotAllowed, w.Name)
	case !w.Key.Public().Equal(person.PublicKey):
		return fmt.Errorf("%w: the key in the identity file is not that of %q; use the right identity file", ErrNotAllowed, w.Name)
	case !slices.Contains(person.Scopes, event.ScopeAdmin):
		return fmt.Errorf("%w: %q is no admin; use the identity file of one", ErrNotAllowed, w.Name)
	}
	return nil
}

// reason is what the log says about who did what, and why.
func reason(what string, by *Person, why string) string {
	text := what
	if by != nil {
		text += " by " + by.Name
	}
	if why != "" {
		text += ": " + why
	}
	return text
}

// checkReason refuses what the event could not carry, before anything is done.
func checkReason(text string) error {
	draft := event.LogRecovered{History: "h", Seq: 1, Hash: history.Hash{}.String(), Reason: text}.Draft()
	err := event.Validate(draft)
	if fault, ok := event.FaultOf(err); ok {
		return fmt.Errorf("%w: the reason %s; give one line of up to 200 letters", ErrBadOption, fault.Message)
	}
	return err
}
