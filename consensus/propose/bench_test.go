package propose

import (
	"context"
	"slices"
	"testing"
	"time"
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
