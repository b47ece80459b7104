package history

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
)

// makeRecord makes a record of n events after p, the size of one event varying
// with its number.
func makeRecord(t testing.TB, p Position, n int) Record {
	t.Helper()
	var events []event.Event
	for i := range n {
		seq := p.Seq + 1 + uint64(i)
		events = append(events, event.Event{
			Seq: seq, Time: time.UnixMilli(int64(seq)).UTC(), Stream: "fleet", Version: seq, Type: "test.happened", Schema: 1,
			Actor: event.Actor{Kind: event.KindLeader, ID: "me"},
			Data:  fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", int(seq%7)*10)),
		})
	}
	r, err := NewRecord(100+p.Seq, 2, events, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fill appends records of 1, 2, 3, 1, … events until event last.
func fill(t testing.TB, l *Log, last uint64) (records []Record) {
	t.Helper()
	for n := 0; l.Last().Seq < last; n++ {
		r := makeRecord(t, l.Last(), min(1+n%3, int(last-l.Last().Seq)))
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

func open(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestAppendAndRead(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 4000})
	written := fill(t, l, 200)
	if n := len(segments(t, dir)); n < 5 {
		t.Fatalf("%d segments, want several", n)
	}
	check := func(l *Log) {
		t.Helper()
		hash, chain := Hash{}, map[uint64]Hash{0: {}}
		for _, r := range written {
			for _, e := range r.Events {
				hash = hash.Then(e.AppendJSON(nil))
				chain[e.Seq] = hash
			}
		}
		for from := uint64(1); from <= 201; from++ {
			next := from
			err := l.Scan(from, func(r Record) bool {
				if r.First() > next || r.Last() < next {
					t.Fatalf("from %d: record %d to %d where %d is next", from, r.First(), r.Last(), next)
				}
				if r.Hash != chain[r.Last()] || r.Index != 100+r.First()-1 || r.Term != 2 {
					t.Fatalf("record at %d has other hash, index or term", r.First())
				}
				next = r.Last() + 1
				return true
			})
			if err != nil || next != 201 {
				t.Fatalf("from %d: read up to %d: %v", from, next, err)
			}
		}
		for seq := range uint64(201) {
			if at, err := l.At(seq); err != nil || at != (Position{seq, chain[seq]}) {
				t.Fatalf("at %d: %v %v", seq, at, err)
			}
		}
	}
	check(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, Options{SegmentBytes: 4000, DurableSeq: 200})
	check(again)
	if again.CutBytes() != 0 {
		t.Error("something was cut off a whole log")
	}
}

func TestReadIsBounded(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	written := fill(t, l, 50)
	size := len(written[0].Bytes()) + len(written[1].Bytes())
	for limit, want := range map[int]int{0: 1, 1: 1, size: 2, size - 1: 1, size + 1: 2} {
		got, err := l.Read(1, limit)
		if err != nil || len(got) != want {
			t.Errorf("limit %d: %d records (%v), want %d", limit, len(got), err, want)
		}
	}
	if got, err := l.Read(51, 1000); err != nil || got != nil {
		t.Errorf("behind the end: %v %v", got, err)
	}
}

func TestAppendRefusesWhatDoesNotFollow(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	fill(t, l, 3)
	for _, seq := range []uint64{0, 2, 4} {
		if err := l.Append(makeRecord(t, Position{Seq: seq}, 1)); !errors.Is(err, ErrDiverged) {
			t.Errorf("record after event %d: %v", seq, err)
		}
	}
	fill(t, l, 6)
}

func TestFollows(t *testing.T) {
	first := makeRecord(t, Position{}, 2)
	second := makeRecord(t, first.End(), 1)
	if err := second.Follows(first.End()); err != nil {
		t.Error(err)
	}
	if err := second.Follows(Position{Seq: 2}); !errors.Is(err, ErrDiverged) {
		t.Errorf("other hash: %v", err)
	}
	if err := second.Follows(Position{Seq: 1, Hash: first.Hash}); !errors.Is(err, ErrDiverged) {
		t.Errorf("other event: %v", err)
	}
	changed := bytes.Replace(second.Bytes(), []byte("test.happened"), []byte("test.hoppened"), 1)
	forged, err := ParseRecord(changed)
	if err != nil {
		t.Fatal(err)
	}
	if err := forged.Follows(first.End()); !errors.Is(err, ErrDiverged) {
		t.Errorf("changed event: %v", err)
	}
}

// The chain does not depend on how events are cut into records.
func TestChainIsIndependentOfRecords(t *testing.T) {
	whole := makeRecord(t, Position{}, 5)
	at := Position{}
	for range 5 {
		at = makeRecord(t, at, 1).End()
	}
	if at != whole.End() {
		t.Error("five records of one event and one of five end in other hashes")
	}
}

// A file cut anywhere, as by a power failure, opens with the whole records
// before the cut, and goes on. If those behind the cut were durable, it refuses.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	written := fill(t, l, 6)
	l.Close()
	path := segments(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := segmentHeader; cut <= len(whole); cut++ {
		keep, at := uint64(0), segmentHeader
		for _, r := range written {
			if at += frameHeader + len(r.Bytes()); at <= cut {
				keep = r.Last()
			}
		}
		write(t, path, whole[:cut])
		if keep < 6 {
			if _, err := Open(dir, Options{DurableSeq: keep + 1}); !errors.Is(err, ErrDamaged) {
				t.Fatalf("cut at %d, durable %d: %v", cut, keep+1, err)
			}
		}
		l := open(t, dir, Options{DurableSeq: keep})
		if l.Last().Seq != keep {
			t.Fatalf("cut at %d: opened at %d, want %d", cut, l.Last().Seq, keep)
		}
		fill(t, l, 8)
		if got, err := l.Read(1, 1<<20); err != nil || got[len(got)-1].Last() != 8 {
			t.Fatalf("cut at %d: gone on to %v", cut, err)
		}
		l.Close()
	}
	for cut := range segmentHeader {
		write(t, path, whole[:cut])
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("header cut at %d: %v", cut, err)
		}
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// One changed byte anywhere is found on opening: damage if it was durable or in
// a full segment, otherwise cut off with all that follows. It is never read as
// something else.
func TestFlippedByte(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 500})
	written := fill(t, l, 6)
	l.Close()
	paths := segments(t, dir)
	if len(paths) != 2 {
		t.Fatalf("%d segments, want 2", len(paths))
	}
	for i, path := range paths {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole {
			changed := slices.Clone(whole)
			changed[at] ^= 0x40
			write(t, path, changed)
			if _, err := Open(dir, Options{DurableSeq: 6}); !errors.Is(err, ErrDamaged) && !strings.Contains(fmt.Sprint(err), "upgrade") {
				t.Fatalf("segment %d byte %d, durable: %v", i, at, err)
			}
			l, err := Open(dir, Options{})
			if i < len(paths)-1 || at < segmentHeader {
				if err == nil {
					t.Fatalf("segment %d byte %d: opened", i, at)
				}
			} else if err != nil {
				t.Fatalf("segment %d byte %d: %v", i, at, err)
			} else {
				for j, r := range must(l.Read(1, 1<<20))(t) {
					if !bytes.Equal(r.Bytes(), written[j].Bytes()) {
						t.Fatalf("segment %d byte %d: record %d is another", i, at, j)
					}
				}
				if l.CutBytes() == 0 {
					t.Fatalf("segment %d byte %d: nothing was cut", i, at)
				}
				l.Close()
			}
			write(t, path, whole)
		}
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestMissingSegment(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 1500})
	fill(t, l, 60)
	l.Close()
	paths := segments(t, dir)
	if err := os.Remove(paths[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a missing segment in the middle: %v", err)
	}
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	if l := open(t, dir, Options{}); l.First().Seq == 0 || l.Last().Seq != 60 {
		t.Errorf("without the oldest: %d to %d", l.First().Seq, l.Last().Seq)
	}
}

// Damage that happens while the log is open is found when it is read.
func TestDamageWhileOpen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	fill(t, l, 10)
	path := segments(t, dir)[0]
	whole := must(os.ReadFile(path))(t)
	whole[len(whole)-3] ^= 1
	write(t, path, whole)
	if _, err := l.Read(1, 1<<20); !errors.Is(err, ErrDamaged) {
		t.Errorf("changed byte: %v", err)
	}
	write(t, path, whole[:len(whole)-3])
	if _, err := l.Read(1, 1<<20); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut file: %v", err)
	}
}

func TestDropAndTrim(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 2000})
	fill(t, l, 200)
	second := l.segments[1].base.Seq
	for _, c := range []struct {
		name  string
		drop  func() error
		first uint64
	}{
		{"not yet", func() error { return l.DropBefore(second) }, 0},
		{"one segment", func() error { return l.DropBefore(second + 1) }, second},
		{"small enough", func() error { return l.Trim(1<<20, 200) }, second},
		{"still needed", func() error { return l.Trim(0, second-1) }, second},
	} {
		if err := c.drop(); err != nil || l.First().Seq != c.first {
			t.Errorf("%s: starts after %d (%v), want %d", c.name, l.First().Seq, err, c.first)
		}
	}
	if err := l.Trim(5000, 200); err != nil || l.Size() > 5000+2000 || l.First().Seq == second {
		t.Errorf("trimmed to %d bytes from %d on: %v", l.Size(), l.First().Seq, err)
	}
	first := l.First().Seq
	for _, seq := range []uint64{0, 1, first} {
		if _, err := l.Read(seq, 1); !errors.Is(err, ErrCompacted) {
			t.Errorf("event %d: %v", seq, err)
		}
	}
	if got, err := l.Read(first+1, 1); err != nil || got[0].First() != first+1 {
		t.Errorf("event %d: %v", first+1, err)
	}
	if at, err := l.At(first); err != nil || at != l.First() {
		t.Errorf("at %d: %v", first, err)
	}
	if err := l.Trim(0, 1000); err != nil || l.Last().Seq != 200 || len(segments(t, dir)) != 1 {
		t.Errorf("the current segment must stay: %v", err)
	}
	l.Close()
	if again := open(t, dir, Options{DurableSeq: 200}); again.Last().Seq != 200 {
		t.Error("a trimmed log does not open where it was")
	}
}

