package replica

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
)

// loadEntry is entry i of a load of label changes of about 256 bytes, n drafts
// in as many batches.
func loadEntry(t testing.TB, i, n int) []byte {
	t.Helper()
	id := fleettest.Node(0)
	e := Entry{TimeMillis: 1_700_000_000_000 + int64(i)}
	for j := range n {
		number := uint64(i*n + j + 1)
		change := event.RobotLabelsChanged{Set: map[string]string{"note": fmt.Sprintf("%0100d", number), "pad": strings.Repeat("x", 100)}}
		e.Batches = append(e.Batches, event.Batch{
			Producer: event.Producer{Node: id, Boot: 1, N: number},
			Actor:    fleettest.Admin("ada"),
			Drafts:   []event.Draft{change.Draft(id)},
		})
	}
	data, err := EncodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loaded(t testing.TB, o Options) *Replica {
	t.Helper()
	r := openAt(t, t.TempDir(), o)
	l := newLeader(nil)
	id := fleettest.Node(0)
	l.add(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
		event.RobotRegistered{Name: "n", Type: event.LeKiwi, Version: "1", Arch: "a", OS: "o"}.Draft(id)}})
	admin := event.Actor{Kind: event.KindPerson, ID: "ada", Scopes: []string{event.ScopeAdmin}}
	l.add(event.Batch{Actor: admin, Drafts: []event.Draft{event.GroupCreated{}.Draft("g")}})
	l.feed(t, r)
	return r
}

// cpuNanos is the processor time of this thread, which other programs on the
// machine change little.
func cpuNanos(b *testing.B) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return t.Nano()
}

// perEvent runs f for entries of n events and reports the time of an event.
func perEvent(b *testing.B, n int, f func(i int, entry []byte)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	entries := make([][]byte, 64)
	var cpu int64
	at := 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(entries) == 0 {
			b.StopTimer()
			for j := range entries {
				entries[j] = loadEntry(b, at, n)
				at++
			}
			b.StartTimer()
		}
		start := cpuNanos(b)
		f(i, entries[i%len(entries)])
		cpu += cpuNanos(b) - start
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(cpu)/float64(b.N*n), "cpu-ns/event")
}

func BenchmarkApplyEntry(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			r := loaded(b, Options{})
			perEvent(b, n, func(i int, entry []byte) {
				out, err := r.ApplyEntry(uint64(10+i), 1, entry)
				if err != nil || out[0].Err != nil {
					b.Fatal(err, out[0].Err)
				}
			})
		})
	}
}

// BenchmarkCheckOnly is what of ApplyEntry belongs to package fleet: Check and
// Commit. The difference is what the replica and the history cost.
func BenchmarkCheckOnly(b *testing.B) {
	r := loaded(b, Options{})
	now := time.UnixMilli(1_700_000_000_000).UTC()
	tx := r.state.Begin()
	var d decoder
	var cpu int64
	perEvent(b, 512, func(_ int, entry []byte) {
		e, err := d.entry(entry)
		if err != nil {
			b.Fatal(err)
		}
		start := cpuNanos(b)
		for _, batch := range e.Batches {
			if _, err := tx.Check(batch, now); err != nil {
				b.Fatal(err)
			}
		}
		tx.Commit()
		cpu += cpuNanos(b) - start
	})
	b.ReportMetric(float64(cpu)/float64(b.N*512), "check-ns/event")
}

// BenchmarkFollow is ApplyRecord, parsing included.
func BenchmarkFollow(b *testing.B) {
	const n = 64
	r := loaded(b, Options{})
	for i := range 300 {
		if _, err := r.ApplyEntry(uint64(10+i), 1, loadEntry(b, i, n)); err != nil {
			b.Fatal(err)
		}
	}
	var encoded [][]byte
	if err := r.history.Scan(1, func(rec history.Record) bool {
		encoded = append(encoded, rec.Bytes())
		return true
	}); err != nil {
		b.Fatal(err)
	}
	events := uint64(0)
	for b.Loop() {
		b.StopTimer()
		f := openAt(b, b.TempDir(), Options{})
		b.StartTimer()
		for _, e := range encoded {
			rec, err := history.ParseRecord(e)
			if err != nil {
				b.Fatal(err)
			}
			if err := f.ApplyRecord(rec); err != nil {
				b.Fatal(err)
			}
		}
		events += f.Cursor().Seq
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkOpen replays 20,000 events from the start, and from a checkpoint.
func BenchmarkOpen(b *testing.B) {
	r := loaded(b, Options{})
	for i := range 313 {
		if _, err := r.ApplyEntry(uint64(10+i), 1, loadEntry(b, i, 64)); err != nil {
			b.Fatal(err)
		}
	}
	r.mu.Lock()
	r.failed = ErrClosed // end without a checkpoint
	r.mu.Unlock()
	if err := r.history.Close(); err != nil {
		b.Fatal(err)
	}
	for _, from := range []string{"start", "checkpoint"} {
		b.Run(from, func(b *testing.B) {
			var seq uint64
			var took time.Duration
			for b.Loop() {
				start := time.Now()
				again, err := Open(r.dir, Options{})
				took += time.Since(start)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				seq += again.Cursor().Seq
				again.mu.Lock()
				if from == "start" {
					again.failed = ErrClosed
				}
				again.mu.Unlock()
				if from == "checkpoint" {
					if err := again.Checkpoint(); err != nil {
						b.Fatal(err)
					}
				}
				again.history.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(seq)/took.Seconds(), "events/s")
		})
	}
}

// BenchmarkStateAt rebuilds the state after 1,000 events from the start, and that
// after 100,000 from the start and from a checkpoint 1,000 events before.
func BenchmarkStateAt(b *testing.B) {
	r := loaded(b, Options{})
	entries := 0
	feed := func(to uint64) uint64 {
		for r.Cursor().Seq < to {
			if _, err := r.ApplyEntry(uint64(10+entries), 1, loadEntry(b, entries, 50)); err != nil {
				b.Fatal(err)
			}
			entries++
		}
		return r.Cursor().Seq
	}
	measure := func(name string, seq uint64) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if s, _, err := r.StateAt(b.Context(), seq); err != nil || s.Seq() != seq {
					b.Fatal(err)
				}
			}
		})
	}
	r.saveBytes = 1 << 40
	thousand, most := feed(1000), feed(99_000)
	all := feed(100_000)
	feed(100_500)
	measure("1000_from_the_start", thousand)
	measure("100000_from_the_start", all)
	i, err := r.past(b.Context(), most)
	if err == nil {
		err = r.saver.write(r.dir, i)
	}
	if err != nil {
		b.Fatal(err)
	}
	measure("100000_from_a_checkpoint", all)
}
