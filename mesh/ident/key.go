package ident

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NodeID names a node for life: the first 15 bytes of the SHA-256 of its
// ed25519 public key, in lower-case base32 without padding, always 24
// characters. It is a valid DNS label.
type NodeID string

const (
	nodeIDBytes  = 15
	nodeIDLength = 24
	shortLength  = 8
	keyPEMType   = "SKEIN NODE KEY"
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Errors that callers tell apart.
var (
	// ErrKeyExposed: the key file can be read by others than its owner.
	ErrKeyExposed = errors.New("key file is readable by others")
	// ErrKeyDamaged: the key file is there but is no key.
	ErrKeyDamaged = errors.New("key file is damaged")
)

// IDOf derives the id of the node that holds the private half of pub.
func IDOf(pub ed25519.PublicKey) NodeID {
	sum := sha256.Sum256(pub)
	return NodeID(idEncoding.EncodeToString(sum[:nodeIDBytes]))
}

// ParseNodeID accepts exactly what IDOf can produce.
func ParseNodeID(s string) (NodeID, error) {
	if len(s) != nodeIDLength {
		return "", fmt.Errorf("node id %.40q has %d characters, want %d", s, len(s), nodeIDLength)
	}
	// Not by decoding: the standard decoder skips line breaks.
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return "", fmt.Errorf("node id %q is not lower-case base32", s)
		}
	}
	return NodeID(s), nil
}

// Short is the first 8 characters, for people; never use it as a key.
func (id NodeID) Short() string {
	if len(id) < shortLength {
		return string(id)
	}
	return string(id[:shortLength])
}

// Key is an ed25519 private key: a node's, a person's or a fleet's root.
// The zero Key is invalid.
type Key struct {
	private ed25519.PrivateKey
}

// NewKey makes a key from the operating system's random source.
func NewKey() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make key: %w", err)
	}
	return Key{private}, nil
}

// KeyFromSeed rebuilds a key from its 32-byte seed.
func KeyFromSeed(seed []byte) (Key, error) {
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("key seed has %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	return Key{ed25519.NewKeyFromSeed(seed)}, nil
}

// ID is the node id of this key.
func (k Key) ID() NodeID { return IDOf(k.Public()) }

// Public is the public half.
func (k Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Private is the key as the standard library and libp2p want it.
func (k Key) Private() ed25519.PrivateKey { return k.private }

// Seed is the 32 bytes from which KeyFromSeed rebuilds the key. Keep it secret.
func (k Key) Seed() []byte { return k.private.Seed() }

// Sign signs message for one purpose. Domains in use are the constants Domain*
// of the packages that define the message.
func (k Key) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(k.private, tagged(domain, message))
}

// Verify reports whether signature is pub's signature of message for domain.
// A public key of the wrong length verifies nothing.
func Verify(pub ed25519.PublicKey, domain string, message, signature []byte) bool {
	return len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, tagged(domain, message), signature)
}

// tagged puts the domain and a zero byte, which no domain contains, in front.
func tagged(domain string, message []byte) []byte {
	return append(append([]byte("skein/"+domain), 0), message...)
}

// LoadKey reads a key file. It refuses one that others may read, so that a key
// copied about with wrong permissions is noticed before it is used.
func LoadKey(path string) (Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("%w: %s has mode %04o; run `chmod 600 %s`, and make a new key if others had access",
			ErrKeyExposed, path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Key{}, fmt.Errorf("read key: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyPEMType || len(block.Bytes) != ed25519.SeedSize || len(strings.TrimSpace(string(rest))) != 0 {
		return Key{}, fmt.Errorf("%w: %s; restore it from a backup, or move it away and join again as a new robot",
			ErrKeyDamaged, path)
	}
	return KeyFromSeed(block.Bytes)
}

// Save writes the key with mode 0600, durably, and never over an existing file.
func (k Key) Save(path string) error {
	text := pem.EncodeToMemory(&pem.Block{Type: keyPEMType, Bytes: k.Seed()})
	return createDurably(path, text)
}

// LoadOrCreateKey loads the key at path, or makes and saves one if nothing is there.
func LoadOrCreateKey(path string) (Key, error) {
	key, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = NewKey(); err != nil {
		return Key{}, err
	}
	return key, key.Save(path)
}

// createDurably writes a new private file so that after a power cut it is
// either absent or whole.
func createDurably(path string, content []byte) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	return ReplaceDurably(path, content)
}

// ReplaceDurably writes a private file (mode 0600) so that after a power cut
// it holds either its old content or the new, never a mixture: temporary file,
// fsync, rename, fsync of the directory.
func ReplaceDurably(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