func TestReset(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 1500})
	fill(t, l, 30)
	if err := l.Reset(Position{Seq: 29}); err == nil {
		t.Error("reset to before the end was accepted")
	}
	old := map[string][]byte{}
	for _, path := range segments(t, dir) {
		old[path] = must(os.ReadFile(path))(t)
	}
	to := Position{Seq: 500, Hash: Hash{1, 2, 3}}
	if err := l.Reset(to); err != nil {
		t.Fatal(err)
	}
	if l.First() != to || l.Last() != to || len(segments(t, dir)) != 1 {
		t.Fatalf("after reset: %v to %v", l.First(), l.Last())
	}
	if _, err := l.Read(30, 1); !errors.Is(err, ErrCompacted) {
		t.Errorf("an event from before: %v", err)
	}
	if err := l.Reset(to); err != nil { // again at the same place
		t.Fatal(err)
	}
	fill(t, l, 505)
	l.Close()
	for path, content := range old { // as if the reset had been interrupted
		write(t, path, content)
	}
	again := open(t, dir, Options{DurableSeq: 505})
	if again.First() != to || again.Last().Seq != 505 || len(segments(t, dir)) != 1 {
		t.Errorf("after an interrupted reset: %v to %v, %d segments", again.First(), again.Last(), len(segments(t, dir)))
	}
}

