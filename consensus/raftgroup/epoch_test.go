package raftgroup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/raftgroup/testnet"
	"skein/consensus/raftlog"
	"skein/mesh/ident"
)

// recovered ends all, recovers the first of them alone into epoch 1, and starts it.
func (c *cluster) recovered(all []*member, epochs map[ident.NodeID]uint64) *member {
	c.tb.Helper()
	for _, m := range all {
		c.kill(m)
	}
	survivor := all[0]
	index, term := survivor.machine.Applied()
	index += 1 << 32 // what package replica does
	moved, err := Recover(survivor.dir, survivor.id, c.kind, index, term+1)
	if err != nil {
		c.tb.Fatal(err)
	}
	if kind, err := raftlog.KindOf(moved); err != nil || kind == "" {
		c.tb.Fatalf("what was there before: %q %v", kind, err)
	}
	epochs[survivor.id] = 1
	survivor.machine.index, survivor.machine.term = index, term+1
	kept := survivor.machine
	c.restore = func(id ident.NodeID) *memMachine {
		if id == survivor.id {
			return kept
		}
		return nil
	}
	again := c.start(0)
	c.leader(again)
	c.mustDecide(4)
	return again
}

// TestOldVotersAreRefusedAfterARecovery: one of three survives and is recovered
// alone; then the two others come back with their majority of the old epoch.
func TestOldVotersAreRefusedAfterARecovery(t *testing.T) {
	t.Parallel()
	for _, kind := range []raftlog.Kind{raftlog.Bolt, raftlog.WAL} {
		t.Run(string(kind), func(t *testing.T) {
			epochs := map[ident.NodeID]uint64{}
			c := newCluster(t, func(cfg *Config) { cfg.Epoch = epochs[cfg.ID] })
			c.kind = kind
			all := c.form(3)
			c.mustDecide(1, 2, 3)
			c.agree([]uint64{1, 2, 3}, all...)
			again := c.recovered(all, epochs)

			// The old ones elect each other, as long as they meet nobody newer.
			old := []*member{c.start(1), c.start(2)}
			for _, m := range old {
				c.forget(m) // decide asks the new ones only
			}
			until(t, "the old ones fall silent", func() bool {
				c.mustDecide(5) // the new leader has nothing to tell them, so they must ask
				return !slices.ContainsFunc(old, func(m *member) bool { return m.Status().Outdated == 0 })
			})
			for _, m := range old {
				if s := m.Status(); s.State != Stopped || s.Leader != "" || s.Outdated != 1 {
					t.Fatalf("%+v", s)
				}
				if _, err := m.Submit(t.Context(), batch(99)); err == nil {
					t.Fatal("an old voter accepted a proposal")
				}
			}
			if s := again.Status(); s.Leader != again.id || len(s.Voters) != 1 {
				t.Fatalf("%+v", s)
			}
			for _, m := range old {
				if err := m.kill(); err != nil {
					t.Fatal(err)
				}
			}
			// A wiped one is a voter of the new epoch.
			epochs[old[0].id] = 1
			if err := os.RemoveAll(old[0].dir); err != nil {
				t.Fatal(err)
			}
			fresh := c.start(1)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := again.AddVoter(ctx, fresh.id); err != nil {
				t.Fatal(err)
			}
			c.mustDecide(6)
			c.agree([]uint64{1, 2, 3, 4, 6}, again, fresh)
		})
	}
}

// TestEpochsMeet: whoever opens the stream, the older one falls silent and the
// newer one goes on.
func TestEpochsMeet(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ asker, asked uint64 }{{0, 2}, {2, 0}, {1, 2}, {2, 1}} {
		epochs := []uint64{tc.asker, tc.asked}
		c := newCluster(t, func(cfg *Config) {
			cfg.Epoch = epochs[slices.Index([]ident.NodeID{testnet.ID(0), testnet.ID(1)}, cfg.ID)]
		})
		a, b := c.start(0), c.start(1)
		until(t, "both run", func() bool { return a.transport.Load() != nil && b.transport.Load() != nil })
		var resp raft.RequestPreVoteResponse
		err := a.transport.Load().RequestPreVote(raft.ServerID(b.id), raft.ServerAddress(b.id), &raft.RequestPreVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(a.id), Addr: []byte(a.id)}, Term: 5}, &resp)
		if err == nil {
			t.Fatalf("epoch %d asked epoch %d: %+v", tc.asker, tc.asked, resp)
		}
		if own, _, refused := refusedBy(err); !refused || own != tc.asker {
			t.Fatalf("the refusal reads %q", err)
		}
		older := a
		if tc.asker > tc.asked {
			older = b
		}
		until(t, "the older one knows", func() bool { return older.Status().Outdated == 2 })
		if _, err := older.streams.Dial(raft.ServerAddress(a.id), time.Second); !errors.Is(err, errOutdated) {
			t.Fatalf("an outdated node speaks: %v", err)
		}
	}
}

