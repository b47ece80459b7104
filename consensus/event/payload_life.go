package event

import "skein/mesh/ident"

// FailureKind is what sort of thing failed.
type FailureKind string

// The kinds of failures.
const (
	FailedConnection FailureKind = "connection"
	FailedDeployment FailureKind = "deployment"
	FailedHardware   FailureKind = "hardware"
	FailedSoftware   FailureKind = "software"
	FailedUnknown    FailureKind = "unknown"
)

// DeploymentKind is how a version gets onto a robot.
type DeploymentKind string

// The kinds of deployments.
const (
	DeployFull     DeploymentKind = "full"
	DeployDelta    DeploymentKind = "delta"
	DeployRollback DeploymentKind = "rollback"
)

// MaxCapabilities is the most capabilities of one robot.
const MaxCapabilities = 32

// RobotProvisioned says that the robot was made ready: once with what it is, and
// again with the version that it runs, after which it is ready.
type RobotProvisioned struct {
	// Firmware and Version are builds, for people. Each may be empty; without a
	// version the robot is not ready yet.
	Firmware, Version string
	// Capabilities are what it can do, for example "arm" or "camera".
	Capabilities []string
}

func (e *RobotProvisioned) fields(c *codec) {
	optional(c, "firmware", &e.Firmware, ruleVersion)
	optional(c, "version", &e.Version, ruleVersion)
	c.list("capabilities", &e.Capabilities, ruleCapability, MaxCapabilities, false)
}

// Draft proposes the event.
func (e RobotProvisioned) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotProvisioned, RobotStream(id), &e)
}

// RobotActivated puts a ready robot to work.
type RobotActivated struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *RobotActivated) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event.
func (e RobotActivated) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotActivated, RobotStream(id), &e)
}

// RobotDeactivated ends the work of an active robot in good order.
type RobotDeactivated struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *RobotDeactivated) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event.
func (e RobotDeactivated) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotDeactivated, RobotStream(id), &e)
}

// RobotFailed says that the robot cannot do its work.
type RobotFailed struct {
	// Message is for people. Not empty.
	Message string
	// Code is for programs. May be empty.
	Code string
	Kind FailureKind
}

func (e *RobotFailed) fields(c *codec) {
	text(c, "message", &e.Message, ruleLine)
	optional(c, "code", &e.Code, ruleWord)
	text(c, "kind", &e.Kind, ruleFailure)
}

// Draft proposes the event.
func (e RobotFailed) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotFailed, RobotStream(id), &e)
}

// RobotRecovered ends a failure.
type RobotRecovered struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *RobotRecovered) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event.
func (e RobotRecovered) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotRecovered, RobotStream(id), &e)
}

// RobotMaintenanceStarted takes the robot into maintenance.
type RobotMaintenanceStarted struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *RobotMaintenanceStarted) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event.
func (e RobotMaintenanceStarted) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotMaintenanceStarted, RobotStream(id), &e)
}

// RobotMaintenanceEnded gives the robot back, ready.
type RobotMaintenanceEnded struct{}

func (e *RobotMaintenanceEnded) fields(*codec) {}

// Draft proposes the event.
func (e RobotMaintenanceEnded) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotMaintenanceEnded, RobotStream(id), &e)
}

// RobotRetired takes the robot out of service until it registers anew.
type RobotRetired struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *RobotRetired) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event.
func (e RobotRetired) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotRetired, RobotStream(id), &e)
}

// RobotDeploymentStarted says that the robot began to take a version.
type RobotDeploymentStarted struct {
	// Deployment names the deployment.
	Deployment string
	Version    string
	Kind       DeploymentKind
	// Source is where it comes from, for people. May be empty.
	Source string
}

func (e *RobotDeploymentStarted) fields(c *codec) {
	text(c, "deployment", &e.Deployment, ruleWord)
	text(c, "version", &e.Version, ruleBuild)
	text(c, "kind", &e.Kind, ruleDeployment)
	optional(c, "source", &e.Source, ruleText)
}

// Draft proposes the event.
func (e RobotDeploymentStarted) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotDeploymentStarted, RobotStream(id), &e)
}

// RobotDeploymentCompleted says that the robot runs the version.
type RobotDeploymentCompleted struct {
	// Deployment and Version are those that started.
	Deployment, Version string
	DurationSeconds     uint64
	// Files is how many changed.
	Files uint64
}

func (e *RobotDeploymentCompleted) fields(c *codec) {
	text(c, "deployment", &e.Deployment, ruleWord)
	text(c, "version", &e.Version, ruleBuild)
	c.whole("durationSeconds", &e.DurationSeconds, 0, 1<<40, "seconds that it took")
	c.whole("files", &e.Files, 0, 1<<40, "number of files that changed")
}

// Draft proposes the event.
func (e RobotDeploymentCompleted) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotDeploymentCompleted, RobotStream(id), &e)
}

// RobotDeploymentFailed says that the robot runs what it ran before.
type RobotDeploymentFailed struct {
	// Deployment and Version are those that started.
	Deployment, Version string
	// Message is for people. Not empty.
	Message string
}

func (e *RobotDeploymentFailed) fields(c *codec) {
	text(c, "deployment", &e.Deployment, ruleWord)
	text(c, "version", &e.Version, ruleBuild)
	text(c, "message", &e.Message, ruleLine)
}

// Draft proposes the event.
func (e RobotDeploymentFailed) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotDeploymentFailed, RobotStream(id), &e)
}
