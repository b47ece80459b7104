package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// smallSegment is so small that a test fills several.
const smallSegment = 8 << 10

// walOf opens a sealed store over segments in dir.
func walOf(dir string) (*sealedLog, error) {
	inner, err := openWAL(dir, smallSegment)
	if err != nil {
		return nil, err
	}
	return newSealedLog(inner, WAL, Hooks{}), nil
}

func mustWAL(t *testing.T, dir string) *sealedLog {
	t.Helper()
	s, err := walOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// entryFor is what a test stores as entry i of a term.
func entryFor(i, term uint64) *raft.Log {
	return &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "%0*d", 40+int(i*37%600), i*1000+term)}
}

func fill(t *testing.T, s *sealedLog, low, high, term uint64) {
	t.Helper()
	for i := low; i <= high; {
		var batch []*raft.Log
		for range 1 + i%3 {
			if i <= high {
				batch = append(batch, entryFor(i, term))
				i++
			}
		}
		if err := s.StoreLogs(batch); err != nil {
			t.Fatal(err)
		}
	}
}

// holds checks that s has exactly entries low to high, of a term, in order.
func holds(s *sealedLog, low, high, term uint64) error {
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil || first != low || last != high {
		return fmt.Errorf("entries %d to %d, %v; want %d to %d", first, last, err, low, high)
	}
	for i := low; i <= high; i++ {
		var l raft.Log
		if err := s.readLog(i, &l); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if want := entryFor(i, term); l.Term != term || !bytes.Equal(l.Data, want.Data) || l.Type != want.Type {
			return fmt.Errorf("entry %d is %+v", i, l)
		}
	}
	return nil
}

func reopen(t *testing.T, s *sealedLog, dir string) *sealedLog {
	t.Helper()
	if err := s.files.Close(); err != nil {
		t.Fatal(err)
	}
	return mustWAL(t, dir)
}

func TestWALOverManySegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustWAL(t, dir)
	fill(t, s, 1, 200, 1)
	if err := holds(s, 1, 200, 1); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, dir)
	if err := holds(s, 1, 200, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteRange(1, 120); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 201, 300, 1)
	s = reopen(t, s, dir)
	if err := holds(s, 121, 300, 1); err != nil {
		t.Fatal(err)
	}
	names, err := segments{}.ListDir(filepath.Join(dir, walDir))
	if err != nil || len(names) > 20 {
		t.Fatalf("%d segments, %v", len(names), err)
	}
	if err := s.files.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWALAfterACutTail: raft-wal on its own cannot read what is left after a restart.
func TestWALAfterACutTail(t *testing.T) {
	t.Parallel()
	for _, from := range []uint64{2, 57, 100, 199} {
		dir := t.TempDir()
		s := mustWAL(t, dir)
		fill(t, s, 1, 199, 1)
		if err := s.DeleteRange(from, 199); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s = reopen(t, s, dir)
			if err := holds(s, 1, from-1, 1); err != nil {
				t.Fatalf("cut from %d: %v", from, err)
			}
		}
		fill(t, s, from, from+80, 1)
		s = reopen(t, s, dir)
		if err := holds(s, 1, from+80, 1); err != nil {
			t.Fatalf("cut from %d: %v", from, err)
		}
		if err := s.files.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCutTailsTakeLittleRoom: the end of the log is cut at every start of a voter that
// comes back with what nobody else has. Each time raft-wal begins a new segment and
// leaves one in which there is next to nothing. After a start that one takes the disk
// of what it holds, so a hundred take little more than one.
func TestCutTailsTakeLittleRoom(t *testing.T) {
	t.Parallel()
	const size, cuts = 1 << 20, 20
	dir := t.TempDir()
	again := func() *sealedLog {
		inner, err := openWAL(dir, size)
		if err != nil {
			t.Fatal(err)
		}
		return newSealedLog(inner, WAL, Hooks{})
	}
	s := again()
	for cut := range uint64(cuts) {
		fill(t, s, 1+10*cut, 20+10*cut, 1)
		if err := s.DeleteRange(11+10*cut, 20+10*cut); err != nil {
			t.Fatal(err)
		}
		if err := s.files.Close(); err != nil {
			t.Fatal(err)
		}
		s = again()
		if err := holds(s, 1, 10+10*cut, 1); err != nil {
			t.Fatalf("after %d cuts: %v", cut+1, err)
		}
	}
	names, err := segments{}.ListDir(filepath.Join(dir, walDir))
	if err != nil || len(names) < cuts {
		t.Fatalf("%d segments, %v: the test cuts nothing", len(names), err)
	}
	taken := int64(0)
	for _, name := range names {
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, walDir, name), &stat); err != nil {
			t.Fatal(err)
		}
		taken += stat.Blocks * sectorBytes
	}
	if most := int64(size + cuts*(32<<10)); taken > most {
		t.Errorf("%d segments take %d KiB of disk, want %d at most", len(names), taken>>10, most>>10)
	}
	if err := s.files.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWALStopsWhileASegmentEnds: the segment is full, the list does not say so
