package event

import (
	"strings"

	"skein/mesh/ident"
)

// FleetStream is the stream of what concerns the fleet as a whole.
const FleetStream = "fleet"

// LogStream is the stream of what concerns the log itself: its seals and its
// recoveries.
const LogStream = "log"

// prefix is the start of a family of streams, up to and with the slash.
type prefix string

const (
	prefixFleet     prefix = FleetStream
	prefixLog       prefix = LogStream
	prefixPerson    prefix = "person/"
	prefixEnrolment prefix = "enrolment/"
	prefixToken     prefix = "token/"
	prefixNode      prefix = "node/"
	prefixRobot     prefix = "robot/"
	prefixGroup     prefix = "group/"
)

// NodeStream is the stream of a node's membership.
func NodeStream(id ident.NodeID) string { return string(prefixNode) + string(id) }

// RobotStream is the stream of the robot that a node is.
func RobotStream(id ident.NodeID) string { return string(prefixRobot) + string(id) }

// PersonStream is the stream of a person.
func PersonStream(name string) string { return string(prefixPerson) + name }

// EnrolmentStream is the stream of an enrolment key; id is ident.IDOf it.
func EnrolmentStream(id ident.NodeID) string { return string(prefixEnrolment) + string(id) }

// TokenStream is the stream of a join token; hash is ident.JoinToken.Hash.
func TokenStream(hash string) string { return string(prefixToken) + hash }

// GroupStream is the stream of a group of robots.
func GroupStream(name string) string { return string(prefixGroup) + name }

// Subject is the part of a stream's name after its slash: an id or a name. It
// is "" for the streams of the fleet and of the log.
func Subject(stream string) string {
	_, subject, _ := strings.Cut(stream, "/")
	return subject
}

// wrong says what is wrong with the name of a stream of this family.
func (p prefix) wrong(stream string) string {
	subject, ok := strings.CutPrefix(stream, string(p))
	if !ok {
		return "must start with \"" + string(p) + "\" for this type"
	}
	var wrong string
	switch p {
	case prefixFleet, prefixLog:
		if subject != "" {
			wrong = "must be empty"
		}
	case prefixPerson, prefixGroup:
		wrong = wrongName(subject)
	default:
		wrong = wrongID(subject)
	}
	if wrong != "" {
		return "after \"" + string(p) + "\" " + wrong
	}
	return ""
}

// form is the family's name for the catalogue.
func (p prefix) form() string {
	switch p {
	case prefixFleet, prefixLog:
		return string(p)
	case prefixPerson, prefixGroup:
		return string(p) + "<name>"
	case prefixToken:
		return string(p) + "<hash>"
	}
	return string(p) + "<id>"
}
