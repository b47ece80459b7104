package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// ErrFailed: a write to the log failed. What the disk holds is not known any more,
// so nothing more is written, and the process must end.
var ErrFailed = errors.New("raft log could not be written")

// Hooks are what the owner of a log has a say in. Any may be nil; all but Hold
// must be quick.
type Hooks struct {
	// MayWrite is asked before each write. Its error is returned in place of the
	// write.
	MayWrite func() error
	// MayVote is asked before a vote is written. Its error is returned in place of
	// the vote, which raft then does not give.
	MayVote func() error
	// Hold is called before entries are stored, and may wait.
	Hold func()
	// Failed is told of a failed write (ErrFailed) before who wrote is. Writes that
	// fail at the same moment are all told.
	Failed func(error)
}

// orNothing fills in what is nil.
func (h Hooks) orNothing() Hooks {
	yes := func() error { return nil }
	if h.MayWrite == nil {
		h.MayWrite = yes
	}
	if h.MayVote == nil {
		h.MayVote = yes
	}
	if h.Hold == nil {
		h.Hold = func() {}
	}
	if h.Failed == nil {
		h.Failed = func(error) {}
	}
	return h
}

// Keys under which raft keeps its votes. They are raft's own names.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

var (
	errSeal  = errors.New("checksum does not match")
	errBlank = errors.New("this node has not received the log yet, so it cannot vote")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealBytes = 4

// sealedLog adds to files what raft leaves to chance: every entry and value carries
// a checksum; the first failed write is the last one; a hanging write can be
// seen; a log that never held an entry casts no vote; and the newest entries are
// kept in memory, bounded by bytes.
type sealedLog struct {
	files Files
	hooks Hooks
	// failed is the error of the first failed write.
	failed atomic.Pointer[error]
	// monotonic: no entry may follow after a gap.
	monotonic bool
	// blank: no entry was ever stored here.
	blank atomic.Bool
	// writingSince is when the write under way began, in nanoseconds after
	// start; 0 when none is.
	writingSince atomic.Int64
	start        time.Time
	recent       recentLogs
	ledger       Ledger
	space        space
}

func newSealedLog(files Files, kind Kind, hooks Hooks) *sealedLog {
	return &sealedLog{files: files, hooks: hooks.orNothing(), monotonic: kind == WAL, start: time.Now(), recent: recentLogs{logs: map[uint64]raft.Log{}}}
}

// write runs one change of the files. Its failure is the end of all writing.
func (s *sealedLog) write(what string, change func() error) error {
	if failed := s.failed.Load(); failed != nil {
		return *failed
	}
	if err := s.hooks.MayWrite(); err != nil {
		return err
	}
	s.writingSince.Store(max(1, int64(time.Since(s.start))))
	err := change()
	s.writingSince.Store(0)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w: %s: %w; free or replace the disk and start again, what was acknowledged is on the other voters", ErrFailed, what, err)
	s.hooks.Failed(err)
	s.failed.CompareAndSwap(nil, &err)
	return err
}

// StalledFor is how long the write under way has taken; 0 when none is.
func (s *sealedLog) StalledFor() time.Duration {
	since := s.writingSince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(s.start) - time.Duration(since)
}

// Ledger knows how large the entries are.
func (s *sealedLog) Ledger() *Ledger { return &s.ledger }

// LookAtDisk looks how much is free on the disk, and reports whether it is nearly
// full: see Config.ReserveBytes. It is one call of the system.
func (s *sealedLog) LookAtDisk() (nearlyFull bool) { return s.space.look() }

// NearlyFull is what the last look at the disk has found. Storing entries looks too.
func (s *sealedLog) NearlyFull() bool { return s.space.low.Load() }

// FirstIndex implements raft.LogStore: 0 when there is no entry.
func (s *sealedLog) FirstIndex() (uint64, error) { return s.files.FirstIndex() }

// LastIndex implements raft.LogStore: 0 when there is no entry.
func (s *sealedLog) LastIndex() (uint64, error) { return s.files.LastIndex() }

// IsMonotonic implements raft.MonotonicLogStore: no entry may follow after a gap.
func (s *sealedLog) IsMonotonic() bool { return s.monotonic }

// GetLog implements raft.LogStore: raft.ErrLogNotFound when there is no such entry.
// One whose checksum is wrong is an error.
func (s *sealedLog) GetLog(index uint64, log *raft.Log) error {
	if s.recent.get(index, log) {
		return nil
	}
	return s.readLog(index, log)
}

// readLog reads past the memory of recent entries.
func (s *sealedLog) readLog(index uint64, log *raft.Log) error {
	if err := s.files.GetLog(index, log); err != nil {
		return err
	}
	if log.Index != index || string(log.Extensions) != string(sealOf(log)) {
		return errSeal
	}
	log.Extensions = nil
	return nil
}

// StoreLog implements raft.LogStore.
func (s *sealedLog) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. The checksum travels in the field that
// raft leaves to middleware, so the data is not copied. ErrNoSpace changes
// nothing: a follower answers with a refusal and a leader steps down, both
// without harm.
func (s *sealedLog) StoreLogs(logs []*raft.Log) error {
	if err := s.space.refuses(logs); err != nil {
		return err
	}
	s.hooks.Hold()
	copies := make([]raft.Log, len(logs))
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = sealOf(l)
		sealed[i] = &copies[i]
	}
	if err := s.write("append", func() error { return s.files.StoreLogs(sealed) }); err != nil {
		return err
	}
	s.blank.Store(false)
	s.recent.add(logs)
	s.ledger.add(logs)
	return nil
}

