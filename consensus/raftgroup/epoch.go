package raftgroup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"skein/mesh/ident"
)

// A stream may begin with a preface: prefaceMark, the purpose, the epoch. One
// that begins otherwise is raft's, of epoch 0: raft's own first byte is small.
const (
	prefaceMark  = 0xe5
	prefaceBytes = 1 + 1 + 8

	purposeRaft = 0
	// purposeRoom asks whether the node's disk has room; the answer is one byte.
	purposeRoom = 1
)

const (
	// refusal is how the refusal of another epoch reads, in raft's error.
	refusal = "raft stream of epoch %d refused by a node of epoch %d"
	// lingerTimeout and lingerBytes bound what is read of a stream that was
	// refused, so that the refusal arrives before the end does.
	lingerTimeout = 50 * time.Millisecond
	lingerBytes   = 1 << 20
)

var errOutdated = errors.New("the fleet was recovered without this node; it takes no part in raft any more")

type preface struct {
	purpose byte
	epoch   uint64
}

func (p preface) encode() []byte {
	return binary.BigEndian.AppendUint64([]byte{prefaceMark, p.purpose}, p.epoch)
}

// readPreface reads what the stream is for. The first byte of one without a
// preface is kept for raft.
func (c *peerConn) readPreface() (preface, error) {
	var b [prefaceBytes]byte
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return preface{}, err
	}
	if b[0] != prefaceMark {
		c.first = []byte{b[0]}
		return preface{}, nil
	}
	if _, err := io.ReadFull(c, b[1:]); err != nil {
		return preface{}, err
	}
	if b[1] > purposeRoom {
		return preface{}, fmt.Errorf("raft stream for unknown purpose %d", b[1])
	}
	return preface{b[1], binary.BigEndian.Uint64(b[2:])}, nil
}

// refuse says why in a form that raft at the other end takes for the error of
// its first request: a string and nothing, in msgpack.
func (c *peerConn) refuse(epoch uint64) {
	text := fmt.Sprintf(refusal, epoch, c.layer.epoch)
	b := append([]byte{0xd9, byte(len(text))}, text...)
	if err := c.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return
	}
	if _, err := c.Conn.Write(append(b, 0xc0)); err != nil || c.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
		return
	}
	io.Copy(io.Discard, io.LimitReader(c.Conn, lingerBytes))
}

// refusedBy takes the refusal of another epoch apart.
func refusedBy(err error) (own, theirs uint64, refused bool) {
	if err == nil {
		return 0, 0, false
	}
	at := strings.Index(err.Error(), refusal[:strings.Index(refusal, "%")])
	if at < 0 {
		return 0, 0, false
	}
	n, _ := fmt.Sscanf(err.Error()[at:], refusal, &own, &theirs)
	return own, theirs, n == 2
}

// heed passes err on, and takes note if it is the refusal of a later epoch.
func (s *streams) heed(from raft.ServerID, err error) error {
	if own, theirs, refused := refusedBy(err); refused && own == s.epoch && theirs > s.epoch {
		s.outdated(ident.NodeID(from), theirs)
	}
	return err
}

// outdated notes that remote is of a later epoch: the fleet was recovered, maybe
// without this node. From now on it says nothing and nobody is led by it.
func (g *Group) outdated(remote ident.NodeID, epoch uint64) {
	if !g.streams.newer.CompareAndSwap(0, epoch) {
		return
	}
	g.cfg.Log.Error("the fleet was recovered without this node; it takes no part in raft any more",
		"remote", remote, "epoch", g.cfg.Epoch, "newer", epoch)
	g.news.tell()
}

// askRoom asks another voter whether its disk has room.
func (s *streams) askRoom(ctx context.Context, id ident.NodeID) (bool, error) {
	conn, err := s.dial(ctx, id, purposeRoom)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if err := deadlineOf(ctx, conn); err != nil {
		return false, err
	}
	var yes [1]byte
	if _, err := io.ReadFull(conn, yes[:]); err != nil {
		return false, err
	}
	return yes[0] == 1, nil
}

func deadlineOf(ctx context.Context, conn net.Conn) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	return conn.SetDeadline(deadline)
}

func (c *peerConn) answerRoom(room bool) error {
	answer := []byte{0}
	if room {
		answer[0] = 1
	}
	_, err := c.Write(answer)
	return err
}
