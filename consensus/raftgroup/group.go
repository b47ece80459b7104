package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skein/consensus/raftlog"
	"skein/mesh/ident"
)

const (
	// handOverTimeout bounds how long a leader that stops looks for a successor.
	handOverTimeout = time.Second
	// drainTimeout bounds how long entries under way are waited for at the end.
	drainTimeout = 300 * time.Millisecond
	// shutdownTimeout bounds the wait for raft's goroutines, one of which may
	// hang in a disk that does not answer.
	shutdownTimeout = 2 * time.Second
	// maxEntriesPerAppend bounds one message to a follower to 16 entries, which
	// are at most 16 MiB and mostly far less.
	maxEntriesPerAppend = 16
	// apart is by how much followers stand for election one after another: enough
	// to ask for votes and to write them to a slow disk.
	apart = 40 * time.Millisecond
	// heartbeatsPerTimeout is raft's own: it sends a heartbeat after a tenth to
	// a fifth of its HeartbeatTimeout.
	heartbeatsPerTimeout = 10
)

// Group is this node's seat among the voters.
type Group struct {
	cfg     Config
	hlog    hclog.Logger
	disk    *raftlog.Log
	failure *failure
	streams *streams
	queue   *queue
	teller  *teller
	// raft is nil until Run.
	raft      atomic.Pointer[raft.Raft]
	transport atomic.Pointer[transport]
	// readyTerm is the term in which this node leads and has applied all that
	// was decided before; 0 when it does not.
	readyTerm atomic.Uint64
	news      news
	lease     lease
	backlog   *backlog
	// pacing guards raft's reloadable timings.
	pacing sync.Mutex
	slots  slots
}

// slots are places to take.
type slots struct {
	// changing holds a token while somebody changes the configuration, asking
	// one for each question to raft or a voter that is under way.
	changing, asking chan struct{}
}

// maxAsking bounds questions that cannot be cancelled.
const maxAsking = 64

// New opens and checks the log in cfg.Dir and brings the Machine up to raft's
// own snapshot if that is newer. It refuses with raftlog.ErrGone, ErrDamaged,
// ErrForeign or ErrBusy, each with what to do. Run closes what New opened; call
// Close when Run will not be called.
func New(cfg Config) (*Group, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return open(cfg, cfg.disk())
}

// open is New with a disk that a test may have changed.
func open(cfg Config, disk raftlog.Config) (_ *Group, err error) {
	g := &Group{cfg: cfg, hlog: newRaftLogger(cfg.Log), failure: newFailure(), queue: newQueue(), teller: newTeller(),
		backlog: newBacklog(), slots: slots{make(chan struct{}, 1), make(chan struct{}, maxAsking)}}
	g.news.init()
	disk.Logger = g.hlog
	disk.Hooks = raftlog.Hooks{MayWrite: g.failure.silent, MayVote: g.lease.mayVote, Hold: g.holdBack, Failed: g.failure.set}
	if g.disk, err = raftlog.Open(disk); err != nil {
		return nil, err
	}
	if err := g.reconcile(); err != nil {
		return nil, errors.Join(err, g.disk.Close())
	}
	g.streams = newStreams(cfg, g.failure)
	g.streams.room, g.streams.outdated = g.hasRoom, g.outdated
	return g, nil
}

// reconcile compares the log with what the Machine holds.
func (g *Group) reconcile() error {
	index, _ := g.cfg.Machine.Applied()
	if err := g.disk.Check(index, g.cfg.Joining, g.snapshotIndex); err != nil {
		return err
	}
	g.backlog.applied.Store(g.disk.SnapshotIndex()) // where raft begins to give entries to the machine
	return g.disk.Restore(index, g.cfg.Machine.Restore)
}

// snapshotIndex is the last entry in the newest snapshot, which is content. That of
// Recover holds none.
func (g *Group) snapshotIndex(content io.Reader) (uint64, error) {
	if unfinished(g.disk.Snapshots()) {
		return 0, nil
	}
	return g.cfg.Machine.SnapshotIndex(content)
}

// Close gives the directory back when Run was not called.
func (g *Group) Close() error { return g.disk.Close() }

// Handle serves a stream that another voter opened, until it ends. It closes conn.
func (g *Group) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	defer conn.Close()
	if g.cfg.Welcome != nil {
		if err := g.cfg.Welcome(remote); err != nil {
			g.cfg.Log.Debug("raft stream refused", "remote", remote, "error", err)
			return
		}
	}
	if err := g.streams.serve(ctx, conn, remote); err != nil && ctx.Err() == nil {
		g.cfg.Log.Debug("raft stream not served", "remote", remote, "error", err)
	}
}

