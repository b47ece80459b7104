package rescue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"skein/mesh/ident"
	"skein/node/datadir"
)

// Errors that callers tell apart. Their texts say what to do.
var (
	// ErrNoNode: there is no node in the directory.
	ErrNoNode = errors.New("there is no node here")
	// ErrRunning: the node runs.
	ErrRunning = errors.New("the node runs")
	// ErrRefused: doing it would lose or split what the fleet has decided.
	ErrRefused = errors.New("refused")
	// ErrBadOption: what was asked for makes no sense.
	ErrBadOption = errors.New("wrong option")
	// ErrNotAllowed: who asks for it is no admin of the fleet.
	ErrNotAllowed = errors.New("not allowed")
)

// stopped is the locked directory of a node that does not run.
type stopped struct {
	dir    *datadir.Dir
	key    ident.Key
	member ident.Membership
}

// openStopped locks and reads the directory of a member. It makes nothing: a
// path that was mistyped must not become a data directory.
func openStopped(path string) (*stopped, error) {
	dir, key, err := openKeyed(path)
	if err != nil {
		return nil, err
	}
	m, err := ident.LoadMembership(dir.Membership(), key.ID())
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s has no %s; put it back, or join the fleet", ErrNoNode, path, filepath.Base(dir.Membership()))
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &stopped{dir, key, m}, nil
}

// openKeyed locks the directory of a node that has a key.
func openKeyed(path string) (*datadir.Dir, ident.Key, error) {
	const keyName = "node.key"
	key, err := ident.LoadKey(filepath.Join(path, keyName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, key, fmt.Errorf("%w: %s has no %s; say where the node's data directory is with --data, or put the key back", ErrNoNode, path, keyName)
	}
	if err != nil {
		return nil, key, err
	}
	dir, err := datadir.Open(path)
	if errors.Is(err, datadir.ErrInUse) {
		err = fmt.Errorf("%w: %s is held by another skein process; stop the node first", ErrRunning, path)
	}
	return dir, key, err
}

func (s *stopped) close() error { return s.dir.Close() }

// epochsName is the file in which a node remembers how often it has heard that
// its fleet was recovered; package node writes it.
const epochsName = "epochs.json"

// heard is how often this node has heard that its fleet was recovered.
func (s *stopped) heard() (uint64, error) {
	path := filepath.Join(s.dir.Path(), epochsName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var f struct {
		Fleet  ident.FleetID `json:"fleet"`
		Latest uint64        `json:"latest"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return 0, refusal("%s is damaged: %v; move it away if the fleet was never recovered or restored before", path, err)
	}
	if len(s.member.Chain) > 0 && f.Fleet != s.member.Fleet() { // what is left of another fleet
		return 0, nil
	}
	return f.Latest, nil
}

// runs reports whether a process holds the directory. It does not keep it.
func runs(path string) bool {
	f, err := os.Open(filepath.Join(path, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return true
	}
	return false
}

// present reports whether a folder has anything in it.
func present(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(entries) > 0, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
