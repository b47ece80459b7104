package disk

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/sim/rig"
	"skein/sim/trial"
)

// pageBytes is what a disk writes at once, or half of.
const pageBytes = 4096

// TestDamagedVoter damages files of a stopped voter, one byte or one page at a
// time. Started again it refuses and says what to do, or goes on with exactly
// the state of the others; these never stop. Then what it said is done, and it
// votes again. About 60 s.
func TestDamagedVoter(t *testing.T) {
	t.Parallel()
	h := build(t, rig.Skein(t), 3, 1, "bolt")
	floor := bulk(t, h, h.Robots[3])
	load := h.StartLoad("load", 4)
	rig.Wait(t, compacted, "every voter has cut its Raft log", func() error {
		if !h.snapshots(h.voters) {
			return rig.ErrNotYet
		}
		return nil
	})
	if !t.Run("a bit of old history", func(t *testing.T) { oldHistory(t, h.in(t), load, floor) }) {
		return
	}
	for _, c := range []struct {
		name, files string
		damage      func(*testing.T, []byte, *trial.Load) int
		// words are in the refusal; none: the node goes on.
		words []string
		soak  bool
	}{
		{"a bit of the Raft log", "raft/log.bolt", flipAck, []string{"log.bolt", "withdraw"}, false},
		{"a torn page of the Raft log", "raft/log.bolt", tearAck, []string{"log.bolt", "withdraw"}, true},
		{"a bit of a snapshot", "raft/snapshots/*/state.bin", flipMiddle, []string{"snapshot", "withdraw"}, false},
		{"a bit of the newest history", "log/history/*.seg", flipMiddle, []string{".seg", "resync"}, true},
		{"a torn page of the newest history", "log/history/*.seg", tearMiddle, []string{".seg", "resync"}, false},
		{"a bit of the newest checkpoint", "log/checkpoint-*", flipMiddle, nil, true},
		{"a torn page of the newest checkpoint", "log/checkpoint-*", tearMiddle, nil, false},
	} {
		if c.soak && trial.Soak(0, 1) == 0 {
			continue // the other kind of damage of the same file is tried
		}
		ok := t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			victim := h.others(h.Leader())[0]
			load.Await(10, settle)
			victim.Process.Stop()
			path, at := newest(t, victim, c.files), 0
			rewrite(t, path, func(text []byte) { at = c.damage(t, text, load) })
			t.Logf("%s: damaged at byte %d", filepath.Base(path), at)
			victim.Boot()
			load.Await(10, settle)
			if c.words == nil {
				h.position(victim)
			} else {
				h.ended(victim, settle, c.words...)
				h.cure(victim)
			}
			h.whole(load, floor)
		})
		if !ok {
			return
		}
	}
	t.Run("a wiped disk", func(t *testing.T) { wiped(t, h.in(t), load, floor) })
	t.Log(load)
}

// newest is the file that was written last of those that fit.
func newest(t *testing.T, r *trial.Robot, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(r.Data(), pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("nothing fits %s: %v", pattern, err)
	}
	return slices.MaxFunc(found, func(a, b string) int { return written(t, a).Compare(written(t, b)) })
}

