package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein/consensus/event"
)

var testEpoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// variedEvent makes event seq on one of a few streams, of one of a few types, by
// one of a few actors, at a time that now and then goes back.
func variedEvent(rng *rand.Rand, seq uint64) event.Event {
	kind := []string{"robot", "node", "group"}[rng.Intn(3)]
	e := event.Event{
		Seq: seq, Time: testEpoch.Add(time.Duration(seq)*time.Second - time.Duration(rng.Intn(5))*700*time.Millisecond), Version: seq,
		Stream: fmt.Sprintf("%s/%d", kind, rng.Intn(6)), Type: kind + "." + []string{"born", "moved", "gone"}[rng.Intn(3)], Schema: 1,
		Actor: event.Actor{Kind: event.KindPerson, ID: []string{"ada", "bob", "cy"}[rng.Intn(3)]},
		Data:  fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", rng.Intn(200))),
	}
	if rng.Intn(100) == 0 {
		e.Stream, e.Actor.ID = "rare/one", "dee"
	}
	return e
}

// eventFile is a real file of events: now and then some bytes that the index knows
// nothing of, and each event after its length.
type eventFile struct {
	Source
	events []event.Event
	memory *Memory
	// made is how often it was read to make its index anew.
	made atomic.Int32
}

func writeEvents(t testing.TB, rng *rand.Rand, n int) *eventFile {
	t.Helper()
	f := &eventFile{memory: NewMemory(), Source: Source{Path: filepath.Join(t.TempDir(), "events.seg"), Events: n}}
	rng.Read(f.Identity[:])
	var content []byte
	for i := range n {
		content = append(content, make([]byte, 4*rng.Intn(3))...) // no length
		e := variedEvent(rng, uint64(i+1))
		at := len(content)
		content = e.AppendJSON(append(content, 0, 0, 0, 0))
		binary.BigEndian.PutUint32(content[at:], uint32(len(content)-at-4))
		f.memory.Add(&e, uint32(at), content[at:])
		f.events = append(f.events, e)
	}
	f.Bytes = int64(len(content))
	write(t, f.Path, content)
	return f
}

// remake makes the index by reading the file.
func (f *eventFile) remake() (*Memory, error) {
	f.made.Add(1)
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, err
	}
	m := NewMemory()
	for at := 0; at < len(b); {
		n := int(binary.BigEndian.Uint32(b[at:]))
		if n > 0 {
			e, err := event.Parse(b[at+4:][:n])
			if err != nil {
				return nil, err
			}
			m.Add(&e, uint32(at), b[at:][:4+n])
		}
		at += 4 + n
	}
	return m, nil
}

func (f *eventFile) index() *File { return NewFile(f.Source, f.remake) }

