package raftgroup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
)

// openAgain opens the directory of a stopped node and closes it.
func (c *cluster) openAgain(id int, joining bool) error {
	cfg := c.config(testnet.ID(id), nil, newMachine())
	cfg.Link = (&testnet.Host{}).Link("raft")
	cfg.Joining = joining
	g, err := New(cfg)
	if err != nil {
		return err
	}
	return g.Close()
}

// written makes a one-voter log with some entries, and stops the node. It gives
// a copy of the directory.
func written(t *testing.T) (*cluster, string) {
	t.Helper()
	c := newCluster(t, nil)
	m := c.form(1)[0]
	c.mustDecide(1, 2, 3, 4, 5)
	c.kill(m)
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(m.dir)); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func TestStoreRefusals(t *testing.T) {
	t.Parallel()
	bolt := func(dir string) string { return filepath.Join(dir, boltFile) }
	cases := []struct {
		name   string
		damage func(t *testing.T, dir string) error
		want   error
	}{
		{"nothing wrong", func(*testing.T, string) error { return nil }, nil},
		{"log file removed", func(_ *testing.T, dir string) error { return os.Remove(bolt(dir)) }, ErrStoreGone},
		{"log file emptied", func(_ *testing.T, dir string) error { return os.Truncate(bolt(dir), 0) }, ErrStoreGone},
		{"log file cut short", func(_ *testing.T, dir string) error { return os.Truncate(bolt(dir), 3*4096) }, ErrStoreDamaged},
		{"log file is something else", func(_ *testing.T, dir string) error {
			return os.WriteFile(bolt(dir), bytes.Repeat([]byte("not a log "), 5000), 0o600)
		}, ErrStoreDamaged},
		{"one bit of an entry", func(t *testing.T, dir string) error {
			return flip(t, bolt(dir), []byte(`{"epoch":1}`))
		}, ErrStoreDamaged},
		{"marker unreadable", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, markerFile), []byte("{"), 0o600)
		}, ErrStoreDamaged},
		{"marker of another node", func(_ *testing.T, dir string) error {
			return writeMarker(dir, marker{markerFormat, testnet.ID(7), StoreBolt})
		}, ErrStoreForeign},
		{"wiped", func(_ *testing.T, dir string) error { return os.RemoveAll(dir) }, ErrStoreGone},
	}
	c, whole := written(t)
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(c.root, string(testnet.ID(0)))
			if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(whole)), tc.damage(t, dir)); err != nil {
				t.Fatal(err)
			}
			// The marker speaks even where an empty log would be right.
			err := c.openAgain(0, tc.name != "wiped")
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), ";") {
				t.Fatalf("%q does not say what to do", err)
			}
		})
	}
}

// flip changes one bit in every copy of a piece of a file.
func flip(t *testing.T, path string, piece []byte) error {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n := 0
	for at := 0; ; n++ {
		i := bytes.Index(b[at:], piece)
		if i < 0 {
			break
		}
		b[at+i] ^= 1
		at += i + len(piece)
	}
	if n == 0 {
		return fs.ErrNotExist
	}
	return os.WriteFile(path, b, 0o600)
}

