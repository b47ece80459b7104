package raftlog

import (
	"errors"
	"fmt"
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

// Convert moves the log of a stopped node into another kind of store. It
// may be interrupted at any moment: the directory then holds the old log or the
// new one, whole, and the call may be repeated. A log that is kept as to already
// is left alone. It refuses what Open refuses.
func Convert(dir string, id ident.NodeID, to Kind) (err error) {
	if err := to.check(); err != nil {
		return err
	}
	from, err := KindOf(dir)
	if err != nil {
		return err
	}
	if from == "" {
		return fmt.Errorf("%w: there is none in %s; only a node that votes, or did, has one", ErrGone, dir)
	}
	old, err := Open(Config{Dir: dir, ID: id, Kind: from})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	if from == to {
		return nil // Open has removed what an interrupted try left
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
	if err := writeMarker(dir, id, to); err != nil {
		return err
	}
	return to.clearOthers(dir)
}

// copyTo makes a log of another kind in dir with the same content, durable, and
// reads it back.
func (l *Log) copyTo(dir string, kind Kind) (err error) {
	files, err := kind.open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	next := newSealedLog(files, kind, Hooks{})
	if err := l.copyLogs(next); err != nil {
		return err
	}
	for _, key := range stableKeys() {
		value, err := l.Get([]byte(key))
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			continue
		}
		if err := errors.Join(err, next.Set([]byte(key), value)); err != nil {
			return err
		}
	}
	return l.sameAs(next)
}

func (l *Log) copyLogs(next *sealedLog) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	var batch []*raft.Log
	bytes := 0
	for i := max(first, 1); i <= l.last; i++ {
		e := new(raft.Log)
		if err := l.readLog(i, e); errors.Is(err, raft.ErrLogNotFound) && i <= l.SnapshotIndex() {
			batch, bytes = batch[:0], 0 // a gap that the snapshot covers: what was before it is of no use
			continue
		} else if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		batch = append(batch, e)
		if bytes += len(e.Data); bytes < convertBatch && i < l.last {
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
func (l *Log) sameAs(next *sealedLog) error {
	first, err := next.FirstIndex()
	last, err2 := next.LastIndex()
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if last != l.last {
		return fmt.Errorf("the copy ends at entry %d, not %d", last, l.last)
	}
	for i := max(first, 1); i <= last; i++ {
		var a, b raft.Log
		if err := errors.Join(l.readLog(i, &a), next.readLog(i, &b)); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if a.Term != b.Term || a.Type != b.Type || string(a.Data) != string(b.Data) {
			return fmt.Errorf("entry %d is another in the copy", i)
		}
	}
	for _, key := range stableKeys() {
		a, errA := l.Get([]byte(key))
		b, errB := next.Get([]byte(key))
		if string(a) != string(b) || (errA == nil) != (errB == nil) {
			return fmt.Errorf("%s is another in the copy", key)
		}
	}
	return nil
}

// moveLog puts a closed log from tmp into dir.
func moveLog(tmp, dir string, kind Kind) error {
	if err := os.RemoveAll(kind.path(dir)); err != nil {
		return err
	}
	if err := errors.Join(syncDir(tmp), os.Rename(kind.path(tmp), kind.path(dir))); err != nil {
		return err
	}
	return syncDir(dir)
}
