package event

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
)

var update = flag.Bool("update", false, "rewrite testdata")

// Every type survives draft → validate → decode → encode, and its canonical form
// is what encoding/json makes of the same value.
func TestRoundTrip(t *testing.T) {
	for _, d := range samples(t) {
		if err := Validate(d); err != nil {
			t.Errorf("%s: %v", d.Type, err)
			continue
		}
		e := Event{Stream: d.Stream, Type: d.Type, Schema: d.Schema, Data: d.Data}
		p, err := e.Decode()
		if err != nil {
			t.Errorf("%s: %v", d.Type, err)
			continue
		}
		if again := Encode(p, d.Schema, 0); !bytes.Equal(again, d.Data) {
			t.Errorf("%s: encoded again %s, first %s", d.Type, again, d.Data)
		}
		if string(d.Data) != "{}" && reflect.ValueOf(p).Elem().IsZero() {
			t.Errorf("%s: nothing was decoded from %s", d.Type, d.Data)
		}
		var generic map[string]any
		if err := json.Unmarshal(d.Data, &generic); err != nil {
			t.Errorf("%s: %v", d.Type, err)
		}
	}
}

// What is accepted in another form is stored in the one canonical form.
func TestCanonicalForm(t *testing.T) {
	id := testKey(t, 1).ID()
	d := Draft{Stream: RobotStream(id), Type: TypeRobotLabelsChanged,
		Data: json.RawMessage(` { "remove" : [ ] , "set" : { "b" : "\u00e9\/" , "a" : "x" } } `)}
	e := Event{Stream: d.Stream, Type: d.Type, Data: d.Data}
	p, err := e.Decode()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(Encode(p, 1, 0)), `{"set":{"a":"x","b":"é/"}}`; got != want {
		t.Errorf("canonical form %s, want %s", got, want)
	}
}

