package event

import (
	"crypto/ed25519"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// timeForm is the form of times: RFC 3339 in UTC, trailing zeros dropped, as
// encoding/json writes them.
const timeForm = time.RFC3339Nano

// Field describes one field of a type's data, for the catalogue.
type Field struct {
	Name string `json:"name"`
	// Kind is the JSON type: string, integer, boolean, array or object.
	Kind     string `json:"kind"`
	Required bool   `json:"required"`
	// About is the field's rule in words.
	About string `json:"about"`
}

type mode byte

const (
	decoding mode = iota
	encoding
	describing
)

// codec is handed to a payload's fields method, which names every field once.
// What happens with a field depends on the mode. After the first fault the
// remaining calls do nothing.
type codec struct {
	mode  mode
	fault *Fault
	// schema is the version of the data's form, for types that have several.
	schema uint64
	// id is the stream without its prefix, for rules that tie data and stream.
	id string

	// decoding
	text    []byte
	members []member

	// decoding in one pass, up to at; see Decoder. lost: it gave up. canonical: so
	// far the text is what encoding would give.
	onePass, lost, canonical bool
	at                       int
	// keys are label keys that were read before; most come again and again.
	keys *[16]string

	// encoding
	out []byte

	// describing
	about []Field
}

// decode reads text as an object whose fields are those that fields names.
func (c *codec) decode(text []byte, id string, fields func(*codec)) *Fault {
	*c = codec{mode: decoding, schema: c.schema, id: id, text: text, members: make([]member, 0, usualMembers)}
	if fault := c.scan(); fault != nil {
		return fault
	}
	fields(c)
	if c.fault != nil {
		return c.fault
	}
	for _, m := range c.members {
		if !m.used {
			return &Fault{Code: CodeInvalid, Path: c.part(m.name), Message: "is not a field of this type, or is there twice", Next: "remove it, or see `skein events types`"}
		}
	}
	return nil
}

// scan finds the members of the object.
func (c *codec) scan() *Fault {
	var fault *Fault
	s := scanner{text: c.text}
	ok := s.object(0, func(name, value span) bool {
		if len(c.members) == maxMembers {
			fault = &Fault{Code: CodeInvalid, Message: "has too many fields", Next: "see `skein events types`"}
			return false
		}
		c.members = append(c.members, member{name: name, value: value})
		return true
	})
	if fault == nil && (!ok || !s.end()) {
		fault = &Fault{Code: CodeInvalid, Message: "is not a JSON object in valid UTF-8 (at byte " + strconv.Itoa(s.at) + ")", Next: "send an object such as {}"}
	}
	return fault
}

func (c *codec) part(sp span) string { return string(c.text[sp.from:sp.to]) }

// refuse records the first fault, at a field.
func (c *codec) refuse(name, message, next string) {
	if c.onePass {
		c.lost = true // the strict reader says why
		return
	}
	if c.fault == nil {
		c.fault = &Fault{Code: CodeInvalid, Path: name, Message: message, Next: next}
	}
}

// require refuses when a rule that spans fields does not hold.
func (c *codec) require(holds bool, name, message, next string) {
	if c.mode == decoding && !holds {
		c.refuse(name, message, next)
	}
}

// find gives the raw value of a field that is there.
func (c *codec) find(name string, required bool) ([]byte, bool) {
	if c.onePass {
		return c.next(name, required)
	}
	if c.fault != nil {
		return nil, false
	}
	for i := range c.members {
		if m := &c.members[i]; !m.used && string(c.text[m.name.from:m.name.to]) == name {
			m.used = true
			return c.text[m.value.from:m.value.to], true
		}
	}
	if required {
		c.refuse(name, "is missing", "add it; see `skein events types`")
	}
	return nil, false
}

// open starts a field of the output.
func (c *codec) open(name string) {
	if n := len(c.out); n > 0 && c.out[n-1] != '{' {
		c.out = append(c.out, ',')
	}
	c.out = append(appendString(c.out, name), ':')
}

func (c *codec) describe(name, kind string, required bool, about string) {
	c.about = append(c.about, Field{name, kind, required, about})
}

// text is a required string that follows a rule.
func text[T ~string](c *codec, name string, v *T, r rule) { textField(c, name, v, r, true) }

// optional is a string that may be left out, which reads as "".
func optional[T ~string](c *codec, name string, v *T, r rule) { textField(c, name, v, r, false) }

func textField[T ~string](c *codec, name string, v *T, r rule, required bool) {
	switch c.mode {
	case describing:
		c.describe(name, "string", required, r.about)
	case encoding:
		if required || *v != "" {
			c.open(name)
			c.out = appendString(c.out, string(*v))
		}
	case decoding:
		raw, ok := c.find(name, required)
		if !ok {
			return
		}
		s, ok := "", false
		if c.onePass && raw[0] == '"' {
			s, ok = r.text(raw[1:len(raw)-1]), true
			c.canonical = c.canonical && (required || s != "")
		} else {
			s, ok = unquote(raw)
		}
		if !ok {
			c.refuse(name, "must be a string", "put it in quotes")
			return
		}
		if wrong := r.wrong(s); wrong != "" {
			c.refuse(name, wrong, "wanted is a "+r.about)
			return
		}
		*v = T(s)
	}
}

// whole is a required integer from low to high.
func (c *codec) whole(name string, v *uint64, low, high uint64, about string) {
	switch c.mode {
	case describing:
		c.describe(name, "integer", true, about)
	case encoding:
		c.open(name)
		c.out = strconv.AppendUint(c.out, *v, 10)
	case decoding:
		raw, ok := c.find(name, true)
		if !ok {
			return
		}
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			c.refuse(name, "must be a whole number", about)
			return
		}
		if n < low || n > high {
			c.refuse(name, "must be from "+strconv.FormatUint(low, 10)+" to "+strconv.FormatUint(high, 10), about)
			return
		}
		*v = n
	}
}

