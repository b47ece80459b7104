package event

import "strconv"

// The event types.
const (
	TypeFleetCreated       = "fleet.created"
	TypeGossipKeyRotated   = "gossip_key.rotated"
	TypePersonAdded        = "person.added"
	TypePersonRemoved      = "person.removed"
	TypeEnrolmentAdded     = "enrolment.added"
	TypeEnrolmentRevoked   = "enrolment.revoked"
	TypeTokenCreated       = "token.created"
	TypeNodeAdmitted       = "node.admitted"
	TypeNodeRevoked        = "node.revoked"
	TypeNodeLeft           = "node.left"
	TypeVoterEligible      = "voter.eligible"
	TypeVoterApproved      = "voter.approved"
	TypeVoterWithdrawn     = "voter.withdrawn"
	TypeVoterAdded         = "voter.added"
	TypeVoterRemoved       = "voter.removed"
	TypeRobotRegistered    = "robot.registered"
	TypeRobotOnline        = "robot.online"
	TypeRobotOffline       = "robot.offline"
	TypeRobotConfigChanged = "robot.config_changed"
	TypeRobotLabelsChanged = "robot.labels_changed"
	TypeGroupCreated       = "group.created"
	TypeGroupDeleted       = "group.deleted"
	TypeGroupRobotAdded    = "group.robot_added"
	TypeGroupRobotRemoved  = "group.robot_removed"
)

// The event types of level 2.
const (
	TypeCeilingRaised            = "fleet.ceiling_raised"
	TypeLogSealed                = "log.sealed"
	TypeLogRecovered             = "log.recovered"
	TypeRobotProvisioned         = "robot.provisioned"
	TypeRobotActivated           = "robot.activated"
	TypeRobotDeactivated         = "robot.deactivated"
	TypeRobotFailed              = "robot.failed"
	TypeRobotRecovered           = "robot.recovered"
	TypeRobotMaintenanceStarted  = "robot.maintenance_started"
	TypeRobotMaintenanceEnded    = "robot.maintenance_ended"
	TypeRobotRetired             = "robot.retired"
	TypeRobotDeploymentStarted   = "robot.deployment_started"
	TypeRobotDeploymentCompleted = "robot.deployment_completed"
	TypeRobotDeploymentFailed    = "robot.deployment_failed"
)

// descriptor is what is to be known of a type besides its fields.
type descriptor struct {
	typ    string
	schema uint64
	level  uint64
	stream prefix
	may    authority
	of     payloadType
	// at is the place in the catalogue.
	at int
}

// payloadType is what can be done with the type of a payload.
type payloadType struct {
	// empty makes the payload to decode into, and wipe makes it empty again.
	empty func() Payload
	wipe  func(Payload)
}

func of[T any, P interface {
	*T
	Payload
}]() payloadType {
	return payloadType{
		empty: func() Payload { return P(new(T)) },
		wipe:  func(p Payload) { *p.(P) = *new(T) },
	}
}

// labelsChanged keeps the table and the list of the most frequent type.
func labelsChanged() payloadType {
	t := of[RobotLabelsChanged]()
	t.wipe = func(p Payload) {
		e := p.(*RobotLabelsChanged)
		clear(e.Set)
		e.Remove = e.Remove[:0]
	}
	return t
}

