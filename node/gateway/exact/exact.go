package exact

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// Fault is why a message is not taken.
type Fault struct {
	// Path is where, e.g. "drafts[0].data.set"; "" is the whole message.
	Path string
	// Message is what is wrong and Next what to do, each for who has sent it.
	// Neither repeats values, which may be secret and long.
	Message, Next string
	// NotJSON: the message as a whole is no JSON in UTF-8.
	NotJSON bool
}

// Error is where and what.
func (f *Fault) Error() string {
	if f.Path == "" {
		return "the message " + f.Message
	}
	return f.Path + " " + f.Message
}

// Decode reads text, one JSON value, into v, a pointer that is not nil. Errors are
// *Fault.
func Decode(text []byte, v any) error {
	if f := Check(text, reflect.TypeOf(v).Elem()); f != nil {
		return f
	}
	return Unmarshal(text, v)
}

// Unmarshal is Decode of text that Check has let pass, for the type of v.
func Unmarshal(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return inWords(err)
	}
	return nil
}

// Check reports why text must not be decoded into a value of type t, or nil. That
// values fit their fields it does not look at.
func Check(text []byte, t reflect.Type) *Fault {
	if !utf8.Valid(text) {
		return &Fault{Message: "is not UTF-8", Next: "send text in UTF-8", NotJSON: true}
	}
	if !json.Valid(text) {
		return notJSON(text)
	}
	w := walker{text: text}
	return w.value(t, 1)
}

func notJSON(text []byte) *Fault {
	f := &Fault{Message: "is not JSON", Next: "send one JSON object", NotJSON: true}
	var raw json.RawMessage
	if at, is := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &raw)); is {
		f.Message = fmt.Sprintf("is not JSON from byte %d on: %v", at.Offset, at)
	}
	return f
}

// inWords says what a value's decoding failed with, without names of Go.
func inWords(err error) *Fault {
	f := &Fault{Message: "has a value that does not fit", Next: "send what the field is for"}
	if e, is := errors.AsType[*json.UnmarshalTypeError](err); is {
		kind, _, number := strings.Cut(e.Value, " ") // "number 7"
		f.Path, f.Message = fieldPath(e.Field), "cannot be JSON of the kind "+kind
		switch {
		case f.Path == "":
			f.Next = "send a JSON object"
		case number:
			f.Message = "cannot be that number"
		}
	}
	if _, is := errors.AsType[*time.ParseError](err); is {
		f.Message, f.Next = "has a time that is none", `write times like "2026-01-31T12:00:00Z"`
	}
	return f
}

// fieldPath leaves the names of embedded Go structs out of a path.
func fieldPath(path string) string {
	var parts []string
	for part := range strings.SplitSeq(path, ".") {
		if part != "" && (part[0] < 'A' || part[0] > 'Z') {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ".")
}
