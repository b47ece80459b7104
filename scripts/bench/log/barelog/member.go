// Package barelog is hashicorp/raft and nothing else, as what Skein's log is
// held against: the same library, the same stores, a group commit of up to 512
// with two entries in flight, and a state machine that does nothing.
//
// Its network is plain TCP. A client's frame is a number and 256 bytes that
// nobody looks at; an answer is the number.
package barelog

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"

	"skein/scripts/bench/log/load"
	"skein/scripts/bench/log/proc"
)

// System is the name of the member processes.
const System = "bare"

// frameBytes is the size of a client's frame: its number and the payload.
const frameBytes = 8 + load.PayloadBytes

// member is the inside of a member process.
type member struct {
	raft   *raft.Raft
	store  io.Closer
	listen net.Listener
	commit *committer
}

// Start starts the member of a spec, whose variant is the store, "bolt" or "wal".
func Start(_ context.Context, s proc.Spec) (proc.Member, error) {
	if err := os.MkdirAll(s.Own(), 0o700); err != nil {
		return nil, err
	}
	logs, stable, closer, err := open(s)
	if err != nil {
		return nil, err
	}
	cached, err := raft.NewLogCache(512, logs)
	if err != nil {
		return nil, err
	}
	quiet := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(s.Own(), 1, quiet)
	if err != nil {
		return nil, err
	}
	transport, err := raft.NewTCPTransportWithLogger(address(s.Ports[s.Index][0]), nil, 3, 5*time.Second, quiet)
	if err != nil {
		return nil, err
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(fmt.Sprint(s.Index))
	conf.Logger = quiet
	conf.NoLegacyTelemetry = true
	// Compaction as raftgroup's, so that neither pays for a longer log.
	conf.SnapshotInterval, conf.SnapshotThreshold, conf.TrailingLogs = 15*time.Second, 4096, 1024
	if s.Index == 0 {
		if err := raft.BootstrapCluster(conf, cached, stable, snapshots, transport, servers(s)); err != nil {
			return nil, err
		}
	}
	m := &member{store: closer}
	if m.raft, err = raft.NewRaft(conf, nothing{}, cached, stable, snapshots, transport); err != nil {
		return nil, err
	}
	if m.listen, err = net.Listen("tcp", address(s.Ports[s.Index][1])); err != nil {
		return nil, err
	}
	m.commit = newCommitter(m.raft)
	go m.accept()
	return m, nil
}

// open opens the log of a spec.
func open(s proc.Spec) (raft.LogStore, raft.StableStore, io.Closer, error) {
	if s.Variant == "wal" {
		dir := filepath.Join(s.Own(), "wal")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, nil, err
		}
		w, err := wal.Open(dir)
		return w, w, w, err
	}
	b, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(s.Own(), "log.bolt")})
	return b, b, b, err
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func servers(s proc.Spec) (c raft.Configuration) {
	for i, p := range s.Ports {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(address(p[0]))})
	}
	return c
}

func (m *member) accept() {
	for {
		conn, err := m.listen.Accept()
		if err != nil {
			return // closed
		}
		go m.serve(conn)
	}
}

// serve reads frames and hands them on. Whatever comes wrongly ends the
// connection, which the client counts.
func (m *member) serve(conn net.Conn) {
	defer conn.Close()
	c := &peer{conn: conn}
	in := bufio.NewReaderSize(conn, 64<<10)
	var room []byte
	for {
		if len(room) < frameBytes {
			room = make([]byte, 256*frameBytes)
		}
		frame := room[:frameBytes:frameBytes]
		room = room[frameBytes:]
		if _, err := io.ReadFull(in, frame); err != nil {
			return
		}
		m.commit.put(waiting{c, binary.BigEndian.Uint64(frame), frame[8:]})
	}
}

// Obey implements proc.Member.
func (m *member) Obey(_ context.Context, order string, _ json.RawMessage) (any, error) {
	if order == "leading" {
		return m.raft.State() == raft.Leader, nil
	}
	return nil, fmt.Errorf("members of bare raft know no order %q", order)
}

// Close implements proc.Member.
func (m *member) Close() error {
	return errors.Join(m.listen.Close(), m.raft.Shutdown().Error(), m.store.Close())
}

// nothing is the state machine that does nothing.
type nothing struct{}

// Apply implements raft.FSM.
func (nothing) Apply(*raft.Log) any { return nil }

// Snapshot implements raft.FSM.
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }

// Restore implements raft.FSM.
func (nothing) Restore(r io.ReadCloser) error { return r.Close() }

// Persist implements raft.FSMSnapshot.
func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }

// Release implements raft.FSMSnapshot.
func (nothing) Release() {}