// yet. Raft-wal on its own could never store an entry again.
func TestWALStopsWhileASegmentEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustWAL(t, dir)
	var before []byte // the list as it was while the first segment was the last
	path := filepath.Join(dir, walDir, metaFile)
	for i := uint64(1); ; i++ {
		if b, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else if before == nil {
			before = b
		} else if !bytes.Equal(b, before) {
			if err := errors.Join(s.files.Close(), os.WriteFile(path, before, 0o600)); err != nil {
				t.Fatal(err)
			}
			s = mustWAL(t, dir)
			last, err := s.LastIndex()
			if err != nil || last == 0 || last > i-1 {
				t.Fatalf("ends at %d, %v", last, err)
			}
			fill(t, s, last+1, last+50, 1)
			s = reopen(t, s, dir)
			if err := errors.Join(holds(s, 1, last+50, 1), s.files.Close()); err != nil {
				t.Fatal(err)
			}
			return
		}
		fill(t, s, i, i, 1)
	}
}

// fullSegment fills the first segment in dir and gives its place, with the list
// as it was before that was known, and the last entry. pad moves all that follows.
func fullSegment(t *testing.T, dir string, pad int) (info types.SegmentInfo, before []byte, last uint64) {
	t.Helper()
	s := mustWAL(t, dir)
	path := filepath.Join(dir, walDir, metaFile)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for b := before; bytes.Equal(b, before); {
		last++
		l := entryFor(last, 1)
		if last == 1 {
			l.Data = make([]byte, 8*pad)
		}
		if err := s.StoreLog(l); err != nil {
			t.Fatal(err)
		}
		if b, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	info = s.files.(*walStore).meta.content.State.Segments[0]
	if err := s.files.Close(); err != nil {
		t.Fatal(err)
	}
	return info, before, info.MaxIndex
}

// TestWALTornWhileASegmentEnds: the last batch of a segment lacks its last sector,
// which begins within the list of offsets. Raft-wal on its own would take the
// segment for full and never store an entry again.
func TestWALTornWhileASegmentEnds(t *testing.T) {
	t.Parallel()
	for pad := range sectorBytes / 8 {
		dir := t.TempDir()
		info, before, last := fullSegment(t, dir, pad)
		name := filepath.Join(dir, walDir, segmentName(info))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sector := (len(bytes.TrimRight(b, "\x00")) - 1) / sectorBytes * sectorBytes
		if int(info.IndexStart) > sector {
			continue
		}
		clear(b[sector:])
		if err := errors.Join(os.WriteFile(name, b, 0o600), os.WriteFile(filepath.Join(dir, walDir, metaFile), before, 0o600)); err != nil {
			t.Fatal(err)
		}
		s := mustWAL(t, dir)
		if at, err := s.LastIndex(); err != nil || at != last-1 {
			t.Fatalf("ends at %d, %v; want %d", at, err, last-1)
		}
		fill(t, s, last, last+40, 1)
		s = reopen(t, s, dir)
		if at, err := s.LastIndex(); err != nil || at != last+40 {
			t.Fatalf("ends at %d, %v", at, err)
		}
		if err := s.files.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no padding puts the list over two sectors")
}

// TestWALCutRightAfterASegmentIsFull: raft-wal begins the next one in the
// background, and a cut that comes meanwhile would spoil its list.
func TestWALCutRightAfterASegmentIsFull(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // not in parallel: so the cut comes first, if it may
	_, _, last := fullSegment(t, t.TempDir(), 5)
	for range 20 {
		dir := t.TempDir()
		s := mustWAL(t, dir)
		logs := []*raft.Log{{Index: 1, Term: 1, Data: make([]byte, 8*5)}}
		for i := uint64(2); i <= last; i++ {
			logs = append(logs, entryFor(i, 1))
		}
		for _, l := range logs {
			if err := s.StoreLog(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.DeleteRange(last, last); err != nil {
			t.Fatal(err)
		}
		fill(t, s, last, last+30, 1)
		s = reopen(t, s, dir)
		first, err1 := s.FirstIndex()
		end, err2 := s.LastIndex()
		if err := errors.Join(err1, err2); err != nil || first != 1 || end != last+30 {
			t.Fatalf("entries %d to %d, %v", first, end, err)
		}
		for i := first; i <= end; i++ {
			var l raft.Log
			if err := s.readLog(i, &l); err != nil {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
		if err := s.files.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWALBeginsAnywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := mustWAL(t, dir)
	fill(t, s, 1<<32, 1<<32+30, 1)
	s = reopen(t, s, dir)
	if err := errors.Join(holds(s, 1<<32, 1<<32+30, 1), s.files.Close()); err != nil {
		t.Fatal(err)
	}
}

// walCopy is a directory to damage again and again.
type walCopy struct {
	whole, dir string
	tail       string
}

// lastBatch makes segments with some entries, the last of them in a batch of its
// own that reaches over several sectors of a segment that goes on.
func lastBatch(t *testing.T) (c walCopy, sc scan, last uint64) {
	t.Helper()
	for last = 60; ; last++ {
		if len(entryFor(last, 1).Data) < sectorBytes {
			continue
		}
		c = walCopy{whole: t.TempDir(), dir: filepath.Join(t.TempDir(), "log")}
		s := mustWAL(t, c.whole)
		fill(t, s, 1, last-1, 1)
		if err := errors.Join(s.StoreLogs([]*raft.Log{entryFor(last, 1)}), s.files.Close()); err != nil {
			t.Fatal(err)
		}
		meta, err := readMeta(filepath.Join(c.whole, walDir))
		if err != nil {
			t.Fatal(err)
		}
		info := meta.content.State.Segments[len(meta.content.State.Segments)-1]
		c.tail = segmentName(info)
		b, err := os.ReadFile(filepath.Join(c.whole, walDir, c.tail))
		if err != nil {
			t.Fatal(err)
		}
		if sc, err = scanSegment(b, info); err != nil || sc.rest {
			t.Fatalf("%+v %v", sc, err)
		}
		if len(sc.offsets) > 5 {
			return c, sc, last
		}
	}
}

// with opens a copy whose tail was changed.
func (c walCopy) with(t *testing.T, change func([]byte) []byte) (*sealedLog, error) {
	t.Helper()
	err := errors.Join(os.RemoveAll(c.dir), os.CopyFS(c.dir, os.DirFS(c.whole)))
	path := filepath.Join(c.dir, walDir, c.tail)
	b, err2 := os.ReadFile(path)
	if err := errors.Join(err, err2, os.WriteFile(path, change(b), 0o600)); err != nil {
		t.Fatal(err)
	}
	return walOf(c.dir)
}

// TestTornWritesAreCut: of the last write any sectors may be missing after a
// power cut. Nobody was told of it, so it goes as if it had not been.
func TestTornWritesAreCut(t *testing.T) {
	t.Parallel()
	c, sc, last := lastBatch(t)
	from := int(sc.offsets[len(sc.offsets)-1])
	var sectors []int // where the pieces of the last write begin
	for at := from; at < sc.end; at += sectorBytes - at%sectorBytes {
		sectors = append(sectors, at)
	}
	if len(sectors) < 2 {
		t.Fatalf("the last write is in %d sector", len(sectors))
	}
	for mask := range 1<<len(sectors) - 1 { // all but the whole write
		s, err := c.with(t, func(b []byte) []byte {
			for i, at := range sectors {
				if mask&(1<<i) == 0 {
					clear(b[at:min(sc.end, at+sectorBytes-at%sectorBytes)])
				}
			}
			return b
		})
		if err != nil {
			t.Fatalf("sectors %b of %d: %v", mask, len(sectors), err)
		}
		if err := holds(s, 1, last-1, 1); err != nil {
			t.Fatalf("sectors %b: %v", mask, err)
		}
		// A shorter write leaves in place what the torn one has left behind it.
		if err := s.StoreLog(&raft.Log{Index: last, Term: 1}); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s, c.dir)
		if err := s.DeleteRange(last, last); err != nil {
			t.Fatal(err)
		}
		fill(t, s, last, last+60, 1)
		s = reopen(t, s, c.dir)
		if err := errors.Join(holds(s, 1, last+60, 1), s.files.Close()); err != nil {
			t.Fatalf("sectors %b, later: %v", mask, err)
		}
	}
}

// TestTornWritesAreCutAnywhere: of the last write only the first sectors are there,
// wherever its entries begin in them. The head of an entry at the end of the last
// one that is there looks much like the end of a whole write.
func TestTornWritesAreCutAnywhere(t *testing.T) {
	t.Parallel()
	for pad := range sectorBytes / frameHead {
		c := walCopy{whole: t.TempDir(), dir: filepath.Join(t.TempDir(), "log")}
		s := mustWAL(t, c.whole)
		c.tail = segmentName(s.files.(*walStore).meta.content.State.Segments[0])
		size := func() int {
			b, err := os.ReadFile(filepath.Join(c.whole, walDir, c.tail))
			if err != nil {
				t.Fatal(err)
			}
			return (len(bytes.TrimRight(b, "\x00")) + 7) &^ 7
		}
		if err := s.StoreLog(&raft.Log{Index: 1, Term: 1, Data: make([]byte, frameHead*pad)}); err != nil {
			t.Fatal(err)
		}
		from := size()
		batch := []*raft.Log{{Index: 2, Term: 1, Data: make([]byte, 700)}, {Index: 3, Term: 1, Data: make([]byte, 600)}}
		for _, l := range batch {
			for i := range l.Data {
				l.Data[i] = 'x'
			}
		}
		if err := errors.Join(s.StoreLogs(batch), s.files.Close()); err != nil {
			t.Fatal(err)
		}
		end := size()
		for at := from &^ (sectorBytes - 1); at < end; at += sectorBytes {
			s, err := c.with(t, func(b []byte) []byte { clear(b[max(at, from):]); return b })
			if err != nil {
				t.Fatalf("the last write, at %d to %d, ends at %d: %v", from, end, max(at, from), err)
			}
			last, err := s.LastIndex()
			if err := errors.Join(err, s.files.Close()); err != nil || last != 1 {
				t.Fatalf("the last write, at %d to %d, ends at %d: entry %d is the last, %v", from, end, max(at, from), last, err)
			}
		}
	}
}

// TestDamageIsNotTakenForATornWrite flips bits in every byte of the tail, and
// whole sectors before the last write: the log opens whole, or not at all.
func TestDamageIsNotTakenForATornWrite(t *testing.T) {
	t.Parallel()
	c, sc, last := lastBatch(t)
	from := int(sc.offsets[len(sc.offsets)-1])
	refused := 0
	check := func(what string, s *sealedLog, err error) {
		if err != nil {
			refused++
			return
		}
		if err := errors.Join(holds(s, 1, last, 1), s.files.Close()); err != nil && !errors.Is(err, errSeal) {
			t.Fatalf("%s: opened, but %v", what, err)
		}
	}
	step := 7
	if os.Getenv("SKEIN_SOAK") != "" {
		step = 1
	}
	for at := 0; at < min(sc.end+256, smallSegment); at += step {
		s, err := c.with(t, func(b []byte) []byte { b[at] ^= 1 << (at / step % 8); return b })
		check(fmt.Sprintf("bit in byte %d", at), s, err)
	}
	for at := 0; at < from; at += sectorBytes {
		s, err := c.with(t, func(b []byte) []byte { clear(b[at:min(from, at+sectorBytes)]); return b })
		check(fmt.Sprintf("sector at %d gone", at), s, err)
		s, err = c.with(t, func(b []byte) []byte {
			for i := at; i < min(from, at+sectorBytes); i++ {
				b[i] = byte(rand.Uint32())
			}
			return b
		})
		check(fmt.Sprintf("sector at %d scrambled", at), s, err)
	}
	for _, size := range []int{0, 10, segmentHead, min(from, smallSegment-1), smallSegment - 8} {
		if s, err := c.with(t, func(b []byte) []byte { return b[:size] }); err == nil {
			s.files.Close()
			t.Fatalf("opened a segment cut to %d bytes", size)
		}
	}
	if want := sc.end / step * 99 / 100; refused < want { // three bytes in the head of a commit frame mean nothing
		t.Fatalf("only %d were refused, want %d", refused, want)
	}
}

func TestDamagedListIsRefused(t *testing.T) {
	t.Parallel()
	c, _, _ := lastBatch(t)
	path := filepath.Join(c.dir, walDir, metaFile)
	for name, change := range map[string]func() error{
		"one bit": func() error { return flip(t, path, []byte("BaseIndex")) },
		"empty":   func() error { return os.Truncate(path, 0) },
		"gone":    func() error { return os.Remove(path) },
		"segment": func() error { return os.Remove(filepath.Join(c.dir, walDir, c.tail)) },
		"first": func() error {
			names, err := segments{}.ListDir(filepath.Join(c.dir, walDir))
			return errors.Join(err, os.Remove(filepath.Join(c.dir, walDir, names[0])))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(c.dir), os.CopyFS(c.dir, os.DirFS(c.whole)), change()); err != nil {
				t.Fatal(err)
			}
			if s, err := walOf(c.dir); err == nil {
				s.files.Close()
				t.Fatal("opened")
			} else if name != "segment" && name != "first" && errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("taken for a new log: %v", err)
			}
		})
	}
}

// FuzzScanSegment: whatever a file holds, the scan ends within it.
func FuzzScanSegment(f *testing.F) {
	dir := f.TempDir()
	inner, err := openWAL(dir, smallSegment)
	if err != nil {
		f.Fatal(err)
	}
	s := newSealedLog(inner, WAL, Hooks{})
	if err := errors.Join(s.StoreLogs([]*raft.Log{entryFor(1, 1), entryFor(2, 1)}), s.StoreLog(entryFor(3, 1)), inner.Close()); err != nil {
		f.Fatal(err)
	}
	names, err := segments{}.ListDir(filepath.Join(dir, walDir))
	if err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, walDir, names[0]))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:700])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		info := inner.meta.content.State.Segments[0]
		s, err := scanSegment(b, info)
		if s.end > len(b) || len(s.offsets) > len(b)/frameHead || err != nil && !errors.Is(err, errAcknowledged) {
			t.Fatalf("%+v %v", s, err)
		}
		for _, o := range s.offsets {
			if int(o) >= s.end {
				t.Fatalf("entry at %d, whole up to %d", o, s.end)
			}
		}
	})
}

// FuzzMeta: whatever the list of segments holds, it is read or refused.
func FuzzMeta(f *testing.F) {
	dir := f.TempDir()
	m := newWALMeta(dir)
	if err := m.SetStable([]byte("k"), []byte("v")); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(m.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("00000000\n{}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, metaFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := readMeta(dir)
		if err != nil {
			return
		}
		if err := mend(dir, m); err == nil && len(m.content.State.Segments) > 0 {
			t.Fatalf("segments that are not there were accepted: %s", b)
		}
	})
}
