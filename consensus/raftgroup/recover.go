package raftgroup

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

const (
	// recoveredContent stands where a snapshot's content would be: the node holds
	// it already. The first leader takes a real one: see Group.lead.
	recoveredContent = "skein-raft recovered"
	// unknownTerms is added to a term when the old log cannot be read: it is far
	// above any that can be there.
	unknownTerms = 1 << 20
)

// Recover makes the Raft log of a stopped node one that begins after entry index
// of term, which the node's copy of the log has reached, with id as its only
// voter. It is for a fleet that has lost its majority for good, and for a node
// that never voted. What dir held is not looked at, but for the term, and is
// moved beside it, to dir with ".before-" and the time; moved is that place, ""
// if there was nothing. It may be interrupted and repeated.
func Recover(dir string, id ident.NodeID, kind Store, index, term uint64) (moved string, err error) {
	if kind == "" {
		kind = StoreBolt
	}
	if index == 0 {
		return "", errors.New("raft log can only be recovered after an entry; this node holds none")
	}
	above, err := termAbove(dir, id, term)
	if err != nil {
		return "", err
	}
	next := dir + ".recovered"
	if err := os.RemoveAll(next); err != nil {
		return "", fmt.Errorf("recover raft log: %w", err)
	}
	if err := writeRecovered(next, id, kind, index, term, above); err != nil {
		return "", fmt.Errorf("recover raft log in %s: %w; nothing was changed", dir, err)
	}
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

// termAbove is a term that the old log, if there is one, has not reached.
func termAbove(dir string, id ident.NodeID, term uint64) (uint64, error) {
	kind, err := StoreOf(dir)
	if err != nil {
		return term + unknownTerms, nil
	}
	if kind == "" {
		return term + 1, nil
	}
	old, err := openStores(dir, id, kind, newFailure(), silentLogger())
	if errors.Is(err, ErrStoreBusy) || errors.Is(err, ErrStoreForeign) {
		return 0, err
	}
	if err != nil {
		return term + unknownTerms, nil
	}
	current, err := old.log.GetUint64([]byte(keyCurrentTerm))
	if err = errors.Join(err, old.close()); err != nil {
		return term + unknownTerms, nil
	}
	return max(term, current) + 1, nil
}

// writeRecovered makes the directory: a snapshot that says where the log begins,
// and one entry with the configuration.
func writeRecovered(dir string, id ident.NodeID, kind Store, index, term, above uint64) (err error) {
	s, err := openStores(dir, id, kind, newFailure(), silentLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}}
	_, trans := raft.NewInmemTransport(raft.ServerAddress(id)) // it only spells addresses
	sink, err := s.snapshots.Create(raft.SnapshotVersionMax, index, term, alone, index, trans)
	if err != nil {
		return err
	}
	if _, err := sink.Write([]byte(recoveredContent)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	if err := s.log.SetUint64([]byte(keyCurrentTerm), above); err != nil {
		return err
	}
	if err := s.log.failure.get(); err != nil {
		return err
	}
	return s.log.StoreLog(&raft.Log{Index: index + 1, Term: above, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)})
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
// or nothing: then Recover begins anew.
func exchangeInSteps(a, b string) error {
	aside := a + ".old"
	for _, step := range [][2]string{{b, aside}, {a, b}, {aside, a}} {
		if err := os.Rename(step[0], step[1]); err != nil {
			return err
		}
	}
	return nil
}
