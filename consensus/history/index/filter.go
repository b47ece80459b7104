package index

import (
	"strings"
	"time"

	"skein/consensus/event"
)

// Filter selects events. The zero Filter selects all.
type Filter struct {
	// Stream is a whole stream ("robot/abc…") or, ending in "/", a family.
	Stream string
	// Type is a whole type ("robot.online") or, ending in ".", a family.
	Type string
	// Actor is the id of who did it: a person's name or a node's id.
	Actor string
	// From and Until bound the time, both inclusive; zero is no bound.
	From, Until time.Time
}

// Matches reports whether the filter selects e.
func (f Filter) Matches(e event.Event) bool {
	return matches(f.Stream, e.Stream, "/") && matches(f.Type, e.Type, ".") &&
		(f.Actor == "" || f.Actor == e.Actor.ID) &&
		(f.From.IsZero() || !e.Time.Before(f.From)) &&
		(f.Until.IsZero() || !e.Time.After(f.Until))
}

func matches(pattern, s, separator string) bool {
	if isFamily(pattern, separator) {
		return strings.HasPrefix(s, pattern)
	}
	return pattern == "" || pattern == s
}

// isFamily reports whether a pattern stands for all that begin with it.
func isFamily(pattern, separator string) bool {
	return separator != "" && strings.HasSuffix(pattern, separator)
}

// bounds are a filter's times in milliseconds, both inclusive.
func (f Filter) bounds() (from, until int64) {
	from, until = -1<<63, 1<<63-1
	if !f.From.IsZero() {
		if from = f.From.UnixMilli(); f.From.After(time.UnixMilli(from)) {
			from++
		}
	}
	if !f.Until.IsZero() {
		until = f.Until.UnixMilli()
	}
	return from, until
}

// keyPatterns are what a filter wants of each key of the index.
func (f Filter) keyPatterns() [keyKinds]keyPattern {
	return [keyKinds]keyPattern{{f.Stream, "/"}, {f.Type, "."}, {f.Actor, ""}}
}

// keyPattern selects values of one key: all if empty, else one, or a family if
// it ends in the separator.
type keyPattern struct{ text, separator string }

func (p keyPattern) matches(s string) bool { return matches(p.text, s, p.separator) }
