// Package datadir is the layout of a node's data directory, and the lock that
// keeps two processes from using one.
//
//	lock              held while a process uses the directory
//	node.key          who this node is (0600)
//	membership.json   which fleet it belongs to; its presence means "admitted"
//	gossip-keys.json  current gossip keys (0600)
//	boots             how often the node has started
//	peers.json        where others were last seen; a cache
//	log/              replicated state and history
//	raft/             a voter's log; absent on other nodes
//	control.sock      the local control socket (0600)
//	fleet.json, root.key, admin.key, admin.json   where `skein fleet init` ran
package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse: another process holds the directory.
var ErrInUse = errors.New("data directory is in use")

// Dir is an open, locked data directory.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the directory if needed (0700), and locks it. The lock is freed
// by the kernel when the process ends, however it ends.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %q: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w; choose another with `data` in the configuration or --data", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w; check its owner and that the disk is writable", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%w: %s is held by another skein process; stop that one, or choose another directory", ErrInUse, path)
	}
	return &Dir{path, lock}, nil
}

// Close frees the lock.
func (d *Dir) Close() error { return d.lock.Close() }

// Path is the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// NodeKey is the file of the node's private key.
func (d *Dir) NodeKey() string { return d.file("node.key") }

// Membership is the file that proves admission.
func (d *Dir) Membership() string { return d.file("membership.json") }

// GossipKeys is the file of the gossip key ring.
func (d *Dir) GossipKeys() string { return d.file("gossip-keys.json") }

// Boots counts the node's starts.
func (d *Dir) Boots() string { return d.file("boots") }

// Peers is the address book.
func (d *Dir) Peers() string { return d.file("peers.json") }

// Log is the folder of the replicated state and its history.
func (d *Dir) Log() string { return d.file("log") }

// Raft is the folder of a voter's log.
func (d *Dir) Raft() string { return d.file("raft") }

// ControlSocket is where local commands reach a running node.
func (d *Dir) ControlSocket() string { return filepath.Join(d.path, ControlSocketName) }

// ControlSocketName is the socket's name in the directory.
const ControlSocketName = "control.sock"

// FleetFile is what robot images carry; written by `skein fleet init`.
func (d *Dir) FleetFile() string { return d.file("fleet.json") }

// RootKey is the fleet's root key, to be moved to a safe place.
func (d *Dir) RootKey() string { return d.file("root.key") }

// AdminKey is the first admin's private key, AdminIdentity the file that names it.
func (d *Dir) AdminKey() string { return d.file("admin.key") }

// AdminIdentity is the first admin's identity file, for `skein --identity`.
func (d *Dir) AdminIdentity() string { return d.file("admin.json") }

// Forget moves everything that ties the node to its fleet into a folder named
// left-<unix seconds>, so that leaving destroys nothing. The node key goes too:
// a node that left joins again as a new one.
func (d *Dir) Forget(unixSeconds int64) (string, error) {
	attic, err := Attic(d.path, "left", unixSeconds)
	if err != nil {
		return "", fmt.Errorf("put the old membership aside: %w", err)
	}
	// Membership goes first: without it the rest is inert.
	for _, from := range []string{d.Membership(), d.NodeKey(), d.GossipKeys(), d.Peers(), d.Log(), d.Raft()} {
		err := os.Rename(from, filepath.Join(attic, filepath.Base(from)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("put the old membership aside: %w", err)
		}
	}
	return attic, nil
}

// atticsASecond bounds the folders that are made in one second.
const atticsASecond = 100

// Attic makes a new folder in dir for what is moved aside, and returns its path:
// what-<unix seconds>, or what-<unix seconds>-<n> where that is taken.
func Attic(dir, what string, unixSeconds int64) (path string, err error) {
	name := filepath.Join(dir, fmt.Sprintf("%s-%d", what, unixSeconds))
	for n := range atticsASecond {
		path = name
		if n > 0 {
			path = fmt.Sprintf("%s-%d", name, n+1)
		}
		if err = os.Mkdir(path, 0o700); !errors.Is(err, os.ErrExist) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("make a folder for what is moved aside: %w", err)
	}
	return path, nil
}