func written(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// rewrite changes a file in place, as a disk would.
func rewrite(t *testing.T, path string, change func([]byte)) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := bytes.Clone(before)
	change(after)
	if bytes.Equal(before, after) {
		t.Fatalf("%s was not damaged", path)
	}
	if err := os.WriteFile(path, after, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ackIn finds the newest acknowledged change of the load in text: a database has
// old pages too, and damage in one that is not used any more is none.
func ackIn(t *testing.T, text []byte, load *trial.Load) int {
	t.Helper()
	for _, a := range slices.Backward(load.Acks()) {
		if at := bytes.LastIndex(text, a.Drafts[1].Data); at >= 0 && bytes.Count(text, a.Drafts[1].Data) == 1 {
			return at
		}
	}
	t.Fatal("no acknowledged change is in the file exactly once")
	return 0
}

func flipAck(t *testing.T, text []byte, load *trial.Load) int {
	at := ackIn(t, text, load)
	text[at] ^= 1
	return at
}

// tearAck puts zeros where the second half of a page was not written.
func tearAck(t *testing.T, text []byte, load *trial.Load) int {
	at := ackIn(t, text, load)
	end := min(len(text), at+1+(pageBytes/2-at%(pageBytes/2)))
	clear(text[at:end])
	return at
}

func flipMiddle(_ *testing.T, text []byte, _ *trial.Load) int {
	text[len(text)/2] ^= 1
	return len(text) / 2
}

func tearMiddle(_ *testing.T, text []byte, _ *trial.Load) int {
	at := min(len(text)/2/pageBytes*pageBytes+pageBytes/2, len(text)/2)
	clear(text[at:min(len(text), at+pageBytes/2)])
	return at
}

// cure makes a stopped voter begin anew, as its refusal said: an admin withdraws
// it, its files are put aside, it starts and is approved.
func (h *house) cure(victim *trial.Robot) {
	h.t.Helper()
	h.Admin("node", "withdraw", victim.Name)
	if out, err := victim.Command("resync"); err != nil {
		h.t.Fatalf("resync: %s%v", out, err)
	}
	victim.Boot()
	h.position(victim)
	h.Admin("node", "approve", victim.Name)
	h.AwaitVoters(len(h.voters))
}

// oldHistory: damage in a segment that nothing needs for starting is found when
// it is read, and by the audit, which names it. What is damaged is never shown.
func oldHistory(t *testing.T, h *house, load *trial.Load, floor uint64) {
	leader := h.Leader()
	victim := h.others(leader)[0]
	victim.Process.Stop()
	segments, err := filepath.Glob(filepath.Join(victim.Data(), "log/history/*.seg"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("the history has %d segments: %v", len(segments), err)
	}
	rewrite(t, segments[1], func(text []byte) { flipMiddle(t, text, load) })
	victim.Boot()
	load.Await(10, settle)
	rig.Wait(t, settle, victim.Name+" answers or ends", func() error {
		_, err := h.Face(victim).Fleet(t.Context())
		if victim.Process.Ended() {
			return nil
		}
		return err
	})
	if victim.Process.Ended() {
		h.ended(victim, settle, ".seg", "resync")
		t.Log("found by starting")
		if out, err := victim.Command("resync"); err == nil || !strings.Contains(err.Error(), "withdraw") {
			t.Errorf("resync of a voter that was not withdrawn: %s, %v", out, err)
		}
		h.cure(victim)
	} else {
		t.Log("not found by starting")
		good, err := trial.Log(t.Context(), h.Face(leader), 0)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := trial.Log(t.Context(), h.Face(victim), 0)
		for i, e := range shown {
			if fmt.Sprint(e) != fmt.Sprint(good[i]) {
				t.Fatalf("shows a damaged event: %v, not %v", e, good[i])
			}
		}
		if err == nil {
			t.Error("the damage was not noticed by reading")
		}
		if out, err := victim.Command("audit", "verify"); err == nil || !strings.Contains(out, filepath.Base(segments[1])) {
			t.Errorf("the audit does not name %s: %v\n%s", segments[1], err, out)
		}
		victim.Kill()
		h.cure(victim)
	}
	h.whole(load, floor)
}

// wiped: a voter whose disk was replaced keeps its key, by a backup. It has
// forgotten its votes, so it must not vote before an admin agreed.
func wiped(t *testing.T, h *house, load *trial.Load, floor uint64) {
	victim := h.others(h.Leader())[0]
	victim.Kill()
	for _, dir := range []string{"raft", "log"} {
		if err := os.RemoveAll(filepath.Join(victim.Data(), dir)); err != nil {
			t.Fatal(err)
		}
	}
	victim.Boot()
	load.Await(10, settle)
	h.ended(victim, settle, "withdraw")
	h.cure(victim)
	h.whole(load, floor)
}
