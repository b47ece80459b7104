//go:build !skein_oldevents

package event

import (
	"encoding/json"
	"testing"
)

// Schema 1 is read as what schema 2 says with an unknown host name.
func TestRegistrationIsUpcast(t *testing.T) {
	id := testKey(t, 1).ID()
	now := RobotRegistered{Name: "n", Type: LeKiwi, Version: "1", Arch: "a", OS: "o", Hostname: "pi"}
	before := now
	before.Hostname = ""
	for _, want := range []RobotRegistered{before, now} {
		d := want.Draft(id)
		if err := Validate(d); err != nil {
			t.Fatal(err)
		}
		p, err := Event{Stream: d.Stream, Type: d.Type, Schema: d.Schema, Data: d.Data}.Decode()
		if got, ok := p.(*RobotRegistered); err != nil || !ok || *got != want {
			t.Errorf("schema %d came back as %+v (%v), was %+v", d.Schema, p, err, want)
		}
	}
	if s1, s2 := before.Draft(id).Schema, now.Draft(id).Schema; s1 != 1 || s2 != 2 {
		t.Errorf("proposed as schema %d without and %d with a host name", s1, s2)
	}
	for name, d := range map[string]Draft{
		"schema 1 with a hostname":    {Schema: 1, Data: now.Draft(id).Data},
		"schema 2 without a hostname": {Schema: 2, Data: before.Draft(id).Data},
		"schema 2 with an empty one":  {Schema: 2, Data: json.RawMessage(`{"name":"n","type":"lekiwi","version":"1","arch":"a","os":"o","hostname":""}`)},
	} {
		d.Stream, d.Type = RobotStream(id), TypeRobotRegistered
		fault, ok := FaultOf(Validate(d))
		if !ok || fault.Path != "data.hostname" {
			t.Errorf("%s: %v", name, fault)
		}
	}
}

func TestLevelsOfThisRelease(t *testing.T) {
	for _, info := range Types() {
		if got := LevelOf(info.Type, info.Schema); got != info.Level || got == 0 || got > Level || !Known(info.Type, info.Schema) {
			t.Errorf("%s/%d has level %d, the catalogue says %d", info.Type, info.Schema, got, info.Level)
		}
	}
	ceiling := CeilingRaised{Level: Level}.Draft()
	if fault := ceiling.CheckCeiling(1); fault != nil {
		t.Errorf("the ceiling cannot be raised: %v", fault)
	}
	if ceiling.Schema = 2; ceiling.CheckCeiling(Level) == nil {
		t.Error("a later schema of the ceiling is free")
	}
}
