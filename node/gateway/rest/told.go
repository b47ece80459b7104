package rest

import (
	"io"
	"reflect"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"skein/node/gateway/view"
)

// told is an answer that is JSON already, in the form of a T: lists that many
// ask for are encoded when they change, and not for every answer. It is written
// once, and its text is used again for another.
type told[T any] struct {
	text  []byte
	texts *texts
}

// Schema says that the answer is a T; it implements huma.SchemaProvider.
func (told[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

func (t told[T]) write(w io.Writer) error {
	_, err := w.Write(t.text)
	t.texts.give(t.text)
	return err
}

// marshal writes an answer. One that is JSON already goes out as it is.
func marshal(w io.Writer, v any) error {
	if t, ok := v.(interface{ write(io.Writer) error }); ok {
		return t.write(w)
	}
	return huma.DefaultJSONFormat.Marshal(w, v)
}

// maxTextBytes is the largest text that is used again.
const maxTextBytes = 4 << 20

// texts are there to be used again: a list of all robots for every answer would
// keep the collector of garbage busy. It takes them back when it runs.
type texts struct{ free sync.Pool }

// take gives an empty text.
func (t *texts) take() []byte {
	if text, ok := t.free.Get().(*[]byte); ok {
		return (*text)[:0]
	}
	return nil
}

// give takes a text back, which nobody may use any more.
func (t *texts) give(text []byte) {
	if cap(text) <= maxTextBytes {
		t.free.Put(&text)
	}
}

// tellList is the answer of a list, with its name in the answer, and its asOf.
func tellList[T, R any](t *texts, name string, list view.List[R]) told[T] {
	text := append(append(append(t.take(), `{"`...), name...), `":`...)
	return told[T]{tellAsOf(append(text, list.JSON()...), list.AsOf), t}
}

// tellAsOf ends an answer with its asOf.
func tellAsOf(text []byte, asOf view.AsOf) []byte {
	text = append(append(text, `,"asOf":`...), view.Encode(asOf.Filled())...)
	return append(text, "}\n"...)
}

// tellRobots is the answer of GET /robots.
func tellRobots(t *texts, robots view.RobotRows) told[view.Robots] {
	text := append(t.take(), `{"robots":[`...)
	for i, row := range robots.Rows {
		if i > 0 {
			text = append(text, ',')
		}
		text = row.AppendJSON(text)
	}
	return told[view.Robots]{tellAsOf(append(text, ']'), robots.AsOf), t}
}

// tellEvents is the answer of GET /events.
func tellEvents(t *texts, page view.Events) told[view.Events] {
	text := append(t.take(), `{"events":[`...)
	for i := range page.Events {
		if i > 0 {
			text = append(text, ',')
		}
		text = page.Events[i].AppendJSON(text)
	}
	text = append(append(text, `],"asOf":`...), view.Encode(page.AsOf.Filled())...)
	text = strconv.AppendBool(append(text, `,"compacted":`...), page.Compacted)
	text = strconv.AppendBool(append(text, `,"more":`...), page.More)
	return told[view.Events]{append(text, "}\n"...), t}
}
