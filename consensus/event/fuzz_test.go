package event

import (
	"bytes"
	"encoding/json"
	"testing"
)

// Whatever Validate accepts is JSON, and its canonical form is accepted too,
// decodes to the same and stays as it is.
func FuzzValidate(f *testing.F) {
	for _, d := range samples(f) {
		f.Add(d.Type, d.Stream, []byte(d.Data), d.Cause)
	}
	f.Add(TypeRobotOffline, "robot/"+testHash, []byte(`{"lastHeardSeconds":1e3}`), "")
	f.Add(TypeRobotLabelsChanged, "robot/"+testHash, []byte(`{"set":{"a":"\ud83d\ude00"},"remove":["\u0062"]}`), "x")
	f.Fuzz(func(t *testing.T, typ, stream string, data []byte, cause string) {
		d := Draft{Type: typ, Stream: stream, Data: data, Cause: cause}
		if Validate(d) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what is no JSON: %q", data)
		}
		e := Event{Type: typ, Stream: stream, Data: data}
		p, err := e.Decode()
		if err != nil {
			t.Fatalf("validated and not decoded: %v", err)
		}
		e.Data = Encode(p, 0)
		again, err := e.Decode()
		if err != nil {
			t.Fatalf("canonical form %s of %s is refused: %v", e.Data, data, err)
		}
		if twice := Encode(again, 0); !bytes.Equal(twice, e.Data) {
			t.Fatalf("canonical form %s became %s", e.Data, twice)
		}
		if len(e.Data) > MaxData {
			t.Fatalf("canonical form grew to %d bytes", len(e.Data))
		}
	})
}

// Whatever Parse accepts survives being encoded, to one form.
func FuzzParse(f *testing.F) {
	for _, e := range sampleEvents(f) {
		f.Add(e.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		once := e.AppendJSON(nil)
		if !json.Valid(once) {
			t.Fatalf("%q became %q, which is no JSON", text, once)
		}
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("%q is refused: %v", once, err)
		}
		if twice := again.AppendJSON(nil); !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q", once, twice)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	d := samples(b)[16]
	b.ReportAllocs()
	for b.Loop() {
		if err := Validate(d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := sampleEvents(b)[16].AppendJSON(nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e := sampleEvents(b)[16]
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = e.AppendJSON(out[:0])
	}
}
