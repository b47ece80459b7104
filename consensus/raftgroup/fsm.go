package raftgroup

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"skein/consensus/replica"
)

// fsm feeds committed entries to the Machine.
type fsm struct {
	machine Machine
	failure *failure
	backlog *backlog
	// changed is told when a committed configuration arrives.
	changed func()
}

// applied is what raft carries from fsm.Apply to who proposed the entry.
type applied struct {
	outcomes []replica.Outcome
	term     uint64
	err      error
}

// Apply implements raft.FSM. After one entry could not be applied none is,
// because the state would have a hole. A leader that cannot apply hands over and
// ends.
func (m *fsm) Apply(l *raft.Log) any {
	if err := m.failure.get(); err != nil {
		return applied{err: err}
	}
	m.backlog.begin()
	outcomes, err := m.machine.ApplyEntry(l.Index, l.Term, l.Data)
	if err != nil {
		err = fmt.Errorf("%w: entry %d: %w", ErrMachine, l.Index, err)
		m.failure.retire(err)
	}
	m.backlog.progressed(l.Index)
	return applied{outcomes: outcomes, term: l.Term, err: err}
}

// StoreConfiguration implements raft.ConfigurationStore. With it raft also
// counts configurations as applied, so that one does not hold up compaction.
func (m *fsm) StoreConfiguration(index uint64, _ raft.Configuration) {
	m.backlog.progressed(index)
	m.changed()
}

// Snapshot implements raft.FSM. The state is written later, in Persist, and may
// then be newer than raft believes; the entries between are skipped by ApplyEntry.
func (m *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{m}, nil }

// Restore implements raft.FSM.
func (m *fsm) Restore(r io.ReadCloser) error {
	if err := m.machine.Restore(r); err != nil {
		m.failure.set(fmt.Errorf("%w: restore a snapshot from another voter: %w", ErrMachine, err))
		return err
	}
	index, _ := m.machine.Applied()
	m.backlog.progressed(index) // what the log holds of before waits no more
	return nil
}

type snapshot struct{ fsm *fsm }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.fsm.machine.Snapshot(sink); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}