// written gives the index, which lies on disk and was not looked at.
func (f *eventFile) written() *File {
	x := f.index()
	x.Write(f.memory)
	return x
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func randomWanted(rng *rand.Rand, n int) *Wanted {
	one := func(of ...string) string { return of[rng.Intn(len(of))] }
	w := &Wanted{Hi: n, Newest: rng.Intn(2) == 0, Most: []int{1, 3, 50, n}[rng.Intn(4)]}
	if rng.Intn(2) == 0 {
		w.Stream = one("robot/1", "robot/5", "node/", "rare/", "rare/one", "robot", "nothing/", "group/2", "zzz", "")
	}
	if rng.Intn(3) == 0 {
		w.Type = one("robot.moved", "group.", "group.gone", "robot", "a.", "z")
	}
	if rng.Intn(3) == 0 {
		w.Actor = one("ada", "dee", "d", "")
	}
	if rng.Intn(3) == 0 {
		w.From = testEpoch.Add(time.Duration(rng.Intn(n)) * time.Second).Add(time.Duration(rng.Intn(2)))
	}
	if rng.Intn(3) == 0 {
		w.Until = testEpoch.Add(time.Duration(rng.Intn(n)) * time.Second).Add(time.Duration(rng.Intn(2)))
	}
	if rng.Intn(2) == 0 {
		w.Lo = rng.Intn(n + 1)
	}
	if rng.Intn(2) == 0 {
		w.Hi = rng.Intn(n + 1)
	}
	return w
}

// judge answers from all events, the dumb way.
func judge(all []event.Event, w *Wanted) []int {
	positions := []int{}
	for i, e := range all {
		if i >= w.Lo && i < w.Hi && w.Matches(e) {
			positions = append(positions, i)
		}
	}
	if w.Newest {
		slices.Reverse(positions)
	}
	return positions[:min(w.Most, len(positions))]
}

// check puts a question in both forms; indexed is the first one's.
func check(t testing.TB, r *Reader, x Index, f *eventFile, w *Wanted) (indexed bool) {
	t.Helper()
	picked, indexed, err := r.Pick(x, w)
	if want := judge(f.events, w); err != nil || !slices.Equal(picked, want) {
		t.Fatalf("%+v: %v (%v), want %v", *w, picked, err, want)
	}
	places, _, err := r.Find(x, w)
	if err != nil || len(places) != len(picked) {
		t.Fatalf("%+v: %d places for %d events: %v", *w, len(places), len(picked), err)
	}
	if want, _ := f.memory.place(picked); !slices.Equal(places, want) {
		t.Fatalf("%+v: places %v, want %v", *w, places, want)
	}
	content := read(t, f.Path)
	for i, p := range places {
		b := content[p.Offset:][:p.Room]
		b = b[:4+binary.BigEndian.Uint32(b)]
		e, err := event.Parse(b[4:])
		if err != nil || p.Position != picked[i] || e.Seq != uint64(picked[i]+1) || crc32.Checksum(b, castagnoli) != p.Sum {
			t.Fatalf("%+v: position %d is said to lie at %+v: event %d (%v)", *w, picked[i], p, e.Seq, err)
		}
	}
	return indexed
}

// A question is answered as by looking at every event, from memory and from a
// file, whose head is known or not, without reading the events.
func TestAnswers(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	var readers Readers
	for _, n := range []int{1, 2, 63, 64, 65, 700} {
		f := writeEvents(t, rng, n)
		file, remembered := f.written(), f.index()
		remembered.Remember(f.memory)
		r := readers.Get()
		for range 400 {
			w := randomWanted(rng, n)
			for name, x := range map[string]Index{"memory": f.memory, "file": file, "remembered": remembered} {
				if !check(t, r, x, f, w) {
					t.Fatalf("%s: %+v: not by index", name, *w)
				}
			}
		}
		want := int64(-1 << 63)
		for _, e := range f.events {
			want = max(want, e.Time.UnixMilli())
		}
		for name, x := range map[string]Index{"memory": f.memory, "file": file} {
			if last, err := r.Last(x); err != nil || last != want {
				t.Errorf("%s: the last time is %d (%v), want %d", name, last, err, want)
			}
		}
		r.Release()
		if f.made.Load() > 0 {
			t.Errorf("%d events: an index was made anew", n)
		}
	}
}

// A copy of a Memory answers as at the time it was made while the original grows.
func TestCopyOfMemory(t *testing.T) {
	rng := rand.New(rand.NewSource(2))
	m, seen, f := NewMemory(), Memory{}, &eventFile{}
	for i := range 300 {
		if i == 200 {
			seen = *m
		}
		e := variedEvent(rng, uint64(i+1))
		m.Add(&e, uint32(i*8), make([]byte, 8))
		f.events = append(f.events, e)
	}
	if m.Events() != 300 || seen.Events() != 200 {
		t.Fatalf("%d events, the copy has %d", m.Events(), seen.Events())
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			rng, r := rand.New(rand.NewSource(int64(i))), new(Readers).Get()
			for range 200 {
				w := randomWanted(rng, 200)
				if got, _, err := r.Pick(&seen, w); err != nil || !slices.Equal(got, judge(f.events, w)) {
					t.Errorf("%+v: %v (%v), want %v", *w, got, err, judge(f.events, w))
				}
			}
		})
	}
	for i := range 2000 {
		e := variedEvent(rng, uint64(i))
		m.Add(&e, uint32(i*8), make([]byte, 8))
	}
	wg.Wait()
}