// catalogue has every type of this release. A new schema of a type is a new
// descriptor below the old one. What was published is never changed; what is new
// has a new Level.
var catalogue = [...]descriptor{
	{TypeFleetCreated, 1, 1, prefixFleet, genesis, of[FleetCreated](), 0},
	{TypeGossipKeyRotated, 1, 1, prefixFleet, leader, of[GossipKeyRotated](), 0},
	{TypePersonAdded, 1, 1, prefixPerson, genesis | admin, of[PersonAdded](), 0},
	{TypePersonRemoved, 1, 1, prefixPerson, admin, of[PersonRemoved](), 0},
	{TypeEnrolmentAdded, 1, 1, prefixEnrolment, genesis | admin, of[EnrolmentAdded](), 0},
	{TypeEnrolmentRevoked, 1, 1, prefixEnrolment, admin, of[EnrolmentRevoked](), 0},
	{TypeTokenCreated, 1, 1, prefixToken, admin, of[TokenCreated](), 0},
	{TypeNodeAdmitted, 1, 1, prefixNode, genesis | leader | recovery, of[NodeAdmitted](), 0},
	{TypeNodeRevoked, 1, 1, prefixNode, admin, of[NodeRevoked](), 0},
	{TypeNodeLeft, 1, 1, prefixNode, itself | admin, of[NodeLeft](), 0},
	{TypeVoterEligible, 1, 1, prefixNode, genesis | itself, of[VoterEligible](), 0},
	{TypeVoterApproved, 1, 1, prefixNode, genesis | admin, of[VoterApproved](), 0},
	{TypeVoterWithdrawn, 1, 1, prefixNode, admin, of[VoterWithdrawn](), 0},
	{TypeVoterAdded, 1, 1, prefixNode, genesis | leader, of[VoterAdded](), 0},
	{TypeVoterRemoved, 1, 1, prefixNode, leader, of[VoterRemoved](), 0},
	{TypeRobotRegistered, 1, 1, prefixRobot, itself, of[RobotRegistered](), 0},
	{TypeRobotOnline, 1, 1, prefixRobot, leader, of[RobotOnline](), 0},
	{TypeRobotOffline, 1, 1, prefixRobot, leader, of[RobotOffline](), 0},
	{TypeRobotConfigChanged, 1, 1, prefixRobot, itself | operator | admin, of[RobotConfigChanged](), 0},
	{TypeRobotLabelsChanged, 1, 1, prefixRobot, operator | admin, labelsChanged(), 0},
	{TypeGroupCreated, 1, 1, prefixGroup, operator | admin, of[GroupCreated](), 0},
	{TypeGroupDeleted, 1, 1, prefixGroup, operator | admin, of[GroupDeleted](), 0},
	{TypeGroupRobotAdded, 1, 1, prefixGroup, operator | admin, of[GroupRobotAdded](), 0},
	{TypeGroupRobotRemoved, 1, 1, prefixGroup, operator | admin, of[GroupRobotRemoved](), 0},
	{TypeCeilingRaised, 1, 2, prefixFleet, genesis | leader, of[CeilingRaised](), 0},
	{TypeLogSealed, 1, 2, prefixLog, leader, of[LogSealed](), 0},
	{TypeLogRecovered, 1, 2, prefixLog, recovery, of[LogRecovered](), 0},
	{TypeRobotRegistered, 2, 2, prefixRobot, itself, of[RobotRegistered](), 0},
	{TypeRobotProvisioned, 1, 2, prefixRobot, itself | operator | admin, of[RobotProvisioned](), 0},
	{TypeRobotActivated, 1, 2, prefixRobot, leader | operator | admin, of[RobotActivated](), 0},
	{TypeRobotDeactivated, 1, 2, prefixRobot, leader | operator | admin, of[RobotDeactivated](), 0},
	{TypeRobotFailed, 1, 2, prefixRobot, leader | itself | operator | admin, of[RobotFailed](), 0},
	{TypeRobotRecovered, 1, 2, prefixRobot, leader | itself | operator | admin, of[RobotRecovered](), 0},
	{TypeRobotMaintenanceStarted, 1, 2, prefixRobot, operator | admin, of[RobotMaintenanceStarted](), 0},
	{TypeRobotMaintenanceEnded, 1, 2, prefixRobot, operator | admin, of[RobotMaintenanceEnded](), 0},
	{TypeRobotRetired, 1, 2, prefixRobot, operator | admin, of[RobotRetired](), 0},
	{TypeRobotDeploymentStarted, 1, 2, prefixRobot, leader | itself, of[RobotDeploymentStarted](), 0},
	{TypeRobotDeploymentCompleted, 1, 2, prefixRobot, leader | itself, of[RobotDeploymentCompleted](), 0},
	{TypeRobotDeploymentFailed, 1, 2, prefixRobot, leader | itself, of[RobotDeploymentFailed](), 0},
}

