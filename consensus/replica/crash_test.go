package replica

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// These tests kill a process before the N-th call of one kind that changes the
// disk, for every N, open what it left, and compare with a replica that nothing
// happened to. They are cases 6 and 7 of the list of faults. What a power cut
// takes away beyond that is shown elsewhere.

const (
	crashDir   = "SKEIN_CRASH_DIR"   // set in the process that is killed
	crashStory = "SKEIN_CRASH_STORY" // what it does
	// crashBytes keeps segments and history so small that all happens soon.
	crashBytes = 12 << 10
)

// changes are the calls that change what is on disk.
var changes = []string{"write,pwrite64,writev", "fsync,fdatasync", "rename,renameat,renameat2", "unlink,unlinkat", "openat"}

// story is what a process does until it is killed. After every step that promised
// something it says up to where.
type story struct {
	name    string
	options Options
	tell    func(r, ref *Replica, l *leader, say func(*Replica))
}

func stories() []story {
	return []story{
		{"voter", Options{MaxBytes: crashBytes}, func(r, ref *Replica, l *leader, say func(*Replica)) {
			for i := range l.entries {
				apply(r, l, i+1)
				switch {
				case i%18 == 5:
					check(r.Checkpoint())
					say(r)
				case i%18 == 14:
					check(r.Snapshot(io.Discard))
					say(r)
				}
			}
			check(r.Close())
		}},
		{"installed", Options{}, func(r, ref *Replica, l *leader, say func(*Replica)) {
			apply(r, l, 9)
			check(r.Checkpoint())
			for i, at := range crashSnapshots { // two of them back to back
				snap, err := os.ReadFile(filepath.Join(filepath.Dir(r.dir), fmt.Sprint("snap", at)))
				check(err)
				check(r.Restore(bytes.NewReader(snap)))
				say(r)
				if i > 0 {
					apply(r, l, at+12)
					check(r.Checkpoint())
					say(r)
				}
			}
			fillGap(r, ref, 8<<10, say)
			check(r.Close())
		}},
		{"follower", Options{TailBytes: crashBytes}, func(r, ref *Replica, l *leader, say func(*Replica)) {
			for r.Cursor().Seq < ref.Cursor().Seq {
				records, _ := ref.Records(r.Cursor().Seq+1, 6<<10)
				for _, rec := range records {
					check(r.ApplyRecord(rec))
				}
				check(r.Checkpoint())
				say(r)
			}
			check(r.Close())
		}},
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// apply applies the entries up to the n-th that r lacks.
func apply(r *Replica, l *leader, n int) {
	for i := range min(n, len(l.entries)) {
		_, err := r.ApplyEntry(uint64(i+1), 3, l.entries[i])
		check(err)
	}
}

// crashSnapshots are the entries after which the story's snapshots are.
var crashSnapshots = []int{70, 90, 120}

// writeSnapshots puts them where the story finds them.
func writeSnapshots(t *testing.T, dir string, l *leader) {
	t.Helper()
	v := openAt(t, t.TempDir(), Options{})
	for _, at := range crashSnapshots {
		apply(v, l, at)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("snap", at)), snapshot(t, v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func fillGap(r, ref *Replica, most int, say func(*Replica)) {
	for gap, lacking := r.Gap(); lacking; gap, lacking = r.Gap() {
		after, records, ok := ref.RecordsBefore(gap.Seq, most)
		if !ok {
			panic("the reference does not have what is lacking")
		}
		check(r.Backfill(after, records))
		say(r)
	}
}

// crashLog is the same for parent and child.
func crashLog() *leader {
	l := newLeader(rand.New(rand.NewSource(66)).Intn)
	for range 150 {
		l.next(3)
	}
	return l
}

// TestMain runs the tests, or the process that TestCrash kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

func crashChild(dir string) {
	runtime.LockOSThread() // strace counts the calls of every thread
	ref, err := Open(filepath.Join(dir, "ref"), Options{})
	check(err)
	for _, s := range stories() {
		if s.name != os.Getenv(crashStory) {
			continue
		}
		l := crashLog()
		r, err := Open(filepath.Join(dir, "r"), s.options)
		check(err)
		r.saveBytes = 1 << 40 // no checkpoint by another goroutine
		s.tell(r, ref, l, func(r *Replica) {
			index, _ := r.Applied()
			fmt.Printf("durable %d %d %d\n", r.Cursor().Seq, index, r.First())
		})
	}
	fmt.Println("done")
}

// promised is the last that a process said.
type promised struct {
	seq, index, first uint64
	done              bool
}

// killAt runs a story until the n-th of calls.
func killAt(t *testing.T, strace, dir string, s story, calls string, n int) promised {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, "r")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strace, "-f", "-qq", "-o", filepath.Join(dir, "trace"),
		"-e", "trace="+calls, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, n),
		os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashStory+"="+s.name)
	out, err := cmd.Output()
	var p promised
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "durable %d %d %d", &p.seq, &p.index, &p.first); err != nil && lines.Text() == "done" {
			p.done = true
		}
	}
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled()
	if !killed && !p.done {
		t.Fatalf("%s, %s %d: neither killed nor done: %v\n%s", s.name, calls, n, err, out)
	}
	return p
}

