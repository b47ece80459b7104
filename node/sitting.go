package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/mesh/ident"
)

const (
	// askTimeout bounds how long a voter that starts looks for members that know of
	// a later epoch, and maxAsked how many it asks.
	askTimeout = 1500 * time.Millisecond
	maxAsked   = 64
	// lookAround is how often a seat is looked at without a sign of change.
	lookAround = 2 * time.Second
	// lostLog is how long a voter without a Raft log follows others before it says
	// that its log is gone: an admin may have withdrawn it meanwhile, which is the
	// cure, and its own copy is of before.
	lostLog = 5 * time.Second
	// freshWord is how old a leader's mark may be that is to say who votes.
	freshWord = 10 * time.Second
)

var (
	// errOutdated is why a group ends whose fleet was recovered without this node.
	errOutdated = errors.New("the fleet was recovered without this voter")
	// errUnsure: what the Raft log holds cannot be used, and this node's copy of the
	// log does not count it as a voter: only the leader can tell whether it is one.
	errUnsure = errors.New("not known whether this node votes")
)

// run takes and gives up the seat until ctx ends. An error ends the node: the
// log's disk has failed.
func (v *seat) run(ctx context.Context) error {
	changed, release := v.store.Subscribe()
	defer release()
	began, start := time.Now(), v.store.Cursor()
	if v.hasLog() {
		v.askAround(ctx)
	}
	for ctx.Err() == nil {
		later := v.epochs.next()
		if err := v.tidy(v.unsure.Load() && v.excluded(began)); err != nil {
			return err
		}
		if !v.hasLog() {
			v.unsure.Store(false)
		}
		if v.outdated() { // also when this node never sat: it must know after a restart
			if err := v.epochs.save(v.epochs.seatedIn()); err != nil {
				return err
			}
		}
		asking := v.me().Voter && !v.hasLog() && time.Since(began) < lostLog
		if (v.entitled() || v.hasLog()) && !v.outdated() && !v.unsure.Load() && !asking && v.informed(began, start) {
			err := v.sit(ctx, changed)
			switch {
			case errors.Is(err, errUnsure):
				v.log.Warn("this node may have been replaced while it was away; it asks before it votes", "err", err)
				v.unsure.Store(true)
			case err != nil:
				return err
			}
			continue
		}
		timer := time.NewTimer(lookAround)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-later:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// hasLog reports whether there is a Raft log on the disk.
func (v *seat) hasLog() bool {
	_, err := os.Stat(v.dir)
	return err == nil
}

// epoch counts how often the fleet was recovered, as far as this node knows: a
// copy that a power cut has set back may lack what its Raft log still holds.
func (v *seat) epoch() (n uint64) {
	v.store.View(func(s *fleet.State) { n = s.Recoveries() })
	if v.hasLog() {
		n = max(n, v.epochs.seatedIn())
	}
	return n
}

// informed reports whether what this node's copy says of its vote is of now. A
// node with a Raft log learns from that: see replaying. Without one, the copy may
// be old, or pass through the past while it is fetched, and who had a seat in the
// past would get one with a blank log: a voter that has forgotten its votes. The
// copy counts when it has reached what a leader said after began. Of the only
// voter nobody can say anything newer, if its copy has not changed since.
func (v *seat) informed(began time.Time, start event.Cursor) bool {
	if v.hasLog() {
		return true
	}
	m, age, ok := v.others.word()
	if !ok && v.store.Cursor() == start {
		return v.onlyVoter()
	}
	return ok && m.Leader != "" && age < freshWord && time.Since(began) > age && m.Epoch == v.epoch() && v.store.Cursor().Seq >= m.Seq
}

// onlyVoter: this node's copy of the log knows no other voter.
func (v *seat) onlyVoter() (only bool) {
	v.store.View(func(s *fleet.State) { only = slices.Equal(s.Voters(), []ident.NodeID{v.id}) })
	return only
}

// outdated reports whether somebody knows of a later epoch.
func (v *seat) outdated() bool {
	_, later := v.epochs.after(v.epoch())
	return later
}

// askAround says hello to members before this node may lead: hello tells of later
// epochs. Who cannot be reached in time is heard when it can.
func (v *seat) askAround(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, id := range v.others.known() {
		if i < maxAsked && id != v.id {
			wg.Go(func() { v.host.Greet(ctx, id) })
		}
	}
	wg.Wait()
	// Hello may have been said before anybody listened to what it tells.
	for _, id := range v.host.Connected() {
		if told, ok := v.host.Told(id); ok {
			v.epochs.hear(id, told.Epoch)
		}
	}
}

// tidy takes away a Raft log that is of no more use: one of an earlier epoch is
// put aside, since it may hold what the recovery lost; one of a voter that was
// removed (dismissed) is deleted, because what it voted for counts no more.
func (v *seat) tidy(dismissed bool) error {
	if me := v.me(); !v.hasLog() || me.ID == "" || me.Voter {
		return nil
	}
	if epoch := v.epoch(); v.epochs.seatedIn() < epoch {
		aside := fmt.Sprintf("%s.before-%d", v.dir, time.Now().Unix())
		if err := os.Rename(v.dir, aside); err != nil {
			return fmt.Errorf("put the Raft log of before the fleet's recovery aside: %w", err)
		}
		v.log.Warn("the fleet was recovered without this voter; its Raft log is put aside, delete it when you are sure", "files", aside)
		return v.epochs.save(epoch)
	}
	if !dismissed {
		return nil
	}
	v.log.Info("this node does not vote any more; its Raft log is deleted", "node", v.id)
	return os.RemoveAll(v.dir)
}

// excluded reports whether a leader said after that moment, and a moment ago,
// that this node does not vote.
func (v *seat) excluded(after time.Time) bool {
	m, age, ok := v.others.word()
	return ok && m.Leader != "" && age < freshWord && time.Since(after) > age && m.Epoch == v.epoch() && !slices.Contains(m.Voters, v.id)
}

// open makes the group.
func (v *seat) open(epoch uint64) (*raftgroup.Group, error) {
	votes := v.me().Voter
	g, err := raftgroup.New(raftgroup.Config{
		ID: v.id, Dir: v.dir, Store: raftlog.Kind(v.cfg.Store), Link: v, Welcome: v.welcome,
		Machine: v.store, Joining: !votes && !v.lostCopy(), Epoch: epoch, Now: v.clock.now, Log: v.log,
		Timings: raftgroup.Timings{Election: v.cfg.Election, Lease: v.cfg.Lease, Beat: v.cfg.Beat, Commit: v.cfg.Commit},
	})
	if errors.Is(err, raftlog.ErrGone) && !votes && !v.lostCopy() {
		return nil, fmt.Errorf("%w: %w", errUnsure, err)
	}
	return g, err
}

// sit runs a group for as long as the node is entitled to one.
func (v *seat) sit(ctx context.Context, changed <-chan struct{}) error {
	epoch := v.epoch()
	if v.hasLog() && !v.me().Voter && v.epochs.seatedIn() < epoch {
		return nil // the recovery was heard of only now: see tidy
	}
	if err := v.epochs.save(epoch); err != nil {
		return err
	}
	g, err := v.open(epoch)
	if err != nil {
		return err
	}
	v.log.Info("took a seat among the voters", "node", v.id)
	ctx, stop := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	v.put(g)
	defer v.put(nil)
	ticker := time.NewTicker(lookAround)
	defer ticker.Stop()
	for looked := false; ; {
		status, later := g.Changed(), v.epochs.next()
		if o := g.Status().Outdated; o > 0 {
			v.epochs.hear("", o)
		}
		why := v.over(epoch)
		if why == nil && looked && v.dismissed() {
			why = errDismissed
		}
		if why != nil {
			if errors.Is(why, errOutdated) {
				stop(why) // which is no reason to hand over
			}
			stop(nil)
			return errors.Join(<-ended, v.vacate(why, epoch))
		}
		looked = false
		select {
		case err := <-ended:
			stop(nil)
			return err
		case <-status:
			v.turn()
		case <-changed:
		case <-later:
		case <-ticker.C:
			looked = true
		}
	}
}

var (
	errNotEntitled = errors.New("not a voter any more")
	errDismissed   = errors.New("removed from the voters while it was away")
)

// over is why this node must give up its seat, nil if it may stay.
func (v *seat) over(epoch uint64) error {
	switch {
	case v.outdated(), v.epoch() > epoch:
		return errOutdated
	case !v.entitled() && !v.replaying():
		return errNotEntitled
	}
	return nil
}

// replaying: this node's copy is behind its own Raft log, as after a power cut,
// and so shows the past. It may be one in which the node did not vote yet, and a
// voter that took it for its removal would throw away what it acknowledged.
func (v *seat) replaying() bool {
	s, ok := v.status()
	index, _ := v.store.Applied()
	return !ok || s.State == raftgroup.Stopped || s.Member(v.id) && index < s.LastIndex
}

// dismissed: the leader removed this node while it was away. Its own Raft log
// still counts it, so it would stand for election for ever, and be refused.
func (v *seat) dismissed() bool {
	s, ok := v.status()
	since := v.sitsSince()
	return ok && s.Member(v.id) && unheard(s, since, recentContact) && !v.me().Voter && v.excluded(since)
}

// vacate is the end of a seat that was given up.
func (v *seat) vacate(why error, epoch uint64) error {
	if errors.Is(why, errOutdated) {
		by, _ := v.epochs.after(v.epoch())
		v.log.Warn("the fleet was recovered or restored without this voter; it gives up its seat and follows", "toldBy", by)
		return v.epochs.save(epoch)
	}
	v.log.Info("gave up the seat among the voters", "node", v.id, "reason", why)
	return os.RemoveAll(v.dir)
}