func TestValidateRefuses(t *testing.T) {
	key := testKey(t, 1)
	id, pub := key.ID(), `"`+string(mustJSON(t, key.Public()))[1:]
	robot, node := RobotStream(id), NodeStream(id)
	registered := func(field, value string) string {
		fields := map[string]string{"name": `"n"`, "type": `"lekiwi"`, "version": `"1"`, "arch": `"arm"`, "os": `"linux"`}
		if value == "" {
			delete(fields, field)
		} else {
			fields[field] = value
		}
		var parts []string
		for k, v := range fields {
			parts = append(parts, fmt.Sprintf("%q:%s", k, v))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	for _, c := range []struct {
		name, stream, typ, data string
		code                    Code
		path                    string
	}{
		{"unknown type", robot, "robot.exploded", `{}`, CodeUnknownType, "type"},
		{"wrong stream family", node, TypeRobotOnline, `{}`, CodeInvalid, "stream"},
		{"stream id too short", "robot/abc", TypeRobotOnline, `{}`, CodeInvalid, "stream"},
		{"stream id in capitals", strings.ToUpper(robot), TypeRobotOnline, `{}`, CodeInvalid, "stream"},
		{"fleet stream with more", "fleet/x", TypeGossipKeyRotated, `{"epoch":1}`, CodeInvalid, "stream"},
		{"group without name", "group/", TypeGroupDeleted, `{}`, CodeInvalid, "stream"},
		{"missing field", robot, TypeRobotRegistered, registered("arch", ""), CodeInvalid, "data.arch"},
		{"unknown field", robot, TypeRobotRegistered, registered("colour", `"red"`), CodeInvalid, "data.colour"},
		{"field in other case", robot, TypeRobotOffline, `{"LastHeardSeconds":1}`, CodeInvalid, "data.lastHeardSeconds"},
		{"field twice", robot, TypeRobotOffline, `{"lastHeardSeconds":1,"lastHeardSeconds":2}`, CodeInvalid, "data.lastHeardSeconds"},
		{"null", robot, TypeRobotRegistered, registered("name", "null"), CodeInvalid, "data.name"},
		{"number for string", robot, TypeRobotRegistered, registered("name", "1"), CodeInvalid, "data.name"},
		{"string for number", robot, TypeRobotOffline, `{"lastHeardSeconds":"1"}`, CodeInvalid, "data.lastHeardSeconds"},
		{"fraction", robot, TypeRobotOffline, `{"lastHeardSeconds":1.0}`, CodeInvalid, "data.lastHeardSeconds"},
		{"negative", robot, TypeRobotOffline, `{"lastHeardSeconds":-1}`, CodeInvalid, "data.lastHeardSeconds"},
		{"overflow", robot, TypeRobotOffline, `{"lastHeardSeconds":18446744073709551616}`, CodeInvalid, "data.lastHeardSeconds"},
		{"out of range", "token/" + testHash, TypeTokenCreated, `{"ttlSeconds":604801}`, CodeInvalid, "data.ttlSeconds"},
		{"zero", "token/" + testHash, TypeTokenCreated, `{"ttlSeconds":0}`, CodeInvalid, "data.ttlSeconds"},
		{"no boolean", node, TypeVoterEligible, `{"eligible":"true"}`, CodeInvalid, "data.eligible"},
		{"not in the list", robot, TypeRobotRegistered, registered("type", `"roomba"`), CodeInvalid, "data.type"},
		{"name with slash", robot, TypeRobotRegistered, registered("name", `"a/b"`), CodeInvalid, "data.name"},
		{"name ends with space", robot, TypeRobotRegistered, registered("name", `"a "`), CodeInvalid, "data.name"},
		{"name with zero-width space", robot, TypeRobotRegistered, registered("name", "\"a\u200bb\""), CodeInvalid, "data.name"},
		{"broken UTF-8", robot, TypeRobotRegistered, registered("name", "\"a\xff\""), CodeInvalid, "data"},
		{"lone surrogate", robot, TypeRobotRegistered, registered("name", `"\ud800"`), CodeInvalid, "data.name"},
		{"raw newline in string", node, TypeNodeRevoked, "{\"reason\":\"a\nb\"}", CodeInvalid, "data"},
		{"escaped newline in text", node, TypeNodeRevoked, `{"reason":"a\nb"}`, CodeInvalid, "data.reason"},
		{"text too long", node, TypeNodeRevoked, `{"reason":"` + strings.Repeat("x", MaxText+1) + `"}`, CodeInvalid, "data.reason"},
		{"no object", node, TypeNodeLeft, `[]`, CodeInvalid, "data"},
		{"empty", node, TypeNodeLeft, ``, CodeInvalid, "data"},
		{"more after the object", node, TypeNodeLeft, `{}{}`, CodeInvalid, "data"},
		{"leading zero", robot, TypeRobotOffline, `{"lastHeardSeconds":01}`, CodeInvalid, "data"},
		{"comma at the end", robot, TypeRobotOffline, `{"lastHeardSeconds":1,}`, CodeInvalid, "data"},
		{"nested too deep", robot, TypeRobotOffline, `{"lastHeardSeconds":` + strings.Repeat("[", 12) + strings.Repeat("]", 12) + `}`, CodeInvalid, "data"},
		{"too many fields", node, TypeNodeLeft, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1}`, CodeInvalid, "data"},
		{"oversize", node, TypeNodeLeft, `{` + strings.Repeat(" ", MaxData) + `}`, CodeInvalid, "data"},
		{"key of another id", NodeStream(ident.NodeID(testHash)), TypeNodeAdmitted, `{"publicKey":` + pub + `,"name":"n","by":"genesis"}`, CodeInvalid, "data.publicKey"},
		{"key too short", "person/ada", TypePersonAdded, `{"publicKey":"AAAA","scopes":["admin"]}`, CodeInvalid, "data.publicKey"},
		{"ref with genesis", node, TypeNodeAdmitted, `{"publicKey":` + pub + `,"name":"n","by":"genesis","ref":"` + testHash + `"}`, CodeInvalid, "data.ref"},
		{"token without ref", node, TypeNodeAdmitted, `{"publicKey":` + pub + `,"name":"n","by":"token"}`, CodeInvalid, "data.ref"},
		{"no scope", "person/ada", TypePersonAdded, `{"publicKey":` + pub + `,"scopes":[]}`, CodeInvalid, "data.scopes"},
		{"scope twice", "person/ada", TypePersonAdded, `{"publicKey":` + pub + `,"scopes":["admin","admin"]}`, CodeInvalid, "data.scopes[1]"},
		{"unknown scope", "person/ada", TypePersonAdded, `{"publicKey":` + pub + `,"scopes":["admin","root"]}`, CodeInvalid, "data.scopes[1]"},
		{"list of numbers", robot, TypeRobotLabelsChanged, `{"remove":[1]}`, CodeInvalid, "data.remove[0]"},
		{"list is an object", robot, TypeRobotLabelsChanged, `{"remove":{}}`, CodeInvalid, "data.remove"},
		{"label value is a number", robot, TypeRobotLabelsChanged, `{"set":{"a":1}}`, CodeInvalid, "data.set.a"},
		{"label key with space", robot, TypeRobotLabelsChanged, `{"set":{"a b":"1"}}`, CodeInvalid, "data.set"},
		{"label twice", robot, TypeRobotLabelsChanged, `{"set":{"a":"1","a":"2"}}`, CodeInvalid, "data.set.a"},
		{"set is a list", robot, TypeRobotLabelsChanged, `{"set":[]}`, CodeInvalid, "data.set"},
		{"label set and removed", robot, TypeRobotLabelsChanged, `{"set":{"a":"1"},"remove":["a"]}`, CodeInvalid, "data.remove"},
		{"labels without change", robot, TypeRobotLabelsChanged, `{}`, CodeInvalid, "data"},
		{"config without change", robot, TypeRobotConfigChanged, `{}`, CodeInvalid, "data"},
		{"empty name in config", robot, TypeRobotConfigChanged, `{"name":"","type":"lekiwi"}`, CodeInvalid, "data.name"},
	} {
		err := Validate(Draft{Stream: c.stream, Type: c.typ, Data: json.RawMessage(c.data)})
		fault, ok := FaultOf(err)
		if !ok {
			t.Errorf("%s: accepted (%v)", c.name, err)
			continue
		}
		if fault.Code != c.code || fault.Path != c.path {
			t.Errorf("%s: %s at %q, want %s at %q: %v", c.name, fault.Code, fault.Path, c.code, c.path, fault)
		}
		if fault.Message == "" || fault.Next == "" {
			t.Errorf("%s: no message or no next step: %+v", c.name, fault)
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every bound is accepted at the bound and refused one beyond.
func TestBounds(t *testing.T) {
	id := testKey(t, 1).ID()
	labels := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("k", i)] = "v"
		}
		return m
	}
	keys := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprint("k", i))
		}
		return list
	}
	for _, c := range []struct {
		name string
		most int
		make func(n int) Draft
	}{
		{"name", MaxName, func(n int) Draft { return RobotConfigChanged{Name: name(n)}.Draft(id) }},
		{"name in a stream", MaxName, func(n int) Draft { return GroupDeleted{}.Draft(name(n)) }},
		{"text", MaxText, func(n int) Draft { return NodeRevoked{Reason: strings.Repeat("x", n)}.Draft(id) }},
		{"labels", MaxLabels, func(n int) Draft { return RobotLabelsChanged{Set: labels(n)}.Draft(id) }},
		{"removed labels", MaxLabels, func(n int) Draft { return RobotLabelsChanged{Remove: keys(n)}.Draft(id) }},
		{"label key", MaxLabelKey, func(n int) Draft {
			return RobotLabelsChanged{Set: map[string]string{strings.Repeat("k", n): "v"}}.Draft(id)
		}},
		{"label value", MaxLabelValue, func(n int) Draft {
			return RobotLabelsChanged{Set: map[string]string{"k": strings.Repeat("v", n)}}.Draft(id)
		}},
		{"token life", MaxTokenSeconds, func(n int) Draft { return TokenCreated{TTLSeconds: uint64(n)}.Draft(testHash) }},
		{"version", 64, func(n int) Draft {
			return RobotRegistered{Name: "n", Type: LeKiwi, Version: strings.Repeat("1", n), Arch: "a", OS: "o"}.Draft(id)
		}},
		{"platform", 32, func(n int) Draft {
			return RobotRegistered{Name: "n", Type: LeKiwi, Version: "1", Arch: strings.Repeat("a", n), OS: "o"}.Draft(id)
		}},
		{"cause", MaxCause, func(n int) Draft {
			d := NodeLeft{}.Draft(id)
			d.Cause = strings.Repeat("c", n)
			return d
		}},
		{"data", MaxData, func(n int) Draft {
			return Draft{Stream: NodeStream(id), Type: TypeNodeLeft, Data: json.RawMessage("{" + strings.Repeat(" ", n-2) + "}")}
		}},
	} {
		if err := Validate(c.make(c.most)); err != nil {
			t.Errorf("%s of %d: %v", c.name, c.most, err)
		}
		if err := Validate(c.make(c.most + 1)); err == nil {
			t.Errorf("%s of %d: accepted", c.name, c.most+1)
		}
	}
}

func TestBatchBounds(t *testing.T) {
	id := testKey(t, 1).ID()
	one := NodeLeft{}.Draft(id)
	batch := func(drafts int, data int) Batch {
		b := Batch{Actor: Actor{Kind: KindNode, ID: string(id)}, Producer: Producer{Node: id, Boot: 1, N: 1}}
		d := one
		d.Data = json.RawMessage("{" + strings.Repeat(" ", data-2) + "}")
		for range drafts {
			b.Drafts = append(b.Drafts, d)
		}
		return b
	}
	for _, c := range []struct {
		name  string
		batch Batch
		path  string // of the fault; "ok" for none
	}{
		{"empty", batch(0, 2), ""},
		{"one", batch(1, 2), "ok"},
		{"most drafts", batch(MaxDrafts, 2), "ok"},
		{"too many drafts", batch(MaxDrafts+1, 2), ""},
		{"too many bytes", batch(MaxBatchBytes/MaxData+1, MaxData), ""},
		{"no producer", func() Batch { b := batch(1, 2); b.Producer = Producer{}; return b }(), "ok"},
		{"half a producer", func() Batch { b := batch(1, 2); b.Producer.N = 0; return b }(), "producer"},
		{"no actor", func() Batch { b := batch(1, 2); b.Actor = Actor{}; return b }(), "actor.kind"},
		{"node actor without id", func() Batch { b := batch(1, 2); b.Actor.ID = "x"; return b }(), "actor.id"},
		{"node actor with scopes", func() Batch { b := batch(1, 2); b.Actor.Scopes = []string{"admin"}; return b }(), "actor.scopes"},
		{"second draft of another node", func() Batch {
			b := batch(2, 2)
			b.Drafts[1].Stream = NodeStream(testKey(t, 2).ID())
			return b
		}(), "drafts[1].type"},
		{"second draft invalid", func() Batch {
			b := batch(2, 2)
			b.Drafts[1].Data = json.RawMessage(`{"x":1}`)
			return b
		}(), "drafts[1].data.x"},
	} {
		err := c.batch.Validate()
		fault, _ := FaultOf(err)
		switch {
		case c.path == "ok" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.path != "ok" && fault == nil:
			t.Errorf("%s: accepted", c.name)
		case c.path != "ok" && fault.Path != c.path:
			t.Errorf("%s: path %q, want %q (%v)", c.name, fault.Path, c.path, fault)
		}
	}
	over := batch(MaxBatchBytes/MaxData, MaxData)
	for over.Size() > MaxBatchBytes {
		over.Drafts = over.Drafts[1:]
	}
	rest := MaxBatchBytes - over.Size() - len(one.Stream) - len(one.Type)
	over.Drafts = append(over.Drafts, batch(1, rest).Drafts...)
	if err := over.Validate(); over.Size() != MaxBatchBytes || err != nil {
		t.Errorf("%d bytes: %v", over.Size(), err)
	}
}

// The whole table of who may propose what, as the design has it.
func TestAuthority(t *testing.T) {
	key, other := testKey(t, 1), testKey(t, 2)
	actors := map[string]Actor{
		"genesis":  {Kind: KindGenesis, ID: string(key.ID())},
		"leader":   {Kind: KindLeader, ID: string(other.ID())},
		"itself":   {Kind: KindNode, ID: string(key.ID())},
		"another":  {Kind: KindNode, ID: string(other.ID())},
		"admin":    {Kind: KindPerson, ID: "ada", Scopes: []string{ScopeAdmin}},
		"operator": {Kind: KindPerson, ID: "bob", Scopes: []string{ScopeOperator}},
		"viewer":   {Kind: KindPerson, ID: "eve", Scopes: []string{ScopeViewer}},
		"recovery": {Kind: KindRecovery, ID: string(key.ID())},
		"nobody":   {},
	}
	want := map[string]string{
		TypeFleetCreated: "genesis", TypeGossipKeyRotated: "leader",
		TypePersonAdded: "genesis admin", TypePersonRemoved: "admin",
		TypeEnrolmentAdded: "genesis admin", TypeEnrolmentRevoked: "admin",
		TypeTokenCreated: "admin",
		TypeNodeAdmitted: "genesis leader", TypeNodeRevoked: "admin", TypeNodeLeft: "itself admin",
		TypeVoterEligible: "genesis itself", TypeVoterApproved: "genesis admin", TypeVoterWithdrawn: "admin",
		TypeVoterAdded: "genesis leader", TypeVoterRemoved: "leader",
		TypeRobotRegistered: "itself", TypeRobotOnline: "leader", TypeRobotOffline: "leader",
		TypeRobotConfigChanged: "itself operator admin", TypeRobotLabelsChanged: "operator admin",
		TypeGroupCreated: "operator admin", TypeGroupDeleted: "operator admin",
		TypeGroupRobotAdded: "operator admin", TypeGroupRobotRemoved: "operator admin",
		TypeCeilingRaised: "genesis leader", TypeLogSealed: "leader", TypeLogRecovered: "",
		TypeRobotProvisioned: "itself operator admin", TypeRobotActivated: "leader operator admin", TypeRobotDeactivated: "leader operator admin",
		TypeRobotFailed: "leader itself operator admin", TypeRobotRecovered: "leader itself operator admin",
		TypeRobotMaintenanceStarted: "operator admin", TypeRobotMaintenanceEnded: "operator admin", TypeRobotRetired: "operator admin",
		TypeRobotDeploymentStarted: "leader itself", TypeRobotDeploymentCompleted: "leader itself", TypeRobotDeploymentFailed: "leader itself",
	}
	for _, d := range samples(t) {
		allowed := " " + want[d.Type] + " "
		for who, actor := range actors {
			err := Authorize(actor, d)
			if may := strings.Contains(allowed, " "+who+" "); may != (err == nil) {
				t.Errorf("%s by %s: %v", d.Type, who, err)
			}
			if fault, ok := FaultOf(err); err != nil && (!ok || fault.Code != CodeNotAllowed) {
				t.Errorf("%s by %s: %v is no not_allowed", d.Type, who, err)
			}
		}
	}
}

// The catalogue is generated; the file is what people compare releases with.
func TestCatalogue(t *testing.T) {
	var b strings.Builder
	for _, info := range Types() {
		fmt.Fprintf(&b, "%s/%d level %d [%s] by %s\n", info.Type, info.Schema, info.Level, info.Stream, strings.Join(info.Authority, ", "))
		for _, f := range info.Fields {
			need := "optional"
			if f.Required {
				need = "required"
			}
			fmt.Fprintf(&b, "    %s: %s, %s. %s\n", f.Name, need, f.Kind, f.About)
		}
	}
	path := filepath.Join("testdata", "catalogue.txt")
	if *update && Level > 1 {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != knownOf(string(file)) {
		t.Errorf("the catalogue has changed; look at it and run with -update:\n%s", b.String())
	}
}

// knownOf is the part of the catalogue's file that a build of this Level knows.
func knownOf(file string) string {
	var known strings.Builder
	keep := false
	for line := range strings.Lines(file) {
		if !strings.HasPrefix(line, " ") {
			_, rest, _ := strings.Cut(line, " level ")
			level, _, _ := strings.Cut(rest, " ")
			n, err := strconv.ParseUint(level, 10, 64)
			keep = err == nil && n <= Level
		}
		if keep {
			known.WriteString(line)
		}
	}
	return known.String()
}

func sampleEvents(t testing.TB) []Event {
	var events []Event
	for i, d := range samples(t) {
		e := Event{
			Seq: uint64(i + 1), Time: time.UnixMilli(1700000000000 + int64(i)*77).UTC(),
			Stream: d.Stream, Version: 3, Type: d.Type, Schema: d.Schema,
			Actor: Actor{Kind: KindPerson, ID: "Zoë \"B\"", Scopes: []string{ScopeAdmin}},
			Cause: "tab\tquote\" <html> \\ ☃", Data: d.Data,
		}
		if i%2 == 0 {
			e.Producer = Producer{Node: testKey(t, 3).ID(), Boot: 1<<64 - 1, N: 9}
			e.Actor.Scopes, e.Cause = nil, ""
		}
		events = append(events, e)
	}
	return events
}

// The canonical envelope is encoding/json's, and Parse reads it back.
func TestEnvelope(t *testing.T) {
	for _, e := range sampleEvents(t) {
		text := e.AppendJSON(nil)
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSuffix(b.String(), "\n"); string(text) != want {
			t.Errorf("canonical\n%s\nencoding/json\n%s", text, want)
		}
		got, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("parsed %+v\nwanted %+v", got, e)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(sampleEvents(t)[0].AppendJSON(nil))
	for _, change := range [][2]string{
		{`"seq":1`, `"seq":0`},
		{`"seq":1`, `"seq":9007199254740993`},
		{`"version":3`, `"version":0`},
		{`"version":3,`, ``},
		{`"schema":1`, `"schema":"1"`},
		{`"kind":"person"`, `"kind":"robot"`},
		{`{"seq"`, `{"extra":1,"seq"`},
		{`.000Z"`, `+01:00"`},
		{`"time":"2023`, `"time":"9999`},
		{`"n":9`, `"n":0`},
	} {
		good := good
		if change[0] == `.000Z"` {
			change[0] = `Z"`
		}
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Errorf("%q is not in %s", change[0], good)
		}
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q for %q: accepted", change[1], change[0])
		}
	}
	if _, err := Parse(bytes.Repeat([]byte(" "), MaxEncoded+1)); err == nil {
		t.Error("an event over the cap was accepted")
	}
}

func TestFaultTravelsAsJSON(t *testing.T) {
	err := fmt.Errorf("propose: %w", Batch{}.Validate())
	fault, ok := FaultOf(err)
	if !ok {
		t.Fatal("no fault in the chain")
	}
	var back Fault
	if err := json.Unmarshal(mustJSON(t, fault), &back); err != nil || back != *fault {
		t.Errorf("came back as %+v (%v), was %+v", back, err, *fault)
	}
}
