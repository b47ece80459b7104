package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sort"
)

// opened reads an index file. It is opened when more is asked for than its head,
// if that is known. It is for one question.
type opened struct {
	of    *Source
	pages *pages
	file  *os.File // nil until it is opened
	layout
}

// layout is what the header says.
type layout struct {
	is      head
	keys    [keyKinds]keyLayout
	timesAt int64
	sieveAt int64
	// sieveBytes is its length.
	sieveBytes int64
}

// keyLayout is where the parts of a key begin.
type keyLayout struct {
	names                             int
	nameBytes                         int64
	nameEnds, listEnds, texts, events int64
}

// open opens the file, once.
func (x *opened) open() error {
	if x.file != nil {
		return nil
	}
	f, err := os.Open(Path(x.of.Path))
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	x.file = f
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	x.pages.open(f, info.Size())
	x.layout, err = parseLayout(x.pages, x.of)
	return err
}

func (x *opened) close() {
	if x.file != nil {
		x.file.Close()
	}
}

// parseLayout reads and checks the header.
func parseLayout(p *pages, of *Source) (layout, error) {
	b, err := p.bytes(0, headerBytes)
	if err != nil {
		return layout{}, err
	}
	tie := of.tie()
	if !bytes.Equal(b[:len(tie)], tie) {
		return layout{}, fmt.Errorf("%w: it is of another file or format", errUnusable)
	}
	b = b[len(tie):]
	var x layout
	x.is.count = int(binary.BigEndian.Uint32(b))
	x.is.first = int64(binary.BigEndian.Uint64(b[4:]))
	x.is.last = int64(binary.BigEndian.Uint64(b[12:]))
	x.sieveBytes = int64(binary.BigEndian.Uint32(b[20:]))
	b = b[24:]
	if x.is.count != of.Events || x.is.count > maxEvents || x.sieveBytes > maxSieve {
		return layout{}, fmt.Errorf("%w: it has %d events", errUnusable, x.is.count)
	}
	at := int64(headerBytes + x.is.count*placeBytes)
	x.timesAt = at
	at += int64(x.is.count * timeBytes)
	for i := range x.keys {
		names, nameBytes := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		b = b[8:]
		if int(names) > x.is.count {
			return layout{}, fmt.Errorf("%w: it has %d names", errUnusable, names)
		}
		k := &x.keys[i]
		k.names, k.nameBytes = int(names), int64(nameBytes)
		k.nameEnds = at
		k.listEnds = k.nameEnds + int64(names)*numberBytes
		k.texts = k.listEnds + int64(names)*numberBytes
		k.events = k.texts + int64(nameBytes)
		at = k.events + int64(x.is.count)*numberBytes
	}
	x.sieveAt = at
	return x, nil
}

// whole gives the head with the sieve, to be kept.
func (x *opened) whole() (*head, error) {
	if err := x.open(); err != nil {
		return nil, err
	}
	b, err := x.pages.bytes(x.sieveAt, x.sieveBytes)
	head := x.is
	head.sieve = bytes.Clone(b)
	return &head, err
}

func (x *opened) head() head { return x.is }

// number reads entry i of a list of numbers that begins at off.
func (x *opened) number(off int64, i int) (int64, error) {
	b, err := x.pages.bytes(off+int64(i)*numberBytes, numberBytes)
	if err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint32(b)), nil
}

// between reads ends i-1 (0 before the first) and j-1 of a list of ends, and
// checks them against most.
func (x *opened) between(off int64, i, j int, most int64) (from, to int64, err error) {
	if i > 0 {
		if from, err = x.number(off, i-1); err != nil {
			return 0, 0, err
		}
	}
	if to, err = x.number(off, j-1); err != nil {
		return 0, 0, err
	}
	if from > to || to > most {
		return 0, 0, fmt.Errorf("%w: its ends are not in order", errUnusable)
	}
	return from, to, nil
}

// name gives the name i of a key.
func (x *opened) name(k *keyLayout, i int) ([]byte, error) {
	from, to, err := x.between(k.nameEnds, i, i+1, k.nameBytes)
	if err != nil {
		return nil, err
	}
	return x.pages.bytes(k.texts+from, to-from)
}

// find gives the range of the names that match.
func (x *opened) find(k *keyLayout, p keyPattern) (lo, hi int, err error) {
	text := []byte(p.text)
	search := func(from int, beyond func(name []byte) bool) int {
		return from + sort.Search(k.names-from, func(i int) bool {
			if err != nil {
				return true
			}
			var name []byte
			if name, err = x.name(k, from+i); err != nil {
				return true
			}
			return beyond(name)
		})
	}
	lo = search(0, func(name []byte) bool { return bytes.Compare(name, text) >= 0 })
	if isFamily(p.text, p.separator) {
		hi = search(lo, func(name []byte) bool { return !bytes.HasPrefix(name, text) })
		return lo, hi, err
	}
	hi = lo
	if lo < k.names && err == nil {
		var name []byte
		if name, err = x.name(k, lo); bytes.Equal(name, text) {
			hi++
		}
	}
	return lo, hi, err
}

func (x *opened) keyed(kind int, p keyPattern, set bitmap) error {
	if err := x.open(); err != nil {
		return err
	}
	k := &x.keys[kind]
	lo, hi, err := x.find(k, p)
	if err != nil || lo == hi {
		return err
	}
	from, to, err := x.between(k.listEnds, lo, hi, int64(x.is.count))
	if err != nil {
		return err
	}
	list, err := x.pages.bytes(k.events+from*numberBytes, (to-from)*numberBytes)
	if err != nil {
		return err
	}
	for ; len(list) > 0; list = list[numberBytes:] {
		i := binary.BigEndian.Uint32(list)
		if i >= uint32(x.is.count) {
			return fmt.Errorf("%w: it names event %d of %d", errUnusable, i, x.is.count)
		}
		set.set(int(i))
	}
	return nil
}

func (x *opened) timed(from, until int64, set bitmap) error {
	if err := x.open(); err != nil {
		return err
	}
	if few := set.count(); few < x.is.count/64 { // some pages will do
		for _, i := range set.pick(few, false) {
			b, err := x.pages.bytes(x.timesAt+int64(i)*timeBytes, timeBytes)
			if err != nil {
				return err
			}
			set.bound(i, int64(binary.BigEndian.Uint64(b)), from, until)
		}
		return nil
	}
	times, err := x.pages.bytes(x.timesAt, int64(x.is.count)*timeBytes)
	if err != nil {
		return err
	}
	for i := range x.is.count {
		set.bound(i, int64(binary.BigEndian.Uint64(times[i*timeBytes:])), from, until)
	}
	return nil
}

func (x *opened) place(positions []int) ([]Place, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	if err := x.open(); err != nil {
		return nil, err
	}
	places := make([]Place, len(positions))
	for i, n := range positions {
		entries := int64(2) // its own, and the next one's offset
		if n+1 == x.is.count {
			entries = 1
		}
		b, err := x.pages.bytes(headerBytes+int64(n)*placeBytes, entries*placeBytes)
		if err != nil {
			return nil, err
		}
		p := Place{Position: n, Offset: binary.BigEndian.Uint32(b), Sum: binary.BigEndian.Uint32(b[4:])}
		end := uint32(x.of.Bytes)
		if entries == 2 {
			end = binary.BigEndian.Uint32(b[placeBytes:])
		}
		if p.Offset >= end || end > uint32(x.of.Bytes) {
			return nil, fmt.Errorf("%w: event %d from byte %d to %d", errUnusable, n, p.Offset, end)
		}
		p.Room = end - p.Offset
		places[i] = p
	}
	return places, nil
}
