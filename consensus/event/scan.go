package event

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// The scanner is a strict reader of JSON. encoding/json is not, in ways that
// matter for a log: it takes field names in any case, takes the last of two
// equal fields, takes null for anything and replaces broken UTF-8.

// maxMembers is the most fields an object of a payload or an envelope may have.
const maxMembers = 16

// usualMembers is how many most objects have.
const usualMembers = 6

// maxDepth bounds nesting.
const maxDepth = 8

// span is a part of the scanned text.
type span struct{ from, to uint32 }

// member is one field of an object: where its name (without quotes) and its
// value stand in the text.
type member struct {
	name, value span
	used        bool
}

// scanner walks over one text. It holds no state besides the place.
type scanner struct {
	text []byte
	at   int
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// take consumes c after white space.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// end reports that nothing but white space is left.
func (s *scanner) end() bool {
	s.space()
	return s.at == len(s.text)
}

// word consumes a literal such as true.
func (s *scanner) word(w string) bool {
	if len(s.text)-s.at < len(w) || string(s.text[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// str consumes a string and gives its span without quotes. bare says that it
// has no escapes, so that the span is the value.
func (s *scanner) str() (sp span, bare, ok bool) {
	if !s.take('"') {
		return span{}, false, false
	}
	from := s.at
	if n := bytes.IndexByte(s.text[from:], '"'); n >= 0 && plain(s.text[from:from+n]) {
		s.at = from + n + 1
		return span{uint32(from), uint32(from + n)}, true, true
	}
	bare = true
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '"':
			sp = span{uint32(from), uint32(s.at)}
			s.at++
			return sp, bare, utf8.Valid(s.text[sp.from:sp.to])
		case c == '\\':
			bare = false
			if !s.escape() {
				return span{}, false, false
			}
		case c < 0x20:
			return span{}, false, false
		default:
			s.at++
		}
	}
	return span{}, false, false
}

// escape consumes a backslash and what belongs to it.
func (s *scanner) escape() bool {
	if s.at+1 >= len(s.text) {
		return false
	}
	c := s.text[s.at+1]
	s.at += 2
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if s.at+4 > len(s.text) {
			return false
		}
		for range 4 {
			if !isHex(s.text[s.at]) {
				return false
			}
			s.at++
		}
		return true
	}
	return false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.text) && isDigit(s.text[s.at]) {
		s.at++
	}
	return s.at > from
}

// number consumes a JSON number.
func (s *scanner) number() bool {
	s.word("-")
	if !s.word("0") && !s.digits() {
		return false
	}
	if s.word(".") && !s.digits() {
		return false
	}
	if s.word("e") || s.word("E") {
		if !s.word("+") {
			s.word("-")
		}
		return s.digits()
	}
	return true
}

// value consumes any value.
func (s *scanner) value(depth int) bool {
	s.space()
	if s.at == len(s.text) || depth > maxDepth {
		return false
	}
	switch s.text[s.at] {
	case '"':
		_, _, ok := s.str()
		return ok
	case '{':
		return s.object(depth, func(span, span) bool { return true })
	case '[':
		return s.array(depth, func(span) bool { return true })
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

// spanned consumes any value and gives its span.
func (s *scanner) spanned(depth int) (span, bool) {
	s.space()
	from := s.at
	ok := s.value(depth)
	return span{uint32(from), uint32(s.at)}, ok
}

// object consumes an object and calls each with every field; each may stop it.
func (s *scanner) object(depth int, each func(name, value span) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		name, bare, ok := s.str()
		if !ok || !bare || !s.take(':') {
			return false
		}
		value, ok := s.spanned(depth + 1)
		if !ok || !each(name, value) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// array consumes an array and calls each with every element; each may stop it.
func (s *scanner) array(depth int, each func(value span) bool) bool {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for {
		value, ok := s.spanned(depth + 1)
		if !ok || !each(value) {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// unquote gives the string that value stands for; value is one that the scanner
// has accepted. False when it is no string.
func unquote(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err == nil
}

// appendString writes s as a JSON string. It is the one canonical form: only
// quote, backslash and control characters are escaped.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	if plain(s) {
		return append(append(b, s...), '"')
	}
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}
