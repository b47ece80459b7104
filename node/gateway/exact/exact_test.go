package exact

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

type part struct {
	Since *uint64 `json:"since,omitempty"`
}

// message has a field of every sort.
type message struct {
	Name string `json:"name"`
	Part
	Data   json.RawMessage   `json:"data"`
	Labels map[string]string `json:"labels"`
	Each   []part            `json:"each"`
	Named  map[string]part   `json:"named"`
	At     *time.Time        `json:"at"`
	Any    any               `json:"any"`
	Plain  string
	Hidden string `json:"-"`
}

// Part is embedded, and so flat in JSON.
type Part struct {
	Stream string  `json:"stream"`
	Since  *uint64 `json:"since,omitempty"`
}

var refused = map[string]string{ // text to path
	`{"name":"a","name":"b"}`:             "name",
	`{"name":"a","n\u0061me":"b"}`:        "name",
	`{"NAME":"a"}`:                        "NAME",
	`{"name":"a","Name":"b"}`:             "Name",
	`{"Stream":"x"}`:                      "Stream",
	`{"ſtream":"x"}`:                      "ſtream",
	`{"plain":"x"}`:                       "plain",
	`{"name":"\ud800"}`:                   "name",
	`{"name":"\udc00\ud800"}`:             "name",
	`{"name":"\ud800\u0041"}`:             "name",
	`{"name":"\ud800\n"}`:                 "name",
	`{"name":"\ud83e\udd16\uDEAD"}`:       "name",
	`{"na\ud800me":"a"}`:                  "",
	`{"data":{"a":1,"a":2}}`:              "data.a",
	`{"data":{"b":[1,{"c":"\udfff"}]}}`:   "data.b[1].c",
	`{"labels":{"a":"x","\u0061":"y"}}`:   "labels.a",
	`{"each":[{},{"since":1,"since":2}]}`: "each[1].since",
	`{"each":[{"SINCE":1}]}`:              "each[0].SINCE",
	`{"named":{"A":{},"a":{"Since":1}}}`:  "named.a.Since",
	`{"unknown":{"a":[[{"x":1,"x":1}]]}}`: "unknown.a[0][0].x",
	`{"any":{"":1,"":2}}`:                 "any",
	`{"data":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`: "data" + strings.Repeat("[0]", 31),
	`{"data":{` + many(100, "") + `,"k7":0}}`:                            "data.k7",
	`{"name"`:                  "",
	`{} {}`:                    "",
	``:                         "",
	"{\"name\":\"\xff\"}":      "",
	`{"name":["a"]}`:           "name",
	`{"since":-1}`:             "since",
	`{"each":[{"since":1.5}]}`: "each.since",
	`[]`:                       "",
	`{"at":"yesterday"}`:       "",
	`{"` + strings.Repeat("é", 100) + `":"\ud800"}`: strings.Repeat("é", 32) + "…",
}

func many(n int, prefix string) string {
	var names []string
	for i := range n {
		names = append(names, `"`+prefix+"k"+strings.Repeat("x", i/10)+string(rune('0'+i%10))+`":1`)
	}
	return strings.Join(names, ",")
}

var taken = []string{
	`{}`, ` { } `, `null`, `{"name":"a","since":1,"stream":"s","Plain":"p"}`,
	`{"labels":{"a":"x","A":"y"},"data":{"Name":1,"name":2}}`,
	`{"name":"\ud83e\udd16 🤖 \u00e9 \ufffd � \\ud800 \"\/"}`,
	`{"data":{` + many(100, "") + `},"more":[true,false,null,-1.5e+3]}`,
	`{"each":[ { "since" : 1 } , {"since":2}],"any":[[],{},""]}`,
	`{"named":{"A":{},"a":{"since":1}},"at":"2026-01-01T00:00:00Z"}`,
}

func TestWhatIsRefused(t *testing.T) {
	for text, path := range refused {
		var m message
		err := Decode([]byte(text), &m)
		f, is := err.(*Fault)
		if !is || f.Path != path || f.Message == "" || f.Next == "" || strings.Contains(f.Error(), "Go ") || strings.Contains(f.Error(), "json:") {
			t.Errorf("%.60s: %#v, want path %q", text, err, path)
		}
	}
}

func TestWhatIsTaken(t *testing.T) {
	for _, text := range taken {
		var m, want message
		if err := Decode([]byte(text), &m); err != nil {
			t.Errorf("%.60s: %v", text, err)
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil || !reflect.DeepEqual(m, want) {
			t.Errorf("%.60s: %+v, want %+v, %v", text, m, want, err)
		}
	}
}

// members counts those of all objects that encoding/json's tokens show; those of
// the decoded value are fewer where one was there twice.
func members(t *testing.T, text []byte) (n int) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	type level struct{ object, name bool }
	var open []level
	for {
		token, err := d.Token()
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		delim, _ := token.(json.Delim)
		if delim == '}' || delim == ']' {
			open = open[:len(open)-1]
			continue
		}
		if last := len(open) - 1; last >= 0 && open[last].object {
			open[last].name = !open[last].name
			if open[last].name {
				n++
			}
		}
		if delim != 0 {
			open = append(open, level{object: delim == '{'})
		}
	}
}

func count(v any) (members, marks int) {
	each := func(v any) {
		m, k := count(v)
		members, marks = members+m, marks+k
	}
	switch v := v.(type) {
	case string:
		marks = strings.Count(v, "\ufffd")
	case []any:
		for _, e := range v {
			each(e)
		}
	case map[string]any:
		members = len(v)
		for name, e := range v {
			each(name)
			each(e)
		}
	}
	return members, marks
}

// What is accepted encoding/json decodes without loss: every member is there, no
// mark is put in a place where none was, and only fields of that very name count.
func FuzzDecode(f *testing.F) {
	for text := range refused {
		f.Add([]byte(text))
	}
	for _, text := range taken {
		f.Add([]byte(text))
	}
	names := map[string]bool{"name": true, "since": true, "stream": true, "data": true, "labels": true, "each": true, "named": true, "at": true, "any": true, "Plain": true}
	f.Fuzz(func(t *testing.T, text []byte) {
		var m message
		if fault := Check(text, reflect.TypeFor[message]()); fault != nil {
			if fault.Message == "" || fault.Next == "" || len(fault.Path) > maxDepth*(maxName+8) {
				t.Fatalf("%q: %+v", text, fault)
			}
			return
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q is accepted: %v", text, err)
		}
		decoded, marks := count(v)
		if sent := members(t, text); sent != decoded {
			t.Fatalf("%q has %d members, %d are decoded", text, sent, decoded)
		}
		if said := strings.Count(string(text), "\ufffd") + strings.Count(strings.ToLower(string(text)), `\ufffd`); marks > said {
			t.Fatalf("%q says U+FFFD %d times, decoded are %d", text, said, marks)
		}
		object, is := v.(map[string]any)
		if !is || Unmarshal(text, &m) != nil {
			return
		}
		for name := range object {
			if !names[name] {
				delete(object, name)
			}
		}
		var want message
		again, err := json.Marshal(object)
		if err == nil {
			err = json.Unmarshal(again, &want)
		}
		if err != nil {
			t.Fatalf("%q is decoded, without the unknown fields not: %v", text, err)
		}
		m.Data, want.Data = nil, nil // spaces and the order of names
		if !reflect.DeepEqual(m, want) {
			t.Fatalf("%q is decoded as %+v, without the unknown fields as %+v", text, m, want)
		}
	})
}
