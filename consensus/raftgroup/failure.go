package raftgroup

import (
	"errors"
	"sync"
)

// Ends of a group that are nobody's wish.
var (
	// ErrStoreFailed: a write to the Raft log failed. What the disk holds is
	// not known any more, so the process must end.
	ErrStoreFailed = errors.New("raft log could not be written")
	// ErrStoreStalled: a write to the Raft log hangs.
	ErrStoreStalled = errors.New("raft log's disk hangs")
	// ErrMachine: a committed entry could not be applied.
	ErrMachine = errors.New("committed entry could not be applied")
)

// failure is the first reason why the group must end. From the moment it is
// set, no byte leaves the node and no proposal is acknowledged.
type failure struct {
	once sync.Once
	done chan struct{}
	err  error
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

// set records the first reason; later ones are consequences.
func (f *failure) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.done)
	})
}

// get is nil while all is well.
func (f *failure) get() error {
	select {
	case <-f.done:
		return f.err
	default:
		return nil
	}
}
