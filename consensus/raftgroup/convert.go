package raftgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"skein/mesh/ident"
)

const (
	// convertDir is where Convert makes the new log, below the old one's directory.
	convertDir = "convert.tmp"
	// convertBatch is how many bytes of entries it writes at once.
	convertBatch = 1 << 20
)

// stableKeys are the values that raft keeps beside its log.
func stableKeys() []string { return []string{keyCurrentTerm, keyLastVoteTerm, keyLastVoteCand} }

// Convert moves the Raft log of a stopped node into another kind of store. It
// may be interrupted at any moment: the directory then holds the old log or the
// new one, whole, and the call may be repeated. A log that is kept as to already
// is left alone. It refuses what New refuses.
func Convert(dir string, id ident.NodeID, to Store) (err error) {
	if err := to.check(); err != nil {
		return err
	}
	from, err := StoreOf(dir)
	if err != nil {
		return err
	}
	if from == "" {
		return fmt.Errorf("%w: there is none in %s; only a node that votes, or did, has one", ErrStoreGone, dir)
	}
	old, err := openStores(dir, id, from, newFailure(), silentLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.close()) }()
	if from == to {
		return nil // openStores has removed what an interrupted try left
	}
	tmp := filepath.Join(dir, convertDir)
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		return fmt.Errorf("make room for the new raft log: %w", err)
	}
	if err := old.copyTo(tmp, to); err != nil {
		return fmt.Errorf("convert the raft log in %s to %q: %w; nothing was changed", dir, to, err)
	}
	if err := moveLog(tmp, dir, to); err != nil {
		return fmt.Errorf("convert the raft log in %s to %q: %w; nothing was changed", dir, to, err)
	}
	if err := writeMarker(dir, marker{markerFormat, id, to}); err != nil {
		return err
	}
	return clearOthers(dir, to)
}

// StoreOf is the kind of store that a directory was made with; "" when there is
// no Raft log in it.
func StoreOf(dir string) (Store, error) {
	text, err := os.ReadFile(filepath.Join(dir, markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read raft marker: %w", err)
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || m.Format != markerFormat {
		return "", damaged(dir, filepath.Join(dir, markerFile), fmt.Errorf("it is no marker of %s", markerFormat))
	}
	return m.Store, nil
}

// Entries gives what proposals have put into the Raft log of a stopped node
// behind entry after, in order, committed or not. Checksums are checked, and what
// New refuses is refused; like New it clears away what a crash has left. Where
// there is no log there are no entries. An error of each ends it.
func Entries(dir string, id ident.NodeID, after uint64, each func(index, term uint64, data []byte) error) (err error) {
	kind, err := StoreOf(dir)
	if err != nil || kind == "" {
		return err
	}
	s, err := openStores(dir, id, kind, newFailure(), silentLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	first, err := s.log.FirstIndex()
	if err != nil {
		return err
	}
	for i := max(first, after+1); i <= s.last; i++ {
		var l raft.Log
		if err := s.log.readLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			continue // a snapshot covers it: see checkLog
		} else if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		if err := each(l.Index, l.Term, l.Data); err != nil {
			return err
		}
	}
	return nil
}

// copyTo makes a log of another kind in dir with the same content, durable, and
// reads it back.
func (s *stores) copyTo(dir string, kind Store) (err error) {
	inner, err := openLogStore(dir, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inner.Close()) }()
	next := newSealedStore(inner, newFailure())
	if err := s.copyLogs(next); err != nil {
		return err
	}
	for _, key := range stableKeys() {
		value, err := s.log.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err := errors.Join(err, next.Set([]byte(key), value)); err != nil {
			return err
		}
	}
	return s.sameAs(next)
}

func (s *stores) copyLogs(next *sealedStore) error {
	first, err := s.log.FirstIndex()
	if err != nil {
		return err
	}
	var batch []*raft.Log
	bytes := 0
	for i := max(first, 1); i <= s.last; i++ {
		l := new(raft.Log)
		if err := s.log.readLog(i, l); errors.Is(err, raft.ErrLogNotFound) && s.newest != nil && i <= s.newest.Index {
			batch, bytes = batch[:0], 0 // a gap that the snapshot covers: what was before it is of no use
			continue
		} else if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		batch = append(batch, l)
		if bytes += len(l.Data); bytes < convertBatch && i < s.last {
			continue
		}
		if err := next.StoreLogs(batch); err != nil {
			return err
		}
		batch, bytes = nil, 0
	}
	return nil
}

// sameAs compares what raft would read.
func (s *stores) sameAs(next *sealedStore) error {
	first, err := next.FirstIndex()
	last, err2 := next.LastIndex()
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if last != s.last {
		return fmt.Errorf("the copy ends at entry %d, not %d", last, s.last)
	}
	for i := max(first, 1); i <= last; i++ {
		var a, b raft.Log
		if err := errors.Join(s.log.readLog(i, &a), next.readLog(i, &b)); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if a.Term != b.Term || a.Type != b.Type || string(a.Data) != string(b.Data) {
			return fmt.Errorf("entry %d is another in the copy", i)
		}
	}
	for _, key := range stableKeys() {
		a, errA := s.log.Get([]byte(key))
		b, errB := next.Get([]byte(key))
		if string(a) != string(b) || (errA == nil) != (errB == nil) {
			return fmt.Errorf("%s is another in the copy", key)
		}
	}
	return nil
}

// logPath is what a kind of store keeps below dir.
func (kind Store) logPath(dir string) string {
	if kind == StoreWAL {
		return filepath.Join(dir, walDir)
	}
	return filepath.Join(dir, boltFile)
}

// moveLog puts a closed log from tmp into dir.
func moveLog(tmp, dir string, kind Store) error {
	if err := os.RemoveAll(kind.logPath(dir)); err != nil {
		return err
	}
	if err := errors.Join(syncDir(tmp), os.Rename(kind.logPath(tmp), kind.logPath(dir))); err != nil {
		return err
	}
	return syncDir(dir)
}

// clearOthers removes what a conversion to kind, or one that was interrupted on
// the way to another, has left.
func clearOthers(dir string, kind Store) error {
	err := os.RemoveAll(filepath.Join(dir, convertDir))
	for _, other := range []Store{StoreBolt, StoreWAL} {
		if other == kind {
			continue
		}
		if e := os.RemoveAll(other.logPath(dir)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("remove what a conversion of the raft log left in %s: %w", dir, err)
	}
	return nil
}
