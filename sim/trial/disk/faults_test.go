package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// failover is how soon somebody else must lead when the leader's disk fails.
	failover = 10 * time.Second
	// frozen is how long the leader's disk hangs.
	frozen = 30 * time.Second
	// caughtUp is how soon a voter that was away holds what it missed: Raft asks
	// one that did not answer only every ten seconds or so.
	caughtUp = time.Minute
	// fullLeave is what is left on a full disk: less than the reserve.
	fullLeave = 16 << 20
)

// TestFailingDisks is one fleet under load to whose disks everything happens,
// one after another. After each fault all is acknowledged, held by all, and the
// same. About 65 s, of which a frozen disk takes 30.
func TestFailingDisks(t *testing.T) {
	t.Parallel()
	h := build(t, rig.Skein(t), 3, 1, "bolt")
	load := h.StartLoad("load", 4)
	checked := uint64(0)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *house, *trial.Load)
	}{
		{"an fsync of a follower fails", failedSync},
		{"fsync is slow", slowSync},
		{"the leader's disk is full", fullLeader},
		{"all disks are full", fullVoters},
		{"a follower's disk is full to the last block", fullToTheLast},
		{"the leader's disk turns read-only", readOnlyLeader},
		{"the leader's disk hangs", frozenLeader},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			load.Await(10, settle)
			c.run(t, h.in(t), load)
			checked = h.in(t).whole(load, checked)
		})
		if !ok {
			return // the fleet is not what the next one expects
		}
	}
	h.whole(load, 0)
	for what, n := range load.Strange() {
		t.Errorf("%d times: %s", n, what)
	}
	t.Log(load)
}

