package fleet_test

import (
	"bytes"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

var epoch = time.UnixMilli(1_700_000_000_000)

// founded is a fleet whose founder has registered as a robot.
func founded(t testing.TB) *fleet.State {
	t.Helper()
	s, id := fleet.New(), fleettest.Node(0)
	accept(t, s, fleettest.Genesis())
	accept(t, s, event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
		event.RobotRegistered{Name: "n", Type: event.LeKiwi, Version: "1", Arch: "a", OS: "o"}.Draft(id)}})
	return s
}

func accept(t testing.TB, s *fleet.State, b event.Batch) {
	t.Helper()
	tx := s.Begin()
	if _, err := tx.Check(b, epoch); err != nil {
		t.Fatal(err)
	}
	tx.Commit()
}

// newer are batches of types of level 2, each of an actor that may propose it.
func newer() []event.Batch {
	id := fleettest.Node(0)
	by := func(actor event.Actor, d event.Draft) event.Batch {
		return event.Batch{Actor: actor, Drafts: []event.Draft{d}}
	}
	return []event.Batch{
		by(fleettest.Itself(id), event.RobotProvisioned{}.Draft(id)),
		by(fleettest.Itself(id), event.RobotRegistered{Name: "n", Type: event.LeKiwi, Version: "1", Arch: "a", OS: "o", Hostname: "h"}.Draft(id)),
		by(fleettest.Leader(id), event.RobotFailed{Message: "m", Kind: event.FailedUnknown}.Draft(id)),
		by(fleettest.Admin("ada"), event.RobotRetired{}.Draft(id)),
		by(fleettest.Leader(id), event.Seal(fleettest.Key(0), "h1", 1, strings.Repeat("0", 64)).Draft()),
	}
}

// At ceiling 1 every build, also one that is older, refuses what is newer and
// goes on in the same state.
func TestNewerTypesWait(t *testing.T) {
	s := founded(t)
	before := s.Hash()
	for _, b := range newer() {
		tx := s.Begin()
		_, err := tx.Check(b, epoch)
		if fault, ok := event.FaultOf(err); !ok || fault.Code != event.CodeConflict || fault.Reason != event.ReasonCeiling || fault.Next == "" {
			t.Errorf("%s: %v", b.Drafts[0].Type, err)
		}
		if tx.Commit(); s.Hash() != before {
			t.Fatalf("%s changed the state", b.Drafts[0].Type)
		}
	}
}

// A state of the build before this one loads, stays as it is byte by byte, and
// is what its events add up to in this build too.
func TestStateOfLevel1(t *testing.T) {
	old, err := os.ReadFile("testdata/level1/state.bin")
	if err != nil {
		t.Fatal(err)
	}
	s, err := fleet.Unmarshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if s.Ceiling() != 1 || s.Recoveries() != 0 || len(s.Robots()) == 0 {
		t.Errorf("ceiling %d, %d recoveries, %d robots", s.Ceiling(), s.Recoveries(), len(s.Robots()))
	}
	for _, r := range s.Robots() {
		if r.Lifecycle != (fleet.Lifecycle{State: fleet.Discovered}) {
			t.Errorf("robot %s has the life %+v", r.ID, r.Lifecycle)
		}
	}
	events, err := os.ReadFile("testdata/level1/events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	replayed, decided := fleet.New(), fleet.New()
	var batch []event.Event
	for line := range bytes.Lines(events) {
		e, err := event.Parse(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		if err := replayed.Apply(e); err != nil {
			t.Fatal(err)
		}
		if len(batch) > 0 && batch[0].Producer != e.Producer {
			decide(t, decided, batch)
			batch = nil
		}
		batch = append(batch, e)
	}
	decide(t, decided, batch)
	for name, again := range map[string]*fleet.State{"loaded": s, "replayed": replayed, "decided": decided} {
		if !bytes.Equal(again.Marshal(), old) {
			t.Errorf("the %s state is another:\n%s", name, again.Marshal())
		}
	}
}

// decide proposes the events of a batch again.
func decide(t *testing.T, s *fleet.State, events []event.Event) {
	t.Helper()
	b := event.Batch{Actor: events[0].Actor, Producer: events[0].Producer}
	for _, e := range events {
		b.Drafts = append(b.Drafts, event.Draft{Stream: e.Stream, Type: e.Type, Schema: e.Schema, Data: e.Data, Cause: e.Cause})
	}
	tx := s.Begin()
	v, err := tx.Check(b, events[0].Time)
	if err != nil || len(v.Events) != len(events) {
		t.Fatalf("event %d: %d of %d (%v)", events[0].Seq, len(v.Events), len(events), err)
	}
	for i, e := range events {
		if got, want := v.Events[i].AppendJSON(nil), e.AppendJSON(nil); !bytes.Equal(got, want) {
			t.Fatalf("decided again it is\n%s\nnot\n%s", got, want)
		}
	}
	tx.Commit()
}

// The random runs, with which everything above is tested, meet every type that
// this build knows.
func TestRunsCoverTheCatalogue(t *testing.T) {
	accepted := map[string]bool{}
	kinds := map[string]bool{}
	for _, info := range event.Types() {
		kinds[info.Type] = true
	}
	for seed := int64(0); seed < 200 && len(accepted) < len(kinds); seed++ {
		s := fleet.New()
		run := fleettest.New(chooser(seed))
		log := uint64(0)
		for i := range 500 {
			run.At(s.Seq(), s.History())
			next := run.Next
			if i == 0 {
				next = fleettest.Genesis
			}
			b := next()
			tx := s.Begin()
			v, err := tx.Check(b, epoch.Add(time.Duration(i)*time.Second))
			if err != nil {
				continue
			}
			tx.Commit()
			for _, e := range v.Events {
				accepted[e.Type] = true
				log = e.Seq
			}
		}
		if log != s.Seq() {
			t.Fatalf("the log ends at %d, the state at %d", log, s.Seq())
		}
	}
	var missing []string
	for typ := range kinds {
		if !accepted[typ] {
			missing = append(missing, typ)
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		t.Errorf("never accepted: %v", missing)
	}
}

// chooser chooses by a seed.
func chooser(seed int64) fleettest.Choose { return rand.New(rand.NewSource(seed)).Intn }
