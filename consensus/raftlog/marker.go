package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"skein/mesh/ident"
)

// Refusals of a directory. Their texts say what to do.
var (
	// ErrGone: the log was here and is not any more, or is older than what the
	// node already applied.
	ErrGone = errors.New("raft log is gone")
	// ErrDamaged: the log cannot be trusted.
	ErrDamaged = errors.New("raft log is damaged")
	// ErrForeign: the log belongs to another node.
	ErrForeign = errors.New("raft log is of another node")
	// ErrBusy: another process, or this one, has the log open.
	ErrBusy = errors.New("raft log is in use")
)

const (
	markerFile   = "member.json"
	markerFormat = "skein-raft/1"
	lockFile     = "lock"
)

// damaged says that path in dir cannot be used, why, and what to do.
func damaged(dir, path string, why error) error {
	return fmt.Errorf("%w: %s: %w; %s", ErrDamaged, path, why, resync(dir))
}

// resync is how a voter that lost its log becomes one again.
func resync(dir string) string {
	return fmt.Sprintf("have an admin withdraw this node as a voter, move %s away, start again and approve it anew: it gets the log from the others", dir)
}

// marker says that a log was made here, so that its absence is noticed.
type marker struct {
	Format string       `json:"format"`
	Node   ident.NodeID `json:"node"`
	Store  Kind         `json:"store"`
}

// KindOf is the kind of log that a directory was made with; "" when there is none
// in it. The marker alone is read. The error is ErrDamaged if it is not one.
func KindOf(dir string) (Kind, error) {
	m, err := readMarker(dir)
	return m.Store, err
}

// readMarker gives the zero marker where there is none.
func readMarker(dir string) (m marker, err error) {
	path := filepath.Join(dir, markerFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return marker{}, nil
	}
	if err != nil {
		return marker{}, fmt.Errorf("read raft marker: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Format != markerFormat {
		return marker{}, damaged(dir, path, fmt.Errorf("it is no marker of %s", markerFormat))
	}
	return m, nil
}

// checkMarker compares what the directory says it holds with what it holds.
func checkMarker(dir string, id ident.NodeID, kind Kind) (marked bool, err error) {
	m, err := readMarker(dir)
	if err != nil || m == (marker{}) {
		return false, err
	}
	if m.Node != id {
		return false, fmt.Errorf("%w: %s was made by %s, this node is %s; put back the disk or the key that belong together",
			ErrForeign, dir, m.Node, id)
	}
	if m.Store != kind {
		return false, fmt.Errorf("raft log in %s is kept as %q, the setting says %q; set raft.store = %q, or move the log with `skein store convert`", dir, m.Store, kind, m.Store)
	}
	info, err := os.Stat(filepath.Join(dir, kind.file()))
	if err != nil || info.Size() == 0 {
		return false, fmt.Errorf("%w: %s was in %s and is missing or empty; put it back, or %s", ErrGone, kind.file(), dir, resync(dir))
	}
	return true, nil
}

func writeMarker(dir string, id ident.NodeID, kind Kind) error {
	text, err := json.Marshal(marker{markerFormat, id, kind})
	if err != nil {
		return err
	}
	return ident.ReplaceDurably(filepath.Join(dir, markerFile), append(text, '\n'))
}

// lockDir makes sure that nobody else uses dir.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock raft directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s; stop the other skein that runs on this data directory", ErrBusy, dir)
	}
	return f, nil
}
