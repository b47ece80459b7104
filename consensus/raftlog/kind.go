package raftlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// Kind names how a log is kept on disk.
type Kind string

// The kinds.
const (
	// Bolt keeps the log in one bbolt file. It is the default.
	Bolt Kind = "bolt"
	// WAL keeps the log in segment files (raft-wal): less is written for an
	// entry, and what was compacted gives its space back to the disk.
	WAL Kind = "wal"
)

const boltFile = "log.bolt"

// Files is what a kind must offer: entries and values, unsealed.
type Files interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// check refuses a kind that does not exist.
func (kind Kind) check() error {
	if kind != Bolt && kind != WAL {
		return fmt.Errorf("unknown raft store %q; known are %q and %q", kind, Bolt, WAL)
	}
	return nil
}

// open opens the files of a kind in dir, or makes them. Another kind is added here.
func (kind Kind) open(dir string) (files Files, err error) {
	err = guarded(func() (err error) {
		switch kind {
		case Bolt:
			var opened *raftboltdb.BoltStore
			if opened, err = raftboltdb.New(raftboltdb.Options{Path: kind.path(dir), NoSync: noSync}); err == nil {
				files = opened
			}
		case WAL:
			var opened *walStore
			if opened, err = openWAL(dir, segmentBytes); err == nil {
				files = opened
			}
		}
		return err
	})
	if err != nil {
		return nil, damaged(dir, filepath.Join(dir, kind.file()), err)
	}
	return files, nil
}

// guarded turns what a damaged file does to bbolt, a panic or a fault in mapped
// memory, into an error.
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("unreadable: %v", r)
		}
	}()
	return fn()
}

// file is what a log of the kind cannot be without, below its directory.
func (kind Kind) file() string {
	if kind == WAL {
		return filepath.Join(walDir, metaFile)
	}
	return boltFile
}

// path is all that a log of the kind keeps below dir.
func (kind Kind) path(dir string) string {
	if kind == WAL {
		return filepath.Join(dir, walDir)
	}
	return filepath.Join(dir, boltFile)
}

// clearOthers removes the logs of other kinds from dir, and what a conversion
// that was interrupted has left.
func (kind Kind) clearOthers(dir string) error {
	err := os.RemoveAll(filepath.Join(dir, convertDir))
	for _, other := range []Kind{Bolt, WAL} {
		if other == kind {
			continue
		}
		if e := os.RemoveAll(other.path(dir)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("remove what a conversion of the raft log left in %s: %w", dir, err)
	}
	return nil
}
