package view

import (
	"errors"
	"strconv"
	"time"

	"skein/mesh/ident"
)

// Read is how fresh an answer is asked to be, and was.
type Read string

// The reads.
const (
	// Local is what the node that answers has, at once.
	Local Read = "local"
	// Leased has all that was decided before the question, by the word of a leader
	// that holds a lease. Linearizable has it by the word of a majority.
	Leased       Read = "leased"
	Linearizable Read = "linearizable"
)

// Fresh says how fresh this node's copy of the log was made.
type Fresh struct {
	Cursor Cursor
	// Age bounds how old the copy is; negative if it is not known.
	Age time.Duration
}

// At is a moment that somebody asks for: an event or a time.
type At struct {
	// Seq is the last event to include; it counts if Time is zero.
	Seq  uint64
	Time time.Time
}

// maxSeq is the highest sequence number that JSON numbers hold exactly.
const maxSeq = 1<<53 - 1

// errAt is what is wrong with a moment.
var errAt = errors.New("is no moment: write the number of an event, or a time like 2026-07-07T14:00:00Z")

// ParseAt reads a moment: a decimal number, or a time as of RFC 3339 between the
// years 1970 and 9999.
func ParseAt(text string) (At, error) {
	if seq, err := strconv.ParseUint(text, 10, 64); err == nil {
		if seq > maxSeq {
			return At{}, errAt
		}
		return At{Seq: seq}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if t = t.UTC(); err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return At{}, errAt
	}
	return At{Time: t}, nil
}

// String is the moment as ParseAt reads it.
func (a At) String() string {
	if a.Time.IsZero() {
		return strconv.FormatUint(a.Seq, 10)
	}
	return a.Time.UTC().Format(time.RFC3339Nano)
}

// Moment is the past moment that an answer is about.
type Moment struct {
	// Seq is the last event that is included; 0 is before the first.
	Seq uint64 `json:"seq"`
	// Time is when that event was decided, null for 0.
	Time *time.Time `json:"time"`
}

// Counts is how many of each kind of thing a state has.
type Counts struct {
	Nodes      int `json:"nodes"`
	Members    int `json:"members"`
	Voters     int `json:"voters"`
	Robots     int `json:"robots"`
	Groups     int `json:"groups"`
	Persons    int `json:"persons"`
	Enrolments int `json:"enrolments"`
}

// Decided is the answer of GET /api/v1/state: what the fleet had decided, now or
// at a past moment, in figures that any two nodes can compare.
type Decided struct {
	FleetID ident.FleetID `json:"fleetId"`
	Name    string        `json:"name"`
	// StateHash is equal on all nodes at an equal cursor.
	StateHash string `json:"stateHash"`
	Counts    Counts `json:"counts"`
	// Ceiling is up to which level event types may be proposed. Recoveries counts
	// how often the fleet lost its voters and was recovered.
	Ceiling    uint64 `json:"ceiling"`
	Recoveries uint64 `json:"recoveries"`
	AsOf       AsOf   `json:"asOf"`
}

// Change is one thing that is otherwise in the later of two states.
type Change struct {
	// Kind is fleet, node, voter, robot, group, person or enrolment.
	Kind string `json:"kind"`
	// ID names the thing; Name is for people and may be empty.
	ID   string `json:"id"`
	Name string `json:"name"`
	// What is added, removed or changed.
	What string `json:"what"`
	// Fields says what changed, sorted by field; empty unless What is changed.
	Fields []FieldChange `json:"fields"`
}

// FieldChange is one field of a thing before and after, as text for people.
type FieldChange struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// Diff is the answer of GET /api/v1/events/diff.
type Diff struct {
	From Moment `json:"from"`
	To   Moment `json:"to"`
	// Changes are sorted by kind, then id.
	Changes []Change `json:"changes"`
	// More: there are further changes; these are the first 1000.
	More bool `json:"more"`
	AsOf AsOf `json:"asOf"`
}