// damages gives what an index on disk can suffer.
func damages(t testing.TB, rng *rand.Rand, f *eventFile) map[string]func() {
	path := Path(f.Path)
	whole := read(t, path)
	changed := func(change func(of *Source)) func() {
		return func() {
			other := f.Source
			change(&other)
			write(t, path, f.memory.encode(&other))
		}
	}
	return map[string]func(){
		"missing": func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"empty":         func() { write(t, path, nil) },
		"cut":           func() { write(t, path, whole[:pageSize+rng.Intn(pageSize)]) },
		"zeros":         func() { write(t, path, make([]byte, len(whole))) },
		"of another":    changed(func(of *Source) { of.Identity[IdentityBytes-1]++ }),
		"of other size": changed(func(of *Source) { of.Bytes++ }),
		"of fewer": func() {
			m := NewMemory()
			m.Add(&f.events[0], 0, make([]byte, 4))
			write(t, path, m.encode(&f.Source))
		},
	}
}

// Whatever is wrong with an index, the question that finds out is answered all the
// same and says so, and the next one is answered by index again.
func TestMadeAnew(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	f := writeEvents(t, rng, 500)
	f.written()
	good := read(t, Path(f.Path))
	r := new(Readers).Get()
	all := &Wanted{Filter: Filter{Type: "robot."}, Hi: 500, Most: 500}
	for name, damage := range damages(t, rng, f) {
		for _, known := range []bool{false, true} {
			x := f.index()
			if known {
				x.Remember(f.memory)
			}
			damage()
			if check(t, r, x, f, all) {
				t.Errorf("%s, head known %v: it was not noticed", name, known)
			}
			if !check(t, r, x, f, all) || !bytes.Equal(read(t, Path(f.Path)), good) {
				t.Errorf("%s, head known %v: it was not made anew", name, known)
			}
		}
	}
}

