//go:build !skein_oldevents

package fleet_test

import (
	"testing"

	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

// Once the ceiling is raised, what waited is accepted, and the state's encoding
// is one that older builds refuse.
func TestRaisedCeiling(t *testing.T) {
	s := founded(t)
	if version := s.Marshal()[0]; version != 1 {
		t.Errorf("before, the encoding has version %d", version)
	}
	accept(t, s, fleettest.Raise())
	if version := s.Marshal()[0]; version != 2 || s.Ceiling() != 2 {
		t.Errorf("after, the encoding has version %d, the ceiling is %d", version, s.Ceiling())
	}
	for _, b := range newer() {
		accept(t, s, b)
	}
	again, err := fleet.Unmarshal(s.Marshal())
	if err != nil || again.Hash() != s.Hash() {
		t.Errorf("came back as another state (%v)", err)
	}
}
