package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
)

// The index of a segment says of every event where it lies, when it happened,
// and on which stream, of which type and by which actor. That of the segment
// which is appended to is in memory. When the segment is full it is written to
// a file beside it, which is derived: whatever is wrong with it, it is made anew.

// The keys of the index.
const (
	keyStream = iota
	keyType
	keyActor
	keyKinds
)

const indexSuffix = ".idx"

// rows is an index, in memory or in a file. Events are named by their position in
// the segment, from 0. Errors are errIndex.
type rows interface {
	// head says what is in it.
	head() indexHead
	// keyed adds to set the events whose key matches.
	keyed(kind int, p keyPattern, set bitmap) error
	// timed removes from set the events before from or after until, in milliseconds.
	timed(from, until int64, set bitmap) error
	// place says where events lie, given their positions.
	place(positions []int) ([]place, error)
}

// indexHead is what is kept in memory of the index of a full segment.
type indexHead struct {
	count int
	// first and last are the earliest and the latest time, in milliseconds.
	first, last int64
	// sieve says which values of the keys are not there. Nil lets all through.
	sieve sieve
}

// place is where an event lies in the segment: from the length before it on.
type place struct {
	position int
	offset   uint32
	// room is how many bytes it has at most.
	room uint32
	// sum is the CRC-32C of length and event.
	sum uint32
}

// memory is the index of the current segment. The appender grows it and only adds
// behind, so others may read a copy that they took before.
type memory struct {
	indexHead
	offsets, sums []uint32
	millis        []int64
	keys          [keyKinds]memoryKey
	// size is the end of the segment.
	size uint32
}

// memoryKey is one key: the number of each event's value.
type memoryKey struct {
	of    []uint32
	names []string
	// number is for the appender alone.
	number map[string]uint32
}

func newMemory() *memory {
	m := &memory{indexHead: indexHead{first: 1<<63 - 1, last: -1 << 63}, size: segmentHeader}
	for i := range m.keys {
		m.keys[i].number = map[string]uint32{}
	}
	return m
}

// add indexes a record that starts at offset, its frame included.
func (m *memory) add(r *Record, offset int64) {
	at := uint32(offset) + frameHeader + recordHeader
	rest := r.encoded[recordHeader:]
	for i := range r.Events {
		e := &r.Events[i]
		n := lengthBytes + binary.BigEndian.Uint32(rest)
		m.offsets = append(m.offsets, at)
		m.sums = append(m.sums, crc32.Checksum(rest[:n], castagnoli))
		at, rest = at+n, rest[n:]
		millis := e.Time.UnixMilli()
		m.millis = append(m.millis, millis)
		m.first, m.last = min(m.first, millis), max(m.last, millis)
		m.keys[keyStream].add(e.Stream)
		m.keys[keyType].add(e.Type)
		m.keys[keyActor].add(e.Actor.ID)
	}
	m.count += len(r.Events)
	m.size = at
}

func (k *memoryKey) add(name string) {
	if n := len(k.of); n > 0 && k.names[k.of[n-1]] == name { // often the same again
		k.of = append(k.of, k.of[n-1])
		return
	}
	number, ok := k.number[name]
	if !ok {
		number = uint32(len(k.names))
		name = strings.Clone(name) // it may be a part of something large
		k.number[name] = number
		k.names = append(k.names, name)
	}
	k.of = append(k.of, number)
}

func (m *memory) head() indexHead { return m.indexHead }

func (m *memory) keyed(kind int, p keyPattern, set bitmap) error {
	k := &m.keys[kind]
	wanted := newBitmap(len(k.names))
	for i, name := range k.names {
		if p.matches(name) {
			wanted.set(i)
		}
	}
	for i, number := range k.of {
		if wanted.has(int(number)) {
			set.set(i)
		}
	}
	return nil
}

func (m *memory) timed(from, until int64, set bitmap) error {
	for i, t := range m.millis {
		set.bound(i, t, from, until)
	}
	return nil
}

func (m *memory) place(positions []int) ([]place, error) {
	places := make([]place, len(positions))
	for i, n := range positions {
		end := m.size
		if n+1 < m.count {
			end = m.offsets[n+1]
		}
		places[i] = place{n, m.offsets[n], end - m.offsets[n], m.sums[n]}
	}
	return places, nil
}

