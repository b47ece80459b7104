// Package fleettest makes random but plausible runs of batches for tests of
// what is built on consensus/fleet. About half of the batches are accepted; the
// rest breaks a rule. Only tests import it.
package fleettest

import (
	"crypto/sha256"
	"fmt"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// Choose picks a number from 0 to n-1.
type Choose func(n int) int

// Run makes the batches of one run. The world is small on purpose, so that
// batches meet: a handful of nodes, persons, tokens and groups.
type Run struct {
	choose Choose
	// nextN numbers the proposals of every node.
	nextN map[ident.NodeID]uint64
	// sent are earlier batches, to be repeated now and then.
	sent []event.Batch
}

// New starts a run. Equal choices make equal runs.
func New(choose Choose) *Run { return &Run{choose: choose, nextN: map[ident.NodeID]uint64{}} }

const (
	nodes      = 6
	tokens     = 4
	enrolments = 3
)

// Key is the i-th key of this package's world.
func Key(i int) ident.Key {
	seed := sha256.Sum256(fmt.Appendf(nil, "fleettest %d", i))
	key, err := ident.KeyFromSeed(seed[:])
	if err != nil {
		panic(err)
	}
	return key
}

// Node is the id of the i-th key.
func Node(i int) ident.NodeID { return Key(i).ID() }

// Token is the hash of the i-th join token.
func Token(i int) string {
	return ident.JoinToken{Root: Key(0).Public(), Secret: fmt.Appendf(nil, "secret %d", i)}.Hash()
}

// Admin is a person's actor with every scope.
func Admin(name string) event.Actor {
	return event.Actor{Kind: event.KindPerson, ID: name, Scopes: []string{event.ScopeAdmin, event.ScopeOperator, event.ScopeViewer}}
}

// Itself is a node's own actor, and Leader that of the controllers on it.
func Itself(id ident.NodeID) event.Actor { return event.Actor{Kind: event.KindNode, ID: string(id)} }

// Leader is the actor of the controllers that run on a node.
func Leader(id ident.NodeID) event.Actor { return event.Actor{Kind: event.KindLeader, ID: string(id)} }

// Genesis is the batch that founds a fleet whose founder is Node(0), with the
// admin "ada" and the enrolment key Key(100).
func Genesis() event.Batch {
	founder := Key(0)
	return event.Batch{
		Actor: event.Actor{Kind: event.KindGenesis, ID: string(founder.ID())},
		Drafts: []event.Draft{
			event.FleetCreated{Name: "test fleet", Root: Key(99).Public(), History: "h1"}.Draft(),
			event.PersonAdded{PublicKey: Key(50).Public(), Scopes: []string{event.ScopeAdmin}}.Draft("ada"),
			event.EnrolmentAdded{PublicKey: Key(100).Public()}.Draft(),
			event.NodeAdmitted{PublicKey: founder.Public(), Name: "founder", By: event.ByGenesis}.Draft(),
			event.VoterEligible{Eligible: true}.Draft(founder.ID()),
			event.VoterApproved{}.Draft(founder.ID()),
			event.VoterAdded{}.Draft(founder.ID()),
		},
	}
}

// Next is the next batch of the run.
func (r *Run) Next() event.Batch {
	if len(r.sent) > 0 && r.choose(12) == 0 {
		return r.sent[r.choose(len(r.sent))]
	}
	id := Node(r.choose(nodes))
	actor, make := r.someone(id)
	r.nextN[id]++
	n := r.nextN[id]
	b := event.Batch{Producer: event.Producer{Node: id, Boot: 1 + n/40, N: n}, Actor: actor}
	for range 1 + r.choose(3) {
		d := make()
		switch r.choose(20) {
		case 0:
			d = d.At(uint64(r.choose(4)))
		case 1:
			d.Cause = "because <of> \"this\""
		}
		b.Drafts = append(b.Drafts, d)
	}
	r.sent = append(r.sent, b)
	return b
}

// someone chooses an actor and what it usually does.
func (r *Run) someone(id ident.NodeID) (event.Actor, func() event.Draft) {
	switch r.choose(4) {
	case 0:
		return Itself(id), func() event.Draft { return r.byNode(id) }
	case 1:
		return Leader(Node(0)), r.byLeader
	}
	name := []string{"ada", "ada", "bob"}[r.choose(3)]
	return Admin(name), r.byPerson
}

func (r *Run) node() ident.NodeID { return Node(r.choose(nodes)) }

func (r *Run) name() string { return []string{"goose", "gander", "Küken 3"}[r.choose(3)] }

func (r *Run) byNode(id ident.NodeID) event.Draft {
	switch r.choose(6) {
	case 0:
		return event.VoterEligible{Eligible: r.choose(3) > 0}.Draft(id)
	case 1:
		if r.choose(4) == 0 {
			return event.NodeLeft{}.Draft(id)
		}
		return event.RobotConfigChanged{Name: r.name(), Type: event.XLeRobot}.Draft(id)
	}
	return event.RobotRegistered{Name: r.name(), Type: event.LeKiwi, Version: "0.1", Arch: "arm64", OS: "linux"}.Draft(id)
}

func (r *Run) byLeader() event.Draft {
	id := r.choose(nodes)
	switch r.choose(7) {
	case 0:
		return event.RobotOnline{}.Draft(Node(id))
	case 1:
		return event.RobotOffline{LastHeardSeconds: uint64(30 + r.choose(60))}.Draft(Node(id))
	case 2:
		return event.VoterAdded{}.Draft(Node(id))
	case 3:
		return event.VoterRemoved{}.Draft(Node(id))
	case 4:
		return event.GossipKeyRotated{Epoch: uint64(1 + r.choose(20))}.Draft()
	}
	admitted := event.NodeAdmitted{PublicKey: Key(id).Public(), Name: r.name(), By: event.ByEnrolment, Ref: string(Node(100))}
	if r.choose(2) == 0 {
		admitted.By, admitted.Ref = event.ByToken, Token(r.choose(tokens))
	}
	return admitted.Draft()
}

func (r *Run) byPerson() event.Draft {
	group := []string{"kitchen", "hall"}[r.choose(2)]
	switch r.choose(12) {
	case 0:
		return event.TokenCreated{TTLSeconds: uint64(1 + r.choose(600))}.Draft(Token(r.choose(tokens)))
	case 1:
		return event.PersonAdded{PublicKey: Key(51).Public(), Scopes: []string{event.ScopeOperator, event.ScopeAdmin}}.Draft("bob")
	case 2:
		if r.choose(3) == 0 {
			return event.PersonRemoved{}.Draft("bob")
		}
		return event.VoterApproved{}.Draft(r.node())
	case 3:
		if r.choose(30) == 0 {
			return event.NodeRevoked{Reason: "lost"}.Draft(r.node())
		}
		return event.VoterWithdrawn{}.Draft(r.node())
	case 4:
		return event.EnrolmentAdded{PublicKey: Key(100 + r.choose(enrolments)).Public()}.Draft()
	case 5:
		return event.EnrolmentRevoked{Reason: "leaked"}.Draft(Node(101 + r.choose(enrolments)))
	case 6:
		return event.GroupCreated{Description: "where it is"}.Draft(group)
	case 7:
		if r.choose(3) == 0 {
			return event.GroupDeleted{}.Draft(group)
		}
		return event.GroupRobotRemoved{Robot: r.node()}.Draft(group)
	case 8, 9:
		return event.GroupRobotAdded{Robot: r.node()}.Draft(group)
	case 10:
		return event.RobotConfigChanged{Name: r.name()}.Draft(r.node())
	}
	return r.labels()
}

func (r *Run) labels() event.Draft {
	c := event.RobotLabelsChanged{Set: map[string]string{"floor": fmt.Sprint(r.choose(3)), "b/" + fmt.Sprint(r.choose(9)): "é"}}
	if r.choose(2) == 0 {
		c.Remove = []string{"b/" + fmt.Sprint(9+r.choose(2))}
	}
	return c.Draft(r.node())
}
