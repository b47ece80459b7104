package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/history/index"
)

var testEpoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// variedRecord makes a record of n events on a few streams, of a few types, by a
// few actors, at times that now and then go back.
func variedRecord(t testing.TB, rng *rand.Rand, p Position, n int) Record {
	t.Helper()
	var events []event.Event
	for i := range n {
		seq := p.Seq + 1 + uint64(i)
		kind := []string{"robot", "node", "group"}[rng.Intn(3)]
		e := event.Event{
			Seq: seq, Time: testEpoch.Add(time.Duration(seq)*time.Second - time.Duration(rng.Intn(5))*700*time.Millisecond), Version: seq,
			Stream: fmt.Sprintf("%s/%d", kind, rng.Intn(6)), Type: kind + "." + []string{"born", "moved", "gone"}[rng.Intn(3)], Schema: 1,
			Actor: event.Actor{Kind: event.KindPerson, ID: []string{"ada", "bob", "cy"}[rng.Intn(3)]},
			Data:  fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", rng.Intn(200))),
		}
		if rng.Intn(100) == 0 {
			e.Stream, e.Actor.ID = "rare/one", "dee"
		}
		events = append(events, e)
	}
	r, err := NewRecord(100+p.Seq, 2, events, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fillVaried appends events up to last and gives all of them.
func fillVaried(t testing.TB, l *Log, rng *rand.Rand, last uint64) (all []event.Event) {
	t.Helper()
	for l.Last().Seq < last {
		r := variedRecord(t, rng, l.Last(), min(1+rng.Intn(9), int(last-l.Last().Seq)))
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Events...)
	}
	return all
}

// judge answers a query from all events, the dumb way.
func judge(all []event.Event, q Query) (seqs []uint64, more bool) {
	seqs = []uint64{}
	if q.Newest {
		all = slices.Clone(all)
		slices.Reverse(all)
	}
	for _, e := range all {
		if e.Seq <= q.After || q.Before > 0 && e.Seq >= q.Before || !q.Matches(e) {
			continue
		}
		if len(seqs) == q.Limit {
			return seqs, true
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs, false
}

func randomQuery(rng *rand.Rand, last uint64) Query {
	one := func(of ...string) string { return of[rng.Intn(len(of))] }
	q := Query{Newest: rng.Intn(2) == 0, Limit: []int{1, 3, 50, MaxEvents}[rng.Intn(4)]}
	if rng.Intn(2) == 0 {
		q.Stream = one("robot/1", "robot/5", "node/", "rare/", "rare/one", "robot", "nothing/", "group/2", "zzz")
	}
	if rng.Intn(3) == 0 {
		q.Type = one("robot.moved", "group.", "group.gone", "robot", "a.", "z")
	}
	if rng.Intn(3) == 0 {
		q.Actor = one("ada", "dee", "d", "")
	}
	if rng.Intn(3) == 0 {
		q.From = testEpoch.Add(time.Duration(rng.Intn(int(last))) * 1000 * time.Millisecond).Add(time.Duration(rng.Intn(2)))
	}
	if rng.Intn(3) == 0 {
		q.Until = testEpoch.Add(time.Duration(rng.Intn(int(last))) * 1000 * time.Millisecond)
	}
	if rng.Intn(2) == 0 {
		q.After = uint64(rng.Intn(int(last) + 5))
	}
	if rng.Intn(2) == 0 {
		q.Before = uint64(rng.Intn(int(last) + 5))
	}
	return q
}

func checkQuery(t testing.TB, l *Log, all []event.Event, q Query) Page {
	t.Helper()
	page, err := l.Query(t.Context(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	want, more := judge(all, q)
	got := []uint64{}
	for _, e := range page.Events {
		if got = append(got, e.Seq); !reflect.DeepEqual(e, all[e.Seq-all[0].Seq]) {
			t.Fatalf("%+v: event %d is another:\n%+v", q, e.Seq, e)
		}
	}
	if !slices.Equal(got, want) || page.More != more || page.Compacted {
		t.Fatalf("%+v: events %v, more %v; want %v, %v", q, got, page.More, want, more)
	}
	return page
}

// Every question is answered as by reading everything, and by index; also after
// a restart, while indexes go missing and while they are damaged.
func TestQuery(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	dir := t.TempDir()
	o := Options{SegmentBytes: 12000}
	l := open(t, dir, o)
	all := fillVaried(t, l, rng, 600)
	paths := segments(t, dir)
	if len(paths) < 8 {
		t.Fatalf("%d segments", len(paths))
	}
	for range 300 {
		if !checkQuery(t, l, all, randomQuery(rng, 600)).Indexed {
			t.Fatal("it was scanned")
		}
	}
	l.Close()
	l = open(t, dir, o)
	for range 300 {
		if !checkQuery(t, l, all, randomQuery(rng, 600)).Indexed {
			t.Fatal("scanned after a restart")
		}
	}
	everything := Query{Filter: index.Filter{Stream: "nothing/at all"}, Limit: 1}
	for i := range 100 {
		path := index.Path(paths[rng.Intn(len(paths)-1)])
		spoil(t, rng, path, index.Path(paths[len(paths)-2]))
		if i%2 == 0 {
			l.Close()
			l = open(t, dir, o)
		}
		for range 5 {
			checkQuery(t, l, all, randomQuery(rng, 600))
		}
		checkQuery(t, l, all, everything)
		if !checkQuery(t, l, all, everything).Indexed {
			t.Fatal("the index was not made anew")
		}
	}
}

// spoil makes an index file useless in one of many ways.
func spoil(t testing.TB, rng *rand.Rand, path, other string) {
	t.Helper()
	whole := must(os.ReadFile(path))(t)
	switch rng.Intn(5) {
	case 0:
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	case 1:
		write(t, path, whole[:rng.Intn(len(whole))])
	case 2:
		whole[rng.Intn(len(whole))] ^= 1 << rng.Intn(8)
		write(t, path, whole)
	case 3:
		write(t, path, must(os.ReadFile(other))(t))
	case 4:
		write(t, path, make([]byte, len(whole)))
	}
}

// An index of another log, of the same shape, is not believed.
func TestForeignIndex(t *testing.T) {
	shaped := func(actor string) (*Log, string) {
		l := open(t, t.TempDir(), Options{SegmentBytes: 2000})
		for l.Last().Seq < 60 {
			r := makeRecord(t, l.Last(), 3)
			for i := range r.Events {
				r.Events[i].Actor.ID = actor
			}
			r, err := NewRecord(r.Index, r.Term, r.Events, l.Last())
			if err = errors.Join(err, l.Append(r)); err != nil {
				t.Fatal(err)
			}
		}
		return l, index.Path(segments(t, l.dir)[0])
	}
	own, path := shaped("me")
	_, foreign := shaped("it")
	write(t, path, must(os.ReadFile(foreign))(t))
	own.segments[0].seal() // as after a restart
	page, err := own.Query(t.Context(), Query{Filter: index.Filter{Actor: "me"}, Limit: 100})
	if err != nil || len(page.Events) < 60 || page.Indexed {
		t.Errorf("%d events, indexed %v: %v", len(page.Events), page.Indexed, err)
	}
}

func TestQueryBounds(t *testing.T) {
	rng := rand.New(rand.NewSource(5))
	l := open(t, t.TempDir(), Options{SegmentBytes: 12000})
	all := fillVaried(t, l, rng, 400)
	if err := l.Trim(60000, 400); err != nil {
		t.Fatal(err)
	}
	first := l.First().Seq
	if first == 0 {
		t.Fatal("nothing was dropped")
	}
	held := all[first:]
	if _, err := l.Query(t.Context(), Query{After: first - 1, Limit: 1}); !errors.Is(err, ErrCompacted) {
		t.Errorf("what is dropped: %v", err)
	}
	checkQuery(t, l, held, Query{After: first, Limit: MaxEvents})
	page, err := l.Query(t.Context(), Query{After: 1, Newest: true, Limit: 5})
	if err != nil || page.Compacted || !page.More || page.Events[0].Seq != 400 {
		t.Errorf("the newest five: %+v %v", page, err)
	}
	page, err = l.Query(t.Context(), Query{Newest: true, Limit: MaxEvents})
	if err != nil || !page.Compacted || page.More || len(page.Events) != len(held) {
		t.Errorf("the newest of all: %d events, %v %v: %v", len(page.Events), page.Compacted, page.More, err)
	}
	if page, err = l.Query(t.Context(), Query{After: first, Limit: -3}); err != nil || len(page.Events) != 1 {
		t.Errorf("a limit below 1: %d events, %v", len(page.Events), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Query(ctx, Query{After: first, Limit: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	empty := open(t, t.TempDir(), Options{})
	if page, err := empty.Query(t.Context(), Query{Newest: true, Limit: 1}); err != nil || len(page.Events) > 0 || page.More || page.Compacted {
		t.Errorf("an empty log: %+v %v", page, err)
	}
}

func TestSeqAt(t *testing.T) {
	rng := rand.New(rand.NewSource(6))
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 8000})
	all := fillVaried(t, l, rng, 300)
	check := func() {
		t.Helper()
		for s := -3; s < 310; s++ {
			at := testEpoch.Add(time.Duration(s)*time.Second + 300*time.Millisecond)
			want := uint64(0)
			for _, e := range all {
				if !e.Time.After(at) {
					want = e.Seq
				}
			}
			if got, err := l.SeqAt(t.Context(), at); err != nil || got != want {
				t.Fatalf("%v: event %d (%v), want %d", at, got, err, want)
			}
		}
	}
	check()
	if err := os.Remove(index.Path(segments(t, dir)[2])); err != nil {
		t.Fatal(err)
	}
	check()
	if got, err := l.SeqAt(t.Context(), time.Time{}); err != nil || got != 0 {
		t.Errorf("the year 1: event %d, %v", got, err)
	}
	if err := l.Trim(20000, 300); err != nil {
		t.Fatal(err)
	}
	if _, err := l.SeqAt(t.Context(), testEpoch); !errors.Is(err, ErrCompacted) {
		t.Errorf("what is dropped: %v", err)
	}
}

// A changed byte of an event is damage, also when only that event is read.
func TestQueryFindsDamage(t *testing.T) {
	rng := rand.New(rand.NewSource(7))
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 8000})
	fillVaried(t, l, rng, 100)
	path := segments(t, dir)[0]
	whole := must(os.ReadFile(path))(t)
	at := strings.Index(string(whole), `"seq":7,`)
	whole[at+strings.Index(string(whole[at:]), "xxx")] = 'y' // as good an event as before
	write(t, path, whole)
	if _, err := l.Query(t.Context(), Query{After: 6, Before: 8, Limit: 9}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a changed event: %v", err)
	}
	if _, err := l.Query(t.Context(), Query{After: 7, Before: 9, Limit: 9}); err != nil {
		t.Errorf("the one after it: %v", err)
	}
	write(t, path, whole[:at])
	if _, err := l.Query(t.Context(), Query{After: 6, Before: 8, Limit: 9}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a cut file: %v", err)
	}
}

// Questions run beside the appender and the trimmer, and see a log without holes.
func TestQueryWhileAppending(t *testing.T) {
	l := open(t, t.TempDir(), Options{SegmentBytes: 8000})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewSource(int64(i)))
			for {
				end := l.Last().Seq
				page, err := l.Query(t.Context(), Query{Newest: true, Limit: 40})
				if err != nil && !errors.Is(err, ErrCompacted) {
					t.Error(err)
				}
				for j, e := range page.Events {
					if e.Seq != page.Events[0].Seq-uint64(j) || page.Events[0].Seq < end {
						t.Errorf("event %d at %d, the log was at %d", e.Seq, j, end)
					}
				}
				if _, err := l.Query(t.Context(), randomQuery(rng, 500)); err != nil && !errors.Is(err, ErrCompacted) {
					t.Error(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Go(func() {
		for {
			if err := l.Trim(50000, l.Last().Seq); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	fillVaried(t, l, rand.New(rand.NewSource(8)), 1500)
	close(done)
	wg.Wait()
}

// Questions run beside resets, and see what was there before or after.
func TestQueryWhileResetting(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				page, err := l.Query(t.Context(), Query{Filter: index.Filter{Stream: "fleet"}, Newest: true, Limit: 9})
				if err != nil && !errors.Is(err, ErrCompacted) || len(page.Events) > 3 {
					t.Errorf("%d events: %v", len(page.Events), err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 40 {
		fill(t, l, l.Last().Seq+3)
		if err := l.Reset(l.Last()); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}
