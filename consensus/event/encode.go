package event

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// The envelope in canonical JSON is what is hashed, stored and sent. It is what
// encoding/json would write for an Event, without its escaping of HTML.

// MaxEncoded is the most bytes of an encoded event: data, envelope, and room
// for the escapes that text may need.
const MaxEncoded = MaxData + 4<<10

// maxSeq keeps numbers exact in programs that read JSON numbers as doubles.
const maxSeq = 1 << 53

// Parse reads what AppendJSON wrote. It checks the form of the envelope and not
// the data, which Decode does, so that a node can carry events it does not know.
func Parse(text []byte) (Event, error) {
	e, err := ParseIn(text)
	e.Data = bytes.Clone(e.Data)
	return e, err
}

// ParseIn is Parse without copying the data: the event's Data is a part of text,
// which must not be changed any more.
func ParseIn(text []byte) (Event, error) {
	if len(text) > MaxEncoded {
		return Event{}, fmt.Errorf("event has %d bytes, at most %d are allowed", len(text), MaxEncoded)
	}
	var e Event
	if r := (reader{text: text}); r.parse(&e) {
		return e, nil
	}
	return parseStrictly(text)
}

// parseStrictly takes any JSON of the right form.
func parseStrictly(text []byte) (Event, error) {
	var (
		e Event
		c codec
	)
	if fault := c.decode(text, "", e.fields); fault != nil {
		return Event{}, fmt.Errorf("event is damaged: %w", fault)
	}
	return e, nil
}

var (
	ruleAny  = rule{about: "text", wrong: func(string) string { return "" }}
	ruleKind = oneOf("node, person, leader, genesis or recovery", string(KindNode), string(KindPerson), string(KindLeader), string(KindGenesis), string(KindRecovery))
)

// fields is for decoding only; AppendJSON encodes.
func (e *Event) fields(c *codec) {
	c.whole("seq", &e.Seq, 1, maxSeq, "position in the log")
	c.time("time", &e.Time)
	text(c, "stream", &e.Stream, ruleAny)
	c.whole("version", &e.Version, 1, maxSeq, "position in the stream")
	text(c, "type", &e.Type, ruleAny)
	c.whole("schema", &e.Schema, 1, math.MaxUint16, "version of the data's form")
	c.object("actor", e.Actor.fields, true)
	optional(c, "cause", &e.Cause, ruleAny)
	c.object("producer", e.Producer.fields, false)
	c.raw("data", (*[]byte)(&e.Data))
}

func (a *Actor) fields(c *codec) {
	text(c, "kind", &a.Kind, ruleKind)
	text(c, "id", &a.ID, ruleAny)
	c.list("scopes", &a.Scopes, ruleScope, 3, false)
}

func (p *Producer) fields(c *codec) {
	text(c, "node", &p.Node, ruleID)
	c.whole("boot", &p.Boot, 0, math.MaxUint64, "start of the node")
	c.whole("n", &p.N, 1, math.MaxUint64, "number of the proposal")
}

// time is a required time in UTC, to the millisecond.
func (c *codec) time(name string, v *time.Time) {
	raw, ok := c.find(name, true)
	if !ok {
		return
	}
	t, err := time.Parse(`"`+timeForm+`"`, string(raw))
	if ms := t.UnixMilli(); err != nil || t.Location() != time.UTC || ms < 0 || ms > MaxTimeMillis {
		c.refuse(name, "is not a time in UTC from 1970 to 9000", "wanted is RFC 3339")
		return
	}
	*v = t
}

// object is an object with fields of its own.
func (c *codec) object(name string, fields func(*codec), required bool) {
	raw, ok := c.find(name, required)
	if !ok {
		return
	}
	outer := *c
	fault := c.decode(raw, c.id, fields)
	*c = outer
	if fault != nil {
		c.fault = fault.In(name)
	}
}

// raw is a required value whose form is for somebody else to check.
func (c *codec) raw(name string, v *[]byte) {
	if raw, ok := c.find(name, true); ok {
		*v = raw
	}
}
