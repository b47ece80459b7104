package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"skein/mesh/ident"
)

// epochs remembers the latest epoch of the fleet that any member has told: how
// often it was recovered from the loss of its voters. A voter of an earlier
// epoch has been given up; it must not lead again, with others of its kind, not
// even after a restart that nobody else is there to see.
type epochs struct {
	path  string
	fleet ident.FleetID

	mu      sync.Mutex
	latest  uint64
	by      ident.NodeID
	seated  uint64
	changed chan struct{} // closed when latest has changed
}

// epochsFile is what is on disk.
type epochsFile struct {
	Fleet ident.FleetID `json:"fleet"`
	// Latest is the latest epoch heard of, Seated that of the Raft log.
	Latest uint64 `json:"latest"`
	Seated uint64 `json:"seated"`
}

func openEpochs(path string, fleet ident.FleetID) (*epochs, error) {
	e := &epochs{path: path, fleet: fleet, changed: make(chan struct{})}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the fleet's epochs: %w", err)
	}
	var f epochsFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; if the fleet was never recovered or restored, remove it, else run `skein resync`", path, err)
	}
	if f.Fleet == fleet { // what is left of another fleet does not count
		e.latest, e.seated = f.Latest, f.Seated
	}
	return e, nil
}

// hear takes what a member told.
func (e *epochs) hear(id ident.NodeID, epoch uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if epoch <= e.latest {
		return
	}
	e.latest, e.by = epoch, id
	close(e.changed)
	e.changed = make(chan struct{})
}

// after reports whether an epoch after own was heard of, and from whom.
func (e *epochs) after(own uint64) (by ident.NodeID, later bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.by, e.latest > own
}

func (e *epochs) next() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// seatedIn is the epoch of the Raft log on disk, 0 if that is not known.
func (e *epochs) seatedIn() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seated
}

// save makes durable what was heard, and that the Raft log is of epoch seated.
func (e *epochs) save(seated uint64) error {
	e.mu.Lock()
	f := epochsFile{Fleet: e.fleet, Latest: max(e.latest, seated), Seated: seated}
	e.mu.Unlock()
	old, err := os.ReadFile(e.path)
	if b, encodeErr := json.Marshal(f); encodeErr != nil {
		return encodeErr
	} else if err == nil && string(old) == string(b) || errors.Is(err, fs.ErrNotExist) && f.Latest == 0 {
		return nil // as for all fleets that were never recovered
	} else if err := ident.ReplaceDurably(e.path, b); err != nil {
		return fmt.Errorf("remember the fleet's epoch: %w", err)
	}
	e.mu.Lock()
	e.seated = seated
	e.mu.Unlock()
	return nil
}
