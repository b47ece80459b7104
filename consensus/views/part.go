package views

import (
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/mesh/ident"
)

// unhealthyAfter is after how many failures in a row a robot is called
// unhealthy, whatever its stage: what operators of the fleets that Skein
// replaces are used to.
const unhealthyAfter = 3

// part is what one node adds to the views. Nodes that are no members, or whose
// robot has not registered, count nowhere; they have a vote, a name and groups.
type part struct {
	// counts: it is a member's robot, so all from kind on has a meaning.
	counts bool
	member bool
	voter  bool
	// name is the robot's, or that under which its node was admitted.
	name   string
	groups []string

	kind    event.RobotType
	version string
	online  bool
	// quiet: it was online before and is not. quietSince is since when.
	quiet      bool
	quietSince time.Time
	stage      fleet.Stage
	stageSince time.Time
	failures   uint64
	failure    string
	deployed   fleet.Deployed
}

// partOf is what a node adds in a state.
func partOf(s *fleet.State, id ident.NodeID) part {
	n, known := s.Node(id)
	p := part{member: known && n.Member(), voter: n.Voter, name: n.Name}
	r, ok := s.Robot(id)
	if !ok {
		return p
	}
	p.name, p.groups = r.Name, r.Groups
	if !p.member {
		return p
	}
	p.counts = true
	p.kind, p.version = r.Type, r.Version
	p.online = r.Online
	if p.quiet = !r.Online && !r.OfflineAt.IsZero(); p.quiet {
		p.quietSince = r.StatusSince
	}
	p.stage, p.stageSince = r.Lifecycle.State, r.Lifecycle.Since
	p.failures, p.failure = r.Lifecycle.Failures, r.Lifecycle.LastFailure.Message
	p.deployed = r.Deployed
	return p
}

func (p part) equal(q part) bool {
	if !slices.Equal(p.groups, q.groups) {
		return false
	}
	return p.same(q)
}

// same is equal but for the groups, which cannot be compared with ==.
func (p part) same(q part) bool {
	return p.counts == q.counts && p.member == q.member && p.voter == q.voter && p.name == q.name && p.kind == q.kind && p.version == q.version &&
		p.online == q.online && p.quiet == q.quiet && p.quietSince.Equal(q.quietSince) &&
		p.stage == q.stage && p.stageSince.Equal(q.stageSince) && p.failures == q.failures && p.failure == q.failure &&
		p.deployed == q.deployed
}

// alerts are what is wrong with the robot, as its part shows it.
func (p part) alerts(id ident.NodeID) (out []Alert) {
	if !p.counts || p.stage == fleet.Retired {
		return nil
	}
	add := func(kind AlertKind, severity Severity, since time.Time, message string) {
		out = append(out, Alert{Kind: kind, Severity: severity, Robot: id, Name: p.name, Groups: p.groups, Since: since, Message: message})
	}
	switch {
	case p.stage == fleet.Failed:
		add(RobotFailed, Critical, p.stageSince, "failed: "+p.failure)
	case p.stage == fleet.Offline || p.failures >= unhealthyAfter:
		add(RobotUnhealthy, Warning, p.stageSince, "fails: "+p.failure)
	}
	if p.quiet {
		add(RobotQuiet, Warning, p.quietSince, "is not heard")
	}
	if p.deployed.Status == fleet.DeploymentFailed {
		add(DeploymentFailed, Warning, p.deployed.Since, "deployment "+p.deployed.Deployment+" of "+p.deployed.Version+" failed")
	}
	return out
}