// Run takes part in the group until ctx ends (nil) or the group must end (why:
// raftlog.ErrFailed, ErrUnreadable, ErrStoreStalled or ErrMachine; the process should
// then end too). A leader whose ctx was cancelled without a special cause hands over
// before it goes. Run is called once.
func (g *Group) Run(ctx context.Context) error {
	tr := newTransport(g.streams, g.cfg.Timings.RPC, g.hlog)
	g.lease.promise(g.cfg.Timings.Election)
	r, err := g.newRaft(tr)
	if err != nil {
		return errors.Join(fmt.Errorf("start raft in %s: %w", g.cfg.Dir, err), tr.Close(), g.disk.Close())
	}
	r.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.PeerObservation:
			g.news.tell()
		}
		return false
	}))
	g.transport.Store(tr)
	g.raft.Store(r)
	g.news.tell()
	go tr.sift(r, g.disk)
	w := g.start(ctx, r)
	select {
	case <-ctx.Done():
	case <-g.failure.done:
	}
	switch failed := g.failure.get(); {
	case failed != nil:
		g.news.tell() // who leads no more here is told at once
		if g.failure.silent() == nil {
			g.handOver(r)
		}
		g.failure.set(failed)
	case errors.Is(context.Cause(ctx), context.Canceled):
		g.handOver(r)
	}
	return g.end(r, w)
}

// newRaft begins raft, in a goroutine that logForRaft may end.
func (g *Group) newRaft(tr raft.Transport) (r *raft.Raft, err error) {
	returned, ended := false, make(chan struct{})
	go func() {
		defer close(ended)
		r, err = raft.NewRaft(g.raftConfig(), &fsm{g.cfg.Machine, g.failure, g.backlog, g.news.tell},
			logForRaft{g.disk, g.failure}, g.disk, g.disk.Snapshots(), tr)
		returned = true
	}()
	if <-ended; !returned {
		return nil, g.failure.get()
	}
	return r, err
}

// raftConfig is raft's configuration as a follower: see lead for the leader's.
func (g *Group) raftConfig() *raft.Config {
	t, c := g.cfg.Timings, raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.cfg.ID)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = t.Election, t.Election, t.Lease
	c.CommitTimeout = t.Commit
	c.MaxAppendEntries = maxEntriesPerAppend
	c.ShutdownOnRemove = false
	c.SnapshotInterval = rareTimer // see compact
	c.SnapshotThreshold = math.MaxUint64
	c.TrailingLogs = g.cfg.Compaction.Keep
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	c.Logger = g.hlog
	return c
}

// workers are the group's own goroutines.
type workers struct {
	stopFeeding, stopRest context.CancelFunc
	delivered             chan struct{}
	all                   sync.WaitGroup
}

func (g *Group) start(ctx context.Context, r *raft.Raft) *workers {
	base := context.WithoutCancel(ctx)
	feedCtx, stopFeeding := context.WithCancel(base)
	restCtx, stopRest := context.WithCancel(base)
	w := &workers{stopFeeding: stopFeeding, stopRest: stopRest, delivered: make(chan struct{})}
	underWay := make(chan sent) // unbuffered: one entry waits here, one in deliver
	w.all.Go(func() { g.coalesce(feedCtx, r, underWay) })
	w.all.Go(func() { defer close(w.delivered); g.deliver(restCtx, underWay) })
	w.all.Go(func() { g.watchLeadership(restCtx, r) })
	w.all.Go(func() { g.watchLeader(restCtx, r) })
	w.all.Go(func() { g.tell(restCtx, r) })
	w.all.Go(func() { g.watchDisk(restCtx) })
	w.all.Go(func() { g.watchRoom(restCtx) })
	w.all.Go(func() { g.compact(restCtx, r) })
	return w
}

// drain lets no new entry begin and waits a little for those under way: raft
// forgets to answer for an entry that is committed while it shuts down.
func (w *workers) drain() {
	w.stopFeeding()
	select {
	case <-w.delivered:
	case <-time.After(drainTimeout):
	}
}

// end stops everything and closes the disk, unless the disk hangs.
func (g *Group) end(r *raft.Raft, w *workers) error {
	if g.failure.get() != nil {
		g.streams.Close()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.drain()
		close(g.backlog.stopping)
		down := r.Shutdown()
		g.streams.Close()
		g.transport.Load().CloseStreams()
		w.stopRest()
		settleAll(g.queue.shut(), noLeader())
		w.all.Wait()
		down.Error()
	}()
	select {
	case <-stopped:
	case <-time.After(drainTimeout + shutdownTimeout):
		g.news.tell()
		return errors.Join(g.failure.get(), fmt.Errorf("raft in %s did not stop within %s; the process must end", g.cfg.Dir, shutdownTimeout))
	}
	g.readyTerm.Store(0)
	g.news.tell()
	return errors.Join(g.failure.get(), g.disk.Close())
}

// handOver gives leadership away so that the fleet need not notice the stop.
func (g *Group) handOver(r *raft.Raft) {
	if r.State() != raft.Leader || len(g.Status().Voters) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	if err := g.Transfer(ctx, ""); err != nil {
		g.cfg.Log.Info("leadership was not handed over", "error", err)
	}
}

