package raftlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"

	"skein/mesh/ident"
)

const (
	// walDir is the directory of the segments within the Raft directory.
	walDir = "wal"
	// metaFile lists the segments and holds raft's values.
	metaFile = "meta.json"
	// segmentSuffix ends the name of a segment: raft-wal's own.
	segmentSuffix = ".wal"
	// segmentBytes is taken on the disk for a segment at once. It must fit well
	// into Config.ReserveBytes: a new one may be needed when little is left.
	segmentBytes = 16 << 20
)

// walMeta is raft-wal's list of segments and raft's values in one small file
// with a checksum, replaced as a whole. Raft-wal's own is a bbolt file, which
// has none and is not closed by it.
type walMeta struct {
	path string

	mu      sync.Mutex
	content metaContent
	// lists is how many lists were written, or could not be.
	lists  uint64
	listed sync.Cond
}

func newWALMeta(dir string) *walMeta {
	m := &walMeta{path: filepath.Join(dir, metaFile)}
	m.listed.L = &m.mu
	return m
}

// written is how many lists were written so far.
func (m *walMeta) written() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lists
}

// awaitWritten waits until that many lists were written.
func (m *walMeta) awaitWritten(lists uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.lists < lists {
		m.listed.Wait()
	}
}

type metaContent struct {
	State types.PersistentState `json:"state"`
	// Values are raft's, sealed.
	Values map[string][]byte `json:"values"`
}

// readMeta reads the file of a directory; fs.ErrNotExist when there is none.
func readMeta(dir string) (*walMeta, error) {
	m := newWALMeta(dir)
	b, err := os.ReadFile(m.path)
	if err != nil {
		return nil, err
	}
	seal, text, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(seal) != sealLine(text) {
		return nil, fmt.Errorf("%s: %w", metaFile, errSeal)
	}
	if err := json.Unmarshal(text, &m.content); err != nil {
		return nil, fmt.Errorf("%s: %w", metaFile, err)
	}
	return m, nil
}

func sealLine(text []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) }

// change replaces the content by what edit makes of a copy.
func (m *walMeta) change(edit func(*metaContent)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := metaContent{State: m.content.State, Values: maps.Clone(m.content.Values)}
	if next.Values == nil {
		next.Values = map[string][]byte{}
	}
	edit(&next)
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := ident.ReplaceDurably(m.path, append([]byte(sealLine(text)+"\n"), text...)); err != nil {
		return err
	}
	m.content = next
	return nil
}

// Load implements types.MetaStore. The file was read, or made, before.
func (m *walMeta) Load(string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.content.State, nil
}

// CommitState implements types.MetaStore. The file of a new tail is there, in
// full length, before the list names it: so one that is missing or short was not
// left so by a crash, and Open can refuse it.
func (m *walMeta) CommitState(s types.PersistentState) error {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lists++
		m.listed.Broadcast()
	}()
	for _, info := range s.Segments {
		if !info.SealTime.IsZero() {
			continue
		}
		path := filepath.Join(filepath.Dir(m.path), segmentName(info))
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := makeSegment(path, int64(info.SizeLimit)); err != nil {
				return err
			}
		}
	}
	return m.change(func(c *metaContent) { c.State = s })
}

// GetStable implements types.MetaStore.
func (m *walMeta) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.content.Values[string(key)], nil
}

// SetStable implements types.MetaStore.
func (m *walMeta) SetStable(key, value []byte) error {
	return m.change(func(c *metaContent) { c.Values[string(key)] = bytes.Clone(value) })
}

// Close implements types.MetaStore.
func (m *walMeta) Close() error { return nil }

// makeSegment makes a durable file of size zeros. It leaves none behind when
// there is no room.
func makeSegment(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	if err := lengthen(f, size); err != nil {
		return fmt.Errorf("make room for %s: %w", filepath.Base(path), err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// lengthen gives f size bytes, in place if the file system can.
func lengthen(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// segments is raft-wal's view of the directory: types.VFS.
type segments struct{}

// ListDir implements types.VFS.
func (segments) ListDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), segmentSuffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Create implements types.VFS: the file was made by CommitState.
func (v segments) Create(dir, name string, _ uint64) (types.WritableFile, error) {
	return v.OpenWriter(dir, name)
}

// Delete implements types.VFS.
func (segments) Delete(dir, name string) error {
	return errors.Join(os.Remove(filepath.Join(dir, name)), syncDir(dir))
}

// OpenReader implements types.VFS.
func (segments) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// OpenWriter implements types.VFS.
func (segments) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return segmentFile{f}, nil
}

// segmentFile syncs data only: its length never changes.
type segmentFile struct{ *os.File }

// Sync implements types.WritableFile.
func (f segmentFile) Sync() error {
	if noSync {
		return nil
	}
	return unix.Fdatasync(int(f.Fd()))
}
