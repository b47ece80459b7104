package fleet_test

import (
	"bytes"
	"math/rand"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

// Whatever Unmarshal accepts is canonical and can be gone on with: no event, good
// or bad, makes it panic.
func FuzzUnmarshal(f *testing.F) {
	s := fleet.New()
	f.Add(s.Marshal())
	now := time.UnixMilli(1_700_000_000_000)
	tx := s.Begin()
	run := fleettest.New(rand.New(rand.NewSource(1)).Intn)
	var batches []event.Batch
	for i := range 80 {
		b := fleettest.Genesis()
		if i > 0 {
			b = run.Next()
		}
		batches = append(batches, b)
		if _, err := tx.Check(b, now); err == nil {
			tx.Commit()
		}
		if i%20 == 0 {
			f.Add(s.Marshal())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := fleet.Unmarshal(b)
		if err != nil {
			return
		}
		if again := s.Marshal(); !bytes.Equal(again, b) {
			t.Fatalf("%q became %q", b, again)
		}
		tx := s.Begin()
		for _, b := range batches {
			if v, err := tx.Check(b, now); err == nil {
				tx.Commit()
				for _, e := range v.Events {
					_ = s.Apply(e) // out of order: refused
				}
			}
		}
		_ = s.Nodes()
	})
}