// indexInfo keeps a full segment's indexHead, once it was read.
type indexInfo struct{ atomic.Pointer[indexHead] }

// An index file, in pages: the header; offset and sum of every event; the time of
// every event; then for each key the ends of its sorted names, the ends of their
// lists, the names, the lists. A list is the positions of the events that have
// the name, ascending. Big endian.
const (
	indexMagic   = "SKNI"
	indexVersion = 1
	// indexHeader: magic, version and three zeros, positions before and after the
	// segment, its size, count, first and last time, bytes of the sieve, and of
	// each key the number of names and their bytes.
	indexHeader = 4 + 4 + 40 + 40 + 8 + 4 + 8 + 8 + 4 + keyKinds*8
	placeBytes  = 8
	timeBytes   = 8
	numberBytes = 4
	// maxSegmentEvents bounds what a header may announce.
	maxSegmentEvents = 1 << 22
)

func indexPath(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + indexSuffix
}

func appendPosition(b []byte, p Position) []byte {
	return append(binary.BigEndian.AppendUint64(b, p.Seq), p.Hash[:]...)
}

// indexIdentity is the part of an index's header that ties it to its segment.
func indexIdentity(base, end Position, size int64) []byte {
	b := append(make([]byte, 0, indexHeader), indexMagic...)
	b = append(b, indexVersion, 0, 0, 0)
	b = appendPosition(appendPosition(b, base), end)
	return binary.BigEndian.AppendUint64(b, uint64(size))
}

// encode gives the file of the index of a segment.
func (m *memory) encode(base, end Position, size int64) []byte {
	b := indexIdentity(base, end, size)
	b = binary.BigEndian.AppendUint32(b, uint32(m.count))
	b = binary.BigEndian.AppendUint64(b, uint64(m.first))
	b = binary.BigEndian.AppendUint64(b, uint64(m.last))
	sieve := m.newSieve()
	b = binary.BigEndian.AppendUint32(b, uint32(len(sieve)))
	for i := range m.keys {
		k := &m.keys[i]
		b = binary.BigEndian.AppendUint32(b, uint32(len(k.names)))
		b = binary.BigEndian.AppendUint32(b, uint32(k.nameBytes()))
	}
	b = slices.Grow(b, m.count*(placeBytes+timeBytes+keyKinds*numberBytes))
	for i, offset := range m.offsets {
		b = binary.BigEndian.AppendUint32(b, offset)
		b = binary.BigEndian.AppendUint32(b, m.sums[i])
	}
	for _, t := range m.millis {
		b = binary.BigEndian.AppendUint64(b, uint64(t))
	}
	for i := range m.keys {
		b = m.keys[i].append(b)
	}
	b = append(b, sieve...)
	return appendPages(make([]byte, 0, len(b)+len(b)/512+2*pageSize), b)
}

func (k *memoryKey) nameBytes() (n int) {
	for _, name := range k.names {
		n += len(name)
	}
	return n
}

// append encodes one key.
func (k *memoryKey) append(b []byte) []byte {
	lists := make([][]uint32, len(k.names))
	for i, number := range k.of {
		lists[number] = append(lists[number], uint32(i))
	}
	sorted := make([]int, len(k.names))
	for i := range sorted {
		sorted[i] = i
	}
	slices.SortFunc(sorted, func(a, b int) int { return strings.Compare(k.names[a], k.names[b]) })
	end := 0
	for _, i := range sorted {
		end += len(k.names[i])
		b = binary.BigEndian.AppendUint32(b, uint32(end))
	}
	end = 0
	for _, i := range sorted {
		end += len(lists[i])
		b = binary.BigEndian.AppendUint32(b, uint32(end))
	}
	for _, i := range sorted {
		b = append(b, k.names[i]...)
	}
	for _, i := range sorted {
		for _, position := range lists[i] {
			b = binary.BigEndian.AppendUint32(b, position)
		}
	}
	return b
}

// writeIndex puts an index file in place. It is not made durable: after a power
// cut it may be anything, which is found, and it is made anew.
func writeIndex(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write history index: %w", err)
	}
	_, err = f.Write(content)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write history index: %w", err)
	}
	return nil
}
