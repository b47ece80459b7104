package audit

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"skein/consensus/event"
	"skein/consensus/history"
)

// This file reads segments and records on its own: see the package comment.
// The formats are those that consensus/history/DESIGN.md names.
const (
	segmentMagic  = "SKNH"
	segmentHeader = 4 + 1 + 1 + 2 + 8 + 32 + 4
	segmentFormat = 1
	// flagReset: what was before was given up; flagFilled: it was put there later.
	flagReset    = 1
	flagFilled   = 2
	frameHeader  = 8
	recordFormat = 1
	recordHeader = 1 + 8 + 8 + 8 + 4 + 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is the header of a segment file.
type segment struct {
	path  string
	base  history.Position
	reset bool
	// filled: it was put before what was held already.
	filled bool
}

// readSegment reads the header of the segment whose name says that it follows
// event base. why says what is wrong with it, "" if nothing is.
func readSegment(f *os.File, base uint64) (s segment, why string, err error) {
	var b [segmentHeader]byte
	if n, err := io.ReadFull(f, b[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s, fmt.Sprintf("it has %d bytes and no whole header", n), nil
	} else if err != nil {
		return s, "", err
	}
	s = segment{path: f.Name(), reset: b[5]&flagReset != 0, filled: b[5]&flagFilled != 0}
	s.base = history.Position{Seq: binary.BigEndian.Uint64(b[8:]), Hash: history.Hash(b[16:48])}
	switch {
	case string(b[:4]) != segmentMagic:
		why = "it is no segment of a history"
	case crc32.Checksum(b[:segmentHeader-4], castagnoli) != binary.BigEndian.Uint32(b[segmentHeader-4:]):
		why = "the checksum of its header is wrong"
	case b[4] != segmentFormat:
		why = fmt.Sprintf("it has format %d, this build reads %d; upgrade skein", b[4], segmentFormat)
	case s.base.Seq != base:
		why = fmt.Sprintf("its header says that it follows event %d, its name says %d", s.base.Seq, base)
	}
	return s, why, nil
}

// record is what one entry decided, with the chain's hash after each event.
type record struct {
	events []event.Event
	hashes []history.Hash
}

func (r record) end() history.Position {
	last := len(r.events) - 1
	return history.Position{Seq: r.events[last].Seq, Hash: r.hashes[last]}
}

// parseRecord reads a record that must continue the chain at before. why says
// what is wrong with it.
func parseRecord(b []byte, before history.Position) (r record, why string) {
	if len(b) < recordHeader {
		return r, fmt.Sprintf("a record of %d bytes", len(b))
	}
	if b[0] != recordFormat {
		return r, fmt.Sprintf("a record of format %d, this build reads %d; upgrade skein", b[0], recordFormat)
	}
	first, count := binary.BigEndian.Uint64(b[17:]), binary.BigEndian.Uint32(b[25:])
	sum := history.Hash(b[29:recordHeader])
	if count == 0 || count > history.MaxRecordEvents {
		return r, fmt.Sprintf("a record of %d events", count)
	}
	if first != before.Seq+1 {
		return r, fmt.Sprintf("event %d stands where event %d must", first, before.Seq+1)
	}
	r.events, r.hashes = make([]event.Event, 0, count), make([]history.Hash, 0, count)
	at := before
	for b = b[recordHeader:]; len(b) > 0; {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return r, "a record ends inside an event"
		}
		text := b[4 : 4+binary.BigEndian.Uint32(b)]
		b = b[4+len(text):]
		e, err := event.Parse(text)
		if err != nil {
			return r, fmt.Sprintf("the event after %d: %v", at.Seq, err)
		}
		if e.Seq != at.Seq+1 {
			return r, fmt.Sprintf("event %d stands where event %d must", e.Seq, at.Seq+1)
		}
		at = history.Position{Seq: e.Seq, Hash: at.Hash.Then(text)}
		r.events, r.hashes = append(r.events, e), append(r.hashes, at.Hash)
	}
	switch {
	case len(r.events) != int(count):
		return r, fmt.Sprintf("a record of %d events says that it has %d", len(r.events), count)
	case at.Hash != sum:
		return r, fmt.Sprintf("the chain is broken: its hash after event %d is another", at.Seq)
	}
	return r, ""
}

// frames reads the frames of a segment file behind its header.
type frames struct {
	in *bufio.Reader
	at int64
	// buf holds the newest record.
	buf []byte
}

func newFrames(f *os.File, at int64) *frames {
	size := int64(maxBuffer)
	if info, err := f.Stat(); err == nil {
		size = min(size, info.Size())
	}
	return &frames{in: bufio.NewReaderSize(io.NewSectionReader(f, at, 1<<62), int(size)), at: at}
}

// maxBuffer is how much of a file is read at once.
const maxBuffer = 256 << 10

// next gives the next record, nil at the end of the file. why says that the
// frame at the current offset is broken; torn that the file ends inside it, or
// that the rest of it is zeros, as a power cut leaves it.
func (r *frames) next() (record []byte, why string, torn bool, err error) {
	var head [frameHeader]byte
	n, err := io.ReadFull(r.in, head[:])
	switch {
	case errors.Is(err, io.EOF):
		return nil, "", false, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Sprintf("it ends with %d bytes that are no record", n), true, nil
	case err != nil:
		return nil, "", false, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < recordHeader || size > history.MaxRecord {
		return nil, fmt.Sprintf("a record of %d bytes", size), size == 0, nil
	}
	r.buf = slices.Grow(r.buf[:0], int(size))[:size]
	switch n, err = io.ReadFull(r.in, r.buf); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Sprintf("it ends after %d of %d bytes of a record", n, size), true, nil
	case err != nil:
		return nil, "", false, err
	}
	if crc32.Checksum(r.buf, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, "the checksum of a record is wrong", false, nil
	}
	r.at += int64(frameHeader + size)
	return r.buf, "", false, nil
}

// pageBytes is the size of the pages of an index: content and its CRC-32C.
const pageBytes = 4096

// brokenPage finds the first page of an index whose checksum is wrong.
func brokenPage(b []byte) (at int64, broken bool) {
	if len(b) == 0 {
		return 0, true
	}
	for at := 0; at < len(b); at += pageBytes {
		if len(b)-at < pageBytes {
			return int64(at), true
		}
		page := b[at : at+pageBytes]
		if crc32.Checksum(page[:pageBytes-4], castagnoli) != binary.BigEndian.Uint32(page[pageBytes-4:]) {
			return int64(at), true
		}
	}
	return 0, false
}
