package event

import (
	"slices"
	"strings"
)

// authority is the set of those who may propose a type.
type authority byte

const (
	genesis authority = 1 << iota
	leader
	itself // the node whose id the stream has
	operator
	admin
	recovery
)

var authorityNames = [...]string{"genesis", "leader", "node itself", "operator", "admin", "recovery"}

func (a authority) names() []string {
	var names []string
	for i, name := range authorityNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// has reports whether actor is one of those, for an event about subject.
func (a authority) has(actor Actor, subject string) bool {
	switch actor.Kind {
	case KindGenesis:
		return a&genesis != 0
	case KindLeader:
		return a&leader != 0
	case KindNode:
		return a&itself != 0 && actor.ID == subject
	case KindRecovery:
		return a&recovery != 0 && (subject == "" || actor.ID == subject)
	case KindPerson:
		return a&operator != 0 && slices.Contains(actor.Scopes, ScopeOperator) ||
			a&admin != 0 && slices.Contains(actor.Scopes, ScopeAdmin)
	}
	return false
}

// Authorize reports, as a *Fault, that actor may not propose d. It looks at
// what the actor says of itself only; whether the actor is still a member is
// for the state to decide. A recovery is refused: it is never proposed, but
// applied to a stopped node.
func Authorize(actor Actor, d Draft) error {
	fault := actor.proposes()
	if fault == nil {
		var desc *descriptor
		if desc, fault = describe(d.Type, d.Schema); fault == nil {
			fault = desc.authorize(actor, d.Stream)
		}
	}
	if fault != nil {
		return fault
	}
	return nil
}

func (d *descriptor) authorize(actor Actor, stream string) *Fault {
	if d.may.has(actor, Subject(stream)) {
		return nil
	}
	return &Fault{Code: CodeNotAllowed, Path: "type",
		Message: d.typ + " may not be proposed by this " + clip(string(actor.Kind)),
		Next:    "it takes: " + strings.Join(d.may.names(), ", ")}
}

// proposes refuses an actor that never proposes anything over the network.
func (a Actor) proposes() *Fault {
	if a.Kind != KindRecovery {
		return nil
	}
	return &Fault{Code: CodeNotAllowed, Path: "actor.kind", Message: "recovery is not for a fleet that can decide",
		Next: "see `skein recover-quorum`, which runs on a stopped node"}
}

// wrong says what is wrong with the form of an actor.
func (a Actor) wrong() *Fault {
	invalid := func(path, message string) *Fault {
		return &Fault{Code: CodeInvalid, Path: path, Message: message, Next: "this is a fault of the program that proposes"}
	}
	check := wrongID
	switch a.Kind {
	case KindPerson:
		check = wrongName
	case KindNode, KindLeader, KindGenesis, KindRecovery:
	default:
		return invalid("kind", "must be node, person, leader, genesis or recovery")
	}
	if wrong := check(a.ID); wrong != "" {
		return invalid("id", wrong)
	}
	if len(a.Scopes) > 3 || len(a.Scopes) > 0 && a.Kind != KindPerson {
		return invalid("scopes", "are too many")
	}
	for _, s := range a.Scopes {
		if wrong := ruleScope.wrong(s); wrong != "" {
			return invalid("scopes", wrong)
		}
	}
	return nil
}
