package index

import (
	"encoding/binary"
	"slices"
	"strings"
)

// An index file, in pages: the header; offset and sum of every event; the time of
// every event; then for each key the ends of its sorted names, the ends of their
// lists, the names, the lists; the sieve. A list is the positions of the events
// that have the name, ascending. Big endian.
const (
	magic   = "SKNI"
	version = 1
	// headerBytes: magic, version and three zeros, identity and size of the file,
	// count, first and last time, bytes of the sieve, and of each key the number of
	// names and their bytes.
	headerBytes = 4 + 4 + IdentityBytes + 8 + 4 + 8 + 8 + 4 + keyKinds*8
	placeBytes  = 8
	timeBytes   = 8
	numberBytes = 4
	// maxEvents bounds what a header may announce.
	maxEvents = 1 << 22
)

// tie is the part of an index's header that ties it to its file.
func (of *Source) tie() []byte {
	b := append(make([]byte, 0, headerBytes), magic...)
	b = append(b, version, 0, 0, 0)
	b = append(b, of.Identity[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(of.Bytes))
}

// encode gives the index file of a file.
func (m *Memory) encode(of *Source) []byte {
	b := of.tie()
	b = binary.BigEndian.AppendUint32(b, uint32(m.is.count))
	b = binary.BigEndian.AppendUint64(b, uint64(m.is.first))
	b = binary.BigEndian.AppendUint64(b, uint64(m.is.last))
	sieve := m.newSieve()
	b = binary.BigEndian.AppendUint32(b, uint32(len(sieve)))
	for i := range m.keys {
		k := &m.keys[i]
		b = binary.BigEndian.AppendUint32(b, uint32(len(k.names)))
		b = binary.BigEndian.AppendUint32(b, uint32(k.nameBytes()))
	}
	b = slices.Grow(b, m.is.count*(placeBytes+timeBytes+keyKinds*numberBytes))
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
