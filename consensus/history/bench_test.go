package history

import (
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/history/index"
)

func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(makeRecord(b, l.Last(), 1)); err != nil {
			b.Fatal(err)
		}
	}
}

const (
	manyEvents = 1_000_000
	manyRobots = 1000
)

// fillMany appends a million events of 256 bytes on a thousand robots, one a
// millisecond.
func fillMany(b *testing.B, l *Log) {
	b.Helper()
	rng := rand.New(rand.NewSource(1))
	data := fmt.Appendf(nil, `{"set":{"note":%q}}`, strings.Repeat("x", 236))
	var c Encoder
	events := make([]event.Event, 100)
	for l.Last().Seq < manyEvents {
		for i := range events {
			seq := l.Last().Seq + 1 + uint64(i)
			kind := "robot.labels_changed"
			if rng.Intn(1000) == 0 {
				kind = "robot.renamed"
			}
			events[i] = event.Event{
				Seq: seq, Time: testEpoch.Add(time.Duration(seq) * time.Millisecond), Version: seq, Type: kind, Schema: 1,
				Stream: fmt.Sprintf("robot/%052d", rng.Intn(manyRobots)),
				Actor:  event.Actor{Kind: event.KindPerson, ID: fmt.Sprintf("person %d", rng.Intn(200))}, Data: data,
			}
		}
		r, err := c.Record(1, 1, events, l.Last())
		if err == nil {
			err = l.Append(r)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkQuery asks a log of a million events, 50 at a time.
func BenchmarkQuery(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	fillMany(b, l)
	var indexes int64
	for _, s := range l.segments[:len(l.segments)-1] {
		info, err := os.Stat(index.Path(s.path))
		if err != nil {
			b.Fatal(err)
		}
		indexes += info.Size()
	}
	b.Logf("%d MB in %d segments, indexes %d MB", l.Size()>>20, len(l.segments), indexes>>20)
	rng := rand.New(rand.NewSource(2))
	robot := func() string { return fmt.Sprintf("robot/%052d", rng.Intn(manyRobots)) }
	at := func() time.Time { return testEpoch.Add(time.Duration(rng.Intn(manyEvents)) * time.Millisecond) }
	for _, c := range []struct {
		name string
		ask  func() Query
	}{
		{"stream, newest", func() Query { return Query{Filter: index.Filter{Stream: robot()}, Newest: true} }},
		{"stream, from the start", func() Query { return Query{Filter: index.Filter{Stream: robot()}} }},
		{"stream, after a place", func() Query { return Query{Filter: index.Filter{Stream: robot()}, After: uint64(rng.Intn(manyEvents))} }},
		{"rare type", func() Query {
			return Query{Filter: index.Filter{Type: "robot.renamed"}, After: uint64(rng.Intn(manyEvents))}
		}},
		{"family of types", func() Query { return Query{Filter: index.Filter{Type: "robot."}, After: uint64(rng.Intn(manyEvents))} }},
		{"actor", func() Query {
			return Query{Filter: index.Filter{Actor: fmt.Sprintf("person %d", rng.Intn(200))}, Newest: true}
		}},
		{"time", func() Query {
			t := at()
			return Query{Filter: index.Filter{From: t, Until: t.Add(time.Second)}}
		}},
		{"stream and time", func() Query {
			t := at()
			return Query{Filter: index.Filter{Stream: robot(), From: t, Until: t.Add(time.Minute)}, Newest: true}
		}},
		{"nothing matches", func() Query {
			return Query{Filter: index.Filter{Stream: robot(), Type: "robot.renamed", Actor: "person 7"}}
		}},
		{"no such stream", func() Query { return Query{Filter: index.Filter{Stream: robot() + "x"}} }},
	} {
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				q := c.ask()
				q.Limit = 50
				start := time.Now()
				page, err := l.Query(b.Context(), q)
				took = append(took, time.Since(start))
				if err != nil || !page.Indexed {
					b.Fatal(page.Indexed, err)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
