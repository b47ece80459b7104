package ws

import (
	"encoding/json"
	"reflect"
	"slices"
	"sync"
	"time"

	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// picture is one look at the fleet, with its JSON made at most once.
type picture struct {
	view.Picture
	at     time.Time
	fleet  func() json.RawMessage
	peers  func() json.RawMessage
	robots func() json.RawMessage
}

func newPicture(p view.Picture, at time.Time) *picture {
	p = p.Filled()
	once := func(v any) func() json.RawMessage {
		return sync.OnceValue(func() json.RawMessage { return view.Encode(v) })
	}
	return &picture{Picture: p, at: at, fleet: once(p.Fleet), peers: once(p.Peers), robots: once(p.Robots)}
}

func (p *picture) cursor() view.Cursor { return p.Fleet.AsOf.Cursor }

// delta is what changed from one picture to a later one. It is pure.
type delta struct {
	changed []view.Robot
	removed []ident.NodeID
	// header: the fleet's header (but for its age) or the peers are others.
	header bool
}

func between(prev, next *picture) delta {
	d := delta{changed: []view.Robot{}, removed: []ident.NodeID{}}
	before := make(map[ident.NodeID]*view.Robot, len(prev.Robots))
	for i := range prev.Robots {
		before[prev.Robots[i].ID] = &prev.Robots[i]
	}
	for _, r := range next.Robots {
		old, there := before[r.ID]
		if !there || !sameRobot(*old, r) || hasNews(heardAt(prev.at, *old), heardAt(next.at, r)) {
			d.changed = append(d.changed, r)
		}
		delete(before, r.ID)
	}
	for id := range before {
		d.removed = append(d.removed, id)
	}
	slices.Sort(d.removed)
	a, b := prev.Fleet, next.Fleet
	a.AsOf, b.AsOf = view.AsOf{}, view.AsOf{}
	d.header = !reflect.DeepEqual(a, b) || !slices.Equal(prev.Peers, next.Peers)
	return d
}

// sameRobot compares all but the age of the news.
func sameRobot(a, b view.Robot) bool {
	a.HeardAgeMillis, b.HeardAgeMillis = nil, nil
	if a.StatusSince.Equal(b.StatusSince) {
		a.StatusSince = b.StatusSince
	}
	return reflect.DeepEqual(a, b)
}

// sameNews is how far two readings of one moment may be apart by rounding.
const sameNews = 500 * time.Millisecond

// heardAt is when a robot was last heard, the zero time if never.
func heardAt(at time.Time, r view.Robot) time.Time {
	if r.HeardAgeMillis == nil {
		return time.Time{}
	}
	return at.Add(-time.Duration(*r.HeardAgeMillis) * time.Millisecond)
}

// hasNews: it was heard again, with the same to say; or no longer counts as heard.
func hasNews(before, after time.Time) bool {
	return before.IsZero() != after.IsZero() || after.Sub(before) > sameNews
}

// messages are what a client that has prev needs to have next, but the events.
func (d delta) messages(next *picture) [][]byte {
	var out [][]byte
	if len(d.changed) > 0 || len(d.removed) > 0 {
		out = append(out, view.Encode(robotsMessage{"robots", d.changed, d.removed}))
	}
	if d.header {
		out = append(out, view.Encode(fleetMessage{"fleet", next.fleet(), next.peers()}))
	}
	return out
}

func (p *picture) tick() []byte {
	a := p.Fleet.AsOf
	return view.Encode(tickMessage{"tick", a.Cursor, a.AgeMillis, a.Stale})
}

// snapshot is the whole picture with past events. A reason makes it a reset.
func (p *picture) snapshot(events []json.RawMessage, reason string) []byte {
	return view.Encode(snapshotMessage{"snapshot", p.cursor(), p.fleet(), p.robots(), events, reason != "", reason})
}
