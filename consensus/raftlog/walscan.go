package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// What raft-wal writes: a header of 32 bytes, then batches. A batch is entry
// frames, before the last one of a segment an index frame, and a commit frame
// with the checksum of the batch. Frames have a head of 8 bytes and are filled
// up to a multiple of 8. One batch is written, synced and acknowledged before
// the next begins.
const (
	segmentHead = 32
	frameHead   = 8
	frameEntry  = segment.FrameEntry
	frameIndex  = segment.FrameIndex
	frameCommit = segment.FrameCommit
	// sectorBytes is what a disk writes wholly or not at all.
	sectorBytes = 512
	// firstOfBatch marks, behind its seal, the first entry of a batch.
	firstOfBatch = 0x80
)

var errAcknowledged = errors.New("what was acknowledged is damaged")

func segmentName(info types.SegmentInfo) string { return segment.FileName(info) }

// scan is what a segment holds, read without raft-wal.
type scan struct {
	// offsets are those of the entries in whole batches.
	offsets []uint32
	// index is where the list of offsets begins, 0 in a segment that goes on.
	index uint64
	// end is where the last whole batch ends.
	end int
	// rest: there is something behind end.
	rest bool
}

// scanSegment reads batch after batch until one is not whole.
func scanSegment(b []byte, info types.SegmentInfo) (scan, error) {
	var s scan
	var offsets []uint32
	var index uint64
	began := 0
	for at := segmentHead; at+frameHead <= len(b); {
		size := int(binary.LittleEndian.Uint32(b[at+4:]))
		switch b[at] {
		case frameEntry:
			offsets = append(offsets, uint32(at))
		case frameIndex:
			index = uint64(at + frameHead)
		case frameCommit:
			if crc32.Checksum(b[began:at], castagnoli) != uint32(size) {
				return s.finish(b)
			}
			s.offsets, s.index, s.end = offsets, index, at+frameHead
			began, at = s.end, s.end
			continue
		default:
			return s.finish(b)
		}
		if at += frameHead + (size+7)&^7; size > len(b) {
			return s.finish(b)
		}
	}
	return s.finish(b)
}

// finish judges what is behind the last whole batch: nothing, a write that a
// crash cut short, or an acknowledged one that was damaged since.
//
// A crash leaves the last write, which nobody was told of, without some of its
// sectors; as the file was all zeros before, those are zero. Damage, on the
// other hand, leaves the write in full length, or there is a later one.
func (s scan) finish(b []byte) (scan, error) {
	rest := b[s.end:]
	high := len(bytes.TrimRight(rest, "\x00"))
	s.rest = high > 0
	if !s.rest {
		return s, nil
	}
	began := 0
	if s.end == 0 {
		began = segmentHead // the first batch has the head of the file
	}
	if at, ok := laterBatch(rest[:high], began); ok {
		return s, fmt.Errorf("%w: from byte %d on, before a later write at %d", errAcknowledged, s.end, s.end+at)
	}
	if lacksSector(rest[:high], s.end) {
		return s, nil
	}
	last := (high - 1) &^ 7
	if last+frameHead > len(rest) {
		return s, nil // a file that ends within a frame: no list names such a one
	}
	head := binary.LittleEndian.Uint32(rest[last:])
	if bits.OnesCount32(head^uint32(frameCommit)) <= 1 && !cutBehindHead(rest, s.end, last) {
		return s, fmt.Errorf("%w: from byte %d to %d", errAcknowledged, s.end, s.end+last+frameHead)
	}
	return s, nil
}

// cutBehindHead reports whether the last thing in rest, which begins at byte offset
// of its file, is the head of an entry or of a list of offsets whose write ended with
// its sector. Such a head has one bit less than a commit frame, and its size where
// that has a checksum.
func cutBehindHead(rest []byte, offset, last int) bool {
	kind, size := binary.LittleEndian.Uint32(rest[last:]), binary.LittleEndian.Uint32(rest[last+4:])
	return (kind == uint32(frameEntry) || kind == uint32(frameIndex)) &&
		(offset+last+frameHead)%sectorBytes == 0 && size > 0 && uint64(size) <= uint64(len(rest)-last-frameHead)
}

// laterBatch looks for a whole entry that began another batch than the one whose
// first entry is at began.
func laterBatch(rest []byte, began int) (at int, found bool) {
	for at := frameHead; at+frameHead <= len(rest); at += frameHead {
		size := int(binary.LittleEndian.Uint32(rest[at+4:]))
		if at == began || rest[at] != frameEntry || rest[at+1]|rest[at+2]|rest[at+3] != 0 || size > len(rest)-at-frameHead {
			continue
		}
		if l, first := decodeEntry(rest[at+frameHead:][:size]); first && bytes.Equal(sealOf(&l), l.Extensions) {
			return at, true
		}
	}
	return 0, false
}

// decodeEntry reads what raft-wal's codec wrote, of whatever bytes, and reports
// whether it is marked as the first of a batch.
func decodeEntry(b []byte) (l raft.Log, first bool) {
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		return v
	}
	piece := func() []byte {
		n := min(number(), uint64(len(b)))
		v := b[:n]
		b = b[n:]
		return v
	}
	l.Index, l.Term, l.Type = number(), number(), raft.LogType(number())
	l.Data, l.Extensions = piece(), piece()
	if len(l.Extensions) != sealBytes+1 || l.Extensions[sealBytes] != firstOfBatch {
		return l, false
	}
	l.Extensions = l.Extensions[:sealBytes]
	return l, true
}