func TestInterruptedCreation(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	fill(t, l, 3)
	l.Close()
	left := filepath.Join(dir, ".00000000000000000003.seg.123")
	write(t, left, []byte("half"))
	if l := open(t, dir, Options{}); l.Last().Seq != 3 {
		t.Error("not opened")
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what an interrupted creation left is still there")
	}
	write(t, filepath.Join(dir, "abc.seg"), nil)
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "abc.seg") {
		t.Errorf("a foreign file: %v", err)
	}
}

// After a failed write or sync nothing is accepted any more.
func TestFailureSticks(t *testing.T) {
	for name, provoke := range map[string]func(*Log) error{
		"write": func(l *Log) error { return l.Append(makeRecord(t, l.Last(), 1)) },
		"sync":  func(l *Log) error { _, err := l.Sync(); return err },
	} {
		l := open(t, t.TempDir(), Options{})
		fill(t, l, 3)
		good := l.file
		l.file = must(os.Open(os.DevNull))(t) // cannot be written to nor synced
		if err := provoke(l); err == nil {
			t.Errorf("%s: no error", name)
		}
		l.file.Close()
		l.file = good
		if err := l.Append(makeRecord(t, l.Last(), 1)); err == nil {
			t.Errorf("%s: appended afterwards", name)
		}
		if _, err := l.Sync(); err == nil {
			t.Errorf("%s: synced afterwards", name)
		}
		if err := l.Reset(Position{Seq: 9}); err == nil {
			t.Errorf("%s: reset afterwards", name)
		}
		if got, err := l.Read(1, 1<<20); err != nil || got[len(got)-1].Last() != 3 {
			t.Errorf("%s: what was written can no longer be read: %v", name, err)
		}
	}
}

