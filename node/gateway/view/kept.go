package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"skein/consensus/views"
)

// Kept is a list that many ask for: its JSON is made at most once. It is
// immutable; make it with NewKept.
type Kept[T any] struct {
	Rows []T
	text func() []byte
}

// NewKept keeps a list, which must not be changed any more.
func NewKept[T any](rows []T) *Kept[T] {
	if rows == nil {
		rows = []T{}
	}
	return &Kept[T]{Rows: rows, text: sync.OnceValue(func() []byte { return Encode(rows) })}
}

// JSON is the list as an array. It is shared: do not change it.
func (k *Kept[T]) JSON() []byte { return k.text() }

// List is an answer whose list is kept: Alerts, Deployments or Groups.
type List[T any] struct {
	*Kept[T]
	AsOf AsOf
}

// The answers whose lists are kept, see Alerts, Deployments and Groups.
type (
	AlertList      = List[views.Alert]
	DeploymentList = List[views.Deployment]
	GroupList      = List[Group]
)

// Row is a robot's row as it is kept from one answer to the next: all but the
// age of the news, which is another with every answer. It is immutable; make it
// with NewRow.
type Row struct {
	Robot
	text func() []byte
}

// NewRow keeps a robot. Its HeardAgeMillis is left out.
func NewRow(r Robot) *Row {
	r = r.Filled()
	r.HeardAgeMillis = nil
	return &Row{Robot: r, text: sync.OnceValue(func() []byte {
		return bytes.TrimSuffix(Encode(r), []byte("null}"))
	})}
}

// HeardRow is a row with the age of its news. A row without telemetry has none.
type HeardRow struct {
	*Row
	AgeMillis int64
}

// AppendJSON appends what the JSON of Whole is to b.
func (h HeardRow) AppendJSON(b []byte) []byte {
	b = append(b, h.text()...)
	if h.Telemetry == nil {
		return append(b, "null}"...)
	}
	return append(strconv.AppendInt(b, h.AgeMillis, 10), '}')
}

// Whole is the robot with the age of its news.
func (h HeardRow) Whole() Robot {
	r := h.Robot
	if r.Telemetry != nil {
		age := h.AgeMillis
		r.HeardAgeMillis = &age
	}
	return r
}

// RobotRows is the answer of GET /api/v1/robots, see Robots, as it is made of
// rows that are kept.
type RobotRows struct {
	Rows []HeardRow
	AsOf AsOf
}

// Rows are the picture's robots as rows.
func (p Picture) Rows() RobotRows {
	out := RobotRows{AsOf: p.Fleet.AsOf}
	for _, r := range p.Robots {
		row := HeardRow{Row: NewRow(r)}
		if r.HeardAgeMillis != nil {
			row.AgeMillis = *r.HeardAgeMillis
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// Encode is v as JSON in the form of all answers: HTML's characters are left as
// they are, as every answer says that it is JSON. It never fails: answers and
// messages are made of types that JSON can say.
func Encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
