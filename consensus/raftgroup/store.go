package raftgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"golang.org/x/sys/unix"

	"skein/mesh/ident"
)

// Refusals of a store. Their texts say what to do.
var (
	// ErrStoreGone: the log was here and is not any more, or is older than what
	// the node already applied.
	ErrStoreGone = errors.New("raft log is gone")
	// ErrStoreDamaged: the log cannot be trusted.
	ErrStoreDamaged = errors.New("raft log is damaged")
	// ErrStoreForeign: the log belongs to another node.
	ErrStoreForeign = errors.New("raft log is of another node")
	// ErrStoreBusy: another process has the log open.
	ErrStoreBusy = errors.New("raft log is in use")
	// ErrStoreExists: Bootstrap found a log.
	ErrStoreExists = errors.New("there is a raft log already")
)

const (
	boltFile   = "log.bolt"
	markerFile = "member.json"
	lockFile   = "lock"
	// snapshotDir and snapshotUnfinished are raft's own names.
	snapshotDir        = "snapshots"
	snapshotUnfinished = ".tmp"
	snapshotsKept      = 2
	markerFormat       = "skein-raft/1"
)

// damaged says that path in dir cannot be used, why, and what to do.
func damaged(dir, path string, why error) error {
	return fmt.Errorf("%w: %s: %w; %s", ErrStoreDamaged, path, why, resync(dir))
}

// resync is how a voter that lost its log becomes one again.
func resync(dir string) string {
	return fmt.Sprintf("have an admin withdraw this node as a voter, move %s away, start again and approve it anew: it gets the log from the others", dir)
}

// marker says that a log was made here, so that its absence is noticed.
type marker struct {
	Format string       `json:"format"`
	Node   ident.NodeID `json:"node"`
	Store  Store        `json:"store"`
}

// stores is an open and checked directory.
type stores struct {
	log       *sealedStore
	snapshots *raft.FileSnapshotStore
	// newest is the newest snapshot, nil when there is none.
	newest *raft.SnapshotMeta
	// last is the last entry, 0 when the log is empty.
	last uint64
	// voter: the newest configuration in the log gives this node a vote.
	voter bool
	lock  *os.File
}

// empty: the store holds nothing that raft ever decided.
func (s *stores) empty() bool { return s.last == 0 && s.newest == nil }

// unfinished: the newest snapshot is the one of Recover, which holds nothing.
func (s *stores) unfinished() bool {
	all, err := s.snapshots.List()
	return err == nil && len(all) > 0 && all[0].Size == int64(len(recoveredContent))
}

func (s *stores) close() error {
	return errors.Join(s.log.inner.Close(), s.lock.Close())
}

// openStores locks, opens and checks dir. What it refuses it leaves untouched.
func openStores(dir string, id ident.NodeID, kind Store, f *failure, logger hclog.Logger) (_ *stores, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make raft directory: %w", err)
	}
	s := &stores{}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if s.log != nil {
				err = errors.Join(err, s.log.inner.Close())
			}
			s.lock.Close()
		}
	}()
	if err := kind.check(); err != nil {
		return nil, err
	}
	marked, err := checkMarker(dir, id, kind)
	if err != nil {
		return nil, err
	}
	inner, err := openLogStore(dir, kind)
	if err != nil {
		return nil, err
	}
	s.log = newSealedStore(inner, f)
	if s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, logger); err != nil {
		return nil, fmt.Errorf("open raft snapshots in %s: %w", dir, err)
	}
	if err := s.check(dir, id, kind); err != nil {
		return nil, err
	}
	if err := s.dropCovered(); err != nil {
		return nil, damaged(dir, filepath.Join(dir, kind.file()), err)
	}
	s.log.blank.Store(s.empty())
	if err := clearUnfinished(dir); err != nil {
		return nil, err
	}
	if marked {
		return s, clearOthers(dir, kind)
	}
	return s, writeMarker(dir, marker{markerFormat, id, kind})
}

// clearUnfinished removes snapshots that a crash cut short; raft never does.
func clearUnfinished(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, snapshotDir, "*"+snapshotUnfinished))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return fmt.Errorf("clear unfinished raft snapshots: %w", err)
	}
	return nil
}

// lockDir makes sure that no other process uses dir.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock raft directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s; stop the other skein that runs on this data directory", ErrStoreBusy, dir)
	}
	return f, nil
}

// checkMarker compares what the directory says it holds with what it holds.
func checkMarker(dir string, id ident.NodeID, kind Store) (marked bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read raft marker: %w", err)
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || m.Format != markerFormat {
		return false, damaged(dir, filepath.Join(dir, markerFile), fmt.Errorf("it is no marker of %s", markerFormat))
	}
	if m.Node != id {
		return false, fmt.Errorf("%w: %s was made by %s, this node is %s; put back the disk or the key that belong together",
			ErrStoreForeign, dir, m.Node, id)
	}
	if m.Store != kind {
		return false, fmt.Errorf("raft log in %s is kept as %q, the setting says %q; set raft.store = %q, or move the log with `skein store convert`", dir, m.Store, kind, m.Store)
	}
	info, err := os.Stat(filepath.Join(dir, kind.file()))
	if err != nil || info.Size() == 0 {
		return false, fmt.Errorf("%w: %s was in %s and is missing or empty; put it back, or %s", ErrStoreGone, kind.file(), dir, resync(dir))
	}
	return true, nil
}

