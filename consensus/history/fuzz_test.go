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

// Whatever is in a segment file, reading it does not panic, and what a scan
// takes for whole is read again as the same records in order.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	l := open(f, dir, Options{})
	fill(f, l, 9)
	l.Close()
	whole, err := os.ReadFile(segments(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add(whole[:segmentHeader])
	path := segmentPath(f.TempDir(), 0)
	f.Fuzz(func(t *testing.T, content []byte) {
		write(t, path, content)
		s, err := readHeader(path)
		if err != nil {
			return
		}
		if _, err := s.scan(); err != nil {
			return
		}
		next := s.base.Seq + 1
		_, err = extent{path, segmentHeader, s.size, s.base}.scan(0, func(b []byte) (bool, error) {
			h, err := parseHeader(b)
			if err != nil || h.first != next {
				t.Fatalf("record %+v where event %d is next: %v", h, next, err)
			}
			next = h.last() + 1
			_, _ = ParseRecord(b)
			return true, nil
		})
		if err != nil || next != s.end.Seq+1 {
			t.Fatalf("read up to event %d of %d: %v", next-1, s.end.Seq, err)
		}
	})
}
