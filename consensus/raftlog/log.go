package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"skein/mesh/ident"
)

const (
	// snapshotDir and snapshotUnfinished are raft's own names.
	snapshotDir        = "snapshots"
	snapshotUnfinished = ".tmp"
	snapshotsKept      = 2
)

// Config says what to open. Dir and ID are required.
type Config struct {
	// Dir holds the log and its snapshots, and nothing else.
	Dir string
	// ID is the node whose log it is.
	ID ident.NodeID
	// Kind defaults to Bolt. It must be what Dir was made with.
	Kind Kind
	// ReserveBytes is how much must be free on the disk for entries of raft.LogCommand
	// to be stored: see ErrNoSpace. 0 or less is none.
	ReserveBytes int64
	Hooks        Hooks
	// Logger is raft's, for its snapshots; nil says nothing.
	Logger hclog.Logger
	// Free is how many bytes may still be written to the disk of dir; nil asks the
	// system.
	Free func(dir string) (int64, error)
	// Between, if not nil, is given the files and returns what takes their place
	// under the checksums. It is for tests, which make them fail there.
	Between func(Files) Files
}

// Log is the Raft log of one voter, open. To raft it is a raft.LogStore, a
// raft.MonotonicLogStore and a raft.StableStore; a method that writes fails with
// ErrFailed or with the error of a hook. All methods but Close may be called from
// many goroutines at once.
type Log struct {
	*sealedLog
	dir       string
	lock      *os.File
	snapshots *raft.FileSnapshotStore
	// newest is the newest snapshot when the log was opened, nil without one.
	newest *raft.SnapshotMeta
	// last is the last entry when it was opened, 0 when it was empty.
	last uint64
	// voter: the newest configuration at that time gives the node a vote.
	voter bool
}

// Open locks and opens the log in cfg.Dir, or makes an empty one, and reads all
// of it. It refuses with ErrGone, ErrDamaged, ErrForeign or ErrBusy, each with
// what to do, and leaves what it refuses untouched. The caller must Close the log.
func Open(cfg Config) (_ *Log, err error) {
	kind := cmp.Or(cfg.Kind, Bolt)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft directory: %w", err)
	}
	l := &Log{dir: cfg.Dir}
	if l.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		if l.sealedLog != nil {
			err = errors.Join(err, l.files.Close())
		}
		l.lock.Close()
	}()
	if err := kind.check(); err != nil {
		return nil, err
	}
	marked, err := checkMarker(cfg.Dir, cfg.ID, kind)
	if err != nil {
		return nil, err
	}
	files, err := kind.open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.Between != nil {
		files = cfg.Between(files)
	}
	l.sealedLog = newSealedLog(files, kind, cfg.Hooks)
	l.space.dir, l.space.reserve = cfg.Dir, cfg.ReserveBytes
	if l.space.free = cfg.Free; l.space.free == nil {
		l.space.free = freeBytes
	}
	if err := l.openSnapshots(cfg.Logger); err != nil {
		return nil, err
	}
	if err := l.check(cfg.ID, kind); err != nil {
		return nil, err
	}
	if marked {
		return l, kind.clearOthers(cfg.Dir)
	}
	return l, writeMarker(cfg.Dir, cfg.ID, kind)
}

// Close gives the directory back. Nothing may use the log any more.
func (l *Log) Close() error { return errors.Join(l.files.Close(), l.lock.Close()) }

// Empty reports whether the log held nothing when it was opened that raft ever
// decided: no entry and no snapshot.
func (l *Log) Empty() bool { return l.last == 0 && l.newest == nil }

// Check compares the log, as it was opened, with what is known elsewhere: the node
// has applied entry applied, and an empty log is right for a node that joins. A
// voter that has forgotten its votes could elect a leader that lacks events, so
// the error is ErrGone, with what to do, if the log is empty and should not be, or
// is a voter's and ends before applied.
//
// A snapshot may hold more than the entry that raft gave it, and a voter that was
// sent it and died had no time for the entries between. So before a voter is refused
// holds is asked for the last entry in the newest snapshot; its error is ErrDamaged.
func (l *Log) Check(applied uint64, joining bool, holds func(io.Reader) (uint64, error)) error {
	if l.Empty() && !joining {
		return fmt.Errorf("%w: %s holds no entry, but the fleet counts this node as a voter; %s", ErrGone, l.dir, resync(l.dir))
	}
	last := max(l.last, l.SnapshotIndex())
	if !l.voter || applied <= last {
		return nil
	}
	if l.newest != nil {
		held, err := l.snapshotHolds(holds)
		if err != nil {
			return damaged(l.dir, l.newest.ID, err)
		}
		last = max(last, held)
	}
	if applied > last {
		return fmt.Errorf("%w: %s ends at entry %d, but this voter has applied entry %d; put the newer files back, or %s",
			ErrGone, l.dir, last, applied, resync(l.dir))
	}
	return nil
}

