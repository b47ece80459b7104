package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
)

func choose(t *rapid.T) fleettest.Choose {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
}

// TestJudge runs random batches in random entries and compares the state with a
// dumb one: rebuilt from the first event on, one event at a time.
func TestJudge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			run  = fleettest.New(choose(t))
			s    = fleet.New()
			tx   = s.Begin()
			now  = time.UnixMilli(1_700_000_000_000).UTC()
			log  []event.Event
			seen = map[event.Producer][2]uint64{}
		)
		check := func(b event.Batch) {
			v, err := tx.Check(b, now)
			if err != nil {
				if fault, ok := event.FaultOf(err); !ok || fault.Message == "" {
					t.Fatalf("refused without a fault: %v", err)
				}
				return
			}
			was, again := seen[b.Producer]
			if again != v.Repeated || again && was != [2]uint64{v.First, v.Last} {
				t.Fatalf("producer %v: %+v, before %v", b.Producer, v, was)
			}
			if b.Producer != (event.Producer{}) {
				seen[b.Producer] = [2]uint64{v.First, v.Last}
			}
			log = append(log, v.Events...)
		}
		check(fleettest.Genesis())
		if rapid.Bool().Draw(t, "level 1") {
			run = fleettest.NewLevel1(choose(t))
		}
		for range rapid.IntRange(1, 15).Draw(t, "entries") {
			for range rapid.IntRange(1, 8).Draw(t, "batches") {
				run.At(uint64(len(log)), historyOf(t, log))
				check(run.Next())
			}
			tx.Commit()
			now = now.Add(time.Duration(rapid.IntRange(-5, 300).Draw(t, "seconds")) * time.Second)
			if rapid.Bool().Draw(t, "reload") {
				var err error
				if s, err = fleet.Unmarshal(s.Marshal()); err != nil {
					t.Fatal(err)
				}
				tx = s.Begin()
			}
			rebuilt := fleet.New()
			for _, e := range log {
				if err := rebuilt.Apply(e); err != nil {
					t.Fatal(err)
				}
			}
			if string(rebuilt.Marshal()) != string(s.Marshal()) {
				t.Fatalf("rebuilt\n%s\nincremental\n%s", rebuilt.Marshal(), s.Marshal())
			}
			if clone := s.Clone(); clone.Hash() != s.Hash() {
				t.Fatal("a clone differs")
			}
			checkInvariants(t, s, log)
		}
	})
}

// historyOf is the name of a log.
func historyOf(t *rapid.T, log []event.Event) string {
	name := ""
	for _, e := range log {
		if e.Type != event.TypeFleetCreated && e.Type != event.TypeLogRecovered {
			continue
		}
		payload, err := e.Decode()
		switch p := payload.(type) {
		case *event.FleetCreated:
			name = p.History
		case *event.LogRecovered:
			name = p.History
		default:
			t.Fatal(err)
		}
	}
	return name
}

// checkInvariants checks what must hold in every state, from the log alone.
func checkInvariants(t *rapid.T, s *fleet.State, log []event.Event) {
	versions := map[string]uint64{}
	revoked := map[string]bool{}
	used := map[string]bool{}
	for i, e := range log {
		if e.Seq != uint64(i+1) || e.Version != versions[e.Stream]+1 {
			t.Fatalf("event %d is %d, version %d of %s after %d", i+1, e.Seq, e.Version, e.Stream, versions[e.Stream])
		}
		versions[e.Stream] = e.Version
		payload, err := e.Decode()
		if err != nil {
			t.Fatal(err)
		}
		switch p := payload.(type) {
		case *event.NodeRevoked:
			revoked[e.Stream] = true
		case *event.NodeAdmitted:
			if revoked[e.Stream] {
				t.Fatalf("event %d admits a revoked node", e.Seq)
			}
			if p.By == event.ByToken && used[p.Ref] {
				t.Fatalf("event %d uses a token again", e.Seq)
			}
			used[p.Ref] = p.By == event.ByToken
		}
	}
	votersLeft := 0
	for _, n := range s.Nodes() {
		if n.Voter && n.Member() {
			votersLeft++
		}
		if n.VoterApproved && !n.VoterEligible || !n.Member() && n.VoterEligible {
			t.Fatalf("roles of %+v", n)
		}
		if r, ok := s.Robot(n.ID); ok && r.Online && !n.Member() {
			t.Fatalf("former member %s is online", n.ID)
		}
	}
	if votersLeft == 0 {
		t.Fatal("no voter is left")
	}
	checkLevels(t, s, log)
	for _, r := range s.Robots() {
		for _, name := range r.Groups {
			if g, ok := s.Group(name); !ok || !slices.Contains(g.Robots, r.ID) {
				t.Fatalf("robot %s says it is in group %s, which does not", r.ID, name)
			}
		}
	}
	for _, g := range s.Groups() {
		for _, id := range g.Robots {
			if r, ok := s.Robot(id); !ok || !slices.Contains(r.Groups, g.Name) {
				t.Fatalf("group %s says it has robot %s, which does not", g.Name, id)
			}
		}
	}
}