// An index that cannot be written costs time and nothing else.
func TestCannotBeWritten(t *testing.T) {
	f := writeEvents(t, rand.New(rand.NewSource(4)), 300)
	x := f.written()
	if err := errors.Join(os.Remove(Path(f.Path)), os.Mkdir(Path(f.Path), 0o700)); err != nil {
		t.Fatal(err)
	}
	r := new(Readers).Get()
	for range 3 {
		if check(t, r, x, f, &Wanted{Hi: 300, Most: 300}) {
			t.Error("answered by an index that is none")
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What making an index says goes to who asked.
func TestCannotBeMade(t *testing.T) {
	f := writeEvents(t, rand.New(rand.NewSource(5)), 10)
	broken := errors.New("broken")
	x := NewFile(f.Source, func() (*Memory, error) { return nil, broken })
	r, w := new(Readers).Get(), &Wanted{Hi: 10, Most: 1}
	_, _, picked := r.Pick(x, w)
	_, _, found := r.Find(x, w)
	_, last := r.Last(x)
	for _, err := range []error{picked, found, last} {
		if !errors.Is(err, broken) || errors.Is(err, errUnusable) {
			t.Errorf("error %v", err)
		}
	}
}

// Of many that find an index missing, one makes it, and the others wait for that.
func TestMadeOnce(t *testing.T) {
	const many = 8
	f := writeEvents(t, rand.New(rand.NewSource(6)), 300)
	w := &Wanted{Filter: Filter{Actor: "ada"}, Hi: 300, Most: 300}
	tried := make(chan struct{})
	x := NewFile(f.Source, func() (*Memory, error) {
		<-tried
		return f.remake()
	})
	x.Remember(f.memory) // so that every try comes to the question
	var (
		readers Readers
		tries   atomic.Int32
		wg      sync.WaitGroup
	)
	for range many {
		wg.Go(func() {
			r := readers.Get()
			defer r.Release()
			var got []int
			_, err := x.ask(r, func(x rows) error {
				if tries.Add(1) == many { // all, or all but one who comes later
					close(tried)
				}
				set, err := match(x, w)
				got = set.pick(w.Most, false)
				return err
			})
			if err != nil || !slices.Equal(got, judge(f.events, w)) {
				t.Errorf("%v (%v), want %v", got, err, judge(f.events, w))
			}
		})
	}
	wg.Wait()
	if n := f.made.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
}

// A file that was dropped while its index was made keeps no index.
func TestDropped(t *testing.T) {
	f := writeEvents(t, rand.New(rand.NewSource(7)), 10)
	if err := os.Remove(f.Path); err != nil {
		t.Fatal(err)
	}
	f.written()
	if left, err := os.ReadDir(filepath.Dir(f.Path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if _, _, err := new(Readers).Get().Pick(f.index(), &Wanted{Hi: 10, Most: 1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("asked then: %v", err)
	}
}

// Whatever byte of an index is changed, the answer is right.
func TestFlippedByte(t *testing.T) {
	f := writeEvents(t, rand.New(rand.NewSource(8)), 60)
	f.written()
	whole := read(t, Path(f.Path))
	r := new(Readers).Get()
	w := &Wanted{Filter: Filter{Stream: "robot/", Type: "robot.moved", Actor: "ada", Until: testEpoch.Add(48500 * time.Millisecond)}, Hi: 60, Most: 60}
	if len(judge(f.events, w)) == 0 {
		t.Fatal("nothing is asked for")
	}
	noticed := 0
	for at := 0; at < len(whole); at += 3 {
		changed := slices.Clone(whole)
		changed[at] ^= 0x10
		write(t, Path(f.Path), changed)
		if !check(t, r, f.index(), f, w) { // as after a restart
			noticed++
		}
	}
	if noticed < pageSize/4 {
		t.Errorf("of %d changed bytes only %d were noticed", len(whole), noticed)
	}
}

// The form on disk changes only together with version.
func TestForm(t *testing.T) {
	f := writeEvents(t, rand.New(rand.NewSource(9)), 200)
	for i := range f.Identity {
		f.Identity[i] = byte(i)
	}
	sum := sha256.Sum256(f.memory.encode(&f.Source))
	if got, want := hex.EncodeToString(sum[:]), "ff484611e58667543f22c5cc4c56b1adb1a8fabdc573d5ea7e9d3733efbdf4b6"; got != want {
		t.Errorf("the index of these 200 events hashes to %s, was %s", got, want)
	}
	if path := Path("a.b/0001.seg"); path != "a.b/0001.idx" {
		t.Errorf("it lies at %s", path)
	}
}

// A sieve lets through all that is there, and nearly nothing else unless there are
// more names than its bound is good for.
func TestSieve(t *testing.T) {
	for _, c := range []struct{ names, most int }{{100, 20}, {2000, 20}, {100_000, 1000}} {
		m := NewMemory()
		for i := range c.names {
			e := event.Event{Stream: fmt.Sprintf("robot/%d", i), Type: "robot.moved"}
			m.Add(&e, uint32(i*8), make([]byte, 8))
		}
		s, through := m.newSieve(), 0
		if len(s) > maxSieve {
			t.Errorf("%d names: it has %d bytes", c.names, len(s))
		}
		for i := range c.names {
			if !s.mayHave(keyStream, fmt.Sprintf("robot/%d", i)) {
				t.Fatalf("%d names: %d is held back", c.names, i)
			}
		}
		for i := range 1000 {
			if s.mayHave(keyStream, fmt.Sprintf("other/%d", i)) {
				through++
			}
		}
		if through > c.most {
			t.Errorf("%d names: of 1000 that are not there %d come through", c.names, through)
		}
	}
}
