package event

import (
	"crypto/ed25519"

	"skein/mesh/ident"
)

// Payload is the typed data of an event: a pointer to one of the structs of
// this package, such as *RobotRegistered.
type Payload interface {
	// fields names every field to c, once and in canonical order.
	fields(c *codec)
}

// draft proposes schema 1 of a type.
func draft(typ, stream string, p Payload) Draft { return draftOf(typ, 1, stream, p) }

func draftOf(typ string, schema uint64, stream string, p Payload) Draft {
	return Draft{Stream: stream, Type: typ, Schema: schema, Data: Encode(p, schema, 0)}
}

// FleetCreated is the first event of every log.
type FleetCreated struct {
	// Name is the fleet's name for people.
	Name string
	// Root is the public key to which every certificate chains.
	Root ed25519.PublicKey
	// History names this log. Recovery and restore start a new one.
	History string
}

func (e *FleetCreated) fields(c *codec) {
	text(c, "name", &e.Name, ruleName)
	c.key("root", &e.Root)
	text(c, "history", &e.History, ruleHistory)
}

// Draft proposes the event.
func (e FleetCreated) Draft() Draft { return draft(TypeFleetCreated, FleetStream, &e) }

// GossipKeyRotated says that the gossip keys of an epoch exist. The keys
// themselves are secrets and are never in the log.
type GossipKeyRotated struct {
	// Epoch is higher than every earlier one. The first is 1.
	Epoch uint64
}

func (e *GossipKeyRotated) fields(c *codec) {
	c.whole("epoch", &e.Epoch, 1, 1<<53, "number of the key generation")
}

// Draft proposes the event.
func (e GossipKeyRotated) Draft() Draft { return draft(TypeGossipKeyRotated, FleetStream, &e) }

// PersonAdded lets a person act, proved by a key.
type PersonAdded struct {
	PublicKey ed25519.PublicKey
	// Scopes are what the person may do at most: 1 to 3 of the Scope constants.
	Scopes []string
}

func (e *PersonAdded) fields(c *codec) {
	c.key("publicKey", &e.PublicKey)
	c.list("scopes", &e.Scopes, ruleScope, 3, true)
}

// Draft proposes the event for the person of that name.
func (e PersonAdded) Draft(name string) Draft { return draft(TypePersonAdded, PersonStream(name), &e) }

// PersonRemoved ends what a person may do. Tokens issued before end with it.
type PersonRemoved struct{}

func (e *PersonRemoved) fields(*codec) {}

// Draft proposes the event for the person of that name.
func (e PersonRemoved) Draft(name string) Draft {
	return draft(TypePersonRemoved, PersonStream(name), &e)
}

// EnrolmentAdded makes a key valid whose holder may ask to join.
type EnrolmentAdded struct {
	// PublicKey hashes to the stream's id.
	PublicKey ed25519.PublicKey
}

func (e *EnrolmentAdded) fields(c *codec) {
	c.key("publicKey", &e.PublicKey)
	c.requireID("publicKey", e.PublicKey)
}

// Draft proposes the event.
func (e EnrolmentAdded) Draft() Draft {
	return draft(TypeEnrolmentAdded, EnrolmentStream(ident.IDOf(e.PublicKey)), &e)
}

// EnrolmentRevoked ends a key's use for good. Who joined with it stays.
type EnrolmentRevoked struct {
	// Reason is for people. May be empty.
	Reason string
}

func (e *EnrolmentRevoked) fields(c *codec) { optional(c, "reason", &e.Reason, ruleText) }

// Draft proposes the event for the key of that id.
func (e EnrolmentRevoked) Draft(id ident.NodeID) Draft {
	return draft(TypeEnrolmentRevoked, EnrolmentStream(id), &e)
}

// TokenCreated lets one node join, once, until the event's time plus TTLSeconds.
type TokenCreated struct {
	// TTLSeconds is from 1 to MaxTokenSeconds.
	TTLSeconds uint64
}

func (e *TokenCreated) fields(c *codec) {
	c.whole("ttlSeconds", &e.TTLSeconds, 1, MaxTokenSeconds, "seconds until it expires, at most a week")
}

// Draft proposes the event for the token of that hash.
func (e TokenCreated) Draft(hash string) Draft { return draft(TypeTokenCreated, TokenStream(hash), &e) }
