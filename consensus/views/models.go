package views

import (
	"time"

	"skein/mesh/ident"
)

// Group is a group of robots with what its robots are like.
type Group struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"createdAt"`
	Tally
	// Alerts counts the alerts about its robots.
	Alerts int `json:"alerts"`
}

// Deployment is a deployment as the robots stand to it whose newest one it is.
// A robot that was given a later one counts there.
type Deployment struct {
	ID string `json:"id"`
	// Versions counts robots by the version that it brings them.
	Versions map[string]int `json:"versions"`
	// Running, Completed and Failed count robots by how far it is on them.
	Running   int `json:"running"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	// Waiting counts those it is running on which are not heard now.
	Waiting int `json:"waiting"`
	// Tally counts its robots as they are otherwise.
	Tally
}

// AlertKind is what an alert is about.
type AlertKind string

// The kinds of alerts.
const (
	// QuorumAtRisk: the loss of one more voter stops decisions.
	QuorumAtRisk AlertKind = "quorum_at_risk"
	// RobotFailed: the robot is in stage failed.
	RobotFailed AlertKind = "robot_failed"
	// RobotUnhealthy: the robot failed and is expected back, or failed three times
	// since it last did its work in good order.
	RobotUnhealthy AlertKind = "robot_unhealthy"
	// RobotQuiet: the fleet decided that the robot is offline.
	RobotQuiet AlertKind = "robot_quiet"
	// DeploymentFailed: the robot's newest deployment failed.
	DeploymentFailed AlertKind = "deployment_failed"
)

// Severity is how much an alert matters.
type Severity string

// The severities. Critical comes first in lists.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
)

// Alert is something that is wrong now. It ends by itself when that is over.
type Alert struct {
	Kind     AlertKind `json:"kind"`
	Severity Severity  `json:"severity"`
	// Robot is who it is about; "" for the fleet as a whole. Name and Groups are
	// the robot's.
	Robot  ident.NodeID `json:"robot,omitempty"`
	Name   string       `json:"name,omitempty"`
	Groups []string     `json:"groups,omitempty"`
	// Since is the leader's time of the event that brought it; zero when no single
	// event did.
	Since   time.Time `json:"since,omitzero"`
	Message string    `json:"message"`
}

// Overview is the fleet in figures.
type Overview struct {
	Tally
	Groups      int `json:"groups"`
	Deployments int `json:"deployments"`
	Critical    int `json:"critical"`
	Warning     int `json:"warning"`
	// Voters counts the nodes that vote; MayLose is how many more of them may be
	// lost, by what the fleet decided about who is online.
	Voters  int `json:"voters"`
	MayLose int `json:"mayLose"`
}
