package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"skein/consensus/fleet"
	"skein/consensus/history"
)

// A checkpoint file is a snapshot; package replica has the format.
const (
	snapshotMagic  = "SKNSNAP"
	snapshotFormat = 1
	snapshotHeader = len(snapshotMagic) + 1 + 8 + 4
	bodyHeader     = 1 + 8 + 8 + 8 + 32
	// maxSnapshot bounds what is read.
	maxSnapshot = 256<<20 + 1<<10
)

func emptyState() *fleet.State { return fleet.New() }

// checkpoint is a checkpoint file. The rest is only there when it is whole.
type checkpoint struct {
	path  string
	seq   uint64
	bytes int64
	whole bool
	// reset: the history may not have begun anew there yet.
	reset bool
	at    history.Position
}

// readCheckpoint reads and checks the file of the checkpoint at seq. why says
// what is wrong with it.
func readCheckpoint(path string, seq uint64) (c checkpoint, why string, err error) {
	c = checkpoint{path: path, seq: seq}
	b, err := readBounded(path)
	if err != nil {
		return c, "", err
	}
	c.bytes = int64(len(b))
	if why := checkSnapshot(b); why != "" {
		return c, why, nil
	}
	body := b[snapshotHeader:]
	c.reset = body[0]&flagReset != 0
	c.at = history.Position{Seq: binary.BigEndian.Uint64(body[17:]), Hash: history.Hash(body[25:bodyHeader])}
	if c.at.Seq != seq {
		return c, fmt.Sprintf("it holds event %d, its name says %d", c.at.Seq, seq), nil
	}
	c.whole = true
	return c, "", nil
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSnapshot {
		return nil, fmt.Errorf("%s has %d bytes, a checkpoint has at most %d", path, info.Size(), maxSnapshot)
	}
	return os.ReadFile(path)
}

func checkSnapshot(b []byte) (why string) {
	n := len(snapshotMagic)
	switch {
	case len(b) < snapshotHeader+bodyHeader:
		return fmt.Sprintf("it has %d bytes, fewer than any checkpoint", len(b))
	case string(b[:n]) != snapshotMagic:
		return "it is no checkpoint"
	case binary.BigEndian.Uint64(b[n+1:]) != uint64(len(b)-snapshotHeader):
		return fmt.Sprintf("it has %d bytes, its header says %d", len(b), uint64(snapshotHeader)+binary.BigEndian.Uint64(b[n+1:]))
	}
	sum := crc32.Update(crc32.Checksum(b[:snapshotHeader-4], castagnoli), castagnoli, b[snapshotHeader:])
	switch {
	case sum != binary.BigEndian.Uint32(b[n+9:]):
		return "its checksum is wrong"
	case b[n] != snapshotFormat:
		return fmt.Sprintf("it has format %d, this build reads %d; upgrade skein", b[n], snapshotFormat)
	}
	return ""
}

// gone is said of a checkpoint that is not there any more.
const gone = "it is not there any more"

// state reads the checkpoint's state anew: only one is in memory at a time.
func (c checkpoint) state() (*fleet.State, string) {
	b, err := readBounded(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Sprintf("it cannot be read again: %v", err)
	}
	if why := checkSnapshot(b); why != "" {
		return nil, why
	}
	state, err := fleet.Unmarshal(b[snapshotHeader+bodyHeader:])
	if err != nil {
		return nil, err.Error()
	}
	return state, ""
}
