package fleet

import (
	"slices"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// actor checks that who proposes belongs to the fleet, and narrows a person's
// scopes to those it still has. A leader only has to be known: Raft made it the
// leader, and one that was revoked or left may have to record its own removal.
func (tx *Tx) actor(a event.Actor) (event.Actor, *event.Fault) {
	if a.Kind == event.KindGenesis {
		if tx.fleet != nil {
			return a, event.Refuse(event.CodeNotAllowed, "", "", "the fleet exists already; genesis is over")
		}
		return a, nil
	}
	if tx.fleet == nil {
		return a, conflict("start with `skein fleet init`", "the fleet does not exist yet")
	}
	if a.Kind == event.KindPerson {
		p := tx.persons.get(a.ID)
		if p == nil {
			return a, event.Refuse(event.CodeNotAllowed, "", "log in as a person of this fleet", "there is no person %q", a.ID)
		}
		a.Scopes = tx.narrowed.of(p, a.Scopes)
		return a, nil
	}
	if a.Kind == event.KindRecovery {
		return a, nil // mayRecover asks; it may have to admit its node first
	}
	n := tx.nodes.get(ident.NodeID(a.ID))
	switch {
	case n == nil:
		return a, event.Refuse(event.CodeNotAllowed, "", "join the fleet first", "node %s is not of this fleet", a.ID)
	case a.Kind == event.KindLeader:
		return a, nil
	case n.Revoked:
		return a, event.Refuse(event.CodeNotAllowed, event.ReasonRevoked, "join again with a new key", "node %s was revoked", n.ID)
	case n.Left:
		return a, event.Refuse(event.CodeNotAllowed, "", "join again", "node %s left the fleet", n.ID)
	}
	return a, nil
}

// narrowed is the last answer to what a person may do, because mostly the same is
// asked again. Nothing of it is ever changed.
type narrowed struct {
	person       *Person
	asked, given []string
}

// of are the scopes of asked that p has.
func (n *narrowed) of(p *Person, asked []string) []string {
	if n.person == p && slices.Equal(n.asked, asked) {
		return n.given
	}
	given := asked
	if lacks := func(s string) bool { return !slices.Contains(p.Scopes, s) }; slices.ContainsFunc(asked, lacks) {
		given = slices.DeleteFunc(slices.Clone(asked), lacks)
	}
	*n = narrowed{p, asked, given}
	return given
}

func (tx *Tx) mayCreateFleet(e *event.Event) *event.Fault {
	if tx.fleet != nil {
		return conflict("", "the fleet exists already")
	}
	return nil
}

func (tx *Tx) mayRotateGossipKey(p *event.GossipKeyRotated) *event.Fault {
	if tx.fleet != nil && p.Epoch <= tx.fleet.GossipEpoch {
		return conflict("propose a higher one", "key epoch %d is not after %d", p.Epoch, tx.fleet.GossipEpoch)
	}
	return nil
}

func (tx *Tx) mayAddPerson(e *event.Event) *event.Fault {
	if tx.persons.get(event.Subject(e.Stream)) != nil {
		return conflict("remove the person first to change key or scopes", "person %q exists already", event.Subject(e.Stream))
	}
	if tx.persons.count() >= MaxPersons {
		return full("persons", MaxPersons)
	}
	return nil
}

func (tx *Tx) mayRemovePerson(e *event.Event) *event.Fault {
	name := event.Subject(e.Stream)
	if tx.persons.get(name) == nil {
		return event.Refuse(event.CodeNotFound, "", "", "there is no person %q", name)
	}
	admins := 0
	tx.persons.each(func(other string, p *Person) {
		if other != name && slices.Contains(p.Scopes, event.ScopeAdmin) {
			admins++
		}
	})
	if admins == 0 {
		return conflict("add another admin first", "%q is the fleet's only admin", name)
	}
	return nil
}

func (tx *Tx) mayAddEnrolment(e *event.Event) *event.Fault {
	if tx.enrolments.get(nodeOf(e)) != nil {
		return conflict("make a new key", "enrolment key %s exists already, or was revoked", nodeOf(e))
	}
	if tx.enrolments.count() >= MaxEnrolments {
		return full("enrolment keys", MaxEnrolments)
	}
	return nil
}

func (tx *Tx) mayRevokeEnrolment(e *event.Event) *event.Fault {
	k := tx.enrolments.get(nodeOf(e))
	if k == nil {
		return event.Refuse(event.CodeNotFound, event.ReasonEnrolmentUnknown, "", "there is no enrolment key %s", nodeOf(e))
	}
	if k.Revoked {
		return noChange("enrolment key %s is revoked already", nodeOf(e))
	}
	return nil
}

// expired: a token is good until its time, not at it.
func (t *Token) expired(now time.Time) bool { return !now.Before(t.ExpiresAt) }

func (tx *Tx) mayCreateToken(e *event.Event) *event.Fault {
	if tx.tokens.get(event.Subject(e.Stream)) != nil {
		return conflict("make a new one", "this token exists already")
	}
	if tx.tokens.count() < MaxTokens || len(tx.expiredTokens(e.Time)) > 0 {
		return nil
	}
	return full("join tokens", MaxTokens)
}

func (tx *Tx) expiredTokens(now time.Time) []string {
	var hashes []string
	tx.tokens.each(func(hash string, t *Token) {
		if t.expired(now) {
			hashes = append(hashes, hash)
		}
	})
	return hashes
}

// createToken adds a token; expired ones go when it gets full.
func (tx *Tx) createToken(e *event.Event, p *event.TokenCreated) {
	if tx.tokens.count() >= MaxTokens {
		for _, hash := range tx.expiredTokens(e.Time) {
			tx.tokens.remove(hash)
		}
	}
	hash := strings.Clone(event.Subject(e.Stream))
	expires := e.Time.Add(time.Duration(p.TTLSeconds) * time.Second)
	tx.tokens.put(hash, &Token{Hash: hash, CreatedAt: e.Time, ExpiresAt: expires})
}
