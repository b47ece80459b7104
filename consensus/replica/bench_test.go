package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

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

func BenchmarkApplyEntry(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			r := loaded(b, Options{})
			entries := make([][]byte, 64)
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
				out, err := r.ApplyEntry(uint64(10+i), 1, entries[i%len(entries)])
				if err != nil || out[0].Err != nil {
					b.Fatal(err, out[0].Err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "events/s")
		})
	}
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
