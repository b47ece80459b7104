package rest

import (
	"io"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"skein/node/gateway/view"
)

// told is an answer that is JSON already, in the form of a T: lists that many
// ask for are encoded when they change, and not for every answer.
type told[T any] struct{ text []byte }

// Schema says that the answer is a T; it implements huma.SchemaProvider.
func (told[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

func (t told[T]) written() []byte { return t.text }

// marshal writes an answer. One that is written already goes out as it is.
func marshal(w io.Writer, v any) error {
	if t, ok := v.(interface{ written() []byte }); ok {
		_, err := w.Write(t.written())
		return err
	}
	return huma.DefaultJSONFormat.Marshal(w, v)
}

// tellList is the answer of a list, with its name in the answer, and its asOf.
func tellList[T, R any](name string, list view.List[R]) told[T] {
	rows := list.JSON()
	text := make([]byte, 0, len(rows)+asOfBytes)
	text = append(append(append(append(text, `{"`...), name...), `":`...), rows...)
	return told[T]{tellAsOf(text, list.AsOf)}
}

// asOfBytes is more than most of what stands around a list.
const asOfBytes = 1 << 10

// tellAsOf ends an answer with its asOf.
func tellAsOf(text []byte, asOf view.AsOf) []byte {
	text = append(append(text, `,"asOf":`...), view.Encode(asOf.Filled())...)
	return append(text, "}\n"...)
}

// rowBytes is more than most rows of robots have, and eventBytes than most events.
const (
	rowBytes   = 1 << 10
	eventBytes = 512
)

// tellRobots is the answer of GET /robots.
func tellRobots(robots view.RobotRows) told[view.Robots] {
	text := make([]byte, 0, len(robots.Rows)*rowBytes+asOfBytes)
	text = append(text, `{"robots":[`...)
	for i, row := range robots.Rows {
		if i > 0 {
			text = append(text, ',')
		}
		text = row.AppendJSON(text)
	}
	return told[view.Robots]{tellAsOf(append(text, ']'), robots.AsOf)}
}

// tellEvents is the answer of GET /events.
func tellEvents(page view.Events) told[view.Events] {
	text := make([]byte, 0, len(page.Events)*eventBytes+asOfBytes)
	text = append(text, `{"events":[`...)
	for i := range page.Events {
		if i > 0 {
			text = append(text, ',')
		}
		text = page.Events[i].AppendJSON(text)
	}
	text = append(append(text, `],"asOf":`...), view.Encode(page.AsOf.Filled())...)
	text = strconv.AppendBool(append(text, `,"compacted":`...), page.Compacted)
	text = strconv.AppendBool(append(text, `,"more":`...), page.More)
	return told[view.Events]{append(text, "}\n"...)}
}