func TestRecoverANodeThatNeverVoted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	dir := filepath.Join(c.root, string(testnet.ID(0)))
	if _, err := Recover(dir, testnet.ID(0), "", 0, 1); err == nil {
		t.Fatal("recovered after no entry")
	}
	if moved, err := Recover(dir, testnet.ID(0), "", 1<<33, 7); err != nil || moved != "" {
		t.Fatalf("%q %v", moved, err)
	}
	machine := newMachine()
	machine.index, machine.term = 1<<33, 7
	c.restore = func(ident.NodeID) *memMachine { return machine }
	m := c.start(0)
	c.leader(m)
	c.mustDecide(1, 2)
	if s := m.Status(); s.Term <= 7 || s.LastIndex <= 1<<33 {
		t.Fatalf("%+v", s)
	}
	// The snapshot that held nothing was replaced by a real one.
	all, err := m.disk.Snapshots().List()
	if err != nil || unfinished(m.disk.Snapshots()) || all[0].Index <= 1<<33 {
		t.Fatalf("%+v %v", all, err)
	}
	_, r, err := m.disk.Snapshots().Open(all[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) == recoveredContent {
		t.Fatalf("%q %v", b, err)
	}
}

// TestRecoveredLogThatIsTooShort is gone, not damaged: its snapshot holds nothing.
func TestRecoveredLogThatIsTooShort(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	cfg := c.config(testnet.ID(0), (&testnet.Host{}).Link("raft"), &memMachine{index: 9, seen: map[uint64]uint64{}})
	if _, err := Recover(cfg.Dir, cfg.ID, "", 7, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); !errors.Is(err, raftlog.ErrGone) {
		t.Fatalf("got %v", err)
	}
}

func TestRecoverOverADamagedLog(t *testing.T) {
	t.Parallel()
	dir := written(t)
	path := filepath.Join(dir, "log.bolt")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.ReplaceAll(whole, []byte(`{"epoch":1}`), []byte(`{"epoch":2}`))
	if err := os.WriteFile(path, damaged, 0o600); err != nil || bytes.Equal(damaged, whole) {
		t.Fatalf("not damaged: %v", err)
	}
	moved, err := Recover(dir, testnet.ID(0), raftlog.Bolt, 6, 1)
	if err != nil || moved == "" {
		t.Fatalf("%q %v", moved, err)
	}
	log, err := raftlog.Open(raftlog.Config{Dir: dir, ID: testnet.ID(0)})
	if err != nil {
		t.Fatal(err)
	}
	var entry raft.Log
	if last, err := log.LastIndex(); err != nil || last != 7 || log.GetLog(7, &entry) != nil || entry.Type != raft.LogConfiguration {
		t.Fatalf("ends at %d with %+v, %v", last, entry, err)
	}
	if servers := raft.DecodeConfiguration(entry.Data).Servers; len(servers) != 1 || servers[0].ID != raft.ServerID(testnet.ID(0)) || servers[0].Suffrage != raft.Voter {
		t.Fatalf("%+v", servers)
	}
	if term, err := log.GetUint64([]byte(keyCurrentTerm)); err != nil || term < unknownTerms {
		t.Fatalf("term %d %v", term, err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(dir, testnet.ID(5), raftlog.Bolt, 6, 1); !errors.Is(err, raftlog.ErrForeign) {
		t.Fatalf("log of another node: %v", err)
	}
}

// FuzzPreface: whatever a voter says first, it is raft's, a preface, or refused.
func FuzzPreface(f *testing.F) {
	for _, seed := range [][]byte{{}, {0}, {prefaceMark}, preface{purposeRoom, 7}.encode(), append(preface{purposeRaft, 1 << 63}.encode(), 1, 2, 3), {prefaceMark, 9, 0, 0, 0, 0, 0, 0, 0, 0}} {
		f.Add(seed)
	}
	layer := newStreams(Config{ID: testnet.ID(0)}, newFailure())
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		go func() { far.Write(b); far.Close() }()
		c := &peerConn{Conn: near, layer: layer, closed: make(chan struct{})}
		defer near.Close()
		p, err := c.readPreface()
		switch {
		case err != nil:
			if len(b) >= prefaceBytes && b[1] <= purposeRoom || len(b) > 0 && b[0] != prefaceMark {
				t.Fatalf("%x: %v", b, err)
			}
		case b[0] == prefaceMark:
			if !bytes.HasPrefix(b, p.encode()) {
				t.Fatalf("%x is %+v", b, p)
			}
		default:
			if rest, err := io.ReadAll(c); err != nil || !bytes.Equal(rest, b) {
				t.Fatalf("raft is given %x of %x, %v", rest, b, err)
			}
		}
	})
}
