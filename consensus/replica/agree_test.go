package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

// crash gives a directory as a power cut would leave it: the files of r as they
// are, without what is not durable, cut at an arbitrary byte.
func crash(t *rapid.T, r *Replica, dir string) {
	if err := os.CopyFS(dir, os.DirFS(r.dir)); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "history", "*.seg"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	last := slices.Max(paths)
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	// What a checkpoint covers is durable, and so is a full segment.
	durable := 0
	if at, err := r.history.At(r.saver.last.Seq); err == nil && at.Seq > 0 {
		records, err := r.history.Read(1, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			if rec.Last() <= at.Seq {
				durable = bytes.Index(whole, rec.Bytes()) + len(rec.Bytes())
			}
		}
	}
	durable = max(durable, 52) // the segment's header
	cut := rapid.IntRange(durable, len(whole)).Draw(t, "cut")
	torn := whole[:cut]
	if rapid.Bool().Draw(t, "garbage") {
		torn = append(slices.Clone(torn), make([]byte, 40)...)
	}
	if err := os.WriteFile(last, torn, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReplicasAgree is the heart of the matter: whatever way events take to a
// replica, at equal sequence numbers it has the same chain and the same state.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, err := os.MkdirTemp("", "agree")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(base)
		dirs := 0
		fresh := func(o Options) *Replica {
			dirs++
			r, err := Open(filepath.Join(base, "r", string(rune('a'+dirs))), o)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		choice := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		l := newLeader(choice)
		voter, follower, installed, crashed := fresh(Options{}), fresh(Options{TailBytes: 4096}), fresh(Options{}), fresh(Options{})
		all := []*Replica{voter, follower, installed, crashed}
		defer func() {
			for _, r := range all {
				r.Close()
			}
		}()
		for range rapid.IntRange(2, 8).Draw(t, "rounds") {
			for range 1 + choice(4) {
				l.next(1 + choice(5))
			}
			feed := func(r *Replica, upTo int) {
				for i := range l.entries[:upTo] {
					if _, err := r.ApplyEntry(uint64(i+1), 1, l.entries[i]); err != nil {
						t.Fatal(err)
					}
				}
			}
			feed(voter, len(l.entries))
			records, ok := voter.Records(follower.Cursor().Seq+1, 1<<choice(16))
			for _, rec := range records {
				if err := follower.ApplyRecord(rec); err != nil || !ok {
					t.Fatal(err)
				}
			}
			switch choice(3) {
			case 0:
				var b bytes.Buffer
				if err := voter.Snapshot(&b); err != nil {
					t.Fatal(err)
				}
				if err := installed.Restore(&b); err != nil {
					t.Fatal(err)
				}
			case 1:
				feed(installed, len(l.entries))
			}
			feed(crashed, 1+choice(len(l.entries)))
			if choice(3) == 0 {
				if err := crashed.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
			if choice(2) == 0 {
				crash(t, crashed, filepath.Join(base, "r", string(rune('a'+dirs+1))))
				crashed.Close()
				crashed = fresh(Options{})
				all[3] = crashed
			}
			if choice(4) == 0 {
				if err := follower.Close(); err != nil {
					t.Fatal(err)
				}
				if follower, err = Open(follower.dir, Options{TailBytes: 4096}); err != nil {
					t.Fatal(err)
				}
				all[1] = follower
			}
		}
		for i := range l.entries {
			for _, r := range []*Replica{crashed, installed} {
				if _, err := r.ApplyEntry(uint64(i+1), 1, l.entries[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		for follower.Cursor().Seq < voter.Cursor().Seq {
			records, ok := voter.Records(follower.Cursor().Seq+1, 1<<20)
			for _, rec := range records {
				if err := follower.ApplyRecord(rec); err != nil || !ok {
					t.Fatal(err)
				}
			}
		}
		for i, what := range []string{"follower", "installed", "crashed"} {
			if r := all[i+1]; r.Cursor() != voter.Cursor() || stateHash(r) != stateHash(voter) {
				t.Fatalf("%s is at %+v, the voter at %+v", what, r.Cursor(), voter.Cursor())
			}
		}
	})
}

// A reader sees an entry wholly or not at all, and may read while it is applied.
func TestReadersSeeWholeEntries(t *testing.T) {
	l, r := filled(t, 2)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				r.View(func(s *fleet.State) {
					if n := len(s.Groups()); n%2 != 0 {
						t.Errorf("%d groups: half an entry", n)
					}
				})
				at := r.Cursor()
				if _, err := r.Events(t.Context(), at.Seq/2, Filter{Type: "group."}, 10); err != nil {
					t.Error(err)
				}
				if !r.Held(at) {
					t.Errorf("%+v was the cursor and is not held", at)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := r.Checkpoint(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range 100 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		one := func(suffix string) event.Batch {
			return event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.GroupCreated{}.Draft(name + suffix)}}
		}
		l.add(one("1"), one("2"))
		if _, err := r.ApplyEntry(uint64(len(l.entries)), 3, l.entries[len(l.entries)-1]); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
}