// TestAnyFlippedBitIsRefusedOrHarmless flips one bit in every page: the log
// opens with all its entries, or does not open.
func TestAnyFlippedBitIsRefusedOrHarmless(t *testing.T) {
	t.Parallel()
	_, dir := written(t)
	path := filepath.Join(dir, boltFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for at := 100; at < len(whole); at += 511 {
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openStores(dir, testnet.ID(0), StoreBolt, newFailure(), silentLogger())
		if err != nil {
			refused++
			continue
		}
		if s.last < 6 {
			t.Fatalf("bit in byte %d: opened with %d entries", at, s.last)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Fatal("no flipped bit was noticed")
	}
}

func TestStoreOfAnotherKindIsRefused(t *testing.T) {
	t.Parallel()
	_, dir := written(t)
	if _, err := openStores(dir, testnet.ID(0), "wal", newFailure(), silentLogger()); err == nil || !strings.Contains(err.Error(), "setting") {
		t.Fatalf("got %v", err)
	}
}

func TestUnfinishedSnapshotsAreCleared(t *testing.T) {
	t.Parallel()
	c, _ := written(t)
	left := filepath.Join(c.root, string(testnet.ID(0)), snapshotDir, "1-2-3"+snapshotUnfinished)
	if err := os.MkdirAll(filepath.Join(left, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.openAgain(0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("still there: %v", err)
	}
}

func TestStoreIsLocked(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.form(1)
	if err := c.openAgain(0, false); !errors.Is(err, ErrStoreBusy) {
		t.Fatalf("got %v", err)
	}
}

func TestBootstrapOnce(t *testing.T) {
	t.Parallel()
	_, dir := written(t)
	if err := Bootstrap(dir, testnet.ID(0), ""); !errors.Is(err, ErrStoreExists) {
		t.Fatalf("got %v", err)
	}
}

func TestVoterWithAnOlderLogIsRefused(t *testing.T) {
	t.Parallel()
	c, dir := written(t)
	cfg := c.config(testnet.ID(0), (&testnet.Host{}).Link("raft"), &memMachine{index: 1000, seen: map[uint64]uint64{}})
	cfg.Dir = dir
	if _, err := New(cfg); !errors.Is(err, ErrStoreGone) {
		t.Fatalf("got %v", err)
	}
}

// TestASnapshotAheadOfTheLogIsNoLoss: a voter that was sent a state which holds an
// entry more than raft gave it, and that died before it was sent this entry, has
// lost nothing. One more entry would be a loss.
func TestASnapshotAheadOfTheLogIsNoLoss(t *testing.T) {
	t.Parallel()
	c, dir := written(t)
	open := func(applied uint64) (*Group, error) {
		cfg := c.config(testnet.ID(0), (&testnet.Host{}).Link("raft"), &memMachine{index: applied, seen: map[uint64]uint64{}})
		cfg.Dir = dir
		return New(cfg)
	}
	g, err := open(0)
	if err != nil {
		t.Fatal(err)
	}
	last := g.stores.last
	voters := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(testnet.ID(0)), Address: raft.ServerAddress(testnet.ID(0))}}}
	_, link := raft.NewInmemTransport("") // puts addresses into words
	sink, err := g.stores.snapshots.Create(raft.SnapshotVersionMax, last, 2, voters, 1, link)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.NewEncoder(sink).Encode(memState{Index: last + 1, Term: 2}), sink.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	if g, err := open(last + 1); err != nil {
		t.Fatalf("refused: %v", err)
	} else if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(last + 2); !errors.Is(err, ErrStoreGone) {
		t.Fatalf("got %v", err)
	}
}

func TestEmptyLogOnlyWhenJoining(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	if err := c.openAgain(3, false); !errors.Is(err, ErrStoreGone) {
		t.Fatalf("got %v", err)
	}
	if err := c.openAgain(3, true); err != nil {
		t.Fatal(err)
	}
}

func TestBlankStoreCastsNoVote(t *testing.T) {
	t.Parallel()
	s, err := openStores(filepath.Join(t.TempDir(), "raft"), testnet.ID(0), StoreBolt, newFailure(), silentLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.log.SetUint64([]byte(keyLastVoteTerm), 7); !errors.Is(err, errBlank) {
		t.Fatalf("blank store voted: %v", err)
	}
	if err := s.log.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.log.SetUint64([]byte(keyLastVoteTerm), 7); err != nil {
		t.Fatal(err)
	}
}

func TestSealedValues(t *testing.T) {
	t.Parallel()
	s, err := openStores(filepath.Join(t.TempDir(), "raft"), testnet.ID(0), StoreBolt, newFailure(), silentLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.log.Set([]byte("LastVoteCand"), []byte("somebody")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.log.Get([]byte("LastVoteCand")); err != nil || string(v) != "somebody" {
		t.Fatalf("%q %v", v, err)
	}
	if err := s.log.inner.Set([]byte("LastVoteCand"), []byte("somebodyxxxx")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log.Get([]byte("LastVoteCand")); !errors.Is(err, errSeal) {
		t.Fatalf("changed value was read: %v", err)
	}
	if _, err := s.log.GetUint64([]byte("nothing")); err == nil || err.Error() != "not found" {
		t.Fatalf("raft wants \"not found\", got %v", err)
	}
}

func TestRecentLogsAreBounded(t *testing.T) {
	t.Parallel()
	r := recentLogs{logs: map[uint64]raft.Log{}}
	for i := uint64(1); i <= 3*maxRecentLogs; i++ {
		r.add([]*raft.Log{{Index: i, Data: make([]byte, 10)}})
	}
	if len(r.logs) != maxRecentLogs || r.low != 2*maxRecentLogs+1 {
		t.Fatalf("%d entries from %d", len(r.logs), r.low)
	}
	r.add([]*raft.Log{{Index: r.high + 1, Data: make([]byte, maxRecentBytes)}})
	if len(r.logs) != 1 || r.bytes != maxRecentBytes {
		t.Fatalf("%d entries of %d bytes", len(r.logs), r.bytes)
	}
	r.add([]*raft.Log{{Index: 5}}) // a follower whose suffix was replaced
	if _, low := r.logs[5], r.low; low != 5 || len(r.logs) != 1 || r.bytes != 0 {
		t.Fatalf("low %d, %d entries, %d bytes", low, len(r.logs), r.bytes)
	}
	r.drop(1, 5)
	var l raft.Log
	if r.get(5, &l) {
		t.Fatal("dropped entry was given")
	}
}

// faultyStore fails or hangs when told to.
type faultyStore struct {
	logStore
	mu   sync.Mutex
	fail error
	hang chan struct{}
}

func (f *faultyStore) trouble() error {
	f.mu.Lock()
	fail, hang := f.fail, f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return fail
}

func (f *faultyStore) StoreLogs(logs []*raft.Log) error {
	if err := f.trouble(); err != nil {
		return err
	}
	return f.logStore.StoreLogs(logs)
}

func (f *faultyStore) Set(k, v []byte) error {
	if err := f.trouble(); err != nil {
		return err
	}
	return f.logStore.Set(k, v)
}

// makeFaulty puts a faultyStore under a group that is not running yet.
func makeFaulty(g *Group) *faultyStore {
	f := &faultyStore{logStore: g.stores.log.inner}
	g.stores.log.inner = f
	return f
}

func (f *faultyStore) set(fail error, hang chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.hang = fail, hang
}

// formFaulty is three voters with stores that can be made to fail.
func formFaulty(t *testing.T, conf func(*Config)) (*cluster, []*member, []*faultyStore) {
	c := newCluster(t, conf)
	var faults []*faultyStore
	c.opened = func(g *Group) { faults = append(faults, makeFaulty(g)) }
	all := c.form(3)
	c.mustDecide(1)
	c.agree([]uint64{1}, all...)
	return c, all, faults
}

var errIO = errors.New("input/output error")

func TestFailedWriteEndsAFollower(t *testing.T) {
	t.Parallel()
	c, all, faults := formFaulty(t, nil)
	faults[2].set(errIO, nil)
	c.mustDecide(2)
	c.forget(all[2])
	err := <-all[2].ended
	all[2].host.Kill()
	if !errors.Is(err, ErrStoreFailed) || !errors.Is(err, errIO) {
		t.Fatalf("Run ended with %v", err)
	}
	faults[2].set(nil, nil)
	if err := all[2].stores.log.StoreLog(&raft.Log{Index: 99}); !errors.Is(err, ErrStoreFailed) {
		t.Fatalf("store works again after a failure: %v", err)
	}
}

func TestFailedWriteEndsALeaderWithoutAnAck(t *testing.T) {
	t.Parallel()
	c, all, faults := formFaulty(t, nil)
	faults[0].set(errIO, nil)
	if out, err := all[0].Submit(t.Context(), batch(2)); err == nil {
		t.Fatalf("acknowledged %+v", out)
	} else if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeUnknownOutcome && f.Code != event.CodeNoLeader {
		t.Fatalf("got %v", err)
	}
	c.forget(all[0])
	if err := <-all[0].ended; !errors.Is(err, ErrStoreFailed) {
		t.Fatalf("Run ended with %v", err)
	}
	all[0].host.Kill()
	c.leader(all[1:]...)
	c.mustDecide(3)
}

// TestFailedTermDoesNotPanic: raft panics when it cannot save its term.
func TestFailedTermDoesNotPanic(t *testing.T) {
	t.Parallel()
	c, all, faults := formFaulty(t, nil)
	faults[1].set(errIO, nil)
	faults[2].set(errIO, nil)
	c.kill(all[0])
	for _, m := range all[1:] {
		select {
		case err := <-m.ended:
			if !errors.Is(err, ErrStoreFailed) {
				t.Fatalf("Run ended with %v", err)
			}
			c.forget(m)
			m.host.Kill()
			return // the other waits for votes that nobody casts
		case <-time.After(3 * time.Second):
		}
	}
	t.Fatal("no voter noticed that its term cannot be saved")
}

// TestHangingMachineMakesWayForAnotherLeader: the disk hangs in the machine's
// write, so that no write of the Raft log is under way.
func TestHangingMachineMakesWayForAnotherLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.Timings.Stall = 400 * time.Millisecond })
	all := c.form(3)
	c.mustDecide(1)
	hung := all[0]
	hung.machine.mu.Lock()
	t.Cleanup(hung.machine.mu.Unlock)
	go hung.Submit(t.Context(), batch(2))
	c.leader(all[1:]...)
	c.forget(hung)
	if err := <-hung.ended; !errors.Is(err, ErrStoreStalled) {
		t.Fatalf("Run ended with %v", err)
	}
	hung.host.Kill()
	c.mustDecide(3)
}

func TestHangingDiskMakesWayForAnotherLeader(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	c, all, faults := formFaulty(t, func(cfg *Config) { cfg.Timings.Stall = 400 * time.Millisecond })
	faults[0].set(nil, hang)
	go all[0].Submit(t.Context(), batch(2))
	began := time.Now()
	c.leader(all[1:]...)
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("a new leader took %s", took)
	}
	c.forget(all[0])
	if err := <-all[0].ended; !errors.Is(err, ErrStoreStalled) {
		t.Fatalf("Run ended with %v", err)
	}
	all[0].host.Kill()
	c.mustDecide(3)
}
