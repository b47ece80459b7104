package history

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"skein/consensus/history/index"
)

// A segment file is a header and then frames. The header: magic, version,
// flags, two zero bytes, base position, CRC-32C of what is before. A frame: length
// of the record, CRC-32C of the record, the record. Big endian.
const (
	segmentMagic   = "SKNH"
	segmentVersion = 1
	segmentHeader  = 4 + 1 + 1 + 2 + 8 + 32 + 4
	segmentSuffix  = ".seg"
	frameHeader    = 8
	// flagReset: what was before this segment was given up on purpose.
	flagReset = 1
	// flagFilled: this segment was put before what was held already.
	flagFilled = 2
	// markEvery is the distance in bytes of the entries of the sparse index.
	markEvery = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is what the log knows about one file. path, base and flags never
// change; the rest only in the last segment.
type segment struct {
	path  string
	base  Position
	flags byte
	// size is the end of the last whole record.
	size int64
	// end is the position after the last whole record.
	end Position
	// marks is the sparse index, in order: a record that starts at offset begins
	// with event first.
	marks []mark
	// index is set once the segment is sealed.
	index *index.File
}

func (s *segment) reset() bool  { return s.flags&flagReset != 0 }
func (s *segment) filled() bool { return s.flags&flagFilled != 0 }

type mark struct {
	first  uint64
	offset int64
	// before is the chain's hash before event first.
	before Hash
}

func segmentPath(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", base, segmentSuffix))
}

// listSegments gives the base sequence numbers of the segments in dir, sorted,
// and removes what an interrupted creation left behind, and indexes without a
// segment.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	var bases []uint64
	for _, e := range entries {
		name := e.Name()
		if isLeftover(dir, name) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("open history: %w", err)
			}
			continue
		}
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		if !ok {
			continue
		}
		base, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("open history: %s in %s is no segment; move it away", name, dir)
		}
		bases = append(bases, base)
	}
	slices.Sort(bases)
	return bases, nil
}

// isLeftover reports whether a file is of a creation or a removal that was
// interrupted.
func isLeftover(dir, name string) bool {
	if strings.HasPrefix(name, ".") {
		return strings.Contains(name, segmentSuffix+".") || strings.Contains(name, index.Suffix+".") || strings.HasPrefix(name, "."+floorName+".")
	}
	digits, ok := strings.CutSuffix(name, index.Suffix)
	if !ok {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, digits+segmentSuffix))
	return errors.Is(err, fs.ErrNotExist)
}

func encodeHeader(base Position, flags byte) []byte {
	b := make([]byte, 0, segmentHeader)
	b = append(b, segmentMagic...)
	b = append(b, segmentVersion, flags, 0, 0)
	b = binary.BigEndian.AppendUint64(b, base.Seq)
	b = append(b, base.Hash[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHeader reads the start of a segment file.
func readHeader(path string) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	defer f.Close()
	var b [segmentHeader]byte
	if _, err := io.ReadFull(f, b[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("open history: %w", err)
	}
	sum := binary.BigEndian.Uint32(b[segmentHeader-4:])
	if string(b[:4]) != segmentMagic || sum != crc32.Checksum(b[:segmentHeader-4], castagnoli) {
		return nil, damaged(path, 0, "the header is broken")
	}
	if b[4] != segmentVersion {
		return nil, fmt.Errorf("open history: %s has format %d, this build reads %d; upgrade skein", path, b[4], segmentVersion)
	}
	base := Position{Seq: binary.BigEndian.Uint64(b[8:]), Hash: Hash(b[16:48])}
	return &segment{path: path, base: base, flags: b[5], size: segmentHeader, end: base}, nil
}

// broken is why a scan of a segment ended early: the first record that is not
// whole. It is damage or a torn tail; the caller knows which.
type broken struct {
	offset int64
	why    string
}

// scan reads the whole file, builds the index, and stops at the first record
// that is not whole. A whole record that does not belong there is an error.
func (s *segment) scan() (*broken, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, segmentHeader, info.Size()-segmentHeader), 256<<10)
	var buf []byte
	for {
		record, why, err := readFrame(r, buf)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read history %s: %w", s.path, err)
		case why != "":
			return &broken{s.size, why}, nil
		case record == nil:
			return nil, nil
		}
		buf = record
		h, err := parseHeader(record)
		if err != nil { // whole and not understood: no torn tail
			return nil, damaged(s.path, s.size, err.Error())
		}
		if h.first != s.end.Seq+1 {
			return nil, damaged(s.path, s.size, fmt.Sprintf("event %d where %d is next", h.first, s.end.Seq+1))
		}
		s.grow(h, len(record))
	}
}

