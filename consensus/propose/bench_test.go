package propose

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/raftlog"
)

// BenchmarkFailover: the leader of three voters is killed; time until a node two
// hops from the voters has a proposal decided and sees it in its own copy.
func BenchmarkFailover(b *testing.B) {
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		f := newFleet(b, 2)
		end := f.live[voters+1]
		if _, err := end.proposer.Propose(b.Context(), group(1), ada); err != nil {
			b.Fatal(err)
		}
		time.Sleep(time.Duration(i%10) * 37 * time.Millisecond) // any phase of the timers
		lead := f.leader()
		b.StartTimer()
		began := time.Now()
		f.kill(lead)
		ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
		if _, err := end.proposer.Propose(ctx, group(2), ada); err != nil {
			b.Fatal(err)
		}
		cancel()
		took = append(took, time.Since(began))
		b.StopTimer()
		for len(f.live) > 0 {
			f.kill(f.live[0])
		}
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)-1].Seconds()*1000, "max-ms")
}

// BenchmarkWindowed: one node keeps 1000 proposals of an event of 256 bytes under
// way; three voters with real replicas, fsync on, all in this process.
func BenchmarkWindowed(b *testing.B) {
	for _, kind := range []raftlog.Kind{raftlog.Bolt, raftlog.WAL} {
		b.Run(string(kind), func(b *testing.B) { benchWindowed(b, newFleetOn(b, kind, 1)) })
	}
}

func benchWindowed(b *testing.B, f *testFleet) {
	end := f.live[voters]
	about := end.id
	f.record(f.leader(), event.Batch{Actor: fleettest.Itself(about), Drafts: []event.Draft{
		event.RobotRegistered{Name: "goose", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(about)}})
	cfg := end.proposer.cfg
	cfg.Replica, cfg.Boot = upToDate{}, cfg.Boot+1 // how fast a follower follows is another question
	proposer := New(cfg)
	defer proposer.Close()
	under := make(chan *Pending, maxOpen-1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for w := range under {
			if _, err := w.Wait(b.Context()); err != nil {
				b.Error(err)
			}
		}
	}()
	fill := strings.Repeat("s", 190)
	n := 0
	b.ResetTimer()
	for b.Loop() {
		n++
		d := event.RobotLabelsChanged{Set: map[string]string{"n": fmt.Sprint(n), "site": fill[:100], "zone": fill[:90]}}.Draft(about)
		w, err := proposer.Start(b.Context(), []event.Draft{d}, ada)
		if err != nil {
			b.Fatal(err)
		}
		under <- w
	}
	close(under)
	<-done
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
