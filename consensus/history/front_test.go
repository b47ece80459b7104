package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// behindGap gives a log that begins anew after event at of full, and has all that
// follows there.
func behindGap(t testing.TB, full *Log, dir string, at uint64) *Log {
	t.Helper()
	l := open(t, dir, Options{SegmentBytes: 8000})
	if err := l.Reset(must(full.At(at))(t)); err != nil {
		t.Fatal(err)
	}
	err := full.Scan(at+1, func(r Record) bool {
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ends are the events that records end with.
func ends(t testing.TB, l *Log) (all []uint64) {
	t.Helper()
	err := l.Scan(l.First().Seq+1, func(r Record) bool {
		all = append(all, r.Last())
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A log that began behind a snapshot is filled from another, piece by piece,
// while it grows, is asked and is opened anew, until it is the same.
func TestBackfill(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	full := open(t, t.TempDir(), Options{SegmentBytes: 200_000})
	all := fillVaried(t, full, rng, 1500)
	dir := t.TempDir()
	cut := ends(t, full)[250]
	l := behindGap(t, full, dir, cut)
	for n := 0; ; n++ {
		gap, lacking := l.Gap()
		if !lacking {
			break
		}
		if gap != l.First() {
			t.Fatalf("the gap ends at %v, the log begins at %v", gap, l.First())
		}
		after, records, err := full.Before(gap.Seq, 1+rng.Intn(200_000))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Backfill(after, records); err != nil {
			t.Fatal(err)
		}
		all = append(all, fillVaried(t, l, rng, l.Last().Seq+5)...)
		if n%2 == 0 {
			last := l.Last()
			l.Close()
			l = open(t, dir, Options{SegmentBytes: 8000, DurableSeq: last.Seq})
			if l.Last() != last {
				t.Fatalf("opened at %v, was at %v", l.Last(), last)
			}
		}
		for range 5 {
			q := randomQuery(rng, l.Last().Seq)
			q.After = max(q.After, l.First().Seq)
			if !checkQuery(t, l, all[l.First().Seq:], q).Indexed {
				t.Error("it was scanned")
			}
		}
	}
	if l.First() != (Position{}) {
		t.Fatalf("filled to %v", l.First())
	}
	for seq := uint64(0); seq < full.Last().Seq; seq += 7 {
		if a, b := must(full.At(seq))(t), must(l.At(seq))(t); a != b {
			t.Fatalf("at %d: %v and %v", seq, a, b)
		}
	}
	if err := l.Backfill(Position{}, []Record{variedRecord(t, rng, Position{}, 1)}); !errors.Is(err, ErrDiverged) {
		t.Errorf("a whole log was filled: %v", err)
	}
}

func TestBefore(t *testing.T) {
	rng := rand.New(rand.NewSource(2))
	l := open(t, t.TempDir(), Options{SegmentBytes: 300_000})
	fillVaried(t, l, rng, 3000)
	whole := ends(t, l)
	for end := uint64(0); end <= 3001; end += uint64(1 + rng.Intn(90)) {
		most := rng.Intn(400_000)
		after, records, err := l.Before(end, most)
		if !slices.Contains(whole, end) {
			if !errors.Is(err, ErrCompacted) {
				t.Fatalf("event %d, which ends no record: %v", end, err)
			}
			continue
		}
		if err != nil || records[len(records)-1].Last() != end {
			t.Fatalf("up to event %d: %v", end, err)
		}
		size, at := 0, after
		for _, r := range records {
			if err := r.Follows(at); err != nil {
				t.Fatal(err)
			}
			size, at = size+len(r.Bytes()), r.End()
		}
		if size > max(most, 2*markEvery) {
			t.Fatalf("%d bytes, at most %d were wanted", size, most)
		}
	}
}

// What does not fit changes nothing.
func TestBackfillRefuses(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	full := open(t, t.TempDir(), Options{})
	fillVaried(t, full, rng, 100)
	all := ends(t, full)
	cut := all[10]
	l := behindGap(t, full, t.TempDir(), cut)
	files := len(segments(t, l.dir))
	after, records, err := full.Before(cut, 1<<20)
	if err != nil || after != (Position{}) {
		t.Fatal(after, err)
	}
	changed := bytes.Replace(records[3].Bytes(), []byte(`"version":`), []byte(`"cersion":`), 1)
	forged := records[3]
	forged.encoded = changed
	var other []Record
	for at := (Position{}); at.Seq < cut; at = other[len(other)-1].End() {
		other = append(other, variedRecord(t, rng, at, 1))
	}
	for name, c := range map[string]struct {
		after   Position
		records []Record
	}{
		"nothing":            {after, nil},
		"another beginning":  {Position{Hash: Hash{1}}, records},
		"a wrong number":     {Position{Seq: 1}, records},
		"a wrong hash":       {Position{records[0].Last(), Hash{7}}, records[1:]},
		"without the last":   {after, records[:len(records)-1]},
		"without a middle":   {after, append(slices.Clone(records[:3]), records[4:]...)},
		"a changed record":   {after, append(append(slices.Clone(records[:3]), forged), records[4:]...)},
		"another log's":      {Position{}, other},
		"twice the last one": {after, append(slices.Clone(records), records[len(records)-1])},
	} {
		if err := l.Backfill(c.after, c.records); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if gap, lacking := l.Gap(); !lacking || gap.Seq != cut || len(segments(t, l.dir)) != files {
		t.Errorf("something changed: gap %v", gap)
	}
	if err := l.Backfill(after, records); err != nil {
		t.Error(err)
	}
}

// A Reset gives up what was filled in before as well, also when it is interrupted
// at whatever file.
func TestResetAfterBackfill(t *testing.T) {
	rng := rand.New(rand.NewSource(4))
	full := open(t, t.TempDir(), Options{SegmentBytes: 8000})
	fillVaried(t, full, rng, 500)
	dir := t.TempDir()
	l := behindGap(t, full, dir, ends(t, full)[60])
	for range 2 {
		gap, _ := l.Gap()
		after, records, err := full.Before(gap.Seq, 1)
		if err = errors.Join(err, l.Backfill(after, records)); err != nil {
			t.Fatal(err)
		}
	}
	old := map[string][]byte{}
	for _, path := range segments(t, dir) {
		old[path] = must(os.ReadFile(path))(t)
	}
	to := Position{Seq: 900, Hash: Hash{5}}
	if err := l.Reset(to); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if left := segments(t, dir); len(left) != 1 || len(old) < 4 {
		t.Fatalf("%d segments, before %d", len(left), len(old))
	}
	paths := make([]string, 0, len(old))
	for path := range old {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for i := range paths { // the oldest go first
		for _, path := range paths[i:] {
			write(t, path, old[path])
		}
		l := open(t, dir, Options{})
		if l.First() != to || l.Last() != to || len(segments(t, dir)) != 1 {
			t.Fatalf("interrupted before file %d: %v to %v", i, l.First(), l.Last())
		}
		l.Close()
	}
}

// What retention has dropped is not a gap, also after a restart, although the log
// began with one.
func TestFloor(t *testing.T) {
	rng := rand.New(rand.NewSource(5))
	full := open(t, t.TempDir(), Options{SegmentBytes: 8000})
	fillVaried(t, full, rng, 600)
	dir := t.TempDir()
	l := behindGap(t, full, dir, ends(t, full)[90])
	for range 4 {
		gap, _ := l.Gap()
		after, records, err := full.Before(gap.Seq, 1<<20)
		if err = errors.Join(err, l.Backfill(after, records)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.DropBefore(l.segments[1].base.Seq + 1); err != nil {
		t.Fatal(err)
	}
	if !l.segments[0].filled() {
		t.Fatal("the test needs a log that begins with a filled segment")
	}
	for range 2 {
		if gap, lacking := l.Gap(); lacking {
			t.Fatalf("what was dropped before %d is to be fetched again", gap.Seq)
		}
		l.Close()
		l = open(t, dir, Options{SegmentBytes: 8000})
	}
	// Another gap, later, is filled down to where retention has cut.
	if err := l.Reset(must(full.At(full.Last().Seq))(t)); err != nil {
		t.Fatal(err)
	}
	for lacking := true; lacking; {
		var gap Position
		if gap, lacking = l.Gap(); !lacking {
			break
		}
		after, records, err := full.Before(gap.Seq, 1<<20)
		if err = errors.Join(err, l.Backfill(after, records)); err != nil {
			t.Fatal(err)
		}
	}
	if l.First().Seq > l.floor || l.First().Seq == 0 {
		t.Errorf("filled to %d, the floor is at %d", l.First().Seq, l.floor)
	}
	// What was only trimmed is lacking.
	if gap, lacking := l.Gap(); lacking {
		t.Errorf("at the floor, and %d is lacking", gap.Seq)
	}
	if err := l.Trim(1, l.Last().Seq); err != nil || l.First().Seq <= l.floor {
		t.Fatal(l.First(), err)
	}
	if gap, lacking := l.Gap(); !lacking || gap != l.First() {
		t.Errorf("trimmed to %v, the gap is %v", l.First(), gap)
	}
	write(t, filepath.Join(dir, floorName), []byte("nonsense"))
	l.Close()
	if l = open(t, dir, Options{}); l.floor != 0 {
		t.Error("a damaged floor was believed")
	}
}

func TestSurplus(t *testing.T) {
	rng := rand.New(rand.NewSource(6))
	l := open(t, t.TempDir(), Options{SegmentBytes: 8000})
	all := fillVaried(t, l, rng, 600)
	segs := l.segments
	middle := segs[len(segs)/2]
	latest := time.Time{}
	for _, e := range all[middle.base.Seq:middle.end.Seq] {
		if e.Time.After(latest) {
			latest = e.Time
		}
	}
	size := int64(0)
	for _, s := range segs[3:] {
		size += s.size
	}
	for name, c := range map[string]struct {
		most   int64
		before time.Time
		keep   uint64
		want   Position
	}{
		"no bound":      {0, time.Time{}, 600, Position{}},
		"large enough":  {1 << 30, testEpoch, 600, Position{}},
		"too large":     {size, time.Time{}, 600, segs[3].base},
		"a byte more":   {size - 1, time.Time{}, 600, segs[4].base},
		"too old":       {0, latest.Add(time.Millisecond), 600, middle.end},
		"just not":      {0, latest, 600, middle.base},
		"either":        {size, latest.Add(time.Millisecond), 600, middle.end},
		"still needed":  {1, latest, segs[2].end.Seq, segs[2].end},
		"needed inside": {1, latest, segs[2].end.Seq - 1, segs[2].base},
		"the current":   {1, latest.Add(time.Hour), 600, segs[len(segs)-1].base},
	} {
		if got, err := l.Surplus(c.most, c.before, c.keep); err != nil || got != c.want {
			t.Errorf("%s: up to %d (%v), want %d", name, got.Seq, err, c.want.Seq)
		}
	}
}

// Back-fill, appends, questions and retention at the same time.
func TestBackfillWhileInUse(t *testing.T) {
	rng := rand.New(rand.NewSource(7))
	full := open(t, t.TempDir(), Options{SegmentBytes: 8000})
	fillVaried(t, full, rng, 900)
	l := behindGap(t, full, t.TempDir(), ends(t, full)[150])
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			page, err := l.Query(t.Context(), Query{Newest: true, Limit: MaxEvents})
			if err != nil && !errors.Is(err, ErrCompacted) {
				t.Error(err)
			}
			for i, e := range page.Events {
				if e.Seq != page.Events[0].Seq-uint64(i) {
					t.Errorf("event %d at %d after %d", e.Seq, i, page.Events[0].Seq)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Go(func() {
		for gap, lacking := l.Gap(); lacking; gap, lacking = l.Gap() {
			after, records, err := full.Before(gap.Seq, 1)
			if err != nil {
				t.Error(err)
				return
			}
			if err := l.Backfill(after, records); err != nil && !errors.Is(err, ErrDiverged) { // retention was faster
				t.Error(err)
				return
			}
		}
	})
	for range 40 {
		fillVaried(t, l, rng, l.Last().Seq+20)
		cut, err := l.Surplus(150_000, time.Time{}, l.Last().Seq-100)
		if err = errors.Join(err, l.DropBefore(cut.Seq+1)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	before := l.Last()
	l.Close()
	if again := open(t, l.dir, Options{DurableSeq: before.Seq}); again.Last() != before {
		t.Errorf("opened at %v, was at %v", again.Last(), before)
	}
}

// Walk finds everything and says where something is broken.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{SegmentBytes: 1500})
	written := fill(t, l, 60)
	l.Close()
	paths := segments(t, dir)
	n, starts, at := 0, 0, Position{}
	err := Walk(dir, func(s Step) error {
		switch {
		case s.Err != nil:
			t.Fatal(s.Err)
		case s.Start:
			if starts++; s.Base != at || s.Reset {
				t.Errorf("%s begins after %v, the one before ended at %v", s.File, s.Base, at)
			}
		default:
			if !bytes.Equal(s.Record.Bytes(), written[n].Bytes()) {
				t.Errorf("record %d is another", n)
			}
			n, at = n+1, s.Record.End()
		}
		return nil
	})
	if err != nil || n != len(written) || starts != len(paths) {
		t.Fatalf("%d records of %d, %d segments of %d: %v", n, len(written), starts, len(paths), err)
	}
	for i, path := range paths {
		whole := must(os.ReadFile(path))(t)
		for at := 0; at < len(whole); at += 41 {
			changed := slices.Clone(whole)
			changed[at] ^= 1
			write(t, path, changed)
			var found []Step
			if err := Walk(dir, func(s Step) error {
				if s.Err != nil {
					found = append(found, s)
				}
				return nil
			}); err != nil || len(found) != 1 || found[0].File != path || found[0].Offset > int64(at) || !errors.Is(found[0].Err, ErrDamaged) && !strings.Contains(fmt.Sprint(found[0].Err), "upgrade") {
				t.Fatalf("segment %d, byte %d: %+v %v", i, at, found, err)
			}
		}
		write(t, path, whole)
	}
	stop := errors.New("enough")
	if err := Walk(dir, func(Step) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("it was to stop: %v", err)
	}
}