func TestClosed(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	fill(t, l, 3)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(makeRecord(t, l.Last(), 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if _, err := l.Read(1, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

// Readers run beside the appender, the syncer and the trimmer, and see whole
// records in order, or are told that they came too late.
func TestConcurrentUse(t *testing.T) {
	l := open(t, t.TempDir(), Options{SegmentBytes: 5000})
	done := make(chan struct{})
	var wg sync.WaitGroup
	during := func(f func() error) {
		wg.Go(func() {
			for {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 3 {
		during(func() error {
			from := max(l.Last().Seq, 30) - 29
			next := from
			err := l.Scan(from, func(r Record) bool {
				if r.First() > next || r.Last() < next {
					t.Errorf("record %d to %d where %d is next", r.First(), r.Last(), next)
				}
				next = r.Last() + 1
				return true
			})
			if errors.Is(err, ErrCompacted) {
				err = nil
			}
			return err
		})
	}
	during(func() error { _, err := l.Sync(); return err })
	during(func() error { return l.Trim(20000, l.Last().Seq) })
	fill(t, l, 500)
	close(done)
	wg.Wait()
}

func TestRecordBounds(t *testing.T) {
	if _, err := NewRecord(1, 1, nil, Position{}); err == nil {
		t.Error("a record without events was made")
	}
	makeRecord(t, Position{}, MaxRecordEvents)
	r := makeRecord(t, Position{}, 3)
	if _, err := NewRecord(1, 1, make([]event.Event, MaxRecordEvents+1), Position{}); err == nil {
		t.Error("a record over the cap was made")
	}
	if _, err := NewRecord(1, 1, r.Events[1:], Position{}); !errors.Is(err, ErrDiverged) {
		t.Errorf("a record with a gap: %v", err)
	}
	big := r.Events[0]
	big.Data = bytes.Repeat([]byte("1"), event.MaxEncoded)
	if _, err := NewRecord(1, 1, []event.Event{big}, Position{}); err == nil {
		t.Error("a record with an event over the cap was made")
	}
	back, err := ParseRecord(r.Bytes())
	if err != nil || back.Hash != r.Hash || len(back.Events) != 3 || back.Index != r.Index || back.Term != r.Term {
		t.Errorf("came back as %+v: %v", back, err)
	}
}
