package raftgroup

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/raftlog"
	"skein/mesh/ident"
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
// the directory.
func written(t *testing.T) string {
	t.Helper()
	c := newCluster(t, nil)
	m := c.form(1)[0]
	c.mustDecide(1, 2, 3, 4, 5)
	c.kill(m)
	return m.dir
}

func TestBootstrapOnce(t *testing.T) {
	t.Parallel()
	dir := written(t)
	if err := Bootstrap(dir, testnet.ID(0), ""); !errors.Is(err, ErrStoreExists) {
		t.Fatalf("got %v", err)
	}
}

func TestVoterWithAnOlderLogIsRefused(t *testing.T) {
	t.Parallel()
	c, dir := newCluster(t, nil), written(t)
	cfg := c.config(testnet.ID(0), (&testnet.Host{}).Link("raft"), &memMachine{index: 1000, seen: map[uint64]uint64{}})
	cfg.Dir = dir
	if _, err := New(cfg); !errors.Is(err, raftlog.ErrGone) {
		t.Fatalf("got %v", err)
	}
}

// TestASnapshotAheadOfTheLogIsNoLoss: a voter that was sent a state which holds an
// entry more than raft gave it, and that died before it was sent this entry, has
// lost nothing. One more entry would be a loss.
func TestASnapshotAheadOfTheLogIsNoLoss(t *testing.T) {
	t.Parallel()
	c, dir := newCluster(t, nil), written(t)
	open := func(applied uint64) (*Group, error) {
		cfg := c.config(testnet.ID(0), (&testnet.Host{}).Link("raft"), &memMachine{index: applied, seen: map[uint64]uint64{}})
		cfg.Dir = dir
		return New(cfg)
	}
	g, err := open(0)
	if err != nil {
		t.Fatal(err)
	}
	last, err := g.disk.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	_, link := raft.NewInmemTransport("") // puts addresses into words
	sink, err := g.disk.Snapshots().Create(raft.SnapshotVersionMax, last, 2, alone(testnet.ID(0)), 1, link)
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
	if _, err := open(last + 2); !errors.Is(err, raftlog.ErrGone) {
		t.Fatalf("got %v", err)
	}
}

func TestEmptyLogOnlyWhenJoining(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	if err := c.openAgain(3, false); !errors.Is(err, raftlog.ErrGone) {
		t.Fatalf("got %v", err)
	}
	if err := c.openAgain(3, true); err != nil {
		t.Fatal(err)
	}
}

// TestConvertedVoterGoesOn with what it had, against the others.
func TestConvertedVoterGoesOn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	c.mustDecide(1, 2, 3)
	for i, m := range all {
		c.kill(m)
		c.mustDecide(uint64(10 + i))
		if err := raftlog.Convert(m.dir, m.id, raftlog.WAL); err != nil {
			t.Fatal(err)
		}
		c.conf = func(cfg *Config) {
			if kind, err := raftlog.KindOf(cfg.Dir); err == nil {
				cfg.Store = kind
			}
		}
		c.start(i)
		c.leader(c.all()...)
	}
	c.mustDecide(20)
	c.agree([]uint64{1, 2, 3, 10, 11, 12, 20}, c.all()...)
}

// faultyFiles fails or hangs when told to.
type faultyFiles struct {
	raftlog.Files
	mu   sync.Mutex
	fail error
	hang chan struct{}
}

func (f *faultyFiles) trouble() error {
	f.mu.Lock()
	fail, hang := f.fail, f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return fail
}

func (f *faultyFiles) StoreLogs(logs []*raft.Log) error {
	if err := f.trouble(); err != nil {
		return err
	}
	return f.Files.StoreLogs(logs)
}

func (f *faultyFiles) Set(k, v []byte) error {
	if err := f.trouble(); err != nil {
		return err
	}
	return f.Files.Set(k, v)
}

func (f *faultyFiles) set(fail error, hang chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.hang = fail, hang
}

// formFaulty is three voters with files that can be made to fail.
func formFaulty(t *testing.T, conf func(*Config)) (*cluster, []*member, []*faultyFiles) {
	c := newCluster(t, conf)
	var faults []*faultyFiles
	c.disk = func(_ ident.NodeID, disk *raftlog.Config) {
		disk.Between = func(files raftlog.Files) raftlog.Files {
			faults = append(faults, &faultyFiles{Files: files})
			return faults[len(faults)-1]
		}
	}
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
	if !errors.Is(err, raftlog.ErrFailed) || !errors.Is(err, errIO) {
		t.Fatalf("Run ended with %v", err)
	}
	faults[2].set(nil, nil)
	if err := all[2].disk.StoreLog(&raft.Log{Index: 99}); !errors.Is(err, raftlog.ErrFailed) {
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
	if err := <-all[0].ended; !errors.Is(err, raftlog.ErrFailed) {
		t.Fatalf("Run ended with %v", err)
	}
	all[0].host.Kill()
	c.leader(all[1:]...)
	c.mustDecide(3)
}

// wornFiles can read an entry so many times and not again.
type wornFiles struct {
	raftlog.Files
	times int
	mu    sync.Mutex
	reads map[uint64]int
}

func (w *wornFiles) GetLog(index uint64, l *raft.Log) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reads[index]++; w.reads[index] > w.times {
		return errIO
	}
	return w.Files.GetLog(index, l)
}

// TestUnreadableLogEndsTheNode: raft panics when it cannot read an entry, when it
// begins and when it gives it to the machine. Opening the log reads it once, the
// beginning twice.
func TestUnreadableLogEndsTheNode(t *testing.T) {
	t.Parallel()
	for what, times := range map[string]int{"when raft begins": 1, "when it is applied": 2} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, all, _ := formFaulty(t, nil)
			c.kill(all[2])
			c.disk = func(_ ident.NodeID, disk *raftlog.Config) {
				disk.Between = func(f raftlog.Files) raftlog.Files {
					return &wornFiles{Files: f, times: times, reads: map[uint64]int{}}
				}
			}
			again := c.start(2)
			if err := <-again.ended; !errors.Is(err, ErrUnreadable) || !errors.Is(err, errIO) || !strings.Contains(err.Error(), "check or replace the disk") {
				t.Fatalf("Run ended with %v", err)
			}
			c.forget(again)
			again.host.Kill()
			c.mustDecide(2)
		})
	}
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
			if !errors.Is(err, raftlog.ErrFailed) {
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
