package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// KeyBytes is the length of a gossip key: AES-256.
const KeyBytes = 32

// MaxPrevious bounds Keys.Previous. Two, so that a rotation that follows
// another at once does not cut off a node that is still fetching the first.
const MaxPrevious = 2

// ErrInvalid: keys of a wrong length, too many of them, or epoch 0.
var ErrInvalid = errors.New("gossip keys are not valid")

// Keys are the gossip keys of one epoch. Data of kind "shared".
// The zero Keys means "none yet".
type Keys struct {
	// Epoch numbers the rotation; the first is 1.
	Epoch uint64 `json:"epoch"`
	// Primary encrypts what this node sends. KeyBytes long.
	Primary []byte `json:"primary"`
	// Previous are still accepted from others, newest first. At most MaxPrevious.
	Previous [][]byte `json:"previous,omitempty"`
}

// Check reports what is wrong with keys, as ErrInvalid.
func (k Keys) Check() error {
	if k.Epoch == 0 {
		return fmt.Errorf("%w: epoch is 0, the first is 1", ErrInvalid)
	}
	if len(k.Previous) > MaxPrevious {
		return fmt.Errorf("%w: %d previous keys, at most %d", ErrInvalid, len(k.Previous), MaxPrevious)
	}
	for _, key := range append([][]byte{k.Primary}, k.Previous...) {
		if len(key) != KeyBytes {
			return fmt.Errorf("%w: a key has %d bytes, want %d", ErrInvalid, len(key), KeyBytes)
		}
	}
	return nil
}

// String says which epoch these keys are of, and never what they are.
func (k Keys) String() string { return fmt.Sprintf("gossip keys of epoch %d", k.Epoch) }

// GoString keeps %#v from printing secrets.
func (k Keys) GoString() string { return k.String() }

// LogValue keeps slog from printing secrets.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// next are fresh keys of the given epoch that still accept k's.
func (k Keys) next(epoch uint64) Keys {
	fresh := Keys{Epoch: epoch, Primary: make([]byte, KeyBytes)}
	rand.Read(fresh.Primary)
	if len(k.Primary) == KeyBytes {
		older := append([][]byte{k.Primary}, k.Previous...)
		fresh.Previous = older[:min(len(older), MaxPrevious)]
	}
	return fresh.clone()
}

func (k Keys) clone() Keys {
	k.Primary = bytes.Clone(k.Primary)
	k.Previous = slices.Clone(k.Previous)
	for i, key := range k.Previous {
		k.Previous[i] = bytes.Clone(key)
	}
	return k
}
