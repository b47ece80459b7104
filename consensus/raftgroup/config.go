package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// Link opens streams to other voters.
type Link interface {
	// Open gives a stream to the node id on which its Group.Handle answers.
	Open(ctx context.Context, id ident.NodeID) (net.Conn, error)
}

// Machine is what the log drives. *replica.Replica is one.
type Machine interface {
	// ApplyEntry applies a committed entry. Entries come in order; one at or
	// below Applied must change nothing. An error ends the group.
	ApplyEntry(index, term uint64, data []byte) ([]replica.Outcome, error)
	// Applied is the last entry that the machine holds, also after a restart.
	Applied() (index, term uint64)
	// Snapshot writes the state and makes everything up to it durable first. It
	// may run beside ApplyEntry and may be newer than when it was asked for.
	Snapshot(w io.Writer) error
	// Restore takes over a state that Snapshot wrote, unless it is older than
	// what the machine holds.
	Restore(r io.Reader) error
	// SnapshotIndex is the last entry that a state that Snapshot wrote holds.
	SnapshotIndex(r io.Reader) (uint64, error)
}

// Timings are how long the group waits. Zero fields take the shipped value.
type Timings struct {
	// Election is how long a follower hears nothing before it stands for
	// election, and how long (1 to 2 times this) an election may take.
	Election time.Duration
	// Lease is how long a leader that reaches no majority goes on. Less than Election.
	Lease time.Duration
	// Beat is the least time between two heartbeats of the leader; the most is
	// twice that. Must be under a third of Election.
	Beat time.Duration
	// Commit is how late followers hear of a commit if everything faster failed.
	Commit time.Duration
	// RPC bounds one request to another voter, Dial included.
	RPC time.Duration
	// Stall is how long one write to the disk may take before the group ends.
	Stall time.Duration
}

// Shipped timings, chosen by measurement: see DESIGN.md.
const (
	shippedElection = 450 * time.Millisecond
	shippedLease    = 440 * time.Millisecond
	shippedBeat     = 110 * time.Millisecond
	shippedCommit   = time.Second
	shippedRPC      = 3 * time.Second
	shippedStall    = 6 * time.Second
)

// Compaction says when entries that the machine holds leave the Raft log. Zero
// fields take the shipped value.
type Compaction struct {
	// Every is how often it is looked at (1 to 2 times this).
	Every time.Duration
	// Entries is how many entries must have come since the last time.
	Entries uint64
	// Bytes is how many bytes of entries must have come since the last time, if
	// fewer than Entries have.
	Bytes int64
	// Keep is how many stay for voters that are a little behind; others are
	// sent the whole state.
	Keep uint64
}

const (
	shippedCompactEvery   = 15 * time.Second
	shippedCompactEntries = 4096
	shippedCompactBytes   = 32 << 20
	shippedCompactKeep    = 1024
	// shippedReserve leaves room for what must be written also on a full disk:
	// votes, changes of membership, a snapshot that makes the log shorter.
	shippedReserve = 64 << 20
)

// Config is what a Group works with. Fields are required unless they say otherwise.
type Config struct {
	ID ident.NodeID
	// Dir holds the Raft log and its snapshots, and nothing else.
	Dir string
	// Store is how the log is kept on disk; "" is raftlog.Bolt. It must be what Dir
	// was made with.
	Store raftlog.Kind
	Link  Link
	// Welcome is asked who may open Raft streams here; an error refuses. Nil
	// welcomes every member of the fleet.
	Welcome func(ident.NodeID) error
	Machine Machine
	// Joining says that an empty log is right, because the fleet does not yet
	// count this node as a voter. Without it an empty log is refused: a voter
	// that has forgotten its votes could elect a leader that lacks events.
	Joining bool
	// Epoch is how often the fleet was recovered from the loss of its majority,
	// as this node knows it (fleet.State.Recoveries). Raft streams between nodes
	// of different epochs are refused; a node that meets a later epoch falls
	// silent for good: see Status.Outdated.
	Epoch uint64
	// ReserveBytes is how much must be free on the disk for entries to be
	// accepted: see raftlog.ErrNoSpace. 0 is the shipped 64 MiB, negative is none.
	ReserveBytes int64
	Timings      Timings
	Compaction   Compaction
	// Now is the wall clock that entries are stamped with; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// withDefaults fills in what was left zero and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.ID == "" || c.Dir == "" || c.Link == nil || c.Machine == nil || c.Log == nil {
		return c, errors.New("raftgroup: ID, Dir, Link, Machine and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	t := &c.Timings
	for _, d := range []struct {
		value   *time.Duration
		shipped time.Duration
	}{
		{&t.Election, shippedElection}, {&t.Lease, shippedLease}, {&t.Beat, shippedBeat}, {&t.Commit, shippedCommit},
		{&t.RPC, shippedRPC}, {&t.Stall, shippedStall}, {&c.Compaction.Every, shippedCompactEvery},
	} {
		if *d.value == 0 {
			*d.value = d.shipped
		}
	}
	if c.Compaction.Entries == 0 {
		c.Compaction.Entries = shippedCompactEntries
	}
	if c.Compaction.Bytes == 0 {
		c.Compaction.Bytes = shippedCompactBytes
	}
	if c.ReserveBytes == 0 {
		c.ReserveBytes = shippedReserve
	}
	if c.Compaction.Keep == 0 {
		c.Compaction.Keep = shippedCompactKeep
	}
	if t.Lease >= t.Election || t.Beat*3 > t.Election {
		return c, fmt.Errorf("raftgroup: timings lease %s, beat %s do not fit election %s; lease must be shorter, beat at most a third",
			t.Lease, t.Beat, t.Election)
	}
	return c, nil
}

// disk is what of it concerns the log on disk.
func (c Config) disk() raftlog.Config {
	return raftlog.Config{Dir: c.Dir, ID: c.ID, Kind: c.Store, ReserveBytes: c.ReserveBytes}
}
