package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

// perEntry is how many batches are committed together.
const perEntry = 64

// benched is a fleet with a few robots that have labels.
func benched(b testing.TB) *fleet.State {
	s := fleet.New()
	tx := s.Begin()
	check := func(batch event.Batch) {
		if _, err := tx.Check(batch, time.UnixMilli(0)); err != nil {
			b.Fatal(err)
		}
	}
	check(fleettest.Genesis())
	for i := range 8 {
		id := fleettest.Node(i)
		if i > 0 {
			check(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.NodeAdmitted{
				PublicKey: fleettest.Key(i).Public(), Name: "n", By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft()}})
		}
		check(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
			event.RobotRegistered{Name: "robot", Type: event.LeKiwi, Version: "1.2.3", Arch: "arm64", OS: "linux"}.Draft(id)}})
		check(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{
			event.RobotLabelsChanged{Set: map[string]string{"floor": "3", "room": "kitchen", "owner": "ada"}}.Draft(id)}})
	}
	tx.Commit()
	return s
}

// load is batch i of a load. Labels have 256 bytes of data.
func load(kind string, i int) event.Batch {
	id := fleettest.Node(i % 8)
	b := event.Batch{Producer: event.Producer{Node: id, Boot: 1, N: uint64(i + 1)}, Actor: fleettest.Admin("ada")}
	switch kind {
	case "labels":
		b.Drafts = []event.Draft{event.RobotLabelsChanged{Set: map[string]string{
			"note": fmt.Sprintf("%0110d", i), "pad": strings.Repeat("x", 110)}}.Draft(id)}
	case "config":
		b.Drafts = []event.Draft{event.RobotConfigChanged{Name: fmt.Sprintf("robot %d", i), Type: event.LeKiwi}.Draft(id)}
	}
	return b
}

// BenchmarkCheck is what a batch of one draft costs every voter besides the
// disk: decoding, rules, and the encoding that is hashed and stored.
func BenchmarkCheck(b *testing.B) {
	for _, kind := range []string{"labels", "config"} {
		b.Run(kind, func(b *testing.B) {
			tx := benched(b).Begin()
			batches := make([]event.Batch, 4*perEntry)
			for i := range batches {
				batches[i] = load(kind, i)
			}
			var out []byte
			now := time.UnixMilli(1_700_000_000_123)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				batch := batches[i%len(batches)]
				batch.Producer.N = uint64(i + 1)
				v, err := tx.Check(batch, now)
				if err != nil {
					b.Fatal(err)
				}
				out = v.Events[0].AppendJSON(out[:0])
				if i%perEntry == perEntry-1 {
					tx.Commit()
				}
			}
			b.SetBytes(int64(len(out)))
		})
	}
}

// BenchmarkApply is what an event costs who follows: parsing and applying.
func BenchmarkApply(b *testing.B) {
	for _, kind := range []string{"labels", "config"} {
		b.Run(kind, func(b *testing.B) {
			base := benched(b)
			leader := base.Clone().Begin()
			const count = 1 << 14
			texts := make([][]byte, count)
			for i := range texts {
				v, err := leader.Check(load(kind, i), time.UnixMilli(1_700_000_000_123))
				if err != nil {
					b.Fatal(err)
				}
				leader.Commit()
				texts[i] = v.Events[0].AppendJSON(nil)
			}
			tx := base.Clone().Begin()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%count == 0 {
					b.StopTimer()
					tx = base.Clone().Begin()
					b.StartTimer()
				}
				e, err := event.Parse(texts[i%count])
				if err == nil {
					err = tx.Apply(e)
				}
				if err != nil {
					b.Fatal(err)
				}
				if i%perEntry == perEntry-1 {
					tx.Commit()
				}
			}
			b.SetBytes(int64(len(texts[0])))
		})
	}
}