// checkLevels: nothing newer than the ceiling of its time was accepted, and the
// state's own count of raises, recoveries and seals is the log's.
func checkLevels(t *rapid.T, s *fleet.State, log []event.Event) {
	ceiling, recoveries, sealed := uint64(1), uint64(0), uint64(0)
	for _, e := range log {
		free := e.Type == event.TypeCeilingRaised || e.Type == event.TypeLogRecovered
		if event.LevelOf(e.Type, e.Schema) > ceiling && !free {
			t.Fatalf("event %d, %s/%d, is above the ceiling of %d", e.Seq, e.Type, e.Schema, ceiling)
		}
		payload, err := e.Decode()
		if err != nil {
			t.Fatal(err)
		}
		switch p := payload.(type) {
		case *event.CeilingRaised:
			if p.Level <= ceiling {
				t.Fatalf("event %d raises the ceiling from %d to %d", e.Seq, ceiling, p.Level)
			}
			ceiling = p.Level
		case *event.LogRecovered:
			recoveries++
		case *event.LogSealed:
			if p.Seq <= sealed || p.Seq >= e.Seq {
				t.Fatalf("event %d seals %d after %d", e.Seq, p.Seq, sealed)
			}
			sealed = p.Seq
		}
	}
	seal, _ := s.Seal()
	if s.Ceiling() != ceiling || s.Recoveries() != recoveries || seal.Seq != sealed || s.History() != historyOf(t, log) {
		t.Fatalf("ceiling %d, %d recoveries, sealed to %d; the log says %d, %d, %d", s.Ceiling(), s.Recoveries(), seal.Seq, ceiling, recoveries, sealed)
	}
	for _, r := range s.Robots() {
		if r.Lifecycle.State == "" || ceiling == 1 && (r.Registered.Hostname != "" || !r.Lifecycle.IsZero() || r.Deployed != (fleet.Deployed{})) {
			t.Fatalf("robot %+v at ceiling %d", r, ceiling)
		}
	}
	if version := s.Marshal()[0]; (version == 1) != (ceiling == 1 && recoveries == 0) {
		t.Fatalf("version %d of the encoding at ceiling %d after %d recoveries", version, ceiling, recoveries)
	}
}

// A refused batch leaves no trace in the transaction: what follows is decided
// as if it had never been.
func TestRefusedBatchLeavesNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := fleettest.New(choose(t))
		now := time.UnixMilli(1_700_000_000_000).UTC()
		with, without := fleet.New(), fleet.New()
		tx := with.Begin()
		broken := fleettest.Genesis()
		broken.Drafts = append(broken.Drafts, broken.Drafts[1])
		if _, err := tx.Check(broken, now); err == nil {
			t.Fatal("genesis added a person twice")
		}
		for i := range 40 {
			b := run.Next()
			if i == 0 {
				b = fleettest.Genesis()
			}
			v, err := tx.Check(b, now)
			if err != nil {
				continue
			}
			clean := without.Begin()
			again, err := clean.Check(b, now)
			if err != nil || again.First != v.First || again.Last != v.Last {
				t.Fatalf("%+v after refusals, %+v (%v) without", v, again, err)
			}
			clean.Commit()
		}
		tx.Commit()
		if with.Hash() != without.Hash() {
			t.Fatal("the states differ")
		}
	})
}

