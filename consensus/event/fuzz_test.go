package event

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
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
		e.Data = Encode(p, 1, 0)
		again, err := e.Decode()
		if err != nil {
			t.Fatalf("canonical form %s of %s is refused: %v", e.Data, data, err)
		}
		if twice := Encode(again, 1, 0); !bytes.Equal(twice, e.Data) {
			t.Fatalf("canonical form %s became %s", e.Data, twice)
		}
		if len(e.Data) > MaxData {
			t.Fatalf("canonical form grew to %d bytes", len(e.Data))
		}
	})
}

// The Decoder says of a draft what the strict reader says, and what it reads does
// not depend on what it read before.
func FuzzDecoder(f *testing.F) {
	for _, d := range samples(f) {
		f.Add(d.Type, d.Schema, d.Stream, []byte(d.Data))
	}
	f.Add(TypeRobotLabelsChanged, uint64(1), "robot/"+testHash, []byte(`{"set":{"b":"","a":"\u0061"},"remove":[]}`))
	f.Add(TypeRobotLabelsChanged, uint64(1), "robot/"+testHash, []byte(`{"set":{},"remove":["x","y"]}`))
	f.Add(TypeRobotConfigChanged, uint64(1), "robot/"+testHash, []byte(`{"name":"a"`))
	f.Add(TypeRobotProvisioned, uint64(1), "robot/"+testHash, []byte(`{"firmware":"","version":"1","capabilities":["a"]}`))
	f.Add(TypeRobotOffline, uint64(1), "robot/"+testHash, []byte(`{"lastHeardSeconds":007}`))
	used := new(Decoder)
	f.Fuzz(func(t *testing.T, typ string, schema uint64, stream string, data []byte) {
		b := Batch{Actor: Actor{Kind: KindPerson, ID: "ada", Scopes: []string{ScopeAdmin}},
			Drafts: []Draft{{Type: typ, Schema: schema, Stream: stream, Data: data}}}
		want, wantFault := b.Decode(0)
		for _, d := range []*Decoder{new(Decoder), used} {
			got, fault := d.Draft(&b, 0, 1<<20)
			if !reflect.DeepEqual(fault, wantFault) {
				t.Fatalf("%s %s: %v, strictly %v", typ, data, fault, wantFault)
			}
			if fault != nil {
				continue
			}
			canonical := Encode(want, got.Schema, 0)
			if !bytes.Equal(got.Data, canonical) || !bytes.Equal(Encode(got.Payload, got.Schema, 0), canonical) {
				t.Fatalf("%s %s: data %s of %+v, strictly %s", typ, data, got.Data, got.Payload, canonical)
			}
			if got.Type != typ || got.Schema != max(schema, 1) {
				t.Fatalf("%s/%d became %s/%d", typ, schema, got.Type, got.Schema)
			}
		}
	})
}

// Whatever Parse accepts survives being encoded, to one form. The fast reader
// accepts nothing that the strict one does not, and reads the same.
func FuzzParse(f *testing.F) {
	for _, e := range sampleEvents(f) {
		f.Add(e.AppendJSON(nil))
		e.Actor.ID = "ada"
		f.Add(e.AppendJSON(nil))
	}
	f.Add(usual(f).AppendJSON(nil))
	f.Add([]byte(`{"seq":1,"time":"0000-00-00T00:00:d00`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Parse(text)
		strict, strictErr := parseStrictly(text)
		if len(text) <= MaxEncoded && ((err == nil) != (strictErr == nil) || !reflect.DeepEqual(e, strict)) {
			t.Fatalf("%q: %+v (%v), strictly %+v (%v)", text, e, err, strict, strictErr)
		}
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

// usual is an event as most are: a person changes labels, 256 bytes of data.
func usual(t testing.TB) *Event {
	id := testKey(t, 1).ID()
	d := RobotLabelsChanged{Set: map[string]string{"note": strings.Repeat("0", 110), "pad": strings.Repeat("x", 110)}}.Draft(id)
	return &Event{Seq: 123456, Time: time.UnixMilli(1_700_000_000_120).UTC(), Stream: d.Stream, Version: 789, Type: d.Type, Schema: 1,
		Actor:    Actor{Kind: KindPerson, ID: "ada", Scopes: []string{ScopeAdmin, ScopeOperator, ScopeViewer}},
		Producer: Producer{Node: testKey(t, 2).ID(), Boot: 3, N: 4567}, Data: d.Data}
}

// BenchmarkDecoder decodes the data of the same type again and again.
func BenchmarkDecoder(b *testing.B) {
	var d Decoder
	e := usual(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Event(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := usual(b).AppendJSON(nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e := usual(b)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = e.AppendJSON(out[:0])
	}
}
