package event

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Decoder takes payloads apart one after the other and reuses its memory. It is
// for one goroutine; the zero Decoder is ready.
//
// Nearly everything that comes is canonical already, so it is read in one pass,
// field by field in the order of the type's list, without building anything in
// between. What is not of that form is left to the strict reader, which alone
// says what is wrong. So both accept the same; FuzzDecoder holds them together.
type Decoder struct {
	c codec
	// kept are payloads to decode into again, by their place in the catalogue.
	kept [len(catalogue)]Payload
}

// Decoded is what became of a draft.
type Decoded struct {
	// Payload is valid until the Decoder is used again. Texts and keys in it may be
	// kept, maps and lists must be copied.
	Payload Payload
	// Type is the draft's, and Schema never 0.
	Type   string
	Schema uint64
	// Data is canonical; it is the draft's own when that was.
	Data json.RawMessage
}

// Draft looks into draft i of a batch, in a fleet with that ceiling: type, level,
// stream, every field, and that the actor may propose it.
func (d *Decoder) Draft(b *Batch, i int, ceiling uint64) (Decoded, *Fault) {
	draft := &b.Drafts[i]
	desc, fault := describe(draft.Type, draft.Schema)
	if fault != nil || desc.level > ceiling {
		fault = draft.CheckCeiling(ceiling)
	}
	if fault == nil {
		fault = draft.check(desc)
	}
	if fault != nil {
		return Decoded{}, fault.In(DraftPath(i))
	}
	p, canonical, fault := d.decode(desc, draft.Stream, draft.Data)
	if fault == nil {
		fault = desc.authorize(b.Actor, draft.Stream)
	}
	if fault != nil {
		return Decoded{}, fault.In(DraftPath(i))
	}
	if canonical {
		return Decoded{p, desc.typ, desc.schema, draft.Data}, nil
	}
	return Decoded{p, desc.typ, desc.schema, Encode(p, desc.schema, len(draft.Data))}, nil
}

// Event is Event.Decode; the payload is valid until the Decoder is used again, as
// in Decoded.
func (d *Decoder) Event(e *Event) (Payload, error) {
	desc, fault := describe(e.Type, e.Schema)
	if fault != nil {
		return nil, fault
	}
	p, _, fault := d.decode(desc, e.Stream, e.Data)
	if fault != nil {
		return nil, fault
	}
	return p, nil
}

// decode reads data, and says whether it is in canonical form. false may also
// mean that this was not found out.
func (d *Decoder) decode(desc *descriptor, stream string, data []byte) (Payload, bool, *Fault) {
	p := d.kept[desc.at]
	if p == nil {
		p = desc.of.empty()
		d.kept[desc.at] = p
	}
	desc.of.wipe(p)
	subject := Subject(stream)
	if d.c.inOnePass(desc.schema, subject, data, p) {
		return p, d.c.canonical, nil
	}
	p, fault := decodePayload(desc, stream, data)
	return p, false, fault
}

// inOnePass reads text in one pass when it has the form of canonical JSON. When it
// gives up, p is of no use.
func (c *codec) inOnePass(schema uint64, id string, text []byte, p Payload) bool {
	if len(text) < 2 || len(text) > MaxData || text[0] != '{' {
		return false
	}
	if c.keys == nil {
		c.keys = new([16]string)
	}
	*c = codec{keys: c.keys, mode: decoding, onePass: true, canonical: true, schema: schema, id: id, text: text, at: 1}
	p.fields(c)
	return !c.lost && c.at == len(text)-1 && text[c.at] == '}'
}

// here consumes the name of a field, if it is the next one, up to the value.
func (c *codec) here(name string, required bool) bool {
	if c.lost {
		return false
	}
	at, text := c.at, c.text
	if at > 1 && at < len(text) && text[at] == ',' {
		at++
	} else if at > 1 {
		at = len(text) // the object ends
	}
	if end := at + len(name) + 3; end < len(text) && text[at] == '"' && string(text[at+1:end-2]) == name && text[end-2] == '"' && text[end-1] == ':' {
		c.at = end
		return true
	}
	if required {
		c.lost = true
	}
	return false
}

// next gives the raw value of a field, if it is the next one: a string without
// escapes, or a word or number. What may be inside a string is for the field's
// rule; every rule refuses control characters and broken UTF-8.
func (c *codec) next(name string, required bool) ([]byte, bool) {
	if !c.here(name, required) {
		return nil, false
	}
	rest := c.text[c.at:]
	n := 0
	if rest[0] == '"' {
		n = quoted(rest)
	} else {
		for n < len(rest) && rest[n] != ',' && rest[n] != '}' {
			n++
		}
		if n > 1 && rest[0] == '0' {
			n = 0 // no number of JSON
		}
	}
	if n == 0 {
		c.lost = true
		return nil, false
	}
	c.at += n
	return rest[:n], true
}

// quoted is how many bytes the string at the start of text has, quotes included;
// 0 when it has escapes or no end.
func quoted(text []byte) int {
	if len(text) == 0 || text[0] != '"' {
		return 0
	}
	n := bytes.IndexByte(text[1:], '"')
	if n < 0 || bytes.IndexByte(text[1:1+n], '\\') >= 0 {
		return 0
	}
	return n + 2
}

// nextList reads a list, if it is the next field.
func (c *codec) nextList(name string, v *[]string, r rule, most int, required bool) {
	if !c.here(name, required) {
		return
	}
	text, at := c.text, c.at
	if text[at] != '[' || at+1 < len(text) && text[at+1] == ']' {
		c.lost = true // also an empty list is not canonical
		return
	}
	for text[at] != ']' {
		at++ // after [ or ,
		n := quoted(text[at:])
		if n == 0 || len(*v) == most {
			c.lost = true
			return
		}
		s := r.text(text[at+1 : at+n-1])
		if at += n; at >= len(text) || text[at] != ',' && text[at] != ']' || r.wrong(s) != "" || slices.Contains(*v, s) {
			c.lost = true
			return
		}
		*v = append(*v, s)
	}
	c.at = at + 1
}

// nextTable reads a table, if it is the next field.
func (c *codec) nextTable(name string, v *map[string]string, keys, values rule, most int) {
	if !c.here(name, false) {
		return
	}
	text, at := c.text, c.at
	if text[at] != '{' || at+1 < len(text) && text[at+1] == '}' {
		c.lost = true
		return
	}
	if *v == nil {
		*v = make(map[string]string, 4)
	}
	for last := ""; text[at] != '}'; {
		at++ // after { or ,
		k := quoted(text[at:])
		if k == 0 || at+k+1 >= len(text) || text[at+k] != ':' {
			c.lost = true
			return
		}
		key := c.known(text[at+1 : at+k-1])
		at += k + 1
		n := quoted(text[at:])
		if n == 0 || len(*v) == most || key <= last || keys.wrong(key) != "" {
			c.lost = true // keys that are not in order are not canonical, or twice
			return
		}
		value := string(text[at+1 : at+n-1])
		if at += n; at >= len(text) || text[at] != ',' && text[at] != '}' || values.wrong(value) != "" {
			c.lost = true
			return
		}
		(*v)[key] = value
		last = key
	}
	c.at = at + 1
}

// known is b as a string, if possible one that was made before.
func (c *codec) known(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	slot := &c.keys[(7*len(b)+3*int(b[0])+int(b[len(b)-1]))%len(c.keys)]
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot
}