func TestApplyRefusesWhatDoesNotFollow(t *testing.T) {
	s := fleet.New()
	v, err := s.Check(fleettest.Genesis(), time.UnixMilli(0))
	if err != nil {
		t.Fatal(err)
	}
	e := v.Events[0]
	for name, change := range map[string]func(*event.Event){
		"seq":     func(e *event.Event) { e.Seq = 2 },
		"version": func(e *event.Event) { e.Version = 2 },
		"type":    func(e *event.Event) { e.Type = "fleet.exploded" },
		"schema":  func(e *event.Event) { e.Schema = 2 },
		"data":    func(e *event.Event) { e.Data = []byte(`{}`) },
		"first": func(e *event.Event) {
			e.Type, e.Stream, e.Data = v.Events[1].Type, v.Events[1].Stream, v.Events[1].Data
		},
	} {
		bad := e
		change(&bad)
		if err := s.Apply(bad); err == nil || s.Seq() != 0 {
			t.Errorf("%s: applied (%v)", name, err)
		}
	}
	for _, e := range v.Events {
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	ghost := event.RobotOnline{}.Draft(fleettest.Node(0))
	err = s.Apply(event.Event{Seq: s.Seq() + 1, Version: 1, Stream: ghost.Stream, Type: ghost.Type, Data: ghost.Data})
	if err == nil {
		t.Error("an event about a robot that does not exist was applied")
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	s := fleet.New()
	v, err := s.Check(fleettest.Genesis(), time.UnixMilli(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range v.Events {
		if err := s.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	good := string(s.Marshal())
	if _, err := fleet.Unmarshal([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":         "",
		"version":       "\x03" + good[1:],
		"newer version": "\x02" + good[1:], // without anything new
		"newer content": strings.Replace(good, `"gossipEpoch":0`, `"gossipEpoch":0,"ceiling":2`, 1),
		"ceiling of 1":  strings.Replace(good, `"gossipEpoch":0`, `"gossipEpoch":0,"ceiling":1`, 1),
		"cut":           good[:len(good)-1],
		"more":          good + " ",
		"unknown field": "\x01" + `{"extra":1,` + good[2:],
		"no JSON":       "\x01hello",
		"fleet missing": "\x01" + `{"seq":3,"nodes":[],"robots":[],"tokens":[],"enrolments":[],"persons":[],"groups":[],"versions":{},"sessions":[]}`,
	} {
		if _, err := fleet.Unmarshal([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFind(t *testing.T) {
	s := fleet.New()
	tx := s.Begin()
	now := time.UnixMilli(0)
	accept := func(b event.Batch) {
		t.Helper()
		if _, err := tx.Check(b, now); err != nil {
			t.Fatal(err)
		}
	}
	accept(fleettest.Genesis())
	for i := range 3 {
		id := fleettest.Node(i)
		if i > 0 {
			accept(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.NodeAdmitted{
				PublicKey: fleettest.Key(i).Public(), Name: "n", By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft()}})
		}
		name := []string{"kiwi", "emu", "emu"}[i]
		accept(event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
			event.RobotRegistered{Name: name, Type: event.LeKiwi, Version: "1", Arch: "a", OS: "o"}.Draft(id)}})
	}
	tx.Commit()
	id := fleettest.Node(0)
	for _, query := range []string{"kiwi", string(id), string(id[:8])} {
		if r, err := s.FindRobot(query); err != nil || r.ID != id {
			t.Errorf("%q: %s, %v", query, r.ID, err)
		}
	}
	for query, want := range map[string]event.Code{"emu": event.CodeConflict, "ostrich": event.CodeNotFound, "": event.CodeNotFound} {
		_, err := s.FindRobot(query)
		if fault, ok := event.FaultOf(err); !ok || fault.Code != want {
			t.Errorf("%q: %v, want %s", query, err, want)
		}
	}
}

// Every cap of the state is met at the cap, not one before or after.
func TestCaps(t *testing.T) {
	admin := fleettest.Admin("ada")
	genesis := func() (*fleet.State, *fleet.Tx) {
		s := fleet.New()
		tx := s.Begin()
		if _, err := tx.Check(fleettest.Genesis(), time.UnixMilli(0)); err != nil {
			t.Fatal(err)
		}
		return s, tx
	}
	for _, c := range []struct {
		name string
		most int // beyond what genesis made
		make func(i int) event.Draft
	}{
		{"persons", fleet.MaxPersons - 1, func(i int) event.Draft {
			return event.PersonAdded{PublicKey: fleettest.Key(1).Public(), Scopes: []string{event.ScopeViewer}}.Draft(fmt.Sprint("p", i))
		}},
		{"enrolments", fleet.MaxEnrolments - 1, func(i int) event.Draft {
			return event.EnrolmentAdded{PublicKey: fleettest.Key(1000 + i).Public()}.Draft()
		}},
		{"groups", fleet.MaxGroups, func(i int) event.Draft { return event.GroupCreated{}.Draft(fmt.Sprint("g", i)) }},
		{"tokens", fleet.MaxTokens, func(i int) event.Draft { return event.TokenCreated{TTLSeconds: 60}.Draft(fleettest.Token(i)) }},
	} {
		s, tx := genesis()
		propose := func(i, seconds int) error {
			_, err := tx.Check(event.Batch{Actor: admin, Drafts: []event.Draft{c.make(i)}}, time.Unix(int64(seconds), 0))
			return err
		}
		for i := range c.most {
			if i%1000 == 999 {
				tx.Commit()
			}
			if err := propose(i, 0); err != nil {
				t.Fatalf("%s: number %d: %v", c.name, i, err)
			}
		}
		if err := propose(c.most, 0); err == nil {
			t.Errorf("%s: one beyond the cap was accepted", c.name)
		}
		if c.name != "tokens" {
			continue
		}
		if err := propose(c.most, 60); err != nil { // the others have expired by now
			t.Errorf("tokens: expired ones do not make room: %v", err)
		}
		tx.Commit()
		if _, ok := s.Token(fleettest.Token(0)); ok {
			t.Error("tokens: an expired one stayed")
		}
	}
}