// lacksSector reports whether a sector of rest, which begins at byte offset of
// its file and ends with something, is all zero.
func lacksSector(rest []byte, offset int) bool {
	for at := 0; at < len(rest); {
		next := min(len(rest), at+sectorBytes-(offset+at)%sectorBytes)
		if len(bytes.TrimLeft(rest[at:next], "\x00")) == 0 {
			return true
		}
		at = next
	}
	return false
}

// mend checks the list of segments against the files, and repairs what a crash
// can leave that raft-wal 0.4.0 cannot open: a torn write behind the last batch
// (it keeps the index of one that was to end a segment), a full segment that is
// not listed as full, and one that was cut without its list of offsets. It also
// removes files that the list does not name.
func mend(dir string, meta *walMeta) error {
	state, err := meta.Load(dir)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for i, info := range state.Segments {
		listed[segmentName(info)] = true
		if err := checkPlace(state.Segments, i); err != nil {
			return err
		}
	}
	if err := removeUnlisted(dir, listed); err != nil {
		return err
	}
	changed := false
	for i := range state.Segments {
		info := &state.Segments[i]
		if !info.SealTime.IsZero() && info.IndexStart != 0 {
			continue // every entry is read through its list of offsets
		}
		before := *info
		if err := mendSegment(filepath.Join(dir, segmentName(*info)), info); err != nil {
			return fmt.Errorf("%s: %w", segmentName(*info), err)
		}
		changed = changed || *info != before
	}
	if n := len(state.Segments); n > 0 && !state.Segments[n-1].SealTime.IsZero() {
		state.Segments = append(state.Segments, tailAfter(state.Segments[n-1], state.NextSegmentID))
		state.NextSegmentID++
	}
	if !changed {
		return nil
	}
	return meta.CommitState(state)
}

// checkPlace refuses a list that raft-wal does not write.
func checkPlace(all []types.SegmentInfo, i int) error {
	info, last := all[i], i == len(all)-1
	switch {
	case info.BaseIndex == 0 || info.MinIndex < info.BaseIndex || info.Codec != wal.CodecBinaryV1:
		return fmt.Errorf("%s is listed with entries from %d, codec %d", segmentName(info), info.BaseIndex, info.Codec)
	case info.SealTime.IsZero() != last:
		return fmt.Errorf("%s is listed as the end and is not", segmentName(info))
	case !last && (info.MaxIndex < info.MinIndex || all[i+1].BaseIndex != info.MaxIndex+1):
		return fmt.Errorf("%s is listed up to entry %d, the next begins at %d", segmentName(info), info.MaxIndex, all[i+1].BaseIndex)
	}
	return nil
}

// removeUnlisted removes segments that were made but never listed, or taken
// off the list but not yet removed.
func removeUnlisted(dir string, listed map[string]bool) error {
	names, err := segments{}.ListDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !listed[name] {
			err = errors.Join(err, segments{}.Delete(dir, name))
		}
	}
	return err
}

// tailAfter is the entry of the segment that follows a full one.
func tailAfter(full types.SegmentInfo, id uint64) types.SegmentInfo {
	return types.SegmentInfo{ID: id, BaseIndex: full.MaxIndex + 1, MinIndex: full.MaxIndex + 1, Codec: full.Codec,
		SizeLimit: full.SizeLimit, CreateTime: time.Now()}
}

// mendSegment makes one segment's file and its place in the list agree.
func mendSegment(path string, info *types.SegmentInfo) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	if stat.Size() < int64(info.SizeLimit) {
		return fmt.Errorf("it has %d bytes and was made with %d", stat.Size(), info.SizeLimit)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(stat.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	s, err := scanSegment(b, *info)
	if err := errors.Join(err, unix.Munmap(b)); err != nil && (info.SealTime.IsZero() || !errors.Is(err, errAcknowledged)) {
		return err
	}
	held := info.BaseIndex + uint64(len(s.offsets)) - 1
	switch {
	case !info.SealTime.IsZero():
		// Cut without a list of offsets. What is behind MaxIndex was cut off.
		if held < info.MaxIndex {
			return fmt.Errorf("%w: it holds entries up to %d, not up to %d", errAcknowledged, held, info.MaxIndex)
		}
		info.IndexStart = uint64(stat.Size()+7) &^ 7
		if err := appendIndex(f, int64(info.IndexStart), s.offsets[:info.MaxIndex-info.BaseIndex+1]); err != nil {
			return err
		}
		giveBack(f, int64(s.end), stat.Size())
		return nil
	case s.index != 0:
		info.SealTime, info.MaxIndex, info.IndexStart = time.Now(), held, s.index
		return nil
	case s.rest:
		return clearRest(f, int64(s.end), stat.Size())
	}
	return nil
}

// appendIndex writes a list of offsets behind everything.
func appendIndex(f *os.File, at int64, offsets []uint32) error {
	b := make([]byte, 0, 4*len(offsets))
	for _, o := range offsets {
		b = binary.LittleEndian.AppendUint32(b, o)
	}
	_, err := f.WriteAt(b, at)
	return errors.Join(err, f.Sync())
}

// giveBack frees the disk of a part of a file that nothing is read from any more. A
// file system that cannot keeps it: that costs room until the segment is deleted.
func giveBack(f *os.File, from, to int64) {
	unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
}

// clearRest makes everything behind end zero again, and the file as long as it was.
func clearRest(f *os.File, end, size int64) error {
	return errors.Join(f.Truncate(end), lengthen(f, size), f.Sync())
}
