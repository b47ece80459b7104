package raftgroup

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/hashicorp/raft"

	"skein/consensus/raftlog"
)

// Ends of a group that are nobody's wish, beside raftlog.ErrFailed.
var (
	// ErrUnreadable: an entry of the Raft log cannot be read any more.
	ErrUnreadable = errors.New("raft log could not be read")
	// ErrStoreStalled: a write to the Raft log hangs.
	ErrStoreStalled = errors.New("raft log's disk hangs")
	// ErrMachine: a committed entry could not be applied.
	ErrMachine = errors.New("committed entry could not be applied")
)

// failure is the first reason why the group must end. From the moment it is
// set no proposal is acknowledged; from the moment it is mute, which for a
// failed disk is the same, no byte leaves the node and none is stored.
type failure struct {
	once sync.Once
	done chan struct{}
	err  error

	muting sync.Once
	mute   chan struct{}
}

func newFailure() *failure { return &failure{done: make(chan struct{}), mute: make(chan struct{})} }

// set records the first reason and falls silent; later reasons are consequences.
func (f *failure) set(err error) {
	f.retire(err)
	f.muting.Do(func() { close(f.mute) })
}

// retire records the first reason, but lets a leader hand over before set is
// called: nothing is wrong with its log.
func (f *failure) retire(err error) {
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

// silent is the reason why nothing may leave the node; nil while it may.
func (f *failure) silent() error {
	select {
	case <-f.mute:
		return f.err
	default:
		return nil
	}
}

// logForRaft is the log as raft is given it. Raft panics in a goroutine of its own when
// an entry that it needs cannot be read, and that would end the process without a word
// from us, with all other nodes in it. Here the group fails, and the goroutine ends as
// if it had returned: raft's own, which its shutdown waits for, or newRaft's.
type logForRaft struct {
	*raftlog.Log
	failure *failure
}

// GetLog implements raft.LogStore. Only raft may call it.
func (l logForRaft) GetLog(index uint64, into *raft.Log) error {
	err := l.Log.GetLog(index, into)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	l.failure.set(fmt.Errorf("%w: entry %d: %w; check or replace the disk and start again: what is damaged is named then", ErrUnreadable, index, err))
	runtime.Goexit()
	return err
}
