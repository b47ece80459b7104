package history

import (
	"bytes"
	"os"
	"testing"
)

// Whatever ParseRecord accepts is what NewRecord would make, but for its hash.
func FuzzParseRecord(f *testing.F) {
	for _, n := range []int{1, 2, 7} {
		f.Add(makeRecord(f, Position{Seq: 9, Hash: Hash{7}}, n).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			return
		}
		_ = r.Follows(Position{Seq: r.First() - 1})
		if !bytes.Equal(r.Bytes(), b) {
			t.Fatal("Bytes are others")
		}
		made, err := NewRecord(r.Index, r.Term, r.Events, Position{Seq: r.First() - 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRecord(made.Bytes()); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever is in a segment file, opening it and reading it does not panic, and
// what it opens can be gone on with.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir, Options{})
	fill(f, l, 9)
	l.Close()
	whole, err := os.ReadFile(segments(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[segmentHeader:])
	f.Add(whole[segmentHeader : len(whole)-5])
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		write(t, segmentPath(dir, 0), append(encodeHeader(Position{}, false), body...))
		l, err := Open(dir, Options{})
		if err != nil {
			return
		}
		defer l.Close()
		if err := l.Scan(1, func(Record) bool { return true }); err != nil {
			return // whole frames whose events are no events
		}
		fill(t, l, l.Last().Seq+4)
	})
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(makeRecord(b, l.Last(), 1)); err != nil {
			b.Fatal(err)
		}
	}
}
