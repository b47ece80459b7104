package raftlog

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// ErrNoSpace: the disk has less free than Config.ReserveBytes. Entries are refused
// before anything is written, and accepted again once there is room.
var ErrNoSpace = errors.New("the disk of the raft log is nearly full")

// space watches how much is free on the disk of a directory.
type space struct {
	dir string
	// reserve is in bytes; 0 or less is none.
	reserve int64
	// free is how many bytes are.
	free func(dir string) (int64, error)
	// low is what the last look has found.
	low atomic.Bool
}

// freeBytes is what a process without privileges may still write.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// look looks at the disk and reports whether it is nearly full. Once it was,
// there must be an eighth more than the reserve, so that the answer does not
// change from entry to entry.
func (s *space) look() bool {
	if s.reserve <= 0 {
		return false
	}
	free, err := s.free(s.dir)
	if err != nil {
		return s.low.Load() // the write itself will tell
	}
	enough := s.reserve
	if s.low.Load() {
		enough += s.reserve / 8
	}
	s.low.Store(free < enough)
	return free < enough
}

// refuses reports whether logs must not be stored. What raft itself needs to
// go on, such as a change of membership, is small and may use the reserve.
func (s *space) refuses(logs []*raft.Log) error {
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			if s.look() {
				return fmt.Errorf("%w: %s has less than %d MiB free", ErrNoSpace, s.dir, s.reserve>>20)
			}
			return nil
		}
	}
	return nil
}
