package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"skein/consensus/fleet"
	"skein/consensus/history"
)

// A snapshot is: magic, version, length of the body, CRC-32C of all else, body.
// The body is: flags, index, term, event, hash, encoded state. Big endian.
const (
	snapshotMagic   = "SKNSNAP"
	snapshotVersion = 1
	snapshotHeader  = len(snapshotMagic) + 1 + 8 + 4
	bodyHeader      = 1 + 8 + 8 + 8 + len(history.Hash{})
	// MaxSnapshotBytes bounds what is read.
	MaxSnapshotBytes = 256 << 20
	// flagReset marks a checkpoint whose state did not come from the history
	// beside it: the history must begin anew there.
	flagReset = 1
)

// ErrBadSnapshot: the bytes are no whole snapshot.
var ErrBadSnapshot = errors.New("snapshot is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// image is a snapshot in memory.
type image struct {
	at    place
	state *fleet.State
	reset bool
}

func (i image) encode() ([]byte, error) {
	state := i.state.Marshal()
	if len(state) > MaxSnapshotBytes-bodyHeader {
		return nil, fmt.Errorf("snapshot of %d bytes is over the cap of %d", len(state), MaxSnapshotBytes)
	}
	b := make([]byte, snapshotHeader, snapshotHeader+bodyHeader+len(state))
	flags := byte(0)
	if i.reset {
		flags = flagReset
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, i.at.index)
	b = binary.BigEndian.AppendUint64(b, i.at.term)
	b = binary.BigEndian.AppendUint64(b, i.at.Seq)
	b = append(b, i.at.Hash[:]...)
	b = append(b, state...)
	body := b[snapshotHeader:]
	n := copy(b, snapshotMagic)
	b[n] = snapshotVersion
	binary.BigEndian.PutUint64(b[n+1:], uint64(len(body)))
	binary.BigEndian.PutUint32(b[n+9:], snapshotSum(b))
	return b, nil
}

// snapshotSum is the checksum of a whole snapshot but for its own four bytes.
func snapshotSum(b []byte) uint32 {
	sum := crc32.Checksum(b[:snapshotHeader-4], castagnoli)
	return crc32.Update(sum, castagnoli, b[snapshotHeader:])
}

// readImage reads one snapshot and not a byte more. Memory grows with what
// arrives, not with what the header announces.
func readImage(r io.Reader) (image, error) {
	var head [snapshotHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return image{}, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	n := len(snapshotMagic)
	if string(head[:n]) != snapshotMagic {
		return image{}, fmt.Errorf("%w: it does not start like one", ErrBadSnapshot)
	}
	length := binary.BigEndian.Uint64(head[n+1:])
	if length > MaxSnapshotBytes || length < uint64(bodyHeader) {
		return image{}, fmt.Errorf("%w: a body of %d bytes", ErrBadSnapshot, length)
	}
	var whole bytes.Buffer
	whole.Write(head[:])
	if got, err := io.CopyN(&whole, r, int64(length)); err != nil {
		return image{}, fmt.Errorf("%w: it ends after %d of %d bytes: %w", ErrBadSnapshot, got, length, err)
	}
	if snapshotSum(whole.Bytes()) != binary.BigEndian.Uint32(head[n+9:]) {
		return image{}, fmt.Errorf("%w: the checksum is wrong", ErrBadSnapshot)
	}
	if head[n] != snapshotVersion {
		return image{}, fmt.Errorf("%w: snapshot of format %d, this build reads %d", ErrUpgrade, head[n], snapshotVersion)
	}
	return decodeBody(whole.Bytes()[snapshotHeader:])
}

func decodeBody(b []byte) (image, error) {
	i := image{reset: b[0]&flagReset != 0}
	i.at.index = binary.BigEndian.Uint64(b[1:])
	i.at.term = binary.BigEndian.Uint64(b[9:])
	i.at.Seq = binary.BigEndian.Uint64(b[17:])
	i.at.Hash = history.Hash(b[25:bodyHeader])
	state, err := fleet.Unmarshal(b[bodyHeader:])
	if errors.Is(err, fleet.ErrUpgrade) {
		return image{}, fmt.Errorf("%w: %w", ErrUpgrade, err)
	}
	if err != nil {
		return image{}, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	if state.Seq() != i.at.Seq {
		return image{}, fmt.Errorf("%w: the state is at event %d, the header at %d", ErrBadSnapshot, state.Seq(), i.at.Seq)
	}
	i.state = state
	return i, nil
}

// Snapshot writes the state as it is now. Before the first byte, the history is
// durable up to it and so is a checkpoint, so that the Raft log may be cut.
func (r *Replica) Snapshot(w io.Writer) error {
	encoded, err := r.save(true)
	if err != nil {
		return err
	}
	if _, err := w.Write(encoded); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// SnapshotIndex is the last Raft entry that a snapshot holds. ErrBadSnapshot: it
// is damaged or cut.
func (r *Replica) SnapshotIndex(rd io.Reader) (uint64, error) {
	i, err := readImage(rd)
	return i.at.index, err
}

// Restore replaces the state by that of a snapshot. One that is not ahead of
// this replica is ignored. The history begins anew behind an explicit gap. A
// snapshot that is damaged, cut or of another log (ErrBadSnapshot, ErrDiverged)
// changes nothing; any other error must end the node. It reads exactly one
// snapshot from rd.
func (r *Replica) Restore(rd io.Reader) error {
	i, err := readImage(rd)
	if err != nil {
		return err
	}
	r.apply.Lock()
	defer r.apply.Unlock()
	at, err := r.ready()
	if err != nil || i.at.index <= at.index {
		return err
	}
	if own := r.state.History(); own != "" && own != i.state.History() || i.at.Seq < at.Seq {
		return fmt.Errorf("restore snapshot: %w: it is of history %s at event %d, this replica of %s at %d",
			ErrDiverged, i.state.History(), i.at.Seq, own, at.Seq)
	}
	if i.at.Seq == at.Seq {
		if i.at.Hash != at.Hash {
			return fmt.Errorf("restore snapshot: %w: the chain's hash after event %d is another", ErrDiverged, at.Seq)
		}
		r.tx.Discard()
		r.commit(i.at, nil)
		return nil
	}
	return r.install(i)
}

// install makes a snapshot durable, then the history's gap, then visible.
func (r *Replica) install(i image) error {
	i.reset = true
	if err := r.saver.write(r.dir, i); err != nil {
		return r.fail(fmt.Errorf("restore snapshot: %w", err))
	}
	if err := r.history.Reset(i.at.Position); err != nil {
		return r.fail(fmt.Errorf("restore snapshot: %w", err))
	}
	r.log.Info("restored from snapshot", "seq", i.at.Seq, "index", i.at.index)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.at = i.state, i.at
	r.tx = r.state.Begin()
	r.unsaved = 0
	r.observer.Reset(r.state)
	r.feed.tell()
	return nil
}

// EncodeSnapshot gives what Restore reads, for a state that was kept elsewhere. at
// is its place in the chain, index and term the entry of the Raft log that is
// included.
func EncodeSnapshot(state *fleet.State, at history.Position, index, term uint64) ([]byte, error) {
	if state.Seq() != at.Seq {
		return nil, fmt.Errorf("encode snapshot: the state is at event %d, its place at %d", state.Seq(), at.Seq)
	}
	return image{at: place{index, term, at}, state: state}.encode()
}
