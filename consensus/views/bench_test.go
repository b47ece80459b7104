package views_test

import (
	"fmt"
	"testing"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/views"
)

// BenchmarkOneChange compares keeping the views of 1,000 robots in 20 groups up
// to date with building them anew, after one event.
func BenchmarkOneChange(b *testing.B) {
	w := newWorld(b, 1000)
	for i := range 20 {
		w.admin(event.GroupCreated{}.Draft(fmt.Sprint("g", i)))
	}
	for i := range 1000 {
		w.admin(event.GroupRobotAdded{Robot: fleettest.Node(i)}.Draft(fmt.Sprint("g", i%20)))
	}
	id := fleettest.Node(500)
	online := event.Event{Stream: event.RobotStream(id), Type: event.TypeRobotOnline}
	turns := []event.Draft{event.RobotOffline{LastHeardSeconds: 30}.Draft(id), event.RobotOnline{}.Draft(id)}
	turn := func(i int) {
		if _, err := w.tx.Check(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: turns[i%2 : i%2+1]}, w.now); err != nil {
			b.Fatal(err)
		}
		w.tx.Commit()
	}
	b.Run("kept", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			turn(i)
			b.StartTimer()
			w.kept.Applied(w.s, []event.Event{online})
		}
		if b.N%2 == 1 {
			turn(1)
		}
	})
	b.Run("rebuilt", func(b *testing.B) {
		for b.Loop() {
			views.New().Reset(w.s)
		}
	})
}
