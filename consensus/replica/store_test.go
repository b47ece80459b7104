package replica

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
)

// pastStates are the hashes of the state after every record, as one finds them
// who applies one event after the other.
func pastStates(t testing.TB, r *Replica) map[uint64]string {
	t.Helper()
	s := fleet.New()
	hashes := map[uint64]string{0: s.Hash()}
	records, ok := r.Records(1, 1<<30)
	if !ok {
		t.Fatal("the whole history is needed")
	}
	for _, rec := range records {
		for _, e := range rec.Events {
			if err := s.Apply(e); err != nil {
				t.Fatal(err)
			}
			hashes[e.Seq] = s.Hash()
		}
	}
	return hashes
}

// Every past state is what one gets who replays from the start, whatever
// checkpoints there are, and while they are damaged.
func TestStateAt(t *testing.T) {
	l := newLeader(rand.New(rand.NewSource(11)).Intn)
	r := openAt(t, t.TempDir(), Options{})
	for i := range 60 {
		l.next(3)
		l.feed(t, r)
		if i%7 == 0 {
			if err := r.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, end := pastStates(t, r), r.Cursor().Seq
	check := func(what string) {
		t.Helper()
		for seq := uint64(0); seq <= end; seq++ {
			s, at, err := r.StateAt(t.Context(), seq)
			if err != nil || s.Hash() != want[seq] || s.Seq() != seq {
				t.Fatalf("%s: state at %d: %v", what, seq, err)
			}
			if at.Seq != seq || seq > 0 && !r.Held(at) {
				t.Fatalf("%s: the cursor at %d is %+v", what, seq, at)
			}
		}
	}
	check("with checkpoints")
	if n := r.Stats().Checkpoints; n < 8 {
		t.Fatalf("%d checkpoints", n)
	}
	for i, path := range checkpoints(t, r.dir) {
		if i%2 == 0 {
			flip(t, path, -9)
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	check("without")
	s, _, err := r.StateAt(t.Context(), end/2)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := EncodeSnapshot(s, history.Position{Seq: end / 2, Hash: history.Hash{1}}, 1, 1)
	if err == nil {
		err = os.WriteFile(checkpointPath(r.dir, end/2), foreign, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	check("with one of another history")
	if _, _, err := r.StateAt(t.Context(), end+1); !errors.Is(err, ErrAhead) {
		t.Errorf("the future: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.StateAt(ctx, end/2); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if r.Err() != nil {
		t.Errorf("the replica has failed: %v", r.Err())
	}
}

// At most two past states are rebuilt at once, the others wait for their turn or
// for their context.
func TestStateAtIsBounded(t *testing.T) {
	_, r := filled(t, 20)
	r.travels <- struct{}{}
	r.travels <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := r.StateAt(ctx, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a third: %v", err)
	}
	<-r.travels
	if _, _, err := r.StateAt(t.Context(), 5); err != nil {
		t.Error(err)
	}
	<-r.travels
}

func TestReplicaSeqAt(t *testing.T) {
	_, r := filled(t, 30)
	all, err := r.Events(t.Context(), 0, Filter{}, MaxEvents)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		last := e.Seq
		for _, o := range all {
			if !o.Time.After(e.Time) {
				last = o.Seq
			}
		}
		if got, err := r.SeqAt(t.Context(), e.Time); err != nil || got != last {
			t.Fatalf("at %v: event %d (%v), want %d", e.Time, got, err, last)
		}
	}
}

func TestLadder(t *testing.T) {
	var rungs []rung
	last := uint64(0)
	for seq := uint64(100); seq <= 100_000; seq += 100 { // as checkpoints come
		rungs = append(rungs, rung{seq, 1000})
		drop := ladder(slices.Clone(rungs), 300, 20_000)
		rungs = slices.DeleteFunc(rungs, func(r rung) bool { return slices.Contains(drop, r.seq) })
		n := len(rungs)
		if n > 20 || rungs[n-1].seq != seq || n > 1 && rungs[n-2].seq != last {
			t.Fatalf("at %d: %v", seq, rungs)
		}
		if seq >= 300 && !slices.Contains(rungs, rung{300, 1000}) {
			t.Fatalf("at %d the anchor is gone: %v", seq, rungs)
		}
		last = seq
	}
	for i, r := range rungs[1 : len(rungs)-2] {
		if hole := r.seq - rungs[i].seq; hole > 15_000 {
			t.Errorf("a hole of %d events in %v", hole, rungs)
		}
	}
	if drop := ladder([]rung{{1, 9}, {2, 9}, {5, 9}, {6, 9}}, 5, 30); !slices.Equal(drop, []uint64{1}) {
		t.Errorf("what is before the history goes first: %v", drop)
	}
	if drop := ladder([]rung{{1, 1000}, {2, 1000}}, 1, 10); drop != nil {
		t.Errorf("the newest two stay: %v", drop)
	}
}

// Retention by size and by age drops whole segments; what is left can be asked and
// every state of it rebuilt, also after a restart.
func TestRetention(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for name, o := range map[string]Options{
		"size": {MaxBytes: 50 << 10},
		"age":  {MaxBytes: 120 << 10, MaxAge: 20 * time.Second},
	} {
		o.Now = func() time.Time { return now }
		l := newLeader(rand.New(rand.NewSource(3)).Intn)
		whole, r := openAt(t, t.TempDir(), Options{}), openAt(t, t.TempDir(), o)
		r.saveBytes = r.saveBytes*3/2 + 777 // checkpoints are not where segments begin
		for range 300 {
			l.next(3)
			now = now.Add(time.Second)
		}
		l.feed(t, whole)
		l.feed(t, r)
		r.saver.working.Wait()
		if err := r.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		want := pastStates(t, whole)
		for range 2 {
			first, size := r.First(), r.Stats().Bytes
			if first == 1 || size > o.MaxBytes+o.MaxBytes/tailSaves+8<<10 {
				t.Fatalf("%s: held from event %d on, %d bytes", name, first, size)
			}
			if _, lacking := r.Gap(); lacking {
				t.Errorf("%s: what was dropped is to be fetched again", name)
			}
			for seq := first - 1; seq <= whole.Cursor().Seq; seq += 3 {
				s, _, err := r.StateAt(t.Context(), seq)
				if err != nil || s.Hash() != want[seq] {
					t.Fatalf("%s: state at %d, held from %d on: %v", name, seq, first, err)
				}
			}
			if _, _, err := r.StateAt(t.Context(), first-2); !errors.Is(err, ErrCompacted) {
				t.Errorf("%s: a state that is not held: %v", name, err)
			}
			same(t, name, whole, r)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = openAt(t, r.dir, o)
		}
		if name == "age" {
			seq, err := whole.SeqAt(t.Context(), now.Add(-o.MaxAge))
			if err != nil || r.First() > seq+1 {
				t.Errorf("event %d is young enough (%v), held from %d on", seq+1, err, r.First())
			}
		}
	}
}

// A quiet fleet loses its old events too, when Checkpoint is called.
func TestRetentionWithoutNews(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	l := newLeader(rand.New(rand.NewSource(3)).Intn)
	r := openAt(t, t.TempDir(), Options{MaxBytes: 120 << 10, MaxAge: time.Hour, Now: func() time.Time { return now }})
	for range 200 {
		l.next(3)
	}
	l.feed(t, r)
	r.saver.working.Wait()
	if err := r.Checkpoint(); err != nil || r.First() != 1 {
		t.Fatal(r.First(), err)
	}
	now = now.Add(3 * time.Hour)
	if err := r.Checkpoint(); err != nil || r.First() == 1 {
		t.Errorf("held from event %d on: %v", r.First(), err)
	}
}

// watcher is an Observer that keeps its own copy.
type watcher struct {
	resets int
	seq    uint64
	hash   string
	wrong  string
}

func (w *watcher) Reset(s *fleet.State) {
	w.resets++
	w.seq, w.hash = s.Seq(), s.Hash()
}

func (w *watcher) Applied(s *fleet.State, events []event.Event) {
	for _, e := range events {
		if e.Seq != w.seq+1 {
			w.wrong = "a hole, or an event twice"
		}
		w.seq = e.Seq
	}
	if w.seq != s.Seq() || len(events) == 0 {
		w.wrong = "the state is elsewhere than the events"
	}
	w.hash = s.Hash()
}

func TestObserver(t *testing.T) {
	l := newLeader(rand.New(rand.NewSource(4)).Intn)
	var w watcher
	r := openAt(t, t.TempDir(), Options{Observer: &w})
	for range 40 {
		l.next(3)
	}
	l.feed(t, r)
	if w.resets != 1 || w.wrong != "" || w.seq != r.Cursor().Seq || w.hash != stateHash(r) {
		t.Fatalf("%+v, the replica is at %d", w, r.Cursor().Seq)
	}
	var follows, again watcher
	f := openAt(t, t.TempDir(), Options{Observer: &follows})
	records, _ := r.Records(1, 1<<20)
	for _, rec := range records[:5] {
		if err := f.ApplyRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	if follows.resets != 1 || follows.seq != f.Cursor().Seq || follows.hash != stateHash(f) {
		t.Errorf("after five records: %+v", follows)
	}
	if err := f.Restore(bytes.NewReader(snapshot(t, r))); err != nil {
		t.Fatal(err)
	}
	if follows.resets != 2 || follows.wrong != "" || follows.hash != stateHash(r) {
		t.Errorf("%+v", follows)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, r.dir, Options{Observer: &again})
	if again.resets != 1 || again.hash != w.hash || again.wrong != "" {
		t.Errorf("after a restart: %+v", again)
	}
}

// A voter that began with a snapshot fetches what is before it, and is then as
// good as any: also after the newest checkpoints were lost.
func TestReplicaBackfill(t *testing.T) {
	l, r := filled(t, 80)
	v := openAt(t, t.TempDir(), Options{})
	if err := v.Restore(bytes.NewReader(snapshot(t, r))); err != nil {
		t.Fatal(err)
	}
	l.next(3)
	l.feed(t, r)
	l.feed(t, v)
	gap, lacking := v.Gap()
	if !lacking || gap.Seq == 0 {
		t.Fatal("no gap behind a snapshot")
	}
	if _, _, err := v.StateAt(t.Context(), gap.Seq-1); !errors.Is(err, ErrCompacted) {
		t.Errorf("a state before the gap: %v", err)
	}
	if s, _, err := v.StateAt(t.Context(), gap.Seq); err != nil || s.Seq() != gap.Seq {
		t.Errorf("the state at the gap: %v", err)
	}
	tail := openAt(t, t.TempDir(), Options{TailBytes: 1 << 20})
	if err := tail.Restore(bytes.NewReader(snapshot(t, r))); err != nil {
		t.Fatal(err)
	}
	if _, lacking := tail.Gap(); lacking {
		t.Error("a node that keeps a tail wants all of the history")
	}
	foreign, _ := r.Records(1, 1)
	if err := v.Backfill(history.Position{}, foreign); !errors.Is(err, ErrDiverged) || v.Err() != nil {
		t.Errorf("records that do not fit: %v, %v", err, v.Err())
	}
	for lacking {
		after, records, ok := r.RecordsBefore(gap.Seq, 20<<10)
		if !ok {
			t.Fatal("not held")
		}
		if err := v.Backfill(after, records); err != nil {
			t.Fatal(err)
		}
		gap, lacking = v.Gap()
	}
	want := pastStates(t, r)
	for seq := range v.Cursor().Seq {
		if s, _, err := v.StateAt(t.Context(), seq); err != nil || s.Hash() != want[seq] {
			t.Fatalf("state at %d: %v", seq, err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range checkpoints(t, v.dir) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	same(t, "from the start", r, openAt(t, v.dir, Options{}))
	if _, _, ok := r.RecordsBefore(1<<40, 1); ok {
		t.Error("records of the future")
	}
	v2 := openAt(t, t.TempDir(), Options{MaxBytes: 1})
	if err := v2.Restore(bytes.NewReader(snapshot(t, r))); err != nil {
		t.Fatal(err)
	}
	if _, lacking := v2.Gap(); lacking {
		t.Error("retention leaves no room, and it wants more")
	}
}

// A node that kept a tail and becomes a voter wants the rest.
func TestTailBecomesWhole(t *testing.T) {
	l := newLeader(rand.New(rand.NewSource(12)).Intn)
	for range 300 {
		l.next(3)
	}
	whole, r := openAt(t, t.TempDir(), Options{}), openAt(t, t.TempDir(), Options{TailBytes: 16 << 10})
	l.feed(t, whole)
	l.feed(t, r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = openAt(t, r.dir, Options{})
	if gap, lacking := r.Gap(); !lacking || gap.Seq+1 != r.First() || r.First() == 1 {
		t.Fatalf("held from %d on, gap %d %v", r.First(), gap.Seq, lacking)
	}
	fillGap(r, whole, 32<<10, func(*Replica) {})
	if r.First() != 1 {
		t.Fatalf("filled down to %d", r.First())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, "filled", whole, openAt(t, r.dir, Options{}))
}

func TestRecover(t *testing.T) {
	l, r := filled(t, 30)
	before := r.Cursor()
	index, term := r.Applied()
	actor := event.Actor{Kind: event.KindRecovery, ID: string(fleettest.Node(0))}
	draft := event.LogRecovered{History: "recovered", Seq: before.Seq, Hash: before.Hash, Reason: "the others burnt"}.Draft()
	now := time.UnixMilli(1_700_001_000_000)
	for name, b := range map[string]event.Batch{
		"a person":          {Actor: fleettest.Admin("ada"), Drafts: []event.Draft{draft}},
		"an admin, a group": {Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.GroupCreated{}.Draft("new")}},
		"another place":     {Actor: actor, Drafts: []event.Draft{event.LogRecovered{History: "x", Seq: before.Seq - 1, Hash: before.Hash, Reason: "r"}.Draft()}},
	} {
		if _, err := r.Recover(b, now); err == nil {
			t.Errorf("%s recovered", name)
		}
	}
	if i, _ := r.Applied(); r.Cursor() != before || i != index || r.Err() != nil {
		t.Fatal("a refused recovery changed something")
	}
	got, err := r.Recover(event.Batch{Actor: actor, Drafts: []event.Draft{draft}}, now)
	if err != nil || got.Cursor != r.Cursor() || got.Index != index+RecoverJump || got.Term != term+1 {
		t.Fatalf("%+v %v, was at %d/%d", got, err, index, term)
	}
	if got.Cursor.History != "recovered" || got.Cursor.Seq != before.Seq+1 {
		t.Errorf("the cursor is %+v", got.Cursor)
	}
	if seqs, err := Checkpoints(r.dir); err != nil || len(seqs) == 0 || seqs[0] != got.Cursor.Seq {
		t.Errorf("it is not durable: checkpoints %v, %v", seqs, err)
	}
	// As a kill would leave it: what is on disk now.
	crashed := filepath.Join(t.TempDir(), "r")
	if err := os.CopyFS(crashed, os.DirFS(r.dir)); err != nil {
		t.Fatal(err)
	}
	same(t, "reopened", r, openAt(t, crashed, Options{}))
	// A prefix goes on by records.
	f := openAt(t, t.TempDir(), Options{})
	for i, data := range l.entries {
		if _, err := f.ApplyEntry(uint64(i+1), 3, data); err != nil {
			t.Fatal(err)
		}
	}
	records, _ := r.Records(before.Seq+1, 1)
	if err := f.ApplyRecord(records[0]); err != nil {
		t.Fatal(err)
	}
	same(t, "a follower", r, f)
	if i, _ := f.Applied(); i != got.Index {
		t.Errorf("the follower has applied %d, want %d", i, got.Index)
	}
}

func TestEncodeSnapshot(t *testing.T) {
	_, r := filled(t, 30)
	seq := r.Cursor().Seq / 2
	s, _, err := r.StateAt(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	at, err := r.history.At(seq)
	if err != nil {
		t.Fatal(err)
	}
	b, err := EncodeSnapshot(s, at, 7, 2)
	if err != nil {
		t.Fatal(err)
	}
	n := openAt(t, t.TempDir(), Options{})
	if err := n.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if index, term := n.Applied(); n.Cursor().Seq != seq || stateHash(n) != s.Hash() || index != 7 || term != 2 {
		t.Errorf("restored at %+v, %d/%d", n.Cursor(), index, term)
	}
	if _, err := EncodeSnapshot(s, history.Position{Seq: seq + 1}, 7, 2); err == nil {
		t.Error("a place that is not the state's")
	}
}

func TestStatsAndCheckpointsOnDisk(t *testing.T) {
	_, r := filled(t, 30)
	if err := r.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Query(t.Context(), Query{Limit: 3}); err != nil {
		t.Fatal(err)
	}
	s := r.Stats()
	if s.First != 1 || s.Last != r.Cursor().Seq || s.Bytes == 0 || s.Queries != 1 || s.Scanned != 0 || s.Checkpoints != 1 {
		t.Errorf("%+v", s)
	}
	seqs, err := Checkpoints(r.dir)
	if err != nil || !slices.Equal(seqs, []uint64{s.Last}) {
		t.Fatal(seqs, err)
	}
	state, at, index, term, err := ReadCheckpoint(r.dir, s.Last)
	wantIndex, wantTerm := r.Applied()
	if err != nil || state.Hash() != stateHash(r) || at.Hash.String() != r.Cursor().Hash || index != wantIndex || term != wantTerm {
		t.Errorf("read back: %v %d/%d: %v", at, index, term, err)
	}
	flip(t, checkpoints(t, r.dir)[0], -3)
	if _, _, _, _, err := ReadCheckpoint(r.dir, s.Last); !errors.Is(err, ErrBadSnapshot) || !strings.Contains(err.Error(), "checkpoint") {
		t.Errorf("damaged: %v", err)
	}
}

// What is in the history and not decided yet is not shown.
func TestQueryIsNotAheadOfTheState(t *testing.T) {
	_, r := filled(t, 10)
	_, more := filled(t, 12)
	records, _ := more.Records(1, 1<<20)
	last := records[len(records)-1]
	at := r.Cursor()
	hash, err := r.history.At(at.Seq)
	if err != nil {
		t.Fatal(err)
	}
	events := slices.Clone(last.Events)
	for i := range events {
		events[i].Seq = at.Seq + 1 + uint64(i)
	}
	rec, err := history.NewRecord(999, 3, events, hash)
	if err == nil {
		err = r.history.Append(rec)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{{Newest: true, Limit: 9}, {Newest: true, Before: at.Seq + 9, Limit: 9}} {
		page, err := r.Query(t.Context(), q)
		if err != nil || page.Events[0].Seq != at.Seq {
			t.Errorf("event %d is shown, the state is at %d: %v", page.Events[0].Seq, at.Seq, err)
		}
	}
	if seq, err := r.SeqAt(t.Context(), time.Now()); err != nil || seq != at.Seq {
		t.Errorf("now is at event %d (%v), the state at %d", seq, err, at.Seq)
	}
}

// A checkpoint is not written before the history is durable up to it.
func TestCheckpointIsAfterHistory(t *testing.T) {
	_, r := filled(t, 10)
	if err := r.history.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Checkpoint(); err == nil || len(checkpoints(t, r.dir)) != 0 {
		t.Errorf("a checkpoint without history: %v", err)
	}
}

// An index that is missing is made anew by the first query that needs it, which
// is counted as one that had to scan.
func TestScannedIsCounted(t *testing.T) {
	l := newLeader(rand.New(rand.NewSource(5)).Intn)
	r := openAt(t, t.TempDir(), Options{MaxBytes: 100 << 10})
	for range 150 {
		l.next(3)
	}
	l.feed(t, r)
	r.saver.working.Wait()
	paths, err := filepath.Glob(filepath.Join(r.dir, "history", "*.idx"))
	if err != nil || len(paths) < 2 {
		t.Fatal(paths, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	r = openAt(t, r.dir, Options{MaxBytes: 100 << 10})
	for range 10 {
		if _, err := r.Query(t.Context(), Query{Filter: Filter{Type: "nothing."}, After: r.First() - 1, Limit: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if s := r.Stats(); s.Queries != 10 || s.Scanned != 1 {
		t.Errorf("%+v", s)
	}
}

// The past is rebuilt while the present goes on and retention drops segments.
func TestTravelWhileApplying(t *testing.T) {
	l := newLeader(rand.New(rand.NewSource(6)).Intn)
	r := openAt(t, t.TempDir(), Options{MaxBytes: 60 << 10})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				first, last := r.First(), r.Cursor().Seq
				seq := first + (last-min(first, last))/2
				s, at, err := r.StateAt(t.Context(), min(seq, last))
				if err != nil && !errors.Is(err, ErrCompacted) {
					t.Error(err)
				} else if err == nil && (s.Seq() != at.Seq) {
					t.Errorf("state at %d, cursor %+v", s.Seq(), at)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 300 {
		l.next(3)
	}
	for i, data := range l.entries {
		if _, err := r.ApplyEntry(uint64(i+1), 3, data); err != nil {
			t.Fatal(err)
		}
	}
	r.saver.working.Wait()
	close(done)
	wg.Wait()
	if r.First() == 1 {
		t.Error("retention has dropped nothing")
	}
}