// watchLeadership follows raft's view of whether this node leads.
func (g *Group) watchLeadership(ctx context.Context, r *raft.Raft) {
	for {
		select {
		case <-ctx.Done():
			return
		case leads := <-r.LeaderCh():
			g.readyTerm.Store(0)
			g.pace(r, leads)
			if leads {
				g.lead(ctx, r)
			} else {
				g.cfg.Log.Info("no longer leading", "term", r.CurrentTerm())
			}
		}
	}
}

// pace sets how often this node sends heartbeats if it leads, and how long it
// waits for them if it follows. Raft couples the two: it sends ten heartbeats a
// timeout, three times what is needed and all that an idle voter costs. So the
// leader runs with a longer timeout of its own, which only slows its heartbeats.
func (g *Group) pace(r *raft.Raft, leads bool) {
	g.pacing.Lock()
	defer g.pacing.Unlock()
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = g.cfg.Timings.Election, g.cfg.Timings.Election
	if leads {
		c.HeartbeatTimeout = max(c.HeartbeatTimeout, g.cfg.Timings.Beat*heartbeatsPerTimeout)
		c.ElectionTimeout = c.HeartbeatTimeout
	}
	if err := r.ReloadConfig(c); err != nil {
		g.cfg.Log.Error("raft timings not changed", "leads", leads, "error", err)
	}
}

// watchLeader makes a follower notice a silent leader after Election. Raft on its
// own looks only when a timer of one to two timeouts happens to run out, and so
// notices after one to three; and as nobody votes while he knows a leader, the
// slowest of the majority counts. Noticing in time lets the timeout itself be
// long enough for one lost packet on a bad link.
//
// Followers that last heard the same entry would all stand at the same moment
// and split the vote, so each has its own place in the order of ids.
func (g *Group) watchLeader(ctx context.Context, r *raft.Raft) {
	for {
		patience := g.cfg.Timings.Election + time.Duration(g.place(r))*apart
		wait := patience
		if last := r.LastContact(); r.State() == raft.Follower && !last.IsZero() {
			if wait -= time.Since(last); wait <= 0 {
				g.lookNow(r)
				wait = patience
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// place counts the voters before this one, without the leader.
func (g *Group) place(r *raft.Raft) (n int) {
	_, leader := r.LeaderWithID()
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID < raft.ServerID(g.cfg.ID) && s.ID != leader {
			n++
		}
	}
	return n
}

// lookNow makes raft compare the last contact with its timeout at once, which it
// does whenever the timeout is lowered.
func (g *Group) lookNow(r *raft.Raft) {
	g.pacing.Lock()
	defer g.pacing.Unlock()
	c := r.ReloadableConfig()
	if r.State() != raft.Follower || c.HeartbeatTimeout != g.cfg.Timings.Election {
		return
	}
	lower := c
	lower.HeartbeatTimeout--
	if err := errors.Join(r.ReloadConfig(lower), r.ReloadConfig(c)); err != nil {
		g.cfg.Log.Error("raft not made to look for its leader", "error", err)
	}
}

// lead waits until everything decided in earlier terms is applied here. Only
// then do the leader's controllers see the newest state.
func (g *Group) lead(ctx context.Context, r *raft.Raft) {
	term := r.CurrentTerm()
	g.cfg.Log.Info("leading", "term", term)
	if err := await(ctx, g.slots.asking, func() error { return r.Barrier(enqueueTimeout).Error() }); err != nil {
		g.cfg.Log.Info("leadership lost before it began", "term", term, "error", err)
		return
	}
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return
	}
	if unfinished(g.disk.Snapshots()) {
		// The log begins with a snapshot that holds nothing: see Recover.
		if err := await(ctx, g.slots.asking, func() error { return r.Snapshot().Error() }); err != nil {
			g.failure.set(fmt.Errorf("finish the recovery of the raft log in %s: %w", g.cfg.Dir, err))
			return
		}
	}
	g.readyTerm.Store(term)
	// What earlier leaders committed, followers may not have heard of. The last
	// committed entry is of this term: the barrier or one after it.
	g.tellLater(committed{term: term, index: r.CommitIndex(), entryTerm: term})
	g.news.tell()
}

// watchDisk ends the group when one write takes too long. A leader whose disk
// hangs would otherwise stay leader: its heartbeats need no disk.
func (g *Group) watchDisk(ctx context.Context) {
	ticker := time.NewTicker(g.cfg.Timings.Stall / 8)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if took := max(g.disk.StalledFor(), g.backlog.stalledFor()); took > g.cfg.Timings.Stall {
			g.failure.set(fmt.Errorf("%w: a write in %s, or beside it, takes longer than %s; check the disk and start again, another voter leads meanwhile",
				ErrStoreStalled, g.cfg.Dir, g.cfg.Timings.Stall))
			return
		}
	}
}
