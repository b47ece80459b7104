package event

import "skein/mesh/ident"

// RobotType is a model of robot.
type RobotType string

// The robot types.
const (
	LeKiwi       RobotType = "lekiwi"
	XLeRobot     RobotType = "xlerobot"
	UnknownRobot RobotType = "unknown"
)

// RobotRegistered is what a node says of itself when it starts. It may be
// repeated; name and type of a repeat count only when they differ from the
// registration before, so that a change made by a person survives restarts.
type RobotRegistered struct {
	Name string
	Type RobotType
	// Version is the build of skein that runs there.
	Version string
	// Arch and OS are Go's GOARCH and GOOS.
	Arch, OS string
	// Hostname is the name of the robot's computer. It came with schema 2: schema 1
	// is read as "", and "" is written as schema 1.
	Hostname string
}

func (e *RobotRegistered) fields(c *codec) {
	text(c, "name", &e.Name, ruleName)
	text(c, "type", &e.Type, ruleRobotType)
	text(c, "version", &e.Version, ruleVersion)
	text(c, "arch", &e.Arch, rulePlatform)
	text(c, "os", &e.OS, rulePlatform)
	if c.schema >= 2 {
		text(c, "hostname", &e.Hostname, ruleHostname)
	}
}

// Draft proposes the event: with a hostname as schema 2, which is of level 2,
// and otherwise as schema 1.
func (e RobotRegistered) Draft(id ident.NodeID) Draft {
	schema := uint64(1)
	if e.Hostname != "" {
		schema = 2
	}
	return draftOf(TypeRobotRegistered, schema, RobotStream(id), &e)
}

// RobotOnline says that the robot is heard again.
type RobotOnline struct{}

func (e *RobotOnline) fields(*codec) {}

// Draft proposes the event.
func (e RobotOnline) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotOnline, RobotStream(id), &e)
}

// RobotOffline says that the robot has not been heard for a while.
type RobotOffline struct {
	// LastHeardSeconds is how long ago it was heard, on the leader's clock.
	LastHeardSeconds uint64
}

func (e *RobotOffline) fields(c *codec) {
	c.whole("lastHeardSeconds", &e.LastHeardSeconds, 0, 1<<40, "seconds since it was heard")
}

// Draft proposes the event.
func (e RobotOffline) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotOffline, RobotStream(id), &e)
}

// RobotConfigChanged changes a robot's name or type; "" leaves it.
type RobotConfigChanged struct {
	Type RobotType
	Name string
}

func (e *RobotConfigChanged) fields(c *codec) {
	optional(c, "type", &e.Type, ruleRobotType)
	optional(c, "name", &e.Name, ruleName)
	c.require(e.Type != "" || e.Name != "", "", "changes nothing", "give a name, a type or both")
}

// Draft proposes the event.
func (e RobotConfigChanged) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotConfigChanged, RobotStream(id), &e)
}

// RobotLabelsChanged sets and removes labels. Removing one that is not there is fine.
type RobotLabelsChanged struct {
	Set    map[string]string
	Remove []string
}

func (e *RobotLabelsChanged) fields(c *codec) {
	c.table("set", &e.Set, ruleLabelKey, ruleLabelValue, MaxLabels)
	c.list("remove", &e.Remove, ruleLabelKey, MaxLabels, false)
	c.require(len(e.Set)+len(e.Remove) > 0, "", "changes nothing", "give labels in set, in remove or in both")
	for _, key := range e.Remove {
		if _, both := e.Set[key]; both {
			c.require(false, "remove", "has the key \""+key+"\", which set has too", "give it in one of them")
		}
	}
}

// Draft proposes the event.
func (e RobotLabelsChanged) Draft(id ident.NodeID) Draft {
	return draft(TypeRobotLabelsChanged, RobotStream(id), &e)
}

// GroupCreated makes a group of robots.
type GroupCreated struct {
	// Description is for people. May be empty.
	Description string
}

func (e *GroupCreated) fields(c *codec) { optional(c, "description", &e.Description, ruleText) }

// Draft proposes the event for the group of that name.
func (e GroupCreated) Draft(name string) Draft { return draft(TypeGroupCreated, GroupStream(name), &e) }

// GroupDeleted ends a group; its robots stay.
type GroupDeleted struct{}

func (e *GroupDeleted) fields(*codec) {}

// Draft proposes the event for the group of that name.
func (e GroupDeleted) Draft(name string) Draft { return draft(TypeGroupDeleted, GroupStream(name), &e) }

// GroupRobotAdded puts a robot into a group.
type GroupRobotAdded struct{ Robot ident.NodeID }

func (e *GroupRobotAdded) fields(c *codec) { text(c, "robot", &e.Robot, ruleID) }

// Draft proposes the event for the group of that name.
func (e GroupRobotAdded) Draft(name string) Draft {
	return draft(TypeGroupRobotAdded, GroupStream(name), &e)
}

// GroupRobotRemoved takes a robot out of a group.
type GroupRobotRemoved struct{ Robot ident.NodeID }

func (e *GroupRobotRemoved) fields(c *codec) { text(c, "robot", &e.Robot, ruleID) }

// Draft proposes the event for the group of that name.
func (e GroupRobotRemoved) Draft(name string) Draft {
	return draft(TypeGroupRobotRemoved, GroupStream(name), &e)
}
