package event

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

// descriptor is what is to be known of a type besides its fields.
type descriptor struct {
	typ    string
	schema uint64
	stream prefix
	may    authority
	// empty makes the payload to decode into.
	empty func() Payload
}

// catalogue has every type this build knows. A new schema of a type is a new
// descriptor beside the old one.
var catalogue = [...]descriptor{
	{TypeFleetCreated, 1, prefixFleet, genesis, func() Payload { return new(FleetCreated) }},
	{TypeGossipKeyRotated, 1, prefixFleet, leader, func() Payload { return new(GossipKeyRotated) }},
	{TypePersonAdded, 1, prefixPerson, genesis | admin, func() Payload { return new(PersonAdded) }},
	{TypePersonRemoved, 1, prefixPerson, admin, func() Payload { return new(PersonRemoved) }},
	{TypeEnrolmentAdded, 1, prefixEnrolment, genesis | admin, func() Payload { return new(EnrolmentAdded) }},
	{TypeEnrolmentRevoked, 1, prefixEnrolment, admin, func() Payload { return new(EnrolmentRevoked) }},
	{TypeTokenCreated, 1, prefixToken, admin, func() Payload { return new(TokenCreated) }},
	{TypeNodeAdmitted, 1, prefixNode, genesis | leader, func() Payload { return new(NodeAdmitted) }},
	{TypeNodeRevoked, 1, prefixNode, admin, func() Payload { return new(NodeRevoked) }},
	{TypeNodeLeft, 1, prefixNode, itself | admin, func() Payload { return new(NodeLeft) }},
	{TypeVoterEligible, 1, prefixNode, genesis | itself, func() Payload { return new(VoterEligible) }},
	{TypeVoterApproved, 1, prefixNode, genesis | admin, func() Payload { return new(VoterApproved) }},
	{TypeVoterWithdrawn, 1, prefixNode, admin, func() Payload { return new(VoterWithdrawn) }},
	{TypeVoterAdded, 1, prefixNode, genesis | leader, func() Payload { return new(VoterAdded) }},
	{TypeVoterRemoved, 1, prefixNode, leader, func() Payload { return new(VoterRemoved) }},
	{TypeRobotRegistered, 1, prefixRobot, itself, func() Payload { return new(RobotRegistered) }},
	{TypeRobotOnline, 1, prefixRobot, leader, func() Payload { return new(RobotOnline) }},
	{TypeRobotOffline, 1, prefixRobot, leader, func() Payload { return new(RobotOffline) }},
	{TypeRobotConfigChanged, 1, prefixRobot, itself | operator | admin, func() Payload { return new(RobotConfigChanged) }},
	{TypeRobotLabelsChanged, 1, prefixRobot, operator | admin, func() Payload { return new(RobotLabelsChanged) }},
	{TypeGroupCreated, 1, prefixGroup, operator | admin, func() Payload { return new(GroupCreated) }},
	{TypeGroupDeleted, 1, prefixGroup, operator | admin, func() Payload { return new(GroupDeleted) }},
	{TypeGroupRobotAdded, 1, prefixGroup, operator | admin, func() Payload { return new(GroupRobotAdded) }},
	{TypeGroupRobotRemoved, 1, prefixGroup, operator | admin, func() Payload { return new(GroupRobotRemoved) }},
}

// byType finds a type's descriptors in order of their schema. It is never changed.
var byType = func() map[string][]*descriptor {
	m := make(map[string][]*descriptor, len(catalogue))
	for i := range catalogue {
		d := &catalogue[i]
		m[d.typ] = append(m[d.typ], d)
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

// schemaOf is the newest schema of a type.
func schemaOf(typ string) uint64 {
	known := byType[typ]
	return known[len(known)-1].schema
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
	// Stream is the form of the stream's name, for example "robot/<id>".
	Stream string `json:"stream"`
	// Authority lists who may propose it: genesis, leader, "node itself",
	// operator, admin.
	Authority []string `json:"authority"`
	Fields    []Field  `json:"fields"`
}

// Types is the catalogue of this build, in a fixed order.
func Types() []TypeInfo {
	infos := make([]TypeInfo, 0, len(catalogue))
	for _, d := range catalogue {
		c := codec{mode: describing, about: []Field{}}
		d.empty().fields(&c)
		infos = append(infos, TypeInfo{d.typ, d.schema, d.stream.form(), d.may.names(), c.about})
	}
	return infos
}

// Known reports whether this build has that schema of that type; 0 means 1.
func Known(typ string, schema uint64) bool {
	_, fault := describe(typ, schema)
	return fault == nil
}
