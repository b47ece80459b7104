// Package fleettest makes random but plausible runs of batches for tests of
// what is built on consensus/fleet. About half of the batches are accepted; the
// rest breaks a rule. Only tests import it.
package fleettest

import (
	"crypto/sha256"
	"encoding/hex"
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
	// level is of the newest types that it uses.
	level uint64
	// keys are those of Key, which is slow, as far as they were needed.
	keys   map[int]ident.Key
	ids    [nodes]ident.NodeID
	hashes [tokens]string // of the tokens
	// nextN numbers the proposals of every node.
	nextN map[ident.NodeID]uint64
	// sent are earlier batches, to be repeated now and then.
	sent []event.Batch
	// step counts those of career.
	step int
	// seq and history are where the log is, as far as At said.
	seq     uint64
	history string
}

// New starts a run. Equal choices make equal runs. Its first batch is Raise, and
// then every type of this build comes.
func New(choose Choose) *Run {
	r := NewLevel1(choose)
	r.level = event.Level
	return r
}

// NewLevel1 starts a run of a fleet whose ceiling is not raised and that uses
// nothing newer.
func NewLevel1(choose Choose) *Run {
	r := &Run{choose: choose, level: 1, keys: map[int]ident.Key{}, nextN: map[ident.NodeID]uint64{}, history: "h1"}
	for i := range r.ids {
		r.ids[i] = r.key(i).ID()
	}
	for i := range r.hashes {
		r.hashes[i] = Token(i)
	}
	return r
}

func (r *Run) key(i int) ident.Key {
	key, ok := r.keys[i]
	if !ok {
		key = Key(i)
		r.keys[i] = key
	}
	return key
}

// At says where the log is before the next batch. Who never calls it gets no
// recovery that is accepted, and fewer seals.
func (r *Run) At(seq uint64, history string) { r.seq, r.history = seq, history }

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

// Raise is the batch that lets the fleet of Genesis use every type of this build.
func Raise() event.Batch {
	return event.Batch{Actor: Leader(Node(0)), Drafts: []event.Draft{event.CeilingRaised{Level: max(event.Level, 2)}.Draft()}}
}

// Recovery is the batch that goes on alone on a node, where the log is after
// event seq.
func Recovery(id ident.NodeID, seq uint64, history string) event.Batch {
	return event.Batch{Actor: event.Actor{Kind: event.KindRecovery, ID: string(id)}, Drafts: []event.Draft{
		event.LogRecovered{History: history, Seq: seq, Hash: hash(seq), Reason: "the others burnt"}.Draft()}}
}

// hash stands for the chain's after event seq.
func hash(seq uint64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "after %d", seq))
	return hex.EncodeToString(sum[:])
}

// Next is the next batch of the run.
func (r *Run) Next() event.Batch {
	if r.level > 1 && len(r.sent) == 0 {
		r.sent = append(r.sent, Raise())
		return r.sent[0]
	}
	if len(r.sent) > 0 && r.choose(12) == 0 {
		return r.sent[r.choose(len(r.sent))]
	}
	if r.level > 1 && r.choose(150) == 0 {
		return Recovery(r.node(), r.seq, fmt.Sprint("h", r.choose(9)))
	}
	id := r.ids[r.choose(nodes)]
	actor, make := r.someone(id)
	r.nextN[id]++
	n := r.nextN[id]
	b := event.Batch{Producer: event.Producer{Node: id, Boot: 1 + n/40, N: n}, Actor: actor}
	for range []int{1, 1, 2, 3}[r.choose(4)] {
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
	if r.level > 1 && r.choose(3) == 0 {
		return r.someoneNew(id)
	}
	switch r.choose(4) {
	case 0:
		return Itself(id), func() event.Draft { return r.byNode(id) }
	case 1:
		return Leader(r.ids[0]), r.byLeader
	}
	name := []string{"ada", "ada", "bob"}[r.choose(3)]
	return Admin(name), r.byPerson
}

func (r *Run) node() ident.NodeID { return r.ids[r.choose(nodes)] }

// voter is one of the few that anybody cares to make a voter.
func (r *Run) voter() ident.NodeID { return r.ids[r.choose(3)] }

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
		return event.RobotOnline{}.Draft(r.ids[id])
	case 1:
		return event.RobotOffline{LastHeardSeconds: uint64(30 + r.choose(60))}.Draft(r.ids[id])
	case 2:
		return event.VoterAdded{}.Draft(r.voter())
	case 3:
		return event.VoterRemoved{}.Draft(r.voter())
	case 4:
		return event.GossipKeyRotated{Epoch: uint64(1 + r.choose(20))}.Draft()
	}
	admitted := event.NodeAdmitted{PublicKey: r.key(id).Public(), Name: r.name(), By: event.ByEnrolment, Ref: string(r.key(100).ID())}
	if r.choose(2) == 0 {
		admitted.By, admitted.Ref = event.ByToken, r.hashes[r.choose(tokens)]
	}
	return admitted.Draft()
}

