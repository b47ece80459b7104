package raftgroup

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Overhead that the test streams do not have: what Noise (length and tag), yamux
// (frame header), TCP and IP (headers with timestamps) add to one write.
const (
	secureFraming = 2 + 16 + 12
	tcpIP         = 52
)

func quantile(all []time.Duration, q float64) float64 {
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))].Seconds() * 1000
}

// benchTimings lets other timings be tried: SKEIN_TIMINGS="election lease beat commit".
func benchTimings(c *Config) {
	var t [4]int
	if n, _ := fmt.Sscan(os.Getenv("SKEIN_TIMINGS"), &t[0], &t[1], &t[2], &t[3]); n == 4 {
		ms := func(i int) time.Duration { return time.Duration(t[i]) * time.Millisecond }
		c.Timings = Timings{Election: ms(0), Lease: ms(1), Beat: ms(2), Commit: ms(3)}
	}
}

// BenchmarkFailover: the leader of three is killed; time to the first accepted
// write of a client that tries every voter every millisecond.
func BenchmarkFailover(b *testing.B) {
	c := newCluster(b, benchTimings)
	all := c.form(3)
	c.mustDecide(1)
	var took []time.Duration
	n := uint64(1)
	for b.Loop() {
		b.StopTimer()
		lead := c.leader(c.all()...)
		until(b, "three up to date", func() bool {
			for _, m := range c.all() {
				if len(m.machine.list()) < int(n) {
					return false
				}
			}
			return len(c.all()) == 3
		})
		time.Sleep(time.Duration(n%10) * 37 * time.Millisecond) // any phase of the timers
		b.StartTimer()
		n++
		began := time.Now()
		c.forget(lead)
		go lead.kill()
		c.mustDecide(n)
		took = append(took, time.Since(began))
		b.StopTimer()
		until(b, "the dead leader let go of its disk", func() bool {
			f, err := lockDir(lead.dir)
			if err == nil {
				f.Close()
			}
			return err == nil
		})
		c.start(slices.IndexFunc(all, func(m *member) bool { return m.id == lead.id }))
		b.StartTimer()
	}
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.9), "p90-ms")
	b.ReportMetric(quantile(took, 1), "max-ms")
}

// BenchmarkIdle: what three voters send while nothing happens.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(b, benchTimings)
	all := c.form(3)
	c.mustDecide(1)
	time.Sleep(2 * time.Second)
	for b.Loop() {
		var bytes, writes [3]int64
		for i, m := range all {
			bytes[i], writes[i] = m.host.Sent()
		}
		const window = 10 * time.Second
		before := cpuTime(b)
		time.Sleep(window)
		b.ReportMetric(100*(cpuTime(b)-before).Seconds()/window.Seconds()/3, "mean-CPU-%")
		most, sum := 0.0, 0.0
		for i, m := range all {
			bs, ws := m.host.Sent()
			perSecond := float64(bs-bytes[i]+(ws-writes[i])*(secureFraming+tcpIP)) / window.Seconds()
			most = max(most, perSecond)
			sum += perSecond
			b.Logf("node %d: %.0f B/s payload in %.1f writes/s, %.0f B/s with framing", i,
				float64(bs-bytes[i])/window.Seconds(), float64(ws-writes[i])/window.Seconds(), perSecond)
		}
		b.ReportMetric(most, "leader-B/s")
		b.ReportMetric(sum/3, "mean-B/s")
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFollowerLag: a commit on an idle log until a follower has applied it.
func BenchmarkFollowerLag(b *testing.B) {
	c := newCluster(b, benchTimings)
	all := c.form(3)
	n := uint64(0)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		time.Sleep(150 * time.Millisecond)
		n++
		b.StartTimer()
		began := time.Now()
		c.mustDecide(n)
		for _, m := range all[1:] {
			if err := m.machine.has(context.Background(), n); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.99), "p99-ms")
}

// BenchmarkSubmit: synchronous clients against the leader, fsync on.
func BenchmarkSubmit(b *testing.B) {
	for _, clients := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := newCluster(b, benchTimings)
			lead := c.form(3)[0]
			var next atomic.Uint64
			var wg sync.WaitGroup
			b.ResetTimer()
			took := make([][]time.Duration, clients)
			for w := range clients {
				wg.Go(func() {
					for n := next.Add(1); n <= uint64(b.N); n = next.Add(1) {
						began := time.Now()
						if _, err := lead.Submit(b.Context(), batch(n)); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(began))
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(quantile(slices.Concat(took...), 0.5), "p50-ms")
			b.ReportMetric(quantile(slices.Concat(took...), 0.99), "p99-ms")
		})
	}
}
