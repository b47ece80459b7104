//go:build skein_oldevents

package fleet_test

import (
	"errors"
	"testing"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

// A build of level 1 stops where it cannot read on: at the draft that would raise
// the ceiling, at a recovery, and at every event of level 2. It never skips one.
func TestOlderBuildStops(t *testing.T) {
	s := founded(t)
	before := s.Hash()
	stops := func(what string, err error) {
		t.Helper()
		if fault, ok := event.FaultOf(err); !ok || fault.Code != event.CodeUnknownType || fault.Next == "" {
			t.Errorf("%s: %v", what, err)
		}
		if s.Hash() != before {
			t.Fatalf("%s changed the state", what)
		}
	}
	recovery := fleettest.Recovery(fleettest.Node(0), s.Seq(), "h2")
	for _, b := range []event.Batch{fleettest.Raise(), recovery} {
		_, err := s.Check(b, epoch)
		stops("draft "+b.Drafts[0].Type, err)
	}
	for _, b := range append(newer(), fleettest.Raise(), recovery) {
		d := b.Drafts[0]
		stops("event "+d.Type, s.Apply(event.Event{Seq: s.Seq() + 1, Time: epoch, Stream: d.Stream, Version: s.StreamVersion(d.Stream) + 1,
			Type: d.Type, Schema: d.Schema, Actor: b.Actor, Data: d.Data}))
	}
}

func TestOlderBuildRefusesNewerState(t *testing.T) {
	b := founded(t).Marshal()
	b[0] = 2
	if _, err := fleet.Unmarshal(b); !errors.Is(err, fleet.ErrUpgrade) {
		t.Errorf("loaded: %v", err)
	}
}
