package fleet

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
	"skein/consensus/event"
	"skein/mesh/ident"
)

// What is remembered is a function of the events alone: the same whether they
// came one by one or an entry at a time, and whether or not the state was
// encoded and decoded on the way. And an answer is never wrong: what was
// accepted is found or "lost", never "new".
func TestSessions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		byEntry, byEvent := newSessions(), newSessions()
		truth := map[event.Producer]proposal{}
		seq := uint64(0)
		pick := func(n int, what string) uint64 { return uint64(rapid.IntRange(0, n-1).Draw(t, what)) }
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			for range 1 + pick(4, "batches") {
				p := event.Producer{Node: []ident.NodeID{"a", "b"}[pick(2, "node")], Boot: pick(5, "boot"), N: 1 + pick(3, "n")*SessionWindow*2/3 + pick(3, "off")}
				found, known, lost := byEntry.lookup(p)
				was, accepted := truth[p]
				if known != accepted && !lost || known && found != was || lost && known {
					t.Fatalf("%v: found %v known %v lost %v, truth %v %v", p, found, known, lost, was, accepted)
				}
				if known || lost {
					continue
				}
				first := seq + 1
				seq += []uint64{1, 3, SessionHorizon / 3}[pick(3, "events")]
				truth[p] = proposal{p.N, first, seq}
				byEntry.note(p, first, seq)
				for s := first; s <= seq; s = min(s+SessionHorizon/9, seq) {
					byEvent.note(p, first, s)
					byEvent.expire(s)
					if s == seq {
						break
					}
				}
			}
			byEntry.expire(seq)
			if pick(4, "reload") == 0 {
				again := newSessions()
				for node, boots := range byEntry.byNode {
					if err := again.load(wireSessions{node, boots}); err != nil {
						t.Fatal(err)
					}
				}
				again.requeue()
				byEntry = again
			}
			if a, b := dump(byEntry), dump(byEvent); a != b {
				t.Fatalf("by entry\n%s\nby event\n%s", a, b)
			}
		}
	})
}

func dump(ss sessions) string {
	var all []wireSessions
	for node, boots := range ss.byNode {
		all = append(all, wireSessions{node, boots})
	}
	slices.SortFunc(all, func(a, b wireSessions) int { return cmp.Compare(a.Node, b.Node) })
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestSessionBounds(t *testing.T) {
	ss := newSessions()
	p := event.Producer{Node: "a", Boot: 1}
	for n := range uint64(3 * SessionWindow) {
		p.N = n + 1
		ss.note(p, n+1, n+1)
		ss.expire(n + 1)
	}
	s := ss.byNode["a"][0]
	if len(s.Known) != SessionWindow || s.Floor != 2*SessionWindow {
		t.Errorf("%d known above %d", len(s.Known), s.Floor)
	}
	if _, known, lost := ss.lookup(event.Producer{Node: "a", Boot: 1, N: 2*SessionWindow + 1}); !known || lost {
		t.Error("the oldest in the window is not known")
	}
	if _, known, lost := ss.lookup(event.Producer{Node: "a", Boot: 1, N: 2 * SessionWindow}); known || !lost {
		t.Error("the one below the window is not lost")
	}
	ss.expire(3*SessionWindow + SessionHorizon - 1)
	if s := ss.byNode["a"][0]; len(s.Known) != 1 {
		t.Errorf("%d known one event before the horizon", len(s.Known))
	}
	ss.expire(3*SessionWindow + SessionHorizon)
	if s := ss.byNode["a"][0]; len(s.Known) != 0 || s.Floor != 3*SessionWindow || ss.head != len(ss.queue) {
		t.Errorf("at the horizon %d are known, %d queued, floor %d", len(s.Known), len(ss.queue)-ss.head, s.Floor)
	}
	if got := len(slices.Collect(maps.Keys(ss.byNode))); got != 1 {
		t.Errorf("%d nodes", got)
	}
}
