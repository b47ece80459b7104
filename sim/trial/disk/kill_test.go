package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// bulkBytes of events make a voter write a checkpoint, cut its Raft log and
	// begin new segments of its history.
	bulkBytes = 34 << 20
	// compacted is how soon a voter has cut its Raft log then.
	compacted = 60 * time.Second
	// lifetime is the most that a node on which a kill waits lives.
	lifetime = 1500 * time.Millisecond
)

// deaths are the system calls at which a node is killed, each with how often a
// thread makes it at least before the node is caught up.
var deaths = []struct {
	calls string
	most  int
}{
	{"fsync,fdatasync", 8},
	{"pwrite64", 12},
	{"write", 60},
	{"ftruncate,fallocate", 2},
	{"renameat", 4},
	{"unlinkat", 2},
	{"openat", 20},
}

// TestKilledAtAnyMoment kills nodes at random and at single system calls, while
// they start, apply, write checkpoints and snapshots and cut their logs, and
// while one that was away is sent a snapshot. No copy of the log ever goes back,
// and nothing acknowledged is lost. About 25 s.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	draw := trial.Lots(t)
	h := build(t, rig.Skein(t), 3, 1, "bolt")
	away := h.others(h.Leader())[0]
	away.Kill()
	floor := bulk(t, h, h.Robots[3])
	load := h.StartLoad("load", 6)
	alive := append(h.others(away), h.Robots[3])
	start := time.Now()
	kills := 0
	for ; kills < trial.Soak(8, 300) || !h.snapshots(h.others(away)); kills++ {
		if kills >= trial.Soak(8, 300) && time.Since(start) > compacted {
			t.Fatalf("after %v not every voter has cut its Raft log", compacted)
		}
		h.kill(alive[draw.IntN(len(alive))], draw)
		load.Await(5, settle)
		h.sound(load)
	}
	t.Logf("%d kills in %v; %v", kills, time.Since(start).Round(time.Second), load)
	installed, rounds := 0, trial.Soak(1, 20)
	for round := 0; installed < rounds; round++ {
		if round == 3*rounds {
			t.Fatalf("in %d rounds only %d snapshots were installed", round, installed)
		}
		if round > 0 {
			away.Kill()
			floor = bulk(t, h, h.Robots[3])
		}
		t.Run("while a snapshot is installed", func(t *testing.T) {
			if h.in(t).installs(load, away, draw) {
				installed++
			}
		})
	}
	h.back(load)
	load.Paused(func() {
		h.AwaitAgreement(h.Robots, settle)
		h.AwaitHeld(h.others(away), load.Acks(), floor, settle)
	})
	for what, n := range load.Strange() {
		t.Errorf("%d times: %s", n, what)
	}
}

// bulk has a few large batches decided, bulkBytes in all, and returns the last
// event's number. They are about the labels of one robot, so the state stays small.
func bulk(t *testing.T, h *house, about *trial.Robot) (last uint64) {
	t.Helper()
	c := h.Face(about)
	id := ident.NodeID(trial.ID(t, about))
	for n, written := 0, 0; written < bulkBytes; n++ {
		var drafts []view.Draft
		for size := 0; size < event.MaxBatchBytes*9/10; {
			set := map[string]string{}
			for key := range 16 {
				set[fmt.Sprintf("bulk-%d", key)] = fmt.Sprintf("%d-%d-%s", n, len(drafts), strings.Repeat("x", event.MaxLabelValue-16))
			}
			drafts = append(drafts, event.RobotLabelsChanged{Set: set}.Draft(id))
			size += len(drafts[len(drafts)-1].Data) + 100
			written += len(drafts[len(drafts)-1].Data)
		}
		rig.Wait(t, settle, "a large batch is decided", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), settle)
			defer cancel()
			receipt, err := c.Propose(ctx, drafts...)
			if problem, answered := errors.AsType[*view.Problem](err); answered && problem.Code == string(event.CodeConflict) {
				return nil // decided by the try before
			}
			last = max(last, receipt.Last)
			return err
		})
	}
	return last
}

// snapshots: every one of robots has cut its Raft log.
func (h *house) snapshots(robots []*trial.Robot) bool {
	for _, r := range robots {
		found, err := filepath.Glob(filepath.Join(r.Data(), "raft", "snapshots", "*", "state.bin"))
		if err != nil || len(found) == 0 {
			return false
		}
	}
	return true
}

// kill lets a robot die a drawn death, starts it again and checks that its copy
// of the log has not gone back.
func (h *house) kill(r *trial.Robot, draw *rand.Rand) {
	h.t.Helper()
	before := h.position(r)
	how := "SIGKILL while it works"
	switch death := deaths[draw.IntN(len(deaths))]; draw.IntN(4) {
	case 0:
		r.Kill()
	default:
		// Killed at work first: what is left behind is what the next start finds.
		r.Kill()
		how = fmt.Sprintf("%s:signal=SIGKILL:when=%d", death.calls, 1+draw.IntN(death.most))
		r.BootInjected(how)
		select {
		case <-r.Process.Done():
		case <-time.After(lifetime):
			how += ", not reached"
			r.Kill()
		}
	}
	r.Boot()
	h.t.Logf("%s: %s", r.Name, how)
	if now := h.position(r); now.Seq < before.Seq {
		h.t.Errorf("%s was at event %d, was killed (%s), and is at %d", r.Name, before.Seq, how, now.Seq)
	}
}

// position is where a robot's copy of the log is, by the first answer it gives.
func (h *house) position(r *trial.Robot) (at view.Cursor) {
	h.t.Helper()
	rig.Wait(h.t, settle, r.Name+" answers", func() error {
		if r.Process.Ended() {
			h.t.Fatalf("%s has ended: %s\n%s", r.Name, lastWords(r), files(r))
		}
		header, err := h.Face(r).Fleet(h.t.Context())
		at = header.AsOf.Cursor
		return err
	})
	return at
}

// installs starts a voter that was away so long that it must be sent a snapshot,
// kills it in the middle of that, again and again, and at last lets it be.
func (h *house) installs(load *trial.Load, away *trial.Robot, draw *rand.Rand) bool {
	h.t.Helper()
	var last view.Cursor
	var said strings.Builder
	forward := func(how string) {
		now := h.position(away)
		if now.Seq < last.Seq {
			h.t.Errorf("%s was at event %d and is at %d: %s", away.Name, last.Seq, now.Seq, how)
		}
		last = now
	}
	for _, death := range []struct {
		calls       string
		least, most int
	}{{"renameat", 2, 5}, {"fsync", 2, 8}, {"unlinkat", 1, 2}, {"openat", 10, 30}, {"write", 5, 40}, {"pwrite64", 3, 12}} {
		how := fmt.Sprintf("%s:signal=SIGKILL:when=%d", death.calls, death.least+draw.IntN(death.most-death.least+1))
		away.BootInjected(how)
		select {
		case <-away.Process.Done():
		case <-time.After(lifetime):
			how += ", not reached"
			forward(how)
			away.Kill()
		}
		h.t.Log(how)
		said.WriteString(away.Process.Log())
	}
	away.Boot()
	forward("the last start")
	load.Paused(func() { h.AwaitAgreement(h.Robots, settle) })
	said.WriteString(away.Process.Log())
	return strings.Contains(said.String(), "restored from snapshot")
}