// flag is a required boolean.
func (c *codec) flag(name string, v *bool, about string) {
	switch c.mode {
	case describing:
		c.describe(name, "boolean", true, about)
	case encoding:
		c.open(name)
		c.out = strconv.AppendBool(c.out, *v)
	case decoding:
		if raw, ok := c.find(name, true); ok {
			*v = string(raw) == "true"
			if !*v && string(raw) != "false" {
				c.refuse(name, "must be true or false", about)
			}
		}
	}
}

// key is a required ed25519 public key in base64.
func (c *codec) key(name string, v *ed25519.PublicKey) {
	c.binary(name, (*[]byte)(v), ed25519.PublicKeySize, "public key", "ed25519 public key: 32 bytes in standard base64")
}

// signature is a required ed25519 signature in base64.
func (c *codec) signature(name string, v *[]byte) {
	c.binary(name, v, ed25519.SignatureSize, "signature", "ed25519 signature: 64 bytes in standard base64")
}

// binary is a required value of size bytes in base64.
func (c *codec) binary(name string, v *[]byte, size int, what, about string) {
	switch c.mode {
	case describing:
		c.describe(name, "string", true, about)
	case encoding:
		c.open(name)
		c.out = append(c.out, '"')
		c.out = base64.StdEncoding.AppendEncode(c.out, *v)
		c.out = append(c.out, '"')
	case decoding:
		raw, ok := c.find(name, true)
		if !ok {
			return
		}
		s, _ := unquote(raw)
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil || len(b) != size || strings.ContainsAny(s, "\r\n") {
			c.refuse(name, "is not a "+what, "wanted is an "+about)
			return
		}
		*v = b
	}
}

// list is an array of up to most different strings, each after a rule. An
// optional list may be left out, which reads as nil; a required one has at
// least one element.
func (c *codec) list(name string, v *[]string, r rule, most int, required bool) {
	switch c.mode {
	case describing:
		c.describe(name, "array", required, "up to "+strconv.Itoa(most)+" different strings, each a "+r.about)
	case encoding:
		if !required && len(*v) == 0 {
			return
		}
		c.open(name)
		c.out = append(c.out, '[')
		for i, s := range *v {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			c.out = appendString(c.out, s)
		}
		c.out = append(c.out, ']')
	case decoding:
		if c.onePass {
			c.nextList(name, v, r, most, required)
			return
		}
		if raw, ok := c.find(name, required); ok {
			c.decodeList(name, v, raw, r, most)
			c.require(!required || len(*v) > 0, name, "must not be empty", "wanted is a "+r.about)
		}
	}
}

func (c *codec) decodeList(name string, v *[]string, raw []byte, r rule, most int) {
	scan := scanner{text: raw}
	ok := scan.array(0, func(sp span) bool {
		at := name + "[" + strconv.Itoa(len(*v)) + "]"
		s, ok := unquote(raw[sp.from:sp.to])
		wrong := r.wrong(s)
		switch {
		case len(*v) == most:
			c.refuse(name, "has more than "+strconv.Itoa(most)+" elements", "send fewer at a time")
		case !ok:
			c.refuse(at, "must be a string", "put it in quotes")
		case wrong != "":
			c.refuse(at, wrong, "wanted is a "+r.about)
		case slices.Contains(*v, s):
			c.refuse(at, "is there twice", "give it once")
		}
		*v = append(*v, s)
		return c.fault == nil
	})
	if !ok {
		c.refuse(name, "must be an array of strings", "for example []")
	}
}

// table is an optional object of up to most strings, written in the order of its
// keys.
func (c *codec) table(name string, v *map[string]string, keys, values rule, most int) {
	switch c.mode {
	case describing:
		c.describe(name, "object", false, "up to "+strconv.Itoa(most)+" strings; "+keys.about+"; "+values.about)
	case encoding:
		if len(*v) == 0 {
			return
		}
		c.open(name)
		c.out = append(c.out, '{')
		for _, k := range slices.Sorted(maps.Keys(*v)) {
			c.open(k)
			c.out = appendString(c.out, (*v)[k])
		}
		c.out = append(c.out, '}')
	case decoding:
		if c.onePass {
			c.nextTable(name, v, keys, values, most)
			return
		}
		if raw, ok := c.find(name, false); ok {
			c.decodeTable(name, v, raw, keys, values, most)
		}
	}
}

func (c *codec) decodeTable(name string, v *map[string]string, raw []byte, keys, values rule, most int) {
	*v = map[string]string{}
	scan := scanner{text: raw}
	ok := scan.object(0, func(key, value span) bool {
		k := string(raw[key.from:key.to])
		s, isString := unquote(raw[value.from:value.to])
		_, again := (*v)[k]
		wrongKey, wrongValue := keys.wrong(k), values.wrong(s)
		switch {
		case again:
			c.refuse(name+"."+k, "is there twice", "give it once")
		case len(*v) == most:
			c.refuse(name, "has more than "+strconv.Itoa(most)+" fields", "send fewer at a time")
		case wrongKey != "":
			c.refuse(name, "has the key \""+k+"\", which "+wrongKey, "wanted is a "+keys.about)
		case !isString:
			c.refuse(name+"."+k, "must be a string", "put it in quotes")
		case wrongValue != "":
			c.refuse(name+"."+k, wrongValue, "wanted is a "+values.about)
		}
		(*v)[k] = s
		return c.fault == nil
	})
	if !ok {
		c.refuse(name, "must be an object of strings", "for example {}")
	}
}
