package discover

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"skein/mesh/ident"
)

const (
	// MaxPeers bounds the book; what was put in longest ago goes first.
	MaxPeers = 1024
	// saveAfter gathers changes before they are written.
	saveAfter = time.Second
	// maxBookBytes is more than MaxPeers entries can take.
	maxBookBytes = 2 << 20
	// freshFor is how long a note that a node is still where it was stays good
	// enough to need no writing.
	freshFor = time.Hour
)

// Book is where other nodes were last, kept over restarts. It is a cache of
// kind "own": losing it costs nothing but the time to find the others again.
// Safe for concurrent use.
type Book struct {
	path string
	log  *slog.Logger

	// saving is held while the file is written, which may take a while on an SD
	// card; mu is not.
	saving sync.Mutex

	mu    sync.Mutex
	peers map[ident.NodeID]entry
	dirty *time.Timer // nil when all is saved
	ended bool
}

type entry struct {
	ident.Endpoint
	// SeenAt orders entries by age; wall clock, unix seconds.
	SeenAt int64 `json:"seenAt"`
}

// OpenBook reads the book at path. A missing, damaged or oversized file is an
// empty book; it is replaced at the next change.
func OpenBook(path string, log *slog.Logger) (*Book, error) {
	b := &Book{path: path, log: log, peers: map[ident.NodeID]entry{}}
	entries, err := readBook(path)
	if err != nil {
		log.Warn("address book is damaged, starting an empty one", "path", path, "err", err)
	}
	for _, e := range entries {
		b.peers[e.ID] = e
	}
	return b, nil
}

func readBook(path string) ([]entry, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBookBytes {
		return nil, errors.New("file is too large")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeBook(text)
}

// decodeBook reads what save wrote. Entries that make no sense are left out.
func decodeBook(text []byte) ([]entry, error) {
	var entries []entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e entry) bool { return !e.Valid() })
	return entries[max(0, len(entries)-MaxPeers):], nil // the oldest come first
}

// Put notes where a node is. An endpoint that is not Valid is ignored.
func (b *Book) Put(e ident.Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	old, known := b.peers[e.ID]
	if !e.Valid() || known && old.Equal(e) && now.Sub(time.Unix(old.SeenAt, 0)).Abs() < freshFor {
		return
	}
	if !known && len(b.peers) >= MaxPeers {
		oldest := slices.MinFunc(slices.Collect(maps.Values(b.peers)), bySeen)
		delete(b.peers, oldest.ID)
	}
	b.peers[e.ID] = entry{e, now.Unix()}
	b.changed()
}

// Forget drops a node, for good if nobody puts it in again.
func (b *Book) Forget(id ident.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.peers[id]; known {
		delete(b.peers, id)
		b.changed()
	}
}

// All lists the nodes, the one heard of last first.
func (b *Book) All() []ident.Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries := slices.SortedFunc(maps.Values(b.peers), func(x, y entry) int { return bySeen(y, x) })
	out := make([]ident.Endpoint, len(entries))
	for i, e := range entries {
		out[i] = e.Endpoint
	}
	return out
}

func bySeen(x, y entry) int { return cmp.Or(cmp.Compare(x.SeenAt, y.SeenAt), cmp.Compare(x.ID, y.ID)) }

// changed has the book saved soon. The caller holds mu.
func (b *Book) changed() {
	if b.dirty == nil && !b.ended {
		b.dirty = time.AfterFunc(saveAfter, func() {
			if err := b.save(); err != nil {
				b.log.Warn("address book not saved", "err", err)
			}
		})
	}
}

// save writes what has changed.
func (b *Book) save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.Lock()
	if b.dirty == nil {
		b.mu.Unlock()
		return nil
	}
	b.dirty = nil
	entries := slices.SortedFunc(maps.Values(b.peers), bySeen)
	b.mu.Unlock()
	text, err := json.Marshal(entries)
	if err != nil {
		return fmt.Errorf("encode address book: %w", err)
	}
	return ident.ReplaceDurably(b.path, append(text, '\n'))
}

// Close saves what has changed. Changes after it are not saved.
func (b *Book) Close() error {
	b.mu.Lock()
	b.ended = true
	if b.dirty != nil {
		b.dirty.Stop()
	}
	b.mu.Unlock()
	return b.save()
}
