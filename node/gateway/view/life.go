package view

import (
	"time"

	"skein/mesh/ident"
)

// Lifecycle is where a robot is in its life, which is not whether it is heard.
type Lifecycle struct {
	// State is discovered, provisioning, ready, active, maintenance, offline,
	// failed or retired.
	State string `json:"state"`
	// Since is when it got there, null for a robot that is where it began.
	Since *time.Time `json:"since"`
	// Failures counts failures since it last did its work in good order.
	Failures uint64 `json:"failures"`
	// LastFailure is the newest one, also when it is overcome; null if never.
	LastFailure *Failure `json:"lastFailure"`
}

// Failure is what went wrong with a robot.
type Failure struct {
	Message string `json:"message"`
	Code    string `json:"code"`
	// Kind is connection, deployment, hardware, software or unknown.
	Kind string    `json:"kind"`
	At   time.Time `json:"at"`
}

// Deployed is the newest deployment onto a robot.
type Deployed struct {
	Deployment string `json:"deployment"`
	Version    string `json:"version"`
	// Status is running, completed or failed.
	Status string    `json:"status"`
	Since  time.Time `json:"since"`
}

// Life is a robot's lifecycle and deployment. Embedded in Robot.
type Life struct {
	Lifecycle Lifecycle `json:"lifecycle"`
	// Deployed is null before the first deployment.
	Deployed *Deployed `json:"deployed"`
}

// Why is the body of requests that need a reason at most.
type Why struct {
	// Reason is for the log, one line, up to 256 bytes. May be empty.
	Reason string `json:"reason,omitempty" maxLength:"1024"`
}

// Provision is the body of POST /api/v1/robots/{which}/provision.
type Provision struct {
	// Firmware and Version are builds. A robot that is being provisioned becomes
	// ready with a version.
	Firmware string `json:"firmware,omitempty" maxLength:"1024"`
	Version  string `json:"version,omitempty" maxLength:"1024"`
	// Capabilities are what it can do, for example "arm" or "camera".
	Capabilities []string `json:"capabilities,omitempty" maxItems:"64"`
}

// Fail is the body of POST /api/v1/robots/{which}/fail.
type Fail struct {
	Message string `json:"message" maxLength:"1024"`
	Code    string `json:"code,omitempty" maxLength:"1024"`
	// Kind is connection, deployment, hardware, software or unknown.
	Kind string `json:"kind" maxLength:"64"`
}

// Done is the answer to requests about one robot or group: what was decided.
type Done struct {
	// Robot is null when it is about a group, and Group "" when about a robot.
	Robot   *NodeRef `json:"robot"`
	Group   string   `json:"group"`
	Receipt Receipt  `json:"receipt"`
}

// Group is a named set of robots.
type Group struct {
	Name        string    `json:"name"`
	Description string    `json:"description"`
	CreatedAt   time.Time `json:"createdAt"`
	// Robots is sorted by name, then id.
	Robots []NodeRef `json:"robots"`
}

// Groups is the answer of GET /api/v1/groups, sorted by name.
type Groups struct {
	Groups []Group `json:"groups"`
	AsOf   AsOf    `json:"asOf"`
}

// NewGroup is the body of POST /api/v1/groups.
type NewGroup struct {
	Name        string `json:"name" maxLength:"1024"`
	Description string `json:"description,omitempty" maxLength:"4096"`
}

// GroupRobot is the body of POST /api/v1/groups/{name}/robots.
type GroupRobot struct {
	// Robot is an id, a name, or the beginning of an id that fits one robot.
	Robot string `json:"robot" maxLength:"256"`
}

// Transfer is the body of POST /api/v1/raft/transfer.
type Transfer struct {
	// To is the voter that is to lead; "" lets the leader choose.
	To ident.NodeID `json:"to,omitempty" maxLength:"64"`
}

// Transferred says who led and who leads. To is null if nobody is known yet.
type Transferred struct {
	From NodeRef  `json:"from"`
	To   *NodeRef `json:"to"`
}

// OneRobot is the answer of GET /api/v1/robots/{which}: the robot's fields, flat.
type OneRobot struct {
	Robot
	AsOf AsOf `json:"asOf"`
}
