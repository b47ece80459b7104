package index

import (
	"bytes"
	"errors"
	"math/rand"
	"testing"
)

// Whatever is in an index file, a question to it does not panic, and either fails
// with errUnusable or stays inside the file of events.
func FuzzIndex(f *testing.F) {
	events := writeEvents(f, rand.New(rand.NewSource(1)), 40)
	of := &events.Source
	encoded := events.memory.encode(of)
	var p pages
	p.open(bytes.NewReader(encoded), int64(len(encoded)))
	content, err := p.bytes(0, pageContent)
	if err != nil {
		f.Fatal(err)
	}
	content = bytes.TrimRight(content[len(of.tie()):], "\x00")
	f.Add(content)
	f.Add(content[:len(content)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		write(t, Path(of.Path), appendPages(nil, append(of.tie(), b...)))
		x := &opened{of: of, pages: &p}
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
		if err = errors.Join(err, placed); err != nil && !errors.Is(err, errUnusable) {
			t.Fatal(err)
		}
		for _, p := range places {
			if int64(p.Offset)+int64(p.Room) > of.Bytes || p.Position >= 40 {
				t.Fatalf("event %d of 40 from byte %d on, %d bytes, in a file of %d", p.Position, p.Offset, p.Room, of.Bytes)
			}
		}
	})
}
