package fleet

import (
	"slices"

	"skein/consensus/event"
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
		name := event.Subject(e.Stream)
		tx.persons.put(name, &Person{Name: name, PublicKey: p.PublicKey, Scopes: slices.Sorted(slices.Values(p.Scopes))})
	case *event.PersonRemoved:
		tx.persons.remove(event.Subject(e.Stream))
	case *event.EnrolmentAdded:
		id := nodeOf(e)
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
		return edit(&tx.robots, nodeOf(e), func(r *Robot) { r.Labels = relabel(r.Labels, p) })
	case *event.GroupCreated:
		name := event.Subject(e.Stream)
		tx.groups.put(name, &Group{Name: name, Description: p.Description, CreatedAt: e.Time})
		return nil
	case *event.GroupDeleted:
		return tx.deleteGroup(e)
	case *event.GroupRobotAdded:
		return tx.regroup(e, p.Robot, true)
	case *event.GroupRobotRemoved:
		return tx.regroup(e, p.Robot, false)
	}
	return unknown(e)
}

func unknown(e *event.Event) *event.Fault {
	return event.Refuse(event.CodeUnknownType, "", "upgrade skein on this node", "%s has no rules in this build", e.Type)
}

// edit replaces the value at k by a changed copy.
func edit[K comparable, V any](t *staged[K, *V], k K, f func(*V)) *event.Fault {
	old := t.get(k)
	if old == nil {
		return event.Refuse(event.CodeNotFound, "", "", "%v does not exist", k)
	}
	v := *old
	f(&v)
	t.put(k, &v)
	return nil
}

func conflict(next, format string, args ...any) *event.Fault {
	return event.Refuse(event.CodeConflict, "", next, format, args...)
}

func noChange(format string, args ...any) *event.Fault {
	return event.Refuse(event.CodeConflict, event.ReasonNoChange, "nothing needs to be done", format, args...)
}

func full(what string, most int) *event.Fault {
	return event.Refuse(event.CodeConflict, "", "remove some that are not needed", "there are %d %s already, the most a fleet may have", most, what)
}
