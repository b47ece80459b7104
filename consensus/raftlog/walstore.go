package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metrics"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// walStore is raft-wal as Files.
type walStore struct {
	*wal.WAL
	meta *walMeta
	full *fullWatch
	// changing keeps changes apart. Raft-wal 0.4.0 begins a new segment in the
	// background, and a DeleteRange that comes before that is done confuses it.
	changing sync.Mutex
}

// fullWatch sees when raft-wal has filled a segment.
type fullWatch struct {
	*segment.Filer
	meta *walMeta
	// due is how many lists must have been written for the next segment to have
	// begun; 0 when none is to begin.
	due atomic.Uint64
}

// Create implements types.SegmentFiler.
func (f *fullWatch) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	w, err := f.Filer.Create(info)
	if err != nil {
		return nil, err
	}
	return tailWriter{w, f}, nil
}

// RecoverTail implements types.SegmentFiler.
func (f *fullWatch) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	w, err := f.Filer.RecoverTail(info)
	if err != nil {
		return nil, err
	}
	return tailWriter{w, f}, nil
}

type tailWriter struct {
	types.SegmentWriter
	watch *fullWatch
}

// Sealed implements types.SegmentWriter. Raft-wal asks after every append.
func (w tailWriter) Sealed() (bool, uint64, error) {
	sealed, index, err := w.SegmentWriter.Sealed()
	if sealed {
		w.watch.due.Store(w.watch.meta.written() + 1)
	}
	return sealed, index, err
}

// openWAL opens the segments below dir, or makes the first; new ones get
// segmentSize bytes. What raft-wal would take for a torn write, although it was
// acknowledged, is refused before raft-wal sees it, and what raft-wal cannot open
// after a crash is put right: see mend.
func openWAL(dir string, segmentSize int) (*walStore, error) {
	path := filepath.Join(dir, walDir)
	meta, err := readMeta(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if meta, err = newMeta(path); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if err := mend(path, meta); err != nil {
			return nil, err
		}
	}
	full := &fullWatch{Filer: segment.NewFiler(path, segments{}), meta: meta}
	w, err := wal.Open(path, wal.WithMetaStore(meta), wal.WithSegmentFiler(full),
		wal.WithSegmentSize(segmentSize), wal.WithLogger(hclog.NewNullLogger()),
		wal.WithMetricsCollector(&metrics.NoOpCollector{}))
	if err != nil {
		return nil, err
	}
	return &walStore{WAL: w, meta: meta, full: full}, nil
}

// newMeta makes an empty directory. What an interrupted try left is removed; it
// can have no segments yet.
func newMeta(path string) (*walMeta, error) {
	if names, err := (segments{}).ListDir(path); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("%s is missing beside %s", metaFile, names[0])
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	m := newWALMeta(path)
	return m, errors.Join(m.change(func(*metaContent) {}), syncDir(filepath.Dir(path)))
}

// Get implements raft.StableStore: raft knows "not found" by its text.
func (s *walStore) Get(key []byte) ([]byte, error) {
	value, err := s.WAL.Get(key)
	if err == nil && value == nil {
		err = raftboltdb.ErrKeyNotFound
	}
	return value, err
}

// GetLog implements raft.LogStore. Damage can make raft-wal's decoder panic.
func (s *walStore) GetLog(index uint64, l *raft.Log) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("entry %d: unreadable: %v", index, r)
		}
	}()
	if err := s.WAL.GetLog(index, l); errors.Is(err, wal.ErrNotFound) {
		return raft.ErrLogNotFound
	} else if err != nil {
		return err
	}
	l.Extensions = l.Extensions[:min(len(l.Extensions), sealBytes)] // without the mark of StoreLogs
	return nil
}

// StoreLogs implements raft.LogStore. The first entry of a batch is marked, so
// that a torn batch can be told from two: see scan.finish. The logs are
// sealedLog's own.
func (s *walStore) StoreLogs(logs []*raft.Log) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if len(logs) > 0 {
		logs[0].Extensions = append(logs[0].Extensions, firstOfBatch)
	}
	if err := s.WAL.StoreLogs(logs); err != nil {
		return err
	}
	if due := s.full.due.Swap(0); due > 0 {
		s.meta.awaitWritten(due)
	}
	return nil
}

// Close implements io.Closer.
func (s *walStore) Close() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.WAL.Close()
}

// DeleteRange implements raft.LogStore.
func (s *walStore) DeleteRange(low, high uint64) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.WAL.DeleteRange(low, high)
}

// StoreLog implements raft.LogStore.
func (s *walStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }
