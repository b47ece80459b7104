package client

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"skein/mesh/ident"
)

// ErrBadIdentity: the file is no identity file.
var ErrBadIdentity = errors.New("identity file is not valid")

// Identity is a person who can prove with a key who they are.
type Identity struct {
	Person string
	Key    ident.Key
}

// IdentityFile is the stored form of an Identity.
type IdentityFile struct {
	Person string `json:"person"`
	// Key is the path of the private key (PEM), relative to this file so that
	// both can be copied elsewhere together, or the base64 of its 32-byte seed.
	Key string `json:"key"`
}

// Save writes the file durably with mode 0600, replacing an older one.
func (f IdentityFile) Save(path string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return ident.ReplaceDurably(path, append(text, '\n'))
}

// LoadIdentity reads an identity file and the key that it names. It refuses
// files that others may read. A missing file is fs.ErrNotExist.
func LoadIdentity(path string) (*Identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o; run `chmod 600 %s`, and make a new person key if others had access",
			ident.ErrKeyExposed, path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	var f IdentityFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%w: %s: %w; copy it again from where `skein fleet init` ran", ErrBadIdentity, path, err)
	}
	if f.Person == "" || f.Key == "" {
		return nil, fmt.Errorf("%w: %s lacks person or key; copy it again from where `skein fleet init` ran", ErrBadIdentity, path)
	}
	key, err := f.loadKey(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	return &Identity{f.Person, key}, nil
}

func (f IdentityFile) loadKey(dir string) (ident.Key, error) {
	if seed, err := base64.StdEncoding.DecodeString(f.Key); err == nil && len(seed) == ed25519.SeedSize {
		return ident.KeyFromSeed(seed)
	}
	path := f.Key
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return ident.LoadKey(path)
}

// DevFleet is the file by which commands find a fleet that `skein dev` started
// in the same folder.
type DevFleet struct {
	// HTTP are the nodes' addresses, "http://host:port".
	HTTP []string `json:"http"`
	// Identity is the path of the admin's identity file, relative to this file.
	Identity string `json:"identity"`
}

// Save writes the file durably, replacing an older one.
func (d DevFleet) Save(path string) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return ident.ReplaceDurably(path, append(text, '\n'))
}

// LoadDevFleet reads the file; Identity comes back ready to open. A missing
// file is fs.ErrNotExist.
func LoadDevFleet(path string) (DevFleet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return DevFleet{}, fmt.Errorf("read dev fleet: %w", err)
	}
	var d DevFleet
	if err := json.Unmarshal(text, &d); err != nil || len(d.HTTP) == 0 {
		return DevFleet{}, fmt.Errorf("%s is damaged; remove it, or start the fleet again with `skein dev`", path)
	}
	if d.Identity != "" && !filepath.IsAbs(d.Identity) {
		d.Identity = filepath.Join(filepath.Dir(path), d.Identity)
	}
	return d, nil
}