// grow accounts for one more record of n bytes at the end.
func (s *segment) grow(h header, n int) {
	if len(s.marks) == 0 || s.size-s.marks[len(s.marks)-1].offset >= markEvery {
		s.marks = append(s.marks, mark{h.first, s.size, s.end.Hash})
	}
	s.size += int64(frameHeader + n)
	s.end = Position{h.last(), h.hash}
}

// seal gives a segment that is full its index, whether that is written or not.
func (s *segment) seal() {
	of := index.Source{Path: s.path, Events: int(s.end.Seq - s.base.Seq), Bytes: s.size}
	b := of.Identity[:0]
	for _, p := range []Position{s.base, s.end} {
		b = append(binary.BigEndian.AppendUint64(b, p.Seq), p.Hash[:]...)
	}
	s.index = index.NewFile(of, s.reindex)
}

// reindex makes the index of the segment by reading it.
func (s *segment) reindex() (*index.Memory, error) {
	m := index.NewMemory()
	at := int64(segmentHeader)
	var bad error
	_, err := extent{s.path, segmentHeader, s.size, s.base}.scan(0, func(b []byte) (bool, error) {
		r, err := ParseRecord(b)
		if err != nil {
			bad = damaged(s.path, at, err.Error())
			return false, nil
		}
		indexRecord(m, &r, at)
		at += int64(frameHeader + len(b))
		return true, nil
	})
	switch {
	case err != nil || bad != nil:
		return nil, dropped(s.base.Seq+1, errors.Join(err, bad))
	case uint64(m.Events()) != s.end.Seq-s.base.Seq:
		return nil, damaged(s.path, at, fmt.Sprintf("it has %d events, %d were written", m.Events(), s.end.Seq-s.base.Seq))
	}
	return m, nil
}

// indexRecord adds to an index a record that starts at offset, its frame included.
// Each event is there with its length.
func indexRecord(m *index.Memory, r *Record, offset int64) {
	at := uint32(offset) + frameHeader + recordHeader
	rest := r.encoded[recordHeader:]
	for i := range r.Events {
		n := lengthBytes + binary.BigEndian.Uint32(rest)
		m.Add(&r.Events[i], at, rest[:n])
		at, rest = at+n, rest[n:]
	}
}

// markFor is where to start reading to find event seq. The segment has a record.
func (s *segment) markFor(seq uint64) mark {
	i, found := slices.BinarySearchFunc(s.marks, seq, func(m mark, seq uint64) int {
		switch {
		case m.first < seq:
			return -1
		case m.first > seq:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	return s.marks[max(i, 0)]
}

func appendFrame(b, record []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(record)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(record, castagnoli))
	return append(b, record...)
}

// readFrame reads one record into buf, grown as needed. At a clean end the
// record is nil; why says that the frame is not whole.
func readFrame(r io.Reader, buf []byte) (record []byte, why string, err error) {
	var head [frameHeader]byte
	switch _, err := io.ReadFull(r, head[:]); {
	case errors.Is(err, io.EOF):
		return nil, "", nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, "the file ends inside a record", nil
	case err != nil:
		return nil, "", err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < smallestRecord || n > MaxRecord {
		return nil, fmt.Sprintf("a record of %d bytes", n), nil
	}
	record = slices.Grow(buf[:0], int(n))[:n]
	switch _, err := io.ReadFull(r, record); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, "the file ends inside a record", nil
	case err != nil:
		return nil, "", err
	}
	if crc32.Checksum(record, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, "a checksum is wrong", nil
	}
	return record, "", nil
}
