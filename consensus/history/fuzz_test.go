package history

import (
	"bytes"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
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

// Whatever is in an index file, a question to it does not panic, and either fails
// with errIndex or stays inside the segment.
func FuzzIndex(f *testing.F) {
	rng := rand.New(rand.NewSource(1))
	m, at := newMemory(), Position{}
	for at.Seq < 40 {
		r := variedRecord(f, rng, at, 4)
		m.add(&r, int64(m.size))
		at = r.End()
	}
	size := int64(m.size)
	encoded := m.encode(Position{}, at, size)
	var p pages
	p.open(bytes.NewReader(encoded), int64(len(encoded)))
	content, err := p.bytes(0, pageContent)
	if err != nil {
		f.Fatal(err)
	}
	content = bytes.TrimRight(content[len(indexIdentity(Position{}, at, size)):], "\x00")
	f.Add(content)
	f.Add(content[:len(content)/2])
	dir := f.TempDir()
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		raw := appendPages(nil, append(indexIdentity(Position{}, at, size), b...))
		path := filepath.Join(dir, "x"+segmentSuffix)
		write(t, indexPath(path), raw)
		x := &indexFile{part: part{path: path, end: at, size: size}, pages: &p}
		head, err := x.whole()
		defer x.close()
		if err != nil {
			return
		}
		_ = head.sieve.mayHave(keyType, "robot.moved")
		set := newBitmap(x.is.count)
		for kind, p := range (Filter{Stream: "robot/", Type: "robot.moved", Actor: "ada"}).keyPatterns() {
			err = errors.Join(err, x.keyed(kind, p, set))
		}
		err = errors.Join(err, x.timed(0, 1<<50, set))
		places, placed := x.place(set.pick(1000, true))
		if err = errors.Join(err, placed); err != nil && !errors.Is(err, errIndex) {
			t.Fatal(err)
		}
		for _, p := range places {
			if int64(p.offset)+int64(p.room) > size || p.position >= 40 {
				t.Fatalf("event %d of 40 from byte %d on, %d bytes, in a segment of %d", p.position, p.offset, p.room, size)
			}
		}
	})
}