// whole checks that everything is as if nothing had happened: every node runs,
// holds all that was acknowledged after since, and has the same state. It returns
// the last event.
func (h *house) whole(load *trial.Load, since uint64) (agreed uint64) {
	h.t.Helper()
	h.back(load)
	for _, r := range h.Robots {
		if r.Process.Ended() {
			h.t.Fatalf("%s has ended: %s", r.Name, lastWords(r))
		}
	}
	load.Paused(func() {
		start := time.Now()
		h.AwaitHeld(h.Robots, load.Acks(), since, caughtUp)
		held := time.Since(start)
		agreed = h.AwaitAgreement(h.Robots, settle).Seq
		h.t.Logf("all hold all %v after the last change, and agree after %v", held.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	})
	return agreed
}

// others are the voters but for these.
func (h *house) others(not ...*trial.Robot) []*trial.Robot {
	return slices.DeleteFunc(slices.Clone(h.voters), func(r *trial.Robot) bool { return slices.Contains(not, r) })
}

// ended waits until a node has ended by itself, with exit code 1, one line that
// says what to do, and each of words in it.
func (h *house) ended(r *trial.Robot, limit time.Duration, words ...string) {
	h.t.Helper()
	select {
	case <-r.Process.Done():
	case <-time.After(limit):
		h.t.Fatalf("%s has not ended after %v", r.Name, limit)
	}
	said := lastWords(r)
	if code := r.Process.ExitCode(); code != 1 || !strings.Contains(said, "; ") {
		h.t.Errorf("%s ended with exit code %d, saying %q; want 1 and what to do", r.Name, code, said)
	}
	for _, word := range words {
		if !strings.Contains(said, word) {
			h.t.Errorf("%s does not say %q: %s", r.Name, word, said)
		}
	}
}

// newLeader waits until somebody else leads, by the word of the others, and
// changes are acknowledged.
func (h *house) newLeader(old *trial.Robot, load *trial.Load) {
	h.t.Helper()
	var now string
	took := rig.Wait(h.t, failover, "somebody else leads than "+old.Name, func() error {
		for _, r := range h.others(old) {
			ctx, cancel := context.WithTimeout(h.t.Context(), time.Second)
			header, err := h.Face(r).Fleet(ctx)
			cancel()
			switch {
			case err != nil:
				return fmt.Errorf("%s: %w", r.Name, err)
			case header.Leader == nil || header.Leader.Name == old.Name:
				return fmt.Errorf("%s sees the leader %v", r.Name, header.Leader)
			}
			now = header.Leader.Name
		}
		return nil
	})
	h.t.Logf("%s leads instead of %s after %v, and decides after %v more", now, old.Name, took.Round(10*time.Millisecond), load.Await(1, failover-took).Round(10*time.Millisecond))
}

// failedSync: with one voter away, whatever is acknowledged is on the disk of
// the one whose fsync fails. It ends, and after the power was cut it still has
// all that: it said yes to nothing that it could not sync.
func failedSync(t *testing.T, h *house, load *trial.Load) {
	leader := h.Leader()
	rest := h.others(leader)
	victim, away := rest[0], rest[1]
	away.Kill()
	load.Await(10, settle)
	injection := victim.Process.Inject("fsync,fdatasync:error=EIO:when=1")
	h.ended(victim, settle, "input/output error")
	injection.Stop()
	if injection.Hits() == 0 {
		t.Errorf("no fsync failed:\n%s", injection.Trace())
	}
	alone := time.Now()
	h.lan.PowerCut(victim.Host, leader.Host)
	for _, a := range load.Acks() {
		if a.Sent.After(alone) {
			t.Errorf("event %d was acknowledged by one voter of three", a.First)
		}
	}
	h.lan.PowerOn(victim.Host, leader.Host)
	victim.Boot()
	away.Boot() // it lacks what happened since it was killed
	load.Await(1, settle)
	load.Paused(func() { h.AwaitHeld([]*trial.Robot{victim, away}, load.Acks(), 0, settle) })
	leader.Boot()
}

// slowSync: a disk that needs 100 ms for an fsync makes things slow, not wrong.
func slowSync(t *testing.T, h *house, load *trial.Load) {
	var straces []*rig.Injection
	for _, r := range h.voters {
		straces = append(straces, r.Process.Inject("fsync,fdatasync:delay_enter=100000"))
	}
	took := load.Await(10, settle)
	delayed := 0
	for _, i := range straces {
		i.Stop()
		delayed += i.Hits()
	}
	if delayed == 0 {
		t.Errorf("no fsync was slow:\n%s", straces[0].Trace())
	}
	t.Logf("10 changes in %v, %d calls delayed", took, delayed)
}

// fullLeader: a leader without room hands over to a voter that has some.
func fullLeader(t *testing.T, h *house, load *trial.Load) {
	leader := h.Leader()
	h.disks[leader].Fill(fullLeave)
	h.newLeader(leader, load)
	load.Await(10, settle)
	h.disks[leader].Empty()
}

// fullVoters: nothing is decided, whoever asks is told why, and all goes on by
// itself when there is space. What was stored before may still be answered.
func fullVoters(t *testing.T, h *house, load *trial.Load) {
	for _, r := range h.voters {
		h.disks[r].Fill(fullLeave)
	}
	full := time.Now()
	c := h.Face(h.Robots[3])
	rig.Wait(t, settle, "a change is refused for want of space", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Propose(ctx, event.GroupCreated{}.Draft("full"))
		problem, answered := errors.AsType[*view.Problem](err)
		if !answered || problem.Code != string(event.CodeBusy) || !strings.Contains(problem.Error(), "free space") {
			return fmt.Errorf("the answer is %w", errors.Join(err, rig.ErrNotYet))
		}
		return nil
	})
	trial.Pass(t, 3*time.Second)
	for _, r := range h.voters {
		if raft, err := h.Face(r).Raft(t.Context()); err != nil || !raft.NoSpace {
			t.Errorf("%s does not show that its disk is full: %+v %v", r.Name, raft, err)
		}
	}
	space := time.Now()
	for _, r := range h.voters {
		h.disks[r].Empty()
	}
	t.Logf("goes on after %v", load.Await(1, settle))
	log, err := trial.Log(t.Context(), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log {
		if e.Time.After(full.Add(time.Millisecond)) && e.Time.Before(space) {
			t.Errorf("event %d (%s %s) was decided at %v, all disks were full from %v to %v", e.Seq, e.Stream, e.Type, e.Time, full, space)
		}
	}
}

// fullToTheLast: somebody else has taken even the reserve. The voter may end,
// saying why; the others go on, and it is back when there is space.
func fullToTheLast(t *testing.T, h *house, load *trial.Load) {
	victim := h.others(h.Leader())[0]
	h.disks[victim].Fill(0)
	load.Await(10, settle)
	trial.Pass(t, time.Second)
	if victim.Process.Ended() {
		h.ended(victim, settle, "no space left")
	}
	h.disks[victim].Empty()
	if victim.Process.Ended() {
		victim.Boot()
	}
}

// readOnlyLeader: the kernel has found an error and takes no more writes.
func readOnlyLeader(t *testing.T, h *house, load *trial.Load) {
	leader := h.Leader()
	h.disks[leader].Break()
	h.newLeader(leader, load)
	h.ended(leader, settle, "read-only")
	h.disks[leader].Remount()
	leader.Boot()
}

// frozenLeader: the disk takes writes and does not answer. Who hangs in there
// cannot even be killed, so what is seen of its end comes with the thaw.
func frozenLeader(t *testing.T, h *house, load *trial.Load) {
	leader := h.Leader()
	h.disks[leader].Freeze()
	start := time.Now()
	h.newLeader(leader, load)
	load.Await(20, settle) // each writer asks the hung one too, and waits in vain
	trial.Pass(t, frozen-time.Since(start))
	h.disks[leader].Thaw()
	h.ended(leader, 5*time.Second, "hangs")
	leader.Boot()
}
