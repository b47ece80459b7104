package disk

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// fullEvery is after how many cuts the whole log is compared, not only what
	// is new.
	fullEvery = 10
	// tailCuts is after how many cuts the log is longer than what a robot keeps that
	// does not vote.
	tailCuts = 60
	// mutantCuts is how many cuts a program that does not sync may survive at most.
	mutantCuts = 10
)

// TestPowerCuts takes the power from all voters at once, again and again, while
// clients write. Whatever was acknowledged is on every voter's disk, and all
// have the same state. About 60 s.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	skein, draw := rig.Skein(t), trial.Lots(t)
	t.Run("bolt", func(t *testing.T) { powerCuts(t, skein, "bolt", trial.Soak(30, 300), draw) })
	t.Run("wal", func(t *testing.T) { powerCuts(t, skein, "wal", trial.Soak(10, 300), draw) })
}

// TestPowerCutsFindAMissingSync is the judge of TestPowerCuts: it must fail for a
// program whose Raft log does not sync, and it must name an acknowledged event
// that is lost, also when the nodes refuse to start. About 15 s.
func TestPowerCutsFindAMissingSync(t *testing.T) {
	t.Parallel()
	mutant, draw := rig.Build(t, "skein_nofsync"), trial.Lots(t)
	err := rig.Script("power cuts without fsync", func(t testing.TB) { powerCuts(t, mutant, "bolt", mutantCuts, draw) })
	if err == nil {
		t.Fatalf("%d power cuts found nothing wrong with a program that does not sync", mutantCuts)
	}
	t.Logf("found: %.2000s", err)
	if strings.Contains(err.Error(), "skipped: ") {
		t.Skip(err)
	}
	if !strings.Contains(err.Error(), "acknowledged as") {
		t.Error("but not which acknowledged event was lost")
	}
}

func powerCuts(t testing.TB, skein, store string, cuts int, draw *rand.Rand) {
	h := build(t, skein, 3, 1, store)
	load := h.StartLoad("load", 6)
	t.Cleanup(func() {
		if t.Failed() {
			h.autopsy(load)
		}
	})
	start := time.Now()
	checked, twice := uint64(0), 0
	for cut := range cuts {
		load.Await(10+draw.IntN(100), settle)
		h.sound(load)
		trial.Pass(t, time.Duration(draw.IntN(20))*time.Millisecond) // at any point of a change
		h.cut()
		acks := load.Acks()
		h.boot()
		if draw.IntN(5) == 0 {
			twice++
			trial.Pass(t, time.Duration(draw.IntN(1000))*time.Millisecond) // in the middle of starting or electing
			h.cut()
			h.boot()
		}
		h.back(load)
		load.Paused(func() {
			h.AwaitHeld(h.keepAll(cut), acks, checked, settle)
			if cut%fullEvery == fullEvery-1 || cut == cuts-1 {
				h.AwaitHeld(h.keepAll(cut), acks, 0, settle)
			}
			checked = h.AwaitAgreement(h.Robots, settle).Seq
		})
		if cut%fullEvery == fullEvery-1 {
			t.Logf("%d cuts of %d: everything is there, up to event %d", cut+1, cuts, checked)
		}
	}
	load.Stop()
	for what, n := range load.Strange() {
		t.Errorf("%d times: %s", n, what)
	}
	t.Logf("%d cuts and %d more while starting in %v: %v", cuts, twice, time.Since(start).Round(time.Second), load)
}

// keepAll are the robots that have the whole log after so many cuts: who does not
// vote keeps a tail, which is longer than the log of a short trial, and may be sent
// a state instead of what it missed. That its chain and state are the others' is
// compared after every cut all the same.
func (h *house) keepAll(cut int) []*trial.Robot {
	if cut < tailCuts {
		return h.Robots
	}
	return h.voters
}

// cut takes the power from all voters. What they were told to keep is then on
// their disks or nowhere.
func (h *house) cut() {
	var on []*rig.Host
	for _, r := range h.voters {
		on = append(on, r.Host)
	}
	h.lan.PowerCut(on...)
	h.lan.PowerOn(on...)
}

func (h *house) boot() {
	for _, r := range h.voters {
		r.Boot()
	}
}
