package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
)

func openAt(t testing.TB, dir string, o Options) *Replica {
	t.Helper()
	r, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// leader turns batches into entries of a Raft log.
type leader struct {
	run     *fleettest.Run
	entries [][]byte // entry i has index i+1
}

func newLeader(choose fleettest.Choose) *leader {
	l := &leader{run: fleettest.New(choose)}
	l.add(fleettest.Genesis())
	return l
}

func (l *leader) add(batches ...event.Batch) []byte {
	now := int64(1_700_000_000_000) + int64(len(l.entries))*1000
	data, err := EncodeEntry(Entry{TimeMillis: now, Batches: batches})
	if err != nil {
		panic(err)
	}
	l.entries = append(l.entries, data)
	return data
}

func (l *leader) next(batches int) []byte {
	var all []event.Batch
	for range batches {
		all = append(all, l.run.Next())
	}
	return l.add(all...)
}

// feed applies every entry that r lacks.
func (l *leader) feed(t testing.TB, r *Replica) {
	t.Helper()
	for i := range l.entries {
		if _, err := r.ApplyEntry(uint64(i+1), 3, l.entries[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// stateHash is the hash of r's state.
func stateHash(r *Replica) (h string) {
	r.View(func(s *fleet.State) { h = s.Hash() })
	return h
}

func same(t testing.TB, what string, a, b *Replica) {
	t.Helper()
	if ca, cb := a.Cursor(), b.Cursor(); ca != cb {
		t.Fatalf("%s: at %+v, the other at %+v", what, cb, ca)
	}
	if stateHash(a) != stateHash(b) {
		t.Fatalf("%s: the states differ", what)
	}
}

func filled(t testing.TB, entries int) (*leader, *Replica) {
	t.Helper()
	l := newLeader(rand.New(rand.NewSource(int64(entries))).Intn)
	for range entries - 1 {
		l.next(3)
	}
	r := openAt(t, t.TempDir(), Options{})
	l.feed(t, r)
	return l, r
}

func TestOutcomes(t *testing.T) {
	r := openAt(t, t.TempDir(), Options{})
	l := newLeader(nil)
	if out, err := r.ApplyEntry(5, 2, l.entries[0]); err != nil || len(out) != 1 || out[0] != (Outcome{First: 1, Last: 7}) {
		t.Fatalf("genesis: %+v %v", out, err)
	}
	group := func(n uint64, names ...string) event.Batch {
		b := event.Batch{Producer: event.Producer{Node: fleettest.Node(0), Boot: 1, N: n}, Actor: fleettest.Admin("ada")}
		for _, name := range names {
			b.Drafts = append(b.Drafts, event.GroupCreated{}.Draft(name))
		}
		return b
	}
	out, err := r.ApplyEntry(6, 2, l.add(group(1, "a", "b"), group(2, "b"), group(1, "a", "b"), group(3, "c")))
	if err != nil || len(out) != 4 {
		t.Fatal(out, err)
	}
	if out[0] != (Outcome{First: 8, Last: 9}) || out[2] != out[0] || out[3] != (Outcome{First: 10, Last: 10}) {
		t.Errorf("outcomes %+v", out)
	}
	if fault, ok := event.FaultOf(out[1].Err); !ok || fault.Code != event.CodeConflict {
		t.Errorf("a second group b: %v", out[1].Err)
	}
	if out, err := r.ApplyEntry(6, 2, l.entries[1]); err != nil || out != nil {
		t.Errorf("an entry that is included: %+v %v", out, err)
	}
	before := r.Cursor()
	if out, err := r.ApplyEntry(9, 4, l.add(group(3, "c"))); err != nil || out[0] != (Outcome{First: 10, Last: 10}) {
		t.Errorf("repeated in another entry: %+v %v", out, err)
	}
	if index, term := r.Applied(); index != 9 || term != 4 || r.Cursor() != before {
		t.Errorf("an entry without events: at %d/%d, %+v", index, term, r.Cursor())
	}
	if c := r.Cursor(); c.History != "h1" || c.Seq != 10 || len(c.Hash) != 64 {
		t.Errorf("cursor %+v", c)
	}
}

// What this build does not know never gets into the log from here, and stops the
// replica when it came from elsewhere.
func TestUnknownType(t *testing.T) {
	l, r := filled(t, 3)
	strange := event.GroupCreated{}.Draft("x")
	strange.Type = "group.crushed"
	b := event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{strange}}
	if _, err := EncodeEntry(Entry{Batches: []event.Batch{b}}); err == nil {
		t.Error("encoded")
	}
	b.Drafts[0].Type = event.TypeGroupCreated
	raise := event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.CeilingRaised{Level: event.Level + 1}.Draft()}}
	if out, err := r.ApplyEntry(4, 3, l.add(raise)); err != nil || out[0].Err != nil {
		t.Fatalf("the ceiling: %v %v", out, err)
	}
	data := bytes.Replace(l.add(b), []byte(event.TypeGroupCreated), []byte("group.crushed"), 1)
	before, hash := r.Cursor(), stateHash(r)
	if _, err := r.ApplyEntry(5, 3, data); !errors.Is(err, ErrUpgrade) {
		t.Errorf("applied: %v", err)
	}
	if r.Cursor() != before || stateHash(r) != hash {
		t.Error("something changed")
	}
	if _, err := r.ApplyEntry(6, 3, l.next(1)); !errors.Is(err, ErrUpgrade) {
		t.Errorf("went on after it: %v", err)
	}
}

func TestDamagedEntryStops(t *testing.T) {
	l, r := filled(t, 3)
	for _, data := range [][]byte{nil, {9}, l.entries[0][:20]} {
		if _, err := r.ApplyEntry(4, 3, data); !errors.Is(err, ErrBadEntry) {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// A disk that fails while an entry is applied: nothing of it is seen, and
// nothing is applied any more.
func TestDiskFailureStops(t *testing.T) {
	l, r := filled(t, 5)
	before, hash := r.Cursor(), stateHash(r)
	if err := r.history.Close(); err != nil {
		t.Fatal(err)
	}
	group := event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.GroupCreated{}.Draft("new")}}
	if _, err := r.ApplyEntry(6, 3, l.add(group)); err == nil {
		t.Fatal("applied without history")
	}
	if r.Cursor() != before || stateHash(r) != hash {
		t.Error("something changed")
	}
	if _, err := r.ApplyEntry(7, 3, l.next(1)); err == nil {
		t.Error("went on")
	}
	if err := r.Checkpoint(); err == nil {
		t.Error("a checkpoint was written")
	}
	if err := r.Wait(t.Context(), before.Seq+1); err == nil || r.Err() == nil {
		t.Error("Wait goes on, or Err does not say why not")
	}
}

func TestReopen(t *testing.T) {
	l, r := filled(t, 30)
	want, hash := r.Cursor(), stateHash(r)
	index, term := r.Applied()
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.ApplyEntry(99, 3, l.next(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("applied after Close: %v", err)
	}
	again := openAt(t, r.dir, Options{})
	if again.Cursor() != want || stateHash(again) != hash {
		t.Error("opened elsewhere")
	}
	if i, x := again.Applied(); i != index || x != term {
		t.Errorf("applied %d/%d, want %d/%d", i, x, index, term)
	}
	if again.saver.last.Seq != want.Seq {
		t.Error("it replayed although Close wrote a checkpoint")
	}
	l.feed(t, again)
}

func checkpoints(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, checkpointPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func flip(t testing.TB, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[(at+len(b))%len(b)] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A damaged checkpoint is left out: the one before, or the whole history, takes
// its place. Without either the replica says so and does not guess.
func TestDamagedCheckpoint(t *testing.T) {
	l, r := filled(t, 10)
	for range 3 {
		if err := r.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		l.next(3)
		l.feed(t, r)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	paths := checkpoints(t, r.dir)
	if len(paths) != keepCheckpoints {
		t.Fatalf("%d checkpoints, want %d", len(paths), keepCheckpoints)
	}
	for i := range paths {
		flip(t, paths[len(paths)-1-i], -5)
		again := openAt(t, r.dir, Options{})
		same(t, fmt.Sprint(i+1, " damaged"), r, again)
		if got := again.saver.last.Seq; i == 0 && got == 0 || i == 1 && got != 0 {
			t.Errorf("%d damaged: started from event %d", i+1, got)
		}
		again.mu.Lock()
		again.failed = errors.New("leave the checkpoints alone")
		again.mu.Unlock()
		again.Close()
	}
	first := history.Position{Seq: 5}
	dir := filepath.Join(r.dir, "history")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	h, err := history.Open(dir, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Reset(first), h.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.dir, Options{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "resync") {
		t.Errorf("without a checkpoint and with half a history: %v", err)
	}
}

// History that was durable and is gone or other is damage, never a silent
// step back.
func TestDamagedHistory(t *testing.T) {
	_, r := filled(t, 10)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(r.dir, "history", "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"cut": whole[:len(whole)-9], "empty": whole[:0]} {
		if err := os.WriteFile(segments[0], content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(r.dir, Options{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Which events were durable is known even when the checkpoint that says so is damaged.
	newest := checkpoints(t, r.dir)[0]
	flip(t, newest, -5)
	if err := os.WriteFile(segments[0], whole[:len(whole)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.dir, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut, and the checkpoint damaged: %v", err)
	}
	flip(t, newest, -5)
	if err := os.RemoveAll(filepath.Dir(segments[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(r.dir, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("no history: %v", err)
	}
}

// A checkpoint and a history that do not belong together are noticed, also when
// both are whole and end with the same event.
func TestHistoryOfAnother(t *testing.T) {
	var dirs []string
	for _, name := range []string{"a", "b"} {
		l := newLeader(nil)
		l.add(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.GroupCreated{}.Draft(name)}})
		r := openAt(t, t.TempDir(), Options{})
		l.feed(t, r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, r.dir)
	}
	own := filepath.Join(dirs[0], "history")
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(own, os.DirFS(filepath.Join(dirs[1], "history"))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dirs[0], Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened: %v", err)
	}
}

func snapshot(t testing.TB, r *Replica) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotAndRestore(t *testing.T) {
	l, r := filled(t, 20)
	snap := snapshot(t, r)
	l.next(2)
	l.feed(t, r)

	behind := openAt(t, t.TempDir(), Options{})
	for i, data := range l.entries[:5] {
		if _, err := behind.ApplyEntry(uint64(i+1), 3, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := behind.Restore(io.MultiReader(bytes.NewReader(snap), strings.NewReader("more"))); err != nil {
		t.Fatal(err)
	}
	at := behind.Cursor()
	if behind.First() != at.Seq+1 {
		t.Errorf("the history starts at %d, want an explicit gap up to %d", behind.First(), at.Seq)
	}
	if _, err := behind.Events(t.Context(), 0, Filter{}, 10); !errors.Is(err, ErrCompacted) {
		t.Errorf("events from before: %v", err)
	}
	if !behind.Held(at) {
		t.Error("its own place is not held")
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(behind.dir)); err != nil {
		t.Fatal(err)
	}
	if found := openAt(t, left, Options{}); found.Cursor() != at || stateHash(found) != stateHash(behind) {
		t.Errorf("ended without Close, it opens at %+v", found.Cursor())
	}
	l.feed(t, behind)
	same(t, "restored and fed", r, behind)
	if err := behind.Restore(bytes.NewReader(snap)); err != nil {
		t.Errorf("an older snapshot: %v", err)
	}
	same(t, "after an older snapshot", r, behind)
	if err := behind.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "reopened", r, openAt(t, behind.dir, Options{}))
}

// A snapshot cut anywhere, or with any byte changed, changes nothing.
func TestBrokenSnapshotChangesNothing(t *testing.T) {
	l, r := filled(t, 8)
	snap := snapshot(t, r)
	target := openAt(t, t.TempDir(), Options{})
	for i, data := range l.entries[:3] {
		if _, err := target.ApplyEntry(uint64(i+1), 3, data); err != nil {
			t.Fatal(err)
		}
	}
	before, hash := target.Cursor(), stateHash(target)
	try := func(what string, b []byte) {
		t.Helper()
		if err := target.Restore(bytes.NewReader(b)); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("%s: %v", what, err)
		}
		if target.Cursor() != before {
			t.Fatalf("%s: something changed", what)
		}
	}
	for cut := range len(snap) {
		try(fmt.Sprint("cut at ", cut), snap[:cut])
	}
	for at := range snap {
		changed := bytes.Clone(snap)
		changed[at] ^= 0x10
		try(fmt.Sprint("changed at ", at), changed)
	}
	if stateHash(target) != hash || len(checkpoints(t, target.dir)) != 0 {
		t.Error("something changed")
	}
	if err := target.Restore(bytes.NewReader(snap)); err != nil {
		t.Error(err)
	}
	same(t, "whole", r, target)
}

// A snapshot of another fleet, or of a log that went another way, is refused.
func TestForeignSnapshot(t *testing.T) {
	_, r := filled(t, 8)
	foreign := openAt(t, t.TempDir(), Options{})
	genesis := fleettest.Genesis()
	genesis.Drafts[0] = event.FleetCreated{Name: "other", Root: fleettest.Key(98).Public(), History: "h2"}.Draft()
	other := &leader{run: fleettest.New(rand.New(rand.NewSource(9)).Intn)}
	other.add(genesis)
	for range 20 {
		other.next(2)
	}
	other.feed(t, foreign)
	if err := r.Restore(bytes.NewReader(snapshot(t, foreign))); !errors.Is(err, ErrDiverged) {
		t.Errorf("another fleet's: %v", err)
	}
	if _, err := r.ApplyEntry(9, 3, mustEntry(t, event.GroupCreated{}.Draft("n"))); err != nil {
		t.Errorf("a refused snapshot stopped the replica: %v", err)
	}
}

func mustEntry(t testing.TB, drafts ...event.Draft) []byte {
	t.Helper()
	data, err := EncodeEntry(Entry{TimeMillis: 1, Batches: []event.Batch{{Actor: fleettest.Admin("ada"), Drafts: drafts}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Restore interrupted after its checkpoint and before its gap.
func TestInterruptedRestore(t *testing.T) {
	l, r := filled(t, 20)
	target := openAt(t, t.TempDir(), Options{})
	for i, data := range l.entries[:5] {
		if _, err := target.ApplyEntry(uint64(i+1), 3, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	i, err := readImage(bytes.NewReader(snapshot(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	i.reset = true
	if err := target.saver.write(target.dir, i); err != nil {
		t.Fatal(err)
	}
	again := openAt(t, target.dir, Options{})
	same(t, "opened", r, again)
	l.next(2)
	l.feed(t, r)
	l.feed(t, again)
	same(t, "gone on", r, again)
}

// A follower's history stays within its bound, while every restart finds the
// whole state.
func TestBoundedTail(t *testing.T) {
	const tail = 24 << 10
	l, r := filled(t, 2)
	follower := openAt(t, t.TempDir(), Options{TailBytes: tail})
	for range 500 {
		l.next(3)
		l.feed(t, r)
		records, ok := r.Records(follower.Cursor().Seq+1, 1<<20)
		if !ok {
			t.Fatal("not held")
		}
		for _, rec := range records {
			if err := follower.ApplyRecord(rec); err != nil {
				t.Fatal(err)
			}
		}
		follower.saver.working.Wait()
		if n := follower.history.Size(); n > tail+2*tail/tailSaves {
			t.Fatalf("the tail has %d bytes", n)
		}
	}
	if r.history.Size() < 3*tail || follower.First() == 1 {
		t.Fatalf("too little history to show anything: %d bytes, the tail begins with event %d", r.history.Size(), follower.First())
	}
	if _, err := follower.Events(t.Context(), 0, Filter{}, 1); !errors.Is(err, ErrCompacted) {
		t.Errorf("dropped events: %v", err)
	}
	if _, ok := follower.Records(1, 1); ok {
		t.Error("dropped records")
	}
	got, err := follower.Events(t.Context(), follower.First()-1, Filter{}, MaxEvents)
	if err != nil || got[0].Seq != follower.First() || got[len(got)-1].Seq != r.Cursor().Seq {
		t.Errorf("the tail: %v", err)
	}
	if err := follower.Close(); err != nil {
		t.Fatal(err)
	}
	again := openAt(t, follower.dir, Options{TailBytes: tail})
	same(t, "reopened", r, again)
	flip(t, checkpoints(t, follower.dir)[1], -5)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "reopened from the older checkpoint", r, openAt(t, follower.dir, Options{TailBytes: tail}))
}

// However small the bound, what the older checkpoint needs is kept.
func TestTailKeepsWhatTheOlderCheckpointNeeds(t *testing.T) {
	_, r := filled(t, 20)
	f := openAt(t, t.TempDir(), Options{TailBytes: 1})
	f.saveBytes = 1 << 30 // checkpoints only when the test says so
	records, _ := r.Records(1, 1<<20)
	for i, rec := range records {
		if err := f.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
		if (len(records)-i)%4 == 0 { // three records before the last, among others
			if err := f.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	paths := checkpoints(t, f.dir)
	if f.First() < 3 || len(paths) != keepCheckpoints {
		t.Fatalf("starts at %d, %d checkpoints", f.First(), len(paths))
	}
	flip(t, paths[1], -5)
	same(t, "from the older checkpoint", r, openAt(t, f.dir, Options{}))
}

func TestApplyRecordRefuses(t *testing.T) {
	l, r := filled(t, 10)
	records, _ := r.Records(1, 1<<20)
	f := openAt(t, t.TempDir(), Options{})
	if err := f.ApplyRecord(records[1]); !errors.Is(err, ErrDiverged) {
		t.Errorf("with a gap: %v", err)
	}
	if err := f.ApplyRecord(records[0]); err != nil {
		t.Fatal(err)
	}
	forged, err := history.ParseRecord(bytes.Replace(records[1].Bytes(), []byte(`"time":"20`), []byte(`"time":"21`), 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.ApplyRecord(forged); !errors.Is(err, ErrDiverged) {
		t.Errorf("forged: %v", err)
	}
	for _, rec := range records { // the first is included already
		if err := f.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "followed", r, f)
	l.next(2)
	l.feed(t, r)
	l.feed(t, f) // became a voter: Raft offers everything anew
	same(t, "became a voter", r, f)
}

func TestEvents(t *testing.T) {
	_, r := filled(t, 60)
	end := r.Cursor().Seq
	all, err := r.Events(t.Context(), 0, Filter{}, MaxEvents)
	if err != nil || uint64(len(all)) != end {
		t.Fatalf("%d events of %d: %v", len(all), end, err)
	}
	robot := event.RobotStream(fleettest.Node(1))
	for name, f := range map[string]Filter{
		"one stream":   {Stream: robot},
		"a family":     {Stream: "robot/"},
		"one type":     {Type: event.TypeRobotRegistered},
		"type family":  {Type: "robot."},
		"actor":        {Actor: "ada"},
		"time":         {From: all[end/2].Time, Until: all[end/2].Time},
		"nothing":      {Stream: "robot"},
		"two together": {Stream: "robot/", Actor: "ada"},
	} {
		for _, since := range []uint64{0, 1, end / 2, end, end + 5} {
			var want []uint64
			for _, e := range all {
				if e.Seq > since && f.Matches(e) {
					want = append(want, e.Seq)
				}
			}
			for _, limit := range []int{1, 3, MaxEvents + 1} {
				got, err := r.Events(t.Context(), since, f, limit)
				if err != nil || len(got) != min(limit, len(want)) {
					t.Fatalf("%s since %d: %d events of %d: %v", name, since, len(got), len(want), err)
				}
				for i := range got {
					if got[i].Seq != want[i] {
						t.Fatalf("%s since %d: event %d where %d is next", name, since, got[i].Seq, want[i])
					}
				}
			}
		}
	}
	if f := (Filter{Stream: robot}); !f.Matches(event.Event{Stream: robot}) || f.Matches(event.Event{Stream: robot + "x"}) {
		t.Error("a whole stream is matched by its beginning")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Events(ctx, 0, Filter{}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled question: %v", err)
	}
}

func TestHeld(t *testing.T) {
	_, r := filled(t, 30)
	own := r.Cursor()
	at, err := r.history.At(own.Seq / 2)
	if err != nil {
		t.Fatal(err)
	}
	middle := event.Cursor{History: own.History, Seq: at.Seq, Hash: at.Hash.String()}
	for name, c := range map[string]struct {
		cursor event.Cursor
		want   bool
	}{
		"own":           {own, true},
		"middle":        {middle, true},
		"start":         {event.Cursor{History: own.History, Hash: history.Hash{}.String()}, true},
		"ahead":         {event.Cursor{History: own.History, Seq: own.Seq + 1, Hash: own.Hash}, false},
		"other hash":    {event.Cursor{History: own.History, Seq: own.Seq, Hash: middle.Hash}, false},
		"other history": {event.Cursor{History: "h2", Seq: own.Seq, Hash: own.Hash}, false},
	} {
		if r.Held(c.cursor) != c.want {
			t.Errorf("%s: held %v", name, !c.want)
		}
	}
}

func TestWaitAndSubscribe(t *testing.T) {
	l, r := filled(t, 3)
	changed, release := r.Subscribe()
	seq := r.Cursor().Seq
	waited := make(chan error, 1)
	wait := func(seq uint64) {
		go func() { waited <- r.Wait(t.Context(), seq) }()
		for waiting := false; !waiting && t.Context().Err() == nil; runtime.Gosched() {
			r.mu.RLock()
			waiting = r.feed.next != nil
			r.mu.RUnlock()
		}
	}
	wait(seq + 1)
	l.add(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.GroupCreated{}.Draft("new")}})
	l.feed(t, r)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	<-changed
	select {
	case <-changed:
		t.Error("told twice of one change")
	default:
	}
	if err := r.Wait(t.Context(), 1); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.Wait(ctx, 1<<40); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited: %v", err)
	}
	release()
	wait(1 << 40)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("waiting while closed: %v", err)
	}
	if len(r.feed.subscribers) != 0 {
		t.Error("a released subscriber stayed")
	}
}
