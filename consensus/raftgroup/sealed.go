package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// logStore is what a kind of store must offer.
type logStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// Keys under which raft keeps its votes. They are raft's own names.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

var (
	errSeal    = errors.New("checksum does not match")
	errBlank   = errors.New("this node has not received the log yet, so it cannot vote")
	errTooSoon = errors.New("this node has just started and may have promised a leader not to vote")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealBytes = 4

// sealedStore adds to a store what raft leaves to chance: every entry and value
// carries a checksum; the first failed write is the last one; a hanging write
// can be seen; a store that never held an entry casts no vote; and the newest
// entries are kept in memory, bounded by bytes.
type sealedStore struct {
	inner   logStore
	failure *failure
	// monotonic: no entry may follow after a gap.
	monotonic bool
	// blank: no entry was ever stored here.
	blank atomic.Bool
	// writingSince is when the write under way began, in nanoseconds after
	// start; 0 when none is.
	writingSince atomic.Int64
	start        time.Time
	recent       recentLogs
	ledger       ledger
	room         *room
	// hold is called before entries are stored and may wait.
	hold func()
	// novote is until when, after start, no vote is cast: see Group.noVoteYet.
	novote atomic.Int64
}

func newSealedStore(inner logStore, f *failure) *sealedStore {
	_, monotonic := inner.(*walStore)
	return &sealedStore{inner: inner, failure: f, monotonic: monotonic, start: time.Now(), recent: recentLogs{logs: map[uint64]raft.Log{}},
		room: newRoom("", 0), hold: func() {}}
}

// write runs one change of the store. Its failure ends the group.
func (s *sealedStore) write(what string, change func() error) error {
	if err := s.failure.silent(); err != nil {
		return err
	}
	s.writingSince.Store(max(1, int64(time.Since(s.start))))
	err := change()
	s.writingSince.Store(0)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w: %s: %w; free or replace the disk and start again, what was acknowledged is on the other voters", ErrStoreFailed, what, err)
	s.failure.set(err)
	return err
}

// stalledFor is how long the write under way has taken; 0 when none is.
func (s *sealedStore) stalledFor() time.Duration {
	since := s.writingSince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(s.start) - time.Duration(since)
}

// FirstIndex implements raft.LogStore.
func (s *sealedStore) FirstIndex() (uint64, error) { return s.inner.FirstIndex() }

// LastIndex implements raft.LogStore.
func (s *sealedStore) LastIndex() (uint64, error) { return s.inner.LastIndex() }

// IsMonotonic implements raft.MonotonicLogStore: no entry may follow after a gap.
func (s *sealedStore) IsMonotonic() bool {
	return s.monotonic
}

// GetLog implements raft.LogStore. An entry whose checksum is wrong is an error.
func (s *sealedStore) GetLog(index uint64, log *raft.Log) error {
	if s.recent.get(index, log) {
		return nil
	}
	return s.readLog(index, log)
}

// readLog reads past the memory of recent entries.
func (s *sealedStore) readLog(index uint64, log *raft.Log) error {
	if err := s.inner.GetLog(index, log); err != nil {
		return err
	}
	if log.Index != index || string(log.Extensions) != string(sealOf(log)) {
		return errSeal
	}
	log.Extensions = nil
	return nil
}

// StoreLog implements raft.LogStore.
func (s *sealedStore) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. The checksum travels in the field that
// raft leaves to middleware, so the data is not copied. ErrNoSpace changes
// nothing: a follower answers with a refusal and a leader steps down, both
// without harm.
func (s *sealedStore) StoreLogs(logs []*raft.Log) error {
	if err := s.room.refuses(logs); err != nil {
		return err
	}
	s.hold()
	copies := make([]raft.Log, len(logs))
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		copies[i].Extensions = sealOf(l)
		sealed[i] = &copies[i]
	}
	if err := s.write("append", func() error { return s.inner.StoreLogs(sealed) }); err != nil {
		return err
	}
	s.blank.Store(false)
	s.recent.add(logs)
	s.ledger.add(logs)
	return nil
}

// DeleteRange implements raft.LogStore.
func (s *sealedStore) DeleteRange(low, high uint64) error {
	s.recent.drop(low, high)
	s.ledger.drop(low, high)
	return s.write("delete", func() error { return s.inner.DeleteRange(low, high) })
}

// Set implements raft.StableStore.
func (s *sealedStore) Set(key, value []byte) error {
	seal := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	sealed := binary.BigEndian.AppendUint32(append([]byte{}, value...), seal)
	return s.write("set "+string(key), func() error { return s.inner.Set(key, sealed) })
}

// Get implements raft.StableStore.
func (s *sealedStore) Get(key []byte) ([]byte, error) {
	sealed, err := s.inner.Get(key)
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

// SetUint64 implements raft.StableStore.
//
// Raft panics when it cannot save its term. A panic in its goroutine would end
// the process without a word from us, so a failure of that one write is not
// reported to raft: the failure is set, and from then on nothing that raft
// decides leaves the node.
func (s *sealedStore) SetUint64(key []byte, value uint64) error {
	if string(key) == keyLastVoteTerm && s.blank.Load() {
		return errBlank
	}
	if string(key) == keyLastVoteTerm && !s.voteAllowed() {
		return errTooSoon
	}
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	if string(key) == keyCurrentTerm {
		return nil
	}
	return err
}

// voteAllowed: see Group.noVoteYet.
func (s *sealedStore) voteAllowed() bool {
	return time.Since(s.start) >= time.Duration(s.novote.Load())
}

// GetUint64 implements raft.StableStore.
func (s *sealedStore) GetUint64(key []byte) (uint64, error) {
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

const (
	maxRecentBytes = 4 << 20
	maxRecentLogs  = 1024
)

// recentLogs holds the newest entries without a hole, so that replication and
// Apply need not read back what was just written.
type recentLogs struct {
	mu        sync.RWMutex
	logs      map[uint64]raft.Log
	low, high uint64
	bytes     int
}

func (r *recentLogs) get(index uint64, into *raft.Log) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	l, ok := r.logs[index]
	if ok {
		*into = l
	}
	return ok
}

func (r *recentLogs) add(logs []*raft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range logs {
		if len(r.logs) == 0 || l.Index != r.high+1 {
			clear(r.logs)
			r.low, r.bytes = l.Index, 0
		}
		r.logs[l.Index] = *l
		r.high = l.Index
		r.bytes += len(l.Data)
	}
	for len(r.logs) > 1 && (r.bytes > maxRecentBytes || len(r.logs) > maxRecentLogs) {
		r.bytes -= len(r.logs[r.low].Data)
		delete(r.logs, r.low)
		r.low++
	}
}

// drop forgets everything if [low, high] touches what is held.
func (r *recentLogs) drop(low, high uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.logs) > 0 && low <= r.high && high >= r.low {
		clear(r.logs)
		r.bytes = 0
	}
}
