package view

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"skein/agent/telemetry"
	"skein/mesh/ident"
)

func newKey(t *testing.T) ident.Key {
	t.Helper()
	k, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What the server writes the command line reads: embedded structs and all.
func TestARobotSurvivesJSON(t *testing.T) {
	age := int64(7)
	robot := Robot{
		ID: "a", Name: "n", Machine: Machine{"lekiwi", "goose-pi", "1", "arm64", "linux"}, Status: Online, StatusSince: time.Unix(1e9, 0).UTC(),
		Vote: Vote{Leader, true, true}, Life: Life{Lifecycle: Lifecycle{State: "ready", Failures: 2}, Deployed: &Deployed{Deployment: "d", Version: "2"}}, Labels: map[string]string{"k": "v"}, Groups: []string{"g"}, HTTP: "http://x",
		Telemetry: &telemetry.Sample{CPUPercent: 3}, HeardAgeMillis: &age,
	}
	text, err := json.Marshal(robot)
	if err != nil {
		t.Fatal(err)
	}
	var back Robot
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(robot, back) {
		t.Fatalf("%s came back as %+v", text, back)
	}
}

func TestFilledHasNoNullLists(t *testing.T) {
	p := Picture{Robots: []Robot{{ID: "a"}}}.Filled()
	n := Nodes{Nodes: []Node{{}}}.Filled()
	text, err := json.Marshal([]any{p.Fleet, p.Peers, p.Robots, n, Nodes{}.Filled(), Raft{Follow: &Follow{}}.Filled()})
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for _, may := range []string{`"leader":null`, `"at":null`, `"since":null`, `"lastFailure":null`, `"deployed":null`, `"telemetry":null`, `"heardAgeMillis":null`, `"clockSkewMillis":null`, `"follow":null`} {
		rest = strings.ReplaceAll(rest, may, "")
	}
	if strings.Contains(rest, "null") {
		t.Fatalf("null in %s", rest)
	}
}

func TestFilledLeavesTheOriginalAlone(t *testing.T) {
	p := Picture{Robots: []Robot{{ID: "a"}}}
	n := Nodes{Nodes: []Node{{}}}
	r := Raft{Follow: &Follow{}}
	p.Filled()
	n.Filled()
	r.Filled()
	if p.Robots[0].Labels != nil || n.Nodes[0].Addrs != nil || r.Follow.Path != nil {
		t.Fatal("what was looked at by others has been changed")
	}
}

func TestALoginIsSignedAsAWhole(t *testing.T) {
	key := newKey(t)
	info := LoginInfo{FleetID: "f", Issuer: "i", Now: time.Unix(1e9, 123_456_789)}
	login := SignLogin(key, info, "anna")
	if !login.SignedBy(key.Public(), "f") || login.Code != "" || len(login.Nonce) < 16 {
		t.Fatalf("login %+v", login)
	}
	if again := SignLogin(key, info, "anna"); again.Nonce == login.Nonce {
		t.Fatal("a nonce came twice")
	}
	// As it arrives over JSON.
	text, err := json.Marshal(login)
	if err != nil {
		t.Fatal(err)
	}
	var back Login
	if err := json.Unmarshal(text, &back); err != nil || !back.SignedBy(key.Public(), "f") {
		t.Fatalf("%s: %v", text, err)
	}
	later := login.At.Add(time.Millisecond)
	for name, change := range map[string]func(*Login){
		"person":  func(l *Login) { l.Person = "bert" },
		"issuer":  func(l *Login) { l.Issuer = "j" },
		"nonce":   func(l *Login) { l.Nonce += "x" },
		"time":    func(l *Login) { l.At = &later },
		"no time": func(l *Login) { l.At = nil },
		// The parts are told apart: moving a letter over a border is a change.
		"border": func(l *Login) { l.Issuer, l.Person = "ia", "nna" },
	} {
		changed := login
		change(&changed)
		if changed.SignedBy(key.Public(), "f") {
			t.Errorf("%s is not covered by the signature", name)
		}
	}
	if login.SignedBy(key.Public(), "g") || login.SignedBy(newKey(t).Public(), "f") || login.SignedBy(nil, "f") {
		t.Fatal("the signature is good for another fleet or key")
	}
}

func TestAProblemInWords(t *testing.T) {
	p := &Problem{Detail: "no leader", Next: "try again"}
	if p.Error() != "no leader; try again" || (&Problem{Detail: "x"}).Error() != "x" {
		t.Fatalf("%q", p.Error())
	}
}
