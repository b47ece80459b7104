package fleet

import (
	"slices"
	"strings"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// This file and its like hold, for every event type, when it is allowed and
// what it changes. The two are apart because an event of the log is applied
// whether today's rules would allow it or not.

// allowed says why e may not happen now.
func (tx *Tx) allowed(e *event.Event, payload event.Payload) *event.Fault {
	switch p := payload.(type) {
	case *event.FleetCreated:
		return tx.mayCreateFleet(e)
	case *event.GossipKeyRotated:
		return tx.mayRotateGossipKey(p)
	case *event.PersonAdded:
		return tx.mayAddPerson(e)
	case *event.PersonRemoved:
		return tx.mayRemovePerson(e)
	case *event.EnrolmentAdded:
		return tx.mayAddEnrolment(e)
	case *event.EnrolmentRevoked:
		return tx.mayRevokeEnrolment(e)
	case *event.TokenCreated:
		return tx.mayCreateToken(e)
	case *event.NodeAdmitted:
		return tx.mayAdmit(e, p)
	case *event.NodeRevoked:
		return tx.mayRevokeNode(e)
	case *event.NodeLeft:
		return tx.mayLeave(e)
	case *event.VoterEligible:
		return tx.mayBeEligible(e, p)
	case *event.VoterApproved:
		return tx.mayApproveVoter(e)
	case *event.VoterWithdrawn:
		return tx.mayWithdrawVoter(e)
	case *event.VoterAdded:
		return tx.mayAddVoter(e)
	case *event.VoterRemoved:
		return tx.mayRemoveVoter(e)
	case *event.CeilingRaised:
		return tx.mayRaiseCeiling(p)
	case *event.LogSealed:
		return tx.maySeal(e, p)
	case *event.LogRecovered:
		return tx.mayRecover(e, p)
	}
	return tx.allowedOfRobot(e, payload)
}

func (tx *Tx) allowedOfRobot(e *event.Event, payload event.Payload) *event.Fault {
	switch p := payload.(type) {
	case *event.RobotRegistered:
		return tx.mayRegister(e)
	case *event.RobotOnline:
		return tx.mayTurn(e, true)
	case *event.RobotOffline:
		return tx.mayTurn(e, false)
	case *event.RobotConfigChanged:
		return tx.mayConfigure(e, p)
	case *event.RobotLabelsChanged:
		return tx.mayLabel(e, p)
	case *event.GroupCreated:
		return tx.mayCreateGroup(e)
	case *event.GroupDeleted:
		return tx.mayDeleteGroup(e)
	case *event.GroupRobotAdded:
		return tx.mayAddToGroup(e, p)
	case *event.GroupRobotRemoved:
		return tx.mayRemoveFromGroup(e, p)
	case *event.RobotDeploymentStarted:
		return tx.mayDeploy(e, p)
	case *event.RobotDeploymentCompleted:
		return tx.mayEndDeployment(e, p.Deployment, p.Version)
	case *event.RobotDeploymentFailed:
		return tx.mayEndDeployment(e, p.Deployment, p.Version)
	case *event.RobotProvisioned, *event.RobotActivated, *event.RobotDeactivated, *event.RobotMaintenanceStarted,
		*event.RobotMaintenanceEnded, *event.RobotFailed, *event.RobotRecovered, *event.RobotRetired:
		return tx.mayLive(e, payload)
	}
	return unknown(e)
}

// change stages what e changes. A fault means that e cannot come after the
// events before it.
func (tx *Tx) change(e *event.Event, payload event.Payload) *event.Fault {
	if e.Seq == 1 != (e.Type == event.TypeFleetCreated) {
		return event.Refuse(event.CodeConflict, "", "start with `skein fleet init`", "the first event of a log, and only that, is %s", event.TypeFleetCreated)
	}
	if fault := tx.changeSubject(e, payload); fault != nil {
		return fault
	}
	tx.versions.put(e.Stream, e.Version)
	tx.seq = e.Seq
	return nil
}

func (tx *Tx) changeSubject(e *event.Event, payload event.Payload) *event.Fault {
	switch p := payload.(type) {
	case *event.FleetCreated:
		tx.fleet = &Fleet{Name: p.Name, Root: p.Root, History: p.History, CreatedAt: e.Time}
	case *event.GossipKeyRotated:
		f := *tx.fleet
		f.GossipEpoch, f.GossipExposed = p.Epoch, false
		tx.fleet = &f
	case *event.PersonAdded:
		name := strings.Clone(event.Subject(e.Stream))
		tx.persons.put(name, &Person{Name: name, PublicKey: p.PublicKey, Scopes: slices.Sorted(slices.Values(p.Scopes))})
	case *event.PersonRemoved:
		tx.persons.remove(event.Subject(e.Stream))
	case *event.EnrolmentAdded:
		id := own(nodeOf(e))
		tx.enrolments.put(id, &Enrolment{ID: id, PublicKey: p.PublicKey})
	case *event.EnrolmentRevoked:
		return edit(&tx.enrolments, nodeOf(e), func(k *Enrolment) { k.Revoked = true })
	case *event.TokenCreated:
		tx.createToken(e, p)
	case *event.NodeAdmitted:
		return tx.admit(e, p)
	case *event.NodeRevoked:
		return tx.endMembership(e, func(n *Node) { n.Revoked = true })
	case *event.NodeLeft:
		return tx.endMembership(e, func(n *Node) { n.Left = true })
	case *event.VoterEligible:
		return edit(&tx.nodes, nodeOf(e), func(n *Node) {
			n.VoterEligible = p.Eligible
			n.VoterApproved = n.VoterApproved && p.Eligible
		})
	case *event.VoterApproved:
		return edit(&tx.nodes, nodeOf(e), func(n *Node) { n.VoterApproved = true })
	case *event.VoterWithdrawn:
		return edit(&tx.nodes, nodeOf(e), func(n *Node) { n.VoterApproved = false })
	case *event.VoterAdded:
		return edit(&tx.nodes, nodeOf(e), func(n *Node) { n.Voter = true })
	case *event.VoterRemoved:
		return edit(&tx.nodes, nodeOf(e), func(n *Node) { n.Voter = false })
	case *event.CeilingRaised:
		f := *tx.fleet
		f.Ceiling = max(f.Ceiling, p.Level)
		tx.fleet = &f
	case *event.LogSealed:
		tx.seal(e, p)
	case *event.LogRecovered:
		return tx.recover(e, p)
	default:
		return tx.changeRobots(e, payload)
	}
	return nil
}

func (tx *Tx) changeRobots(e *event.Event, payload event.Payload) *event.Fault {
	switch p := payload.(type) {
	case *event.RobotRegistered:
		tx.register(e, p)
		return nil
	case *event.RobotOnline:
		return tx.turn(e, true)
	case *event.RobotOffline:
		return tx.turn(e, false)
	case *event.RobotConfigChanged:
		return tx.configure(e, p)
	case *event.RobotLabelsChanged:
		return edit(&tx.robots, nodeOf(e), func(r *robot) { r.Labels = relabel(r.Labels, p) })
	case *event.GroupCreated:
		name := strings.Clone(event.Subject(e.Stream))
		tx.groups.put(name, &Group{Name: name, Description: p.Description, CreatedAt: e.Time})
		return nil
	case *event.GroupDeleted:
		return tx.deleteGroup(e)
	case *event.GroupRobotAdded:
		return tx.regroup(e, p.Robot, true)
	case *event.GroupRobotRemoved:
		return tx.regroup(e, p.Robot, false)
	case *event.RobotDeploymentStarted:
		return tx.deploy(e, p.Deployment, p.Version, DeploymentRunning)
	case *event.RobotDeploymentCompleted:
		return tx.deploy(e, p.Deployment, p.Version, DeploymentCompleted)
	case *event.RobotDeploymentFailed:
		return tx.deploy(e, p.Deployment, p.Version, DeploymentFailed)
	case *event.RobotProvisioned, *event.RobotActivated, *event.RobotDeactivated, *event.RobotMaintenanceStarted,
		*event.RobotMaintenanceEnded, *event.RobotFailed, *event.RobotRecovered, *event.RobotRetired:
		return tx.live(e, payload)
	}
	return unknown(e)
}

func unknown(e *event.Event) *event.Fault {
	return event.Refuse(event.CodeUnknownType, "", "upgrade skein on this node", "%s has no rules in this build", e.Type)
}

// edit replaces the value at k by a changed copy. The key stays the value's own:
// k may be a part of something large.
func edit[K comparable, V any, P interface {
	*V
	key() K
}](t *staged[K, P], k K, f func(P)) *event.Fault {
	old := t.get(k)
	if old == nil {
		return event.Refuse(event.CodeNotFound, "", "", "%v does not exist", k)
	}
	v := *old
	f(&v)
	t.put(old.key(), &v)
	return nil
}

func (n *Node) key() ident.NodeID      { return n.ID }
func (k *Enrolment) key() ident.NodeID { return k.ID }
func (t *Token) key() string           { return t.Hash }
func (g *Group) key() string           { return g.Name }

func conflict(next, format string, args ...any) *event.Fault {
	return event.Refuse(event.CodeConflict, "", next, format, args...)
}

func noChange(format string, args ...any) *event.Fault {
	return event.Refuse(event.CodeConflict, event.ReasonNoChange, "nothing needs to be done", format, args...)
}

func full(what string, most int) *event.Fault {
	return event.Refuse(event.CodeConflict, "", "remove some that are not needed", "there are %d %s already, the most a fleet may have", most, what)
}