// snapshotHolds has the newest snapshot read.
func (l *Log) snapshotHolds(read func(io.Reader) (uint64, error)) (uint64, error) {
	_, content, err := l.snapshots.Open(l.newest.ID)
	if err != nil {
		return 0, err
	}
	defer content.Close()
	return read(content)
}

// Snapshots is where raft keeps its snapshots. They are checked by Open, and have
// checksums of their own.
func (l *Log) Snapshots() raft.SnapshotStore { return l.snapshots }

// SnapshotIndex is the last entry that the newest snapshot covered when the log
// was opened; 0 without one.
func (l *Log) SnapshotIndex() uint64 {
	if l.newest == nil {
		return 0
	}
	return l.newest.Index
}

// Restore gives that snapshot to restore, if it covers more than entry applied. An
// error is ErrDamaged or what restore returned.
func (l *Log) Restore(applied uint64, restore func(io.Reader) error) error {
	if l.SnapshotIndex() <= applied {
		return nil
	}
	_, content, err := l.snapshots.Open(l.newest.ID)
	if err != nil {
		return damaged(l.dir, l.newest.ID, err)
	}
	defer content.Close()
	if err := restore(content); err != nil {
		return fmt.Errorf("restore raft's snapshot %s: %w", l.newest.ID, err)
	}
	return nil
}

func (l *Log) openSnapshots(logger hclog.Logger) (err error) {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	if l.snapshots, err = raft.NewFileSnapshotStoreWithLogger(l.dir, snapshotsKept, logger); err != nil {
		return fmt.Errorf("open raft snapshots in %s: %w", l.dir, err)
	}
	return nil
}

// check reads the whole log once, so that damage is found before the node
// takes part and not when it leads, and clears what a crash has left.
func (l *Log) check(id ident.NodeID, kind Kind) error {
	err := guarded(func() (err error) {
		if l.newest, err = l.checkSnapshot(); err != nil {
			return err
		}
		return l.checkEntries(id)
	})
	if err != nil {
		return damaged(l.dir, filepath.Join(l.dir, kind.file())+" or "+filepath.Join(l.dir, snapshotDir), err)
	}
	if err := l.dropCovered(); err != nil {
		return damaged(l.dir, filepath.Join(l.dir, kind.file()), err)
	}
	l.blank.Store(l.Empty())
	return l.clearUnfinished()
}

// checkSnapshot finds the newest snapshot and verifies its checksum.
func (l *Log) checkSnapshot() (*raft.SnapshotMeta, error) {
	all, err := l.snapshots.List()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	meta, content, err := l.snapshots.Open(all[0].ID)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", all[0].ID, err)
	}
	return meta, content.Close()
}

// checkEntries verifies that the log has no hole that the snapshot does not cover,
// no wrong checksum, no term out of order, and reaches back to the snapshot.
func (l *Log) checkEntries(id ident.NodeID) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	if l.last, err = l.LastIndex(); err != nil {
		return err
	}
	term, err := l.GetUint64([]byte(keyCurrentTerm))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	var config raft.Configuration
	var lastTerm uint64
	covered := l.SnapshotIndex()
	if l.newest != nil {
		config = l.newest.Configuration
	}
	if first > covered+1 {
		return fmt.Errorf("the log begins at entry %d and nothing holds those before", first)
	}
	for i := max(first, 1); i <= l.last; i++ {
		var e raft.Log
		err := l.readLog(i, &e)
		if errors.Is(err, raft.ErrLogNotFound) && i <= covered {
			i = covered // a snapshot was installed over an old log
			continue
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if e.Term < lastTerm || e.Term > term {
			return fmt.Errorf("entry %d has term %d, expected %d to %d", i, e.Term, lastTerm, term)
		}
		lastTerm = e.Term
		l.ledger.add([]*raft.Log{&e})
		if e.Type == raft.LogConfiguration && i > covered {
			config = raft.DecodeConfiguration(e.Data)
		}
	}
	l.ledger.compactedUpTo(covered)
	for _, server := range config.Servers {
		l.voter = l.voter || server.ID == raft.ServerID(id) && server.Suffrage == raft.Voter
	}
	return nil
}

// dropCovered empties a log that ends before the newest snapshot, if its kind
// allows no gap: a crash can come between the installing of a snapshot and
// that, and the next entry would not fit.
func (l *Log) dropCovered() error {
	if !l.IsMonotonic() || l.last == 0 || l.last >= l.SnapshotIndex() {
		return nil
	}
	if err := l.DeleteRange(1, l.last); err != nil {
		return err
	}
	l.last = 0
	return nil
}

// clearUnfinished removes snapshots that a crash cut short; raft never does.
func (l *Log) clearUnfinished() error {
	left, err := filepath.Glob(filepath.Join(l.dir, snapshotDir, "*"+snapshotUnfinished))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return fmt.Errorf("clear unfinished raft snapshots: %w", err)
	}
	return nil
}
