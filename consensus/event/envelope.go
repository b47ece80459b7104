package event

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"skein/mesh/ident"
)

// The envelope is written, and read as far as it is canonical, by hand: nearly
// all of what goes through the log is, and the general way is several times
// slower. What is read here the strict reader would read the same; what is not,
// it reads or refuses. FuzzParse holds the two together.

// AppendJSON appends the event's canonical form to b. Data must be canonical,
// as it is in every event that came from this package.
func (e *Event) AppendJSON(b []byte) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), e.Seq, 10)
	b = appendTime(append(b, `,"time":"`...), e.Time)
	b = appendString(append(b, `","stream":`...), e.Stream)
	b = strconv.AppendUint(append(b, `,"version":`...), e.Version, 10)
	b = appendString(append(b, `,"type":`...), e.Type)
	b = strconv.AppendUint(append(b, `,"schema":`...), e.Schema, 10)
	b = appendString(append(b, `,"actor":{"kind":`...), string(e.Actor.Kind))
	b = appendString(append(b, `,"id":`...), e.Actor.ID)
	for i, scope := range e.Actor.Scopes {
		if i == 0 {
			b = append(b, `,"scopes":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(b, scope)
	}
	if len(e.Actor.Scopes) > 0 {
		b = append(b, ']')
	}
	b = append(b, '}')
	if e.Cause != "" {
		b = appendString(append(b, `,"cause":`...), e.Cause)
	}
	if e.Producer != (Producer{}) {
		b = appendString(append(b, `,"producer":{"node":`...), string(e.Producer.Node))
		b = strconv.AppendUint(append(b, `,"boot":`...), e.Producer.Boot, 10)
		b = append(strconv.AppendUint(append(b, `,"n":`...), e.Producer.N, 10), '}')
	}
	return append(append(append(b, `,"data":`...), e.Data...), '}')
}

// appendTime writes what timeForm gives.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	nanos := t.Nanosecond()
	if year < 1000 || year > 9999 || nanos%1e6 != 0 {
		return t.AppendFormat(b, timeForm)
	}
	hour, minute, second := t.Clock()
	b = append2(append2(b, year/100), year%100)
	b = append2(append(b, '-'), int(month))
	b = append2(append(b, '-'), day)
	b = append2(append(b, 'T'), hour)
	b = append2(append(b, ':'), minute)
	b = append2(append(b, ':'), second)
	if millis := nanos / 1e6; millis > 0 {
		b = append(append2(append(b, '.'), millis/10), byte('0'+millis%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return append(b, 'Z')
}

// append2 writes two digits.
func append2(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

// reader reads an envelope in canonical form. Once bad, it gives nothing more.
type reader struct {
	text []byte
	at   int
	bad  bool
}

// parse reads the whole event; false leaves it to the strict reader.
func (r *reader) parse(e *Event) bool {
	r.literal(`{"seq":`)
	e.Seq = r.number(1, maxSeq)
	r.literal(`,"time":"`)
	e.Time = r.time()
	r.literal(`","stream":"`)
	e.Stream = string(r.str())
	r.literal(`","version":`)
	e.Version = r.number(1, maxSeq)
	r.literal(`,"type":"`)
	e.Type = typeName(r.str())
	r.literal(`","schema":`)
	e.Schema = r.number(1, math.MaxUint16)
	r.actor(&e.Actor)
	if r.has(`,"cause":"`) {
		e.Cause = string(r.str())
		r.literal(`"`)
	}
	if r.has(`,"producer":{"node":"`) {
		e.Producer.Node = r.node(e)
		r.literal(`","boot":`)
		e.Producer.Boot = r.number(0, math.MaxUint64)
		r.literal(`,"n":`)
		e.Producer.N = r.number(1, math.MaxUint64)
		r.literal(`}`)
	}
	r.literal(`,"data":`)
	if r.bad {
		return false
	}
	s := scanner{text: r.text, at: r.at}
	if !s.value(1) || s.at != len(r.text)-1 || r.text[s.at] != '}' {
		return false
	}
	e.Data = r.text[r.at:s.at:s.at]
	return true
}

func (r *reader) actor(a *Actor) {
	r.literal(`,"actor":{"kind":"`)
	a.Kind = Kind(ruleKind.text(r.str()))
	r.bad = r.bad || ruleKind.wrong(string(a.Kind)) != ""
	r.literal(`","id":"`)
	a.ID = string(r.str())
	r.literal(`"`)
	if r.has(`,"scopes":`) {
		end := bytes.IndexByte(r.text[r.at:], ']') + 1
		scopes, known := scopeLists[string(r.text[r.at:r.at+end])]
		a.Scopes = scopes
		r.at += end
		r.bad = r.bad || !known
	}
	r.literal(`}`)
}

// node reads the producer's id. Mostly it is one that the event has already.
func (r *reader) node(e *Event) ident.NodeID {
	id := r.str()
	if subject := Subject(e.Stream); string(id) == subject && !r.bad && wrongID(subject) == "" {
		return ident.NodeID(subject)
	}
	if string(id) == e.Actor.ID {
		r.bad = r.bad || wrongID(e.Actor.ID) != ""
		return ident.NodeID(e.Actor.ID)
	}
	node := string(id)
	r.bad = r.bad || wrongID(node) != ""
	return ident.NodeID(node)
}

// has consumes text if it is next.
func (r *reader) has(text string) bool {
	if r.bad || len(r.text)-r.at < len(text) || string(r.text[r.at:r.at+len(text)]) != text {
		return false
	}
	r.at += len(text)
	return true
}

// literal consumes text, which must be next.
func (r *reader) literal(text string) { r.bad = !r.has(text) }

// str consumes a string up to its closing quote, which is next then.
func (r *reader) str() []byte {
	if r.bad {
		return nil
	}
	n := bytes.IndexByte(r.text[r.at:], '"')
	if n < 0 {
		r.bad = true
		return nil
	}
	s := r.text[r.at : r.at+n]
	r.at += n
	if !plain(s) {
		r.bad = bytes.IndexByte(s, '\\') >= 0 || !utf8.Valid(s) || bytes.IndexFunc(s, func(c rune) bool { return c < 0x20 }) >= 0
	}
	return s
}

// number consumes a whole number from low to high.
func (r *reader) number(low, high uint64) uint64 {
	n, from := uint64(0), r.at
	for !r.bad && r.at < len(r.text) && isDigit(r.text[r.at]) {
		digit := uint64(r.text[r.at] - '0')
		r.bad = n > (math.MaxUint64-digit)/10
		n = 10*n + digit
		r.at++
	}
	if r.at == from || r.text[from] == '0' && r.at > from+1 || n < low || n > high {
		r.bad = true
	}
	return n
}

// time consumes a time in UTC with up to three digits of a second's fraction.
func (r *reader) time() time.Time {
	const form = "dddd-dd-ddTdd:dd:dd"
	if r.bad || len(r.text)-r.at < len(form)+1 {
		r.bad = true
		return time.Time{}
	}
	var v [6]int // year, month, day, hour, minute, second
	field := 0
	for i := range len(form) {
		c := r.text[r.at+i]
		switch {
		case isDigit(c) && form[i] == 'd':
			v[field] = 10*v[field] + int(c-'0')
		case c != 'd' && form[i] == c:
			field++
		default:
			r.bad = true
			return time.Time{}
		}
	}
	r.at += len(form)
	nanos := 0
	if r.has(".") {
		unit := 100_000_000
		for r.at < len(r.text) && isDigit(r.text[r.at]) && unit >= 1e6 {
			nanos += int(r.text[r.at]-'0') * unit
			unit /= 10
			r.at++
		}
		r.bad = unit == 100_000_000
	}
	r.literal("Z")
	t := time.Date(v[0], time.Month(v[1]), v[2], v[3], v[4], v[5], nanos, time.UTC)
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	same := v == [...]int{year, int(month), day, hour, minute, second} // no February 30
	if ms := t.UnixMilli(); !same || ms < 0 || ms > MaxTimeMillis {
		r.bad = true
	}
	return t
}

// typeName is the name of a type; of one that is known it costs no memory.
func typeName(b []byte) string {
	if known := byType[string(b)]; len(known) > 0 {
		return known[0].typ
	}
	return string(b)
}

// scopeLists has every list of different scopes by its canonical form, so that
// events share them. It is never changed, and neither are the lists.
var scopeLists = func() map[string][]string {
	lists := map[string][]string{}
	all := []string{ScopeViewer, ScopeOperator, ScopeAdmin}
	var grow func(list []string, text string)
	grow = func(list []string, text string) {
		for _, scope := range all {
			if slices.Contains(list, scope) {
				continue
			}
			longer := append(list[:len(list):len(list)], scope)
			form := text + "," + strconv.Quote(scope)
			lists["["+form[1:]+"]"] = longer[:len(longer):len(longer)]
			grow(longer, form)
		}
	}
	grow(nil, "")
	return lists
}()