// byType finds the descriptors of a type that this build knows, in order of their
// schema. It is never changed.
var byType = func() map[string][]*descriptor {
	m := make(map[string][]*descriptor, len(catalogue))
	for i := range catalogue {
		d := &catalogue[i]
		if d.at = i; d.level <= Level {
			m[d.typ] = append(m[d.typ], d)
		}
	}
	return m
}()

// describe finds a type; schema 0 means 1.
func describe(typ string, schema uint64) (*descriptor, *Fault) {
	known := byType[typ]
	if schema == 0 {
		schema = 1
	}
	for _, d := range known {
		if d.schema == schema {
			return d, nil
		}
	}
	if len(known) > 0 {
		return nil, &Fault{Code: CodeUnknownType, Path: "schema", Message: "is newer than this build knows for " + typ, Next: "upgrade skein on this node"}
	}
	return nil, &Fault{Code: CodeUnknownType, Path: "type", Message: "is not known to this build: " + clip(typ), Next: "see `skein events types`, or upgrade skein on this node"}
}

// clip shortens a text of unknown origin for a message.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return s
}

// TypeInfo describes an event type for people and programs.
type TypeInfo struct {
	Type   string `json:"type"`
	Schema uint64 `json:"schema"`
	// Level is what the fleet's ceiling must have reached before it may be proposed.
	Level uint64 `json:"level"`
	// Stream is the form of the stream's name, for example "robot/<id>".
	Stream string `json:"stream"`
	// Authority lists who may propose it: genesis, leader, "node itself",
	// operator, admin, recovery.
	Authority []string `json:"authority"`
	Fields    []Field  `json:"fields"`
}

// Types is the catalogue of this build, in a fixed order.
func Types() []TypeInfo {
	infos := make([]TypeInfo, 0, len(catalogue))
	for _, d := range catalogue {
		if d.level > Level {
			continue
		}
		c := codec{mode: describing, schema: d.schema, about: []Field{}}
		d.of.empty().fields(&c)
		infos = append(infos, TypeInfo{d.typ, d.schema, d.level, d.stream.form(), d.may.names(), c.about})
	}
	return infos
}

// Known reports whether this build has that schema of that type; 0 means 1.
func Known(typ string, schema uint64) bool {
	_, fault := describe(typ, schema)
	return fault == nil
}

// LevelOf is the level of a schema of a type, 0 when this build does not know it.
// Schema 0 means 1.
func LevelOf(typ string, schema uint64) uint64 {
	d, fault := describe(typ, schema)
	if fault != nil {
		return 0
	}
	return d.level
}

// CheckCeiling refuses what a fleet with that ceiling may not propose yet, with
// ReasonCeiling. A leader asks before it puts a batch into the log, because a
// voter of an older build could not read on; the state asks again.
//
// The verdict is the same in every build that knows the ceiling as its own level
// or higher: whatever such a build does not know is of a level above. Two types
// are free, since they decide what the voters are. An older build that does not
// know one of them cannot tell, which is a fault of CodeUnknownType.
func (b Batch) CheckCeiling(ceiling uint64) *Fault {
	for i := range b.Drafts {
		if fault := b.Drafts[i].CheckCeiling(ceiling); fault != nil {
			return fault.In(DraftPath(i))
		}
	}
	return nil
}

// CheckCeiling is Batch.CheckCeiling for one draft.
func (d Draft) CheckCeiling(ceiling uint64) *Fault {
	desc, fault := describe(d.Type, d.Schema)
	free := d.Schema <= 1 && (d.Type == TypeCeilingRaised || d.Type == TypeLogRecovered)
	switch {
	case fault != nil && (free || ceiling > Level):
		return fault
	case fault == nil && (free || desc.level <= ceiling):
		return nil
	}
	return &Fault{Code: CodeConflict, Reason: ReasonCeiling, Path: "type",
		Message: clip(d.Type) + " is newer than what every voter knows; the fleet is at level " + strconv.FormatUint(ceiling, 10),
		Next:    "upgrade the voters that `skein node list` shows with an older build; the leader raises the level then"}
}