// check refuses a kind that does not exist.
func (kind Store) check() error {
	if kind != StoreBolt && kind != StoreWAL {
		return fmt.Errorf("unknown raft store %q; known are %q and %q", kind, StoreBolt, StoreWAL)
	}
	return nil
}

// file is what a log of the kind cannot be without, below its directory.
func (kind Store) file() string {
	if kind == StoreWAL {
		return filepath.Join(walDir, metaFile)
	}
	return boltFile
}

func writeMarker(dir string, m marker) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return ident.ReplaceDurably(filepath.Join(dir, markerFile), append(text, '\n'))
}

// openLogStore opens the files of a kind of store. Another kind is added here.
func openLogStore(dir string, kind Store) (store logStore, err error) {
	err = guarded(func() (err error) {
		switch kind {
		case StoreBolt:
			var opened *raftboltdb.BoltStore
			if opened, err = raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, boltFile), NoSync: noSync}); err == nil {
				store = opened
			}
		case StoreWAL:
			var opened *walStore
			if opened, err = openWAL(dir, segmentBytes); err == nil {
				store = opened
			}
		}
		return err
	})
	if err != nil {
		return nil, damaged(dir, filepath.Join(dir, kind.file()), err)
	}
	return store, nil
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

// check reads the whole log once, so that damage is found before the node
// takes part and not when it leads.
func (s *stores) check(dir string, id ident.NodeID, kind Store) error {
	err := guarded(func() error {
		newest, err := s.checkSnapshot()
		if err != nil {
			return err
		}
		s.newest = newest
		return s.checkLog(id)
	})
	if err != nil {
		return damaged(dir, filepath.Join(dir, kind.file())+" or "+filepath.Join(dir, snapshotDir), err)
	}
	return nil
}

// dropCovered empties a log that ends before the newest snapshot, if its kind of
// store allows no gap: a crash can come between the installing of a snapshot and
// that, and the next entry would not fit.
func (s *stores) dropCovered() error {
	if !s.log.IsMonotonic() || s.newest == nil || s.last == 0 || s.last >= s.newest.Index {
		return nil
	}
	if err := s.log.DeleteRange(1, s.last); err != nil {
		return err
	}
	s.last = 0
	return nil
}

// checkSnapshot finds the newest snapshot and verifies its checksum.
func (s *stores) checkSnapshot() (*raft.SnapshotMeta, error) {
	all, err := s.snapshots.List()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	meta, content, err := s.snapshots.Open(all[0].ID)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", all[0].ID, err)
	}
	return meta, content.Close()
}

// checkLog verifies that the log has no hole that the snapshot does not cover,
// no wrong checksum, no term out of order, and reaches back to the snapshot.
func (s *stores) checkLog(id ident.NodeID) error {
	first, err := s.log.FirstIndex()
	if err != nil {
		return err
	}
	if s.last, err = s.log.LastIndex(); err != nil {
		return err
	}
	term, err := s.log.GetUint64([]byte(keyCurrentTerm))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	var config raft.Configuration
	var covered, lastTerm uint64
	if s.newest != nil {
		covered, config = s.newest.Index, s.newest.Configuration
	}
	if first > covered+1 {
		return fmt.Errorf("the log begins at entry %d and nothing holds those before", first)
	}
	for i := max(first, 1); i <= s.last; i++ {
		var l raft.Log
		err := s.log.readLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) && i <= covered {
			i = covered // a snapshot was installed over an old log
			continue
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if l.Term < lastTerm || l.Term > term {
			return fmt.Errorf("entry %d has term %d, expected %d to %d", i, l.Term, lastTerm, term)
		}
		lastTerm = l.Term
		s.log.ledger.add([]*raft.Log{&l})
		if l.Type == raft.LogConfiguration && i > covered {
			config = raft.DecodeConfiguration(l.Data)
		}
	}
	s.log.ledger.compactedUpTo(covered)
	for _, server := range config.Servers {
		s.voter = s.voter || server.ID == raft.ServerID(id) && server.Suffrage == raft.Voter
	}
	return nil
}

// Bootstrap makes the log of a new fleet in dir, with id as its only voter. It
// is called once in a fleet's life, on its founder; it refuses a directory that
// holds a log already (ErrStoreExists).
func Bootstrap(dir string, id ident.NodeID, kind Store) (err error) {
	if kind == "" {
		kind = StoreBolt
	}
	s, err := openStores(dir, id, kind, newFailure(), silentLogger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if !s.empty() {
		return fmt.Errorf("%w in %s; run `skein fleet init` once, on the founder only: other nodes join", ErrStoreExists, dir)
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(id)
	conf.Logger = silentLogger()
	servers := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}}
	if err := raft.BootstrapCluster(conf, s.log, s.log, s.snapshots, nil, servers); err != nil {
		return fmt.Errorf("make the fleet's raft log in %s: %w", dir, err)
	}
	return nil
}
