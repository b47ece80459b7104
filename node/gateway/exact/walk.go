package exact

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxDepth bounds nesting.
	maxDepth = 32
	// maxName is how many bytes of a name a path repeats.
	maxName = 64
	// fewNames is how many names of an object are compared one by one.
	fewNames = 16
)

// walker walks over one text that is valid JSON.
type walker struct {
	text []byte
	at   int
	// known are the fields of types that came up.
	known map[reflect.Type][]field
}

// next skips white space and gives the byte there.
func (w *walker) next() byte {
	for {
		switch c := w.text[w.at]; c {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return c
		}
	}
}

// value walks over one value that goes into a t, nil if that is free-form.
func (w *walker) value(t reflect.Type, depth int) *Fault {
	if depth > maxDepth {
		return &Fault{Message: fmt.Sprintf("is nested more than %d deep", maxDepth), Next: "send less deep values"}
	}
	t = plainType(t)
	switch w.next() {
	case '{':
		return w.object(t, depth)
	case '[':
		return w.array(t, depth)
	case '"':
		_, whole := w.str()
		if !whole {
			return &Fault{Message: "has half a surrogate pair, which is no character", Next: `send both halves, e.g. "\ud83e\udd16", or the character itself`}
		}
		return nil
	}
	for w.at < len(w.text) { // a number or a word
		switch w.text[w.at] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return nil
		}
		w.at++
	}
	return nil
}

func (w *walker) array(t reflect.Type, depth int) *Fault {
	var of reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		of = t.Elem()
	}
	w.at++
	if w.next() == ']' {
		w.at++
		return nil
	}
	for i := 0; ; i++ {
		if f := w.value(of, depth+1); f != nil {
			return f.in("[" + strconv.Itoa(i) + "]")
		}
		c := w.next()
		w.at++
		if c == ']' {
			return nil
		}
	}
}

func (w *walker) object(t reflect.Type, depth int) *Fault {
	var fields []field
	var of reflect.Type
	if t != nil && t.Kind() == reflect.Struct {
		fields = w.fieldsOf(t)
	} else if t != nil && t.Kind() == reflect.Map {
		of = t.Elem()
	}
	w.at++
	if w.next() == '}' {
		w.at++
		return nil
	}
	var seen names
	for {
		w.next()
		name, whole := w.str()
		if !whole {
			return &Fault{Message: "has a name with half a surrogate pair, which is no character", Next: "send both halves, or the character itself"}
		}
		if !seen.add(name) {
			return (&Fault{Message: "is there twice", Next: "send it once"}).in(clip(name))
		}
		into, other := find(fields, name, of)
		if other != "" {
			return (&Fault{Message: fmt.Sprintf("is not a field, %s is", other), Next: "write the name so; case matters"}).in(clip(name))
		}
		w.next()
		w.at++ // the colon
		if f := w.value(into, depth+1); f != nil {
			return f.in(clip(name))
		}
		c := w.next()
		w.at++
		if c == '}' {
			return nil
		}
	}
}

// str walks over a string; not whole: it has half a surrogate pair.
func (w *walker) str() (s string, whole bool) {
	from := w.at
	escaped, half := false, false
	w.at++
	for ; w.text[w.at] != '"'; w.at++ {
		if w.text[w.at] != '\\' {
			continue
		}
		escaped = true
		w.at++
		if w.text[w.at] != 'u' {
			continue
		}
		switch unit := w.unit(); {
		case unit>>10 == 0xdc00>>10:
			half = true // a second half without a first one
		case unit>>10 == 0xd800>>10:
			if w.text[w.at+1] != '\\' || w.text[w.at+2] != 'u' {
				half = true
				continue
			}
			w.at += 2
			if unit = w.unit(); unit>>10 != 0xdc00>>10 {
				half = true
			}
		}
	}
	w.at++
	if half {
		return "", false
	}
	text := w.text[from:w.at]
	if !escaped {
		return string(text[1 : len(text)-1]), true
	}
	return s, json.Unmarshal(text, &s) == nil
}

// unit reads the four digits after the u of an escape, and stops at the last.
func (w *walker) unit() uint64 {
	n, _ := strconv.ParseUint(string(w.text[w.at+1:w.at+5]), 16, 16) // valid JSON: these are digits
	w.at += 4
	return n
}

// names are those of one object so far.
type names struct {
	few  []string
	many map[string]struct{}
}

// add reports whether the name is new.
func (n *names) add(name string) bool {
	if n.many == nil {
		if slices.Contains(n.few, name) {
			return false
		}
		n.few = append(n.few, name)
		if len(n.few) <= fewNames {
			return true
		}
		n.many = make(map[string]struct{}, 2*fewNames)
		for _, s := range n.few {
			n.many[s] = struct{}{}
		}
		return true
	}
	_, twice := n.many[name]
	n.many[name] = struct{}{}
	return !twice
}

// field is a field of an object as JSON names it.
type field struct {
	name string
	typ  reflect.Type
}

// find gives the type for a name. other: the field that encoding/json would take
// it for, though it has another name. Without fields all names are of type of.
func find(fields []field, name string, of reflect.Type) (typ reflect.Type, other string) {
	if len(fields) == 0 {
		return of, ""
	}
	for i := range fields {
		if fields[i].name == name {
			return fields[i].typ, ""
		}
	}
	for i := range fields {
		if strings.EqualFold(fields[i].name, name) {
			return nil, fields[i].name
		}
	}
	return nil, ""
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// plainType is what t points to, or nil where a type reads its JSON itself or
// takes any.
func plainType(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() == reflect.Interface || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	return t
}

// fieldsOf lists the fields of a struct, those of embedded ones among them.
func (w *walker) fieldsOf(t reflect.Type) []field {
	if fields, ok := w.known[t]; ok {
		return fields
	}
	var fields []field
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Tag.Get("json") == "-", !f.IsExported(), f.Anonymous && name == "":
			continue
		case name == "":
			name = f.Name
		}
		fields = append(fields, field{name, f.Type})
	}
	if w.known == nil {
		w.known = map[reflect.Type][]field{}
	}
	w.known[t] = fields
	return fields
}

func (f *Fault) in(part string) *Fault {
	switch {
	case f.Path == "" || f.Path[0] == '[':
		f.Path = part + f.Path
	default:
		f.Path = part + "." + f.Path
	}
	return f
}

// clip keeps what a stranger sent from filling an answer.
func clip(name string) string {
	if len(name) > maxName {
		return strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	return name
}