// reference is what a replica must be like at every event.
type reference struct {
	*Replica
	log    *leader
	states map[uint64]string
}

// judgeCrash opens what a killed process left.
func (ref reference) judgeCrash(t *testing.T, what, dir string, o Options, p promised) {
	t.Helper()
	r, err := Open(filepath.Join(dir, "r"), o)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close()
	index, _ := r.Applied()
	at := r.Cursor()
	if at.Seq < p.seq || index < p.index {
		t.Fatalf("%s: opened at event %d, entry %d; promised were %d and %d", what, at.Seq, index, p.seq, p.index)
	}
	if at.Seq > 0 && !ref.Held(at) || stateHash(r) != ref.states[at.Seq] {
		t.Fatalf("%s: the state at event %d is mixed", what, at.Seq)
	}
	if gap, lacking := r.Gap(); lacking && p.first > 0 && r.First() > p.first && at.Seq == p.seq {
		t.Fatalf("%s: filled down to %d, now the gap ends at %d", what, p.first, gap.Seq)
	}
	apply(r, ref.log, len(ref.log.entries)) // Raft offers everything anew
	if r.Cursor() != ref.Cursor() || stateHash(r) != ref.states[ref.Cursor().Seq] {
		t.Fatalf("%s: went on to %+v", what, r.Cursor())
	}
	fillGap(r, ref.Replica, 64<<10, func(*Replica) {})
	if o.MaxBytes+o.TailBytes == 0 && r.First() != 1 {
		t.Fatalf("%s: filled down to %d", what, r.First())
	}
	r.saver.working.Wait() // retention may be at work
	first := r.First()
	if p.done && o.MaxBytes+o.TailBytes > 0 && first == 1 {
		t.Fatalf("%s: retention has dropped nothing", what)
	}
	page, err := r.Query(t.Context(), Query{After: first - 1, Limit: MaxEvents})
	if err != nil || uint64(len(page.Events)) != ref.Cursor().Seq+1-first {
		t.Fatalf("%s: %d events from %d on: %v", what, len(page.Events), first, err)
	}
	seq := first + (ref.Cursor().Seq-first)*3/4
	if o.TailBytes > 0 {
		return
	}
	if s, _, err := r.StateAt(t.Context(), seq); err != nil || s.Hash() != ref.states[seq] {
		t.Fatalf("%s: the state at event %d: %v", what, seq, err)
	}
}

// TestCrash: whenever the process is killed, the next one goes on from what was
// promised, or from later, and from nothing in between.
func TestCrash(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	dir := t.TempDir()
	ref := reference{Replica: openAt(t, filepath.Join(dir, "ref"), Options{}), log: crashLog()}
	ref.log.feed(t, ref.Replica)
	if err := ref.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	ref.states = pastStates(t, ref.Replica)
	writeSnapshots(t, dir, ref.log)
	step, offset := 17, 1+rand.Intn(17)
	if os.Getenv("SKEIN_SOAK") != "" {
		step, offset = 1, 1
	}
	for _, s := range stories() {
		for _, calls := range changes {
			runs, killed := 0, 0
			for n := offset; ; n += step {
				p := killAt(t, strace, dir, s, calls, n)
				ref.judgeCrash(t, fmt.Sprintf("%s, killed before %s %d", s.name, calls, n), dir, s.options, p)
				if runs++; p.done {
					break
				}
				killed++
			}
			t.Logf("%s: %d runs killed at %s", s.name, killed, strings.Split(calls, ",")[0])
		}
	}
}