// DeleteRange implements raft.LogStore: low and high go too. They must begin or end
// the log.
func (s *sealedLog) DeleteRange(low, high uint64) error {
	s.recent.drop(low, high)
	s.ledger.drop(low, high)
	return s.write("delete", func() error { return s.files.DeleteRange(low, high) })
}

// Set implements raft.StableStore.
func (s *sealedLog) Set(key, value []byte) error {
	seal := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	sealed := binary.BigEndian.AppendUint32(append([]byte{}, value...), seal)
	return s.write("set "+string(key), func() error { return s.files.Set(key, sealed) })
}

// Get implements raft.StableStore: the error "not found", which raft looks for, when
// there is no such value. One whose checksum is wrong is an error.
func (s *sealedLog) Get(key []byte) ([]byte, error) {
	sealed, err := s.files.Get(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < sealBytes {
		return nil, fmt.Errorf("%s: %w", key, errSeal)
	}
	value, seal := sealed[:len(sealed)-sealBytes], sealed[len(sealed)-sealBytes:]
	if crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value) != binary.BigEndian.Uint32(seal) {
		return nil, fmt.Errorf("%s: %w", key, errSeal)
	}
	return value, nil
}

// SetUint64 implements raft.StableStore. A vote is refused while no entry was ever
// stored here, and when Hooks.MayVote says so.
//
// Raft panics when it cannot save its term. A panic in its goroutine would end
// the process without a word from us, so a failure of that one write is not
// reported to raft: Hooks.Failed was told of it, and nothing that raft decides
// from then on may leave the node.
func (s *sealedLog) SetUint64(key []byte, value uint64) error {
	if string(key) == keyLastVoteTerm {
		if s.blank.Load() {
			return errBlank
		}
		if err := s.hooks.MayVote(); err != nil {
			return err
		}
	}
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	if string(key) == keyCurrentTerm {
		return nil
	}
	return err
}

// GetUint64 implements raft.StableStore: see Get.
func (s *sealedLog) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8: %w", key, len(value), errSeal)
	}
	return binary.BigEndian.Uint64(value), nil
}

// sealOf is the checksum of what matters in an entry.
func sealOf(l *raft.Log) []byte {
	var head [17]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
	return binary.BigEndian.AppendUint32(make([]byte, 0, 8), sum) // one byte more for walStore
}
