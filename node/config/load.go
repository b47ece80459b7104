package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxFileBytes bounds a configuration file.
const MaxFileBytes = 1 << 20

// Error is everything that can be wrong with a configuration, always one line.
// A command that gets one exits with the code for wrong usage.
type Error struct {
	// File is the path given to Load.
	File string
	// Line counts from 1; 0 when the fault is not in one line.
	Line int
	// Key is the full path of the key, such as "mesh.link_port"; may be empty.
	Key string
	// Message says what is wrong and what to do.
	Message string
}

// Error is "file:line: key: message".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Message)
	return oneLine(b.String())
}

// Load reads and checks the file at path. Every error is an *Error.
func Load(path string) (Config, error) {
	text, err := readBounded(path)
	if err != nil {
		return Config{}, &Error{File: path, Message: err.Error()}
	}
	return Parse(text, path)
}

// readBounded reads a file, with the next step in its errors.
func readBounded(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		var fault *os.PathError
		if errors.As(err, &fault) {
			err = fault.Err
		}
		return "", fmt.Errorf("cannot open the configuration: %w; name an existing file with --config", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the configuration: %w", errors.Unwrap(err))
	case len(text) > MaxFileBytes:
		return "", fmt.Errorf("is over %d bytes; this is no configuration file", MaxFileBytes)
	}
	return string(text), nil
}

// Parse checks text as if it had been read from file, a name for messages only.
func Parse(text, file string) (Config, error) {
	c := Default()
	keys, err := toml.Decode(text, &c)
	if err != nil {
		return Config{}, decodeError(err, file)
	}
	if key, message, ok := unknownKey(keys); ok {
		return Config{}, &Error{File: file, Line: lineOf(text, key), Key: key.String(), Message: message}
	}
	if fault := c.check(); fault != nil {
		fault.File, fault.Line = file, lineOf(text, strings.Split(fault.Key, "."))
		return Config{}, fault
	}
	return c, nil
}

// Validate checks a configuration that was made in code. The error is an *Error
// whose File is "configuration".
func (c Config) Validate() error {
	if fault := c.check(); fault != nil {
		fault.File = "configuration"
		return fault
	}
	return nil
}

// decodeError turns a fault of syntax or type into ours. The library reports
// syntax as ParseError and a wrong type as text that starts with
// `toml: line N (last key "K"): `.
func decodeError(err error, file string) *Error {
	fault := &Error{File: file}
	if parse, ok := errors.AsType[toml.ParseError](err); ok {
		fault.Line, fault.Key, fault.Message = parse.Position.Line, parse.LastKey, parse.Message
	} else {
		text := strings.TrimPrefix(err.Error(), "toml: ")
		if place, rest, ok := strings.Cut(text, "): "); ok {
			if n, _ := fmt.Sscanf(place, "line %d (last key %q", &fault.Line, &fault.Key); n == 2 {
				text = rest
			}
		}
		fault.Message = text
	}
	fault.Message = plainWords(fault.Message)
	return fault
}

// plainWords says in an operator's words what the library says in Go's.
func plainWords(message string) string {
	if found, want, ok := strings.Cut(message, "; destination has type "); ok {
		found = strings.TrimPrefix(found, "incompatible types: TOML value has type ")
		if want == "slice" {
			want = "list"
		}
		return fmt.Sprintf("this is of type %s; it must be of type %s", found, want)
	}
	if number, _, ok := strings.Cut(message, " is out of range for uint16"); ok {
		return number + " is no port; it must be 0 to 65535"
	}
	if value, ok := strings.CutPrefix(message, "invalid duration: "); ok {
		return value + " is no duration; write a number with a unit, such as \"300ms\""
	}
	return message
}

// lineOf finds the line of a key of text that is known to parse. It asks the
// library to decode exactly that key into something that refuses: the refusal
// carries the position, also for dotted keys and inline tables.
func lineOf(text string, key toml.Key) int {
	var table map[string]toml.Primitive
	keys, err := toml.Decode(text, &table)
	if err != nil {
		return 0
	}
	last := len(key) - 1
	for _, part := range key[:last] {
		value, ok := table[part]
		if !ok {
			return 0
		}
		table = nil
		if keys.PrimitiveDecode(value, &table) != nil {
			return 0
		}
	}
	value, ok := table[key[last]]
	if !ok {
		return 0
	}
	refused, _ := errors.AsType[toml.ParseError](keys.PrimitiveDecode(value, &refuser{}))
	return refused.Position.Line
}

// refuser is a value that cannot be decoded.
type refuser struct{}

var errRefused = errors.New("refused")

// UnmarshalTOML always fails.
func (*refuser) UnmarshalTOML(any) error { return errRefused }

// oneLine keeps text from a file from breaking the one-line promise.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