func (r *Run) byPerson() event.Draft {
	group := []string{"kitchen", "hall"}[r.choose(2)]
	switch r.choose(12) {
	case 0:
		return event.TokenCreated{TTLSeconds: uint64(1 + r.choose(600))}.Draft(r.hashes[r.choose(tokens)])
	case 1:
		return event.PersonAdded{PublicKey: r.key(51).Public(), Scopes: []string{event.ScopeOperator, event.ScopeAdmin}}.Draft("bob")
	case 2:
		if r.choose(3) == 0 {
			return event.PersonRemoved{}.Draft("bob")
		}
		return event.VoterApproved{}.Draft(r.voter())
	case 3:
		if r.choose(30) == 0 {
			return event.NodeRevoked{Reason: "lost"}.Draft(r.node())
		}
		return event.VoterWithdrawn{}.Draft(r.voter())
	case 4:
		return event.EnrolmentAdded{PublicKey: r.key(100 + r.choose(enrolments)).Public()}.Draft()
	case 5:
		return event.EnrolmentRevoked{Reason: "leaked"}.Draft(r.key(101 + r.choose(enrolments)).ID())
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

func (r *Run) someoneNew(id ident.NodeID) (event.Actor, func() event.Draft) {
	switch r.choose(3) {
	case 0:
		return Itself(id), func() event.Draft { return r.newByNode(id) }
	case 1:
		return Leader(r.ids[0]), r.newByLeader
	}
	return Admin("ada"), func() event.Draft {
		if r.choose(2) == 0 {
			return r.career()
		}
		return r.life(r.ids[r.choose(2)])
	}
}

// career is the next step of a life in which the robot gets around: chance alone
// seldom gets it to work. What is refused is skipped.
func (r *Run) career() event.Draft {
	id := r.ids[0]
	steps := [...]event.Draft{
		event.RobotProvisioned{}.Draft(id), event.RobotProvisioned{Version: "2.0"}.Draft(id),
		event.RobotActivated{}.Draft(id), event.RobotFailed{Message: "stuck", Kind: event.FailedSoftware}.Draft(id),
		event.RobotRecovered{}.Draft(id), event.RobotActivated{}.Draft(id), event.RobotDeactivated{}.Draft(id),
		event.RobotMaintenanceStarted{}.Draft(id), event.RobotMaintenanceEnded{}.Draft(id), event.RobotActivated{}.Draft(id),
		event.RobotFailed{Message: "stuck", Kind: event.FailedSoftware}.Draft(id), event.RobotFailed{Message: "stuck", Kind: event.FailedSoftware}.Draft(id),
		event.RobotFailed{Message: "stuck", Kind: event.FailedSoftware}.Draft(id), event.RobotRecovered{}.Draft(id),
	}
	r.step++
	return steps[r.step%len(steps)]
}

// newByNode and newByLeader are of types of level 2.
func (r *Run) newByNode(id ident.NodeID) event.Draft {
	switch r.choose(4) {
	case 0:
		return event.RobotRegistered{Name: r.name(), Type: event.LeKiwi, Version: "0.2", Arch: "arm64", OS: "linux", Hostname: "pi"}.Draft(id)
	case 1:
		return r.life(id)
	}
	return r.deployment(id)
}

func (r *Run) newByLeader() event.Draft {
	switch r.choose(6) {
	case 0:
		return event.CeilingRaised{Level: max(event.Level, 2)}.Draft()
	case 1, 2:
		seq := 1 + uint64(r.choose(int(max(r.seq, 10))))
		return event.Seal(r.key(0), r.history, seq, hash(seq)).Draft()
	case 3:
		return r.life(r.node())
	}
	return r.deployment(r.node())
}

// life is a step of a robot's life.
func (r *Run) life(id ident.NodeID) event.Draft {
	switch r.choose(16) {
	case 0, 1, 2:
		return event.RobotProvisioned{Version: "2.0", Capabilities: []string{"arm"}}.Draft(id)
	case 3:
		return event.RobotProvisioned{Firmware: "f7"}.Draft(id)
	case 4, 5, 6:
		return event.RobotActivated{Reason: "the shift begins"}.Draft(id)
	case 7, 8, 9:
		return event.RobotDeactivated{}.Draft(id)
	case 10, 11, 12:
		return event.RobotFailed{Message: "motor is hot", Code: "E17", Kind: event.FailedHardware}.Draft(id)
	case 13:
		return event.RobotRecovered{}.Draft(id)
	case 14:
		if r.choose(4) == 0 {
			return event.RobotRetired{Reason: "sold"}.Draft(id)
		}
		return event.RobotMaintenanceStarted{}.Draft(id)
	}
	return event.RobotMaintenanceEnded{}.Draft(id)
}

// deployment is a step of one of two deployments.
func (r *Run) deployment(id ident.NodeID) event.Draft {
	name := []string{"d1", "d2"}[r.choose(2)]
	switch r.choose(5) {
	case 0:
		return event.RobotDeploymentStarted{Deployment: name, Version: "2.1", Kind: event.DeployFull}.Draft(id)
	case 1:
		return event.RobotDeploymentCompleted{Deployment: name, Version: "2.1", DurationSeconds: 40, Files: 7}.Draft(id)
	case 2:
		return event.RobotDeploymentFailed{Deployment: name, Version: "2.1", Message: "disk full"}.Draft(id)
	}
	return event.RobotDeploymentStarted{Deployment: name, Version: "2.1", Kind: event.DeployRollback}.Draft(id)
}
