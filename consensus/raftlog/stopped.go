package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"skein/mesh/ident"
)

// Entries gives what proposals have put into the log of a stopped node behind
// entry after, in order, committed or not. It refuses what Open refuses; like Open
// it clears away what a crash has left. Where there is no log there are no
// entries. An error of each ends it.
func Entries(dir string, id ident.NodeID, after uint64, each func(index, term uint64, data []byte) error) (err error) {
	kind, err := KindOf(dir)
	if err != nil || kind == "" {
		return err
	}
	l, err := Open(Config{Dir: dir, ID: id, Kind: kind})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	for i := max(first, after+1); i <= l.last; i++ {
		var e raft.Log
		if err := l.readLog(i, &e); errors.Is(err, raft.ErrLogNotFound) {
			continue // a snapshot covers it: see checkEntries
		} else if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if e.Type != raft.LogCommand {
			continue
		}
		if err := each(e.Index, e.Term, e.Data); err != nil {
			return err
		}
	}
	return nil
}

// Replace puts the closed log in the directory next into the place of the one in
// dir, and that beside it, to dir with ".before-" and the time in seconds; moved is
// that place, "" if there was nothing. What it did is durable when it returns. Where
// the file system cannot exchange two directories at once, a stop in the middle can
// leave none in dir.
func Replace(dir, next string) (moved string, err error) {
	_, err = os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(os.Rename(next, dir), syncDir(filepath.Dir(dir)))
	}
	if err != nil {
		return "", err
	}
	if err := exchange(next, dir); err != nil {
		return "", fmt.Errorf("put the recovered raft log into %s: %w", dir, err)
	}
	moved = fmt.Sprintf("%s.before-%d", dir, time.Now().Unix())
	return moved, errors.Join(os.Rename(next, moved), syncDir(filepath.Dir(dir)))
}

// exchange swaps two directories, at once where the file system can.
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = exchangeInSteps(a, b)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(b))
}

// exchangeInSteps may be cut short, which leaves a or what b was in b's place,
// or nothing.
func exchangeInSteps(a, b string) error {
	aside := a + ".old"
	for _, step := range [][2]string{{b, aside}, {a, b}, {aside, a}} {
		if err := os.Rename(step[0], step[1]); err != nil {
			return err
		}
	}
	return nil
}
