package index

import (
	"hash/crc32"
	"strings"

	"skein/consensus/event"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The keys of the index.
const (
	keyStream = iota
	keyType
	keyActor
	keyKinds
)

// Memory is the index of a file that grows. It is for one goroutine, but only adds
// behind: a copy of it stays as it is, and others may ask that meanwhile.
type Memory struct {
	is            head
	offsets, sums []uint32
	millis        []int64
	keys          [keyKinds]memoryKey
	// size is where the last event ends.
	size uint32
}

// memoryKey is one key: the number of each event's value.
type memoryKey struct {
	of    []uint32
	names []string
	// number is for who adds alone.
	number map[string]uint32
}

// NewMemory gives the index of a file without events.
func NewMemory() *Memory {
	m := &Memory{is: head{first: 1<<63 - 1, last: -1 << 63}}
	for i := range m.keys {
		m.keys[i].number = map[string]uint32{}
	}
	return m
}

// Add indexes the next event of the file, which lies there as b, from offset on. It
// is behind the one before.
func (m *Memory) Add(e *event.Event, offset uint32, b []byte) {
	m.offsets = append(m.offsets, offset)
	m.sums = append(m.sums, crc32.Checksum(b, castagnoli))
	millis := e.Time.UnixMilli()
	m.millis = append(m.millis, millis)
	m.is.first, m.is.last = min(m.is.first, millis), max(m.is.last, millis)
	m.keys[keyStream].add(e.Stream)
	m.keys[keyType].add(e.Type)
	m.keys[keyActor].add(e.Actor.ID)
	m.is.count++
	m.size = offset + uint32(len(b))
}

// Events is how many were added.
func (m *Memory) Events() int { return m.is.count }

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

func (m *Memory) ask(_ *Reader, question func(rows) error) (indexed bool, err error) {
	return true, question(m)
}

func (m *Memory) head() head { return m.is }

func (m *Memory) keyed(kind int, p keyPattern, set bitmap) error {
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

func (m *Memory) timed(from, until int64, set bitmap) error {
	for i, t := range m.millis {
		set.bound(i, t, from, until)
	}
	return nil
}

func (m *Memory) place(positions []int) ([]Place, error) {
	places := make([]Place, len(positions))
	for i, n := range positions {
		end := m.size
		if n+1 < m.is.count {
			end = m.offsets[n+1]
		}
		places[i] = Place{n, m.offsets[n], end - m.offsets[n], m.sums[n]}
	}
	return places, nil
}
