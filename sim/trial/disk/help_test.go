package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// settle bounds every wait for a fleet to come to rest.
	settle = 30 * time.Second
	// dataBytes is the disk of a robot, as large as the reserve for a full disk
	// and what a trial writes.
	dataBytes = 512 << 20
)

// house is a fleet whose robots have disks.
type house struct {
	*trial.Fleet
	t      testing.TB
	lan    *rig.Rig
	disks  map[*trial.Robot]*rig.Disk
	voters []*trial.Robot
}

// build founds a fleet of so many voters and others, with that kind of Raft log.
func build(t testing.TB, skein string, voters, others int, store string) *house {
	t.Helper()
	lan := rig.New(t, voters+others)
	var disks []*rig.Disk
	for _, h := range lan.Hosts {
		disks = append(disks, h.Disk("data", dataBytes))
	}
	h := &house{t: t, lan: lan, disks: map[*trial.Robot]*rig.Disk{}}
	h.Fleet = trial.FoundOn(t, skein, "geese", lan.Hosts, voters, store)
	h.voters = h.Robots[:voters]
	for i, r := range h.Robots {
		h.disks[r] = disks[i]
	}
	return h
}

// in is the same house for a part of the test.
func (h *house) in(t testing.TB) *house {
	part := *h
	part.t = t
	return &part
}

// back waits until changes are acknowledged again. If none is, and a node has
// refused to start, that is why.
func (h *house) back(load *trial.Load) {
	h.t.Helper()
	before := len(load.Acks())
	h.sound(load)
	rig.Wait(h.t, settle, "changes are acknowledged again", func() error {
		h.sound(load)
		var ended []error
		for _, r := range h.voters {
			if r.Process.Ended() {
				ended = append(ended, fmt.Errorf("%s does not start: %s", r.Name, lastWords(r)))
			}
		}
		if len(ended) > len(h.voters)/2 {
			h.t.Fatalf("what was acknowledged cannot be had: %v", errors.Join(ended...))
		}
		if len(load.Acks()) == before {
			return errors.Join(append(ended, rig.ErrNotYet)...)
		}
		return errors.Join(ended...)
	})
}

// sound fails the test if the writers met what must never be, and says first
// which acknowledged event is lost, if one is.
func (h *house) sound(load *trial.Load) {
	h.t.Helper()
	if err := load.Fault(); err != nil {
		h.t.Error(err)
		h.AwaitHeld(h.voters, load.Acks(), 0, 3*time.Second)
		h.t.FailNow()
	}
}

// lastWords is the line with which a node ended, without those of its log.
func lastWords(r *trial.Robot) string {
	var words string
	for line := range strings.Lines(r.Process.Log()) {
		if strings.HasPrefix(line, "skein: ") {
			words = strings.TrimSpace(line)
		}
	}
	return words
}

// files lists what a node keeps of the log, for the log of a failed test.
func files(r *trial.Robot) string {
	var list strings.Builder
	for _, dir := range []string{"raft", "log"} {
		_ = filepath.WalkDir(filepath.Join(r.Data(), dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return nil // what cannot be listed is not there
			}
			if info, err := entry.Info(); err == nil {
				fmt.Fprintf(&list, "%12d %s\n", info.Size(), path)
			}
			return nil
		})
	}
	return list.String()
}
