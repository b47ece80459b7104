package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"skein/mesh/ident"
)

// Errors that callers tell apart.
var (
	// ErrDamaged: the file is there but holds no keys. It is safe to remove it:
	// an admitted node fetches the current keys from a peer.
	ErrDamaged = errors.New("gossip key file is damaged")
	// ErrExposed: the key file can be read by others than its owner.
	ErrExposed = errors.New("gossip key file is readable by others")
	// ErrStale: keys of an epoch that is not higher than the ring's.
	ErrStale = errors.New("gossip keys are not newer")
)

const fileFormat = "skein-gossip-keys/1"

// file is the form on disk. Sum notices a flipped bit, which would otherwise
// look like a node that hears nobody.
type file struct {
	Format string `json:"format"`
	Keys   Keys   `json:"keys"`
	Sum    string `json:"sum"`
}

// Ring is one node's gossip keys: the file, the copy in memory and who waits
// for a change. Safe for concurrent use.
type Ring struct {
	path string

	mu      sync.Mutex
	keys    Keys
	changed chan struct{} // closed and replaced at every change
}

// Open reads the ring at path. No file there means no keys yet; the file is
// made by the first Set. Errors: ErrDamaged, ErrExposed, or what the disk says.
func Open(path string) (*Ring, error) {
	r := &Ring{path: path, changed: make(chan struct{})}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run `chmod 600 %s`, and rotate the gossip key if others had access",
			ErrExposed, path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	if r.keys, err = decodeFile(text); err != nil {
		return nil, fmt.Errorf("%w: %s: %w; remove it, this node then fetches the keys from a peer", ErrDamaged, path, err)
	}
	return r, nil
}

func encodeFile(k Keys) ([]byte, error) {
	text, err := json.MarshalIndent(file{fileFormat, k, sumOf(k)}, "", "  ")
	return append(text, '\n'), err
}

func decodeFile(text []byte) (Keys, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return Keys{}, err
	}
	if f.Format != fileFormat {
		return Keys{}, fmt.Errorf("format is %q, want %q", f.Format, fileFormat)
	}
	if f.Sum != sumOf(f.Keys) {
		return Keys{}, errors.New("checksum does not match")
	}
	return f.Keys, f.Keys.Check()
}

// sumOf covers every field; the lengths are checked apart, so plain
// concatenation is unambiguous.
func sumOf(k Keys) string {
	all := append([][]byte{fmt.Appendf(nil, "%d\n", k.Epoch), k.Primary}, k.Previous...)
	sum := sha256.Sum256(bytes.Join(all, nil))
	return hex.EncodeToString(sum[:8])
}

// Current is a copy of the keys; the zero Keys when there are none yet.
func (r *Ring) Current() Keys {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys.clone()
}

// Changed gives a channel that is closed at the next change. Take it before
// Current, so that no change falls between the two:
//
//	for {
//		changed := ring.Changed()
//		use(ring.Current())
//		<-changed
//	}
func (r *Ring) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Set stores keys of a higher epoch, on disk first. The ring's own keys once
// more are no error and no change; anything else of its epoch or a lower one is
// ErrStale.
func (r *Ring) Set(k Keys) error {
	if err := k.Check(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if k.Epoch == r.keys.Epoch && bytes.Equal(k.Primary, r.keys.Primary) {
		return nil
	}
	if k.Epoch <= r.keys.Epoch {
		return fmt.Errorf("%w: epoch %d offered, epoch %d in use", ErrStale, k.Epoch, r.keys.Epoch)
	}
	return r.store(k.clone())
}

// Retire forgets the previous keys of the given epoch, for good: whoever was
// revoked before that epoch is then no longer heard, even after a restart. It
// does nothing when the ring is at another epoch.
func (r *Ring) Retire(epoch uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys.Epoch != epoch || len(r.keys.Previous) == 0 {
		return nil
	}
	k := r.keys
	k.Previous = nil
	return r.store(k)
}

func (r *Ring) store(k Keys) error {
	text, err := encodeFile(k)
	if err != nil {
		return fmt.Errorf("encode gossip keys: %w", err)
	}
	if err := ident.ReplaceDurably(r.path, text); err != nil {
		return fmt.Errorf("store gossip keys: %w", err)
	}
	r.keys = k
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// NewEpoch makes fresh keys that still accept the ring's present ones. It
// stores nothing: Set does, once the log has decided the epoch.
func (r *Ring) NewEpoch(epoch uint64) Keys { return r.Current().next(epoch) }
