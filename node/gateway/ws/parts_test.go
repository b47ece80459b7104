package ws

import (
	"bytes"
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skein/node/gateway/view"
)

func TestQueueAtItsBounds(t *testing.T) {
	q := newQueue()
	for i := range maxQueued {
		if !q.push([]byte("m")) {
			t.Fatalf("full after %d messages", i)
		}
	}
	if q.push([]byte("m")) {
		t.Fatalf("more than %d messages wait", maxQueued)
	}
	q = newQueue()
	if !q.push(make([]byte, 3*maxQueuedBytes)) {
		t.Fatal("a large message may not wait alone")
	}
	if q.push([]byte("m")) {
		t.Fatal("more waits behind a message over the bound")
	}
	q = newQueue()
	if !q.push(make([]byte, maxQueuedBytes-1)) || !q.push([]byte("m")) || q.push([]byte("m")) {
		t.Fatal("the bound is not exactly 1 MB")
	}
	if q.push(make([]byte, 10), make([]byte, 10)) {
		t.Fatal("half of two messages fitted")
	}
}

func TestQueueEnds(t *testing.T) {
	q := newQueue()
	q.push([]byte("m"))
	q.finish(endTooSlow)
	q.finish(endStopped)
	if m, end := q.pop(t.Context()); m != nil || end != endTooSlow {
		t.Fatalf("popped %q, %v; want the first ending at once", m, end)
	}
	if !q.push([]byte("m")) || q.pushWait(t.Context(), []byte("m")) != nil {
		t.Fatal("a finished queue does not swallow")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, end := newQueue().pop(ctx); m != nil || end != nil {
		t.Fatalf("popped %q, %v after the end of the context", m, end)
	}
}

func TestPushWaitWaitsForRoom(t *testing.T) {
	q := newQueue()
	q.push(make([]byte, maxQueuedBytes))
	pushed := make(chan error, 1)
	go func() { pushed <- q.pushWait(t.Context(), []byte("m")) }()
	q.pop(t.Context())
	if err := <-pushed; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	q.push(make([]byte, maxQueuedBytes-1))
	go func() { pushed <- q.pushWait(ctx, []byte("mm")) }()
	cancel()
	if err := <-pushed; err == nil {
		t.Fatal("pushed into a full queue")
	}
}

// The ring is the newest events without a hole, within both bounds.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r ring
		var all []encodedEvent
		seq := rapid.Uint64Range(1, 1e6).Draw(t, "first")
		for range rapid.IntRange(1, 8).Draw(t, "adds") {
			var added []encodedEvent
			size := rapid.IntRange(1, 16<<10).Draw(t, "size")
			for range rapid.IntRange(0, 400).Draw(t, "n") {
				added = append(added, encodedEvent{seq, make([]byte, size)})
				seq++
			}
			r.add(added)
			all = append(all, added...)
		}
		bytes := 0
		for i, e := range r.events {
			bytes += len(e.text)
			if want := all[len(all)-len(r.events)+i].seq; e.seq != want {
				t.Fatalf("event %d in the ring is %d, want %d", i, e.seq, want)
			}
		}
		if len(r.events) > maxRing || bytes > maxRingBytes || bytes != r.bytes {
			t.Fatalf("the ring has %d events of %d bytes and says %d", len(r.events), bytes, r.bytes)
		}
		if len(all) == 0 {
			return
		}
		since := all[rapid.IntRange(0, len(all)-1).Draw(t, "since")].seq
		got, held := r.after(since)
		if held != (r.events[0].seq <= since+1) {
			t.Fatalf("after %d with %d first: held is %v", since, r.events[0].seq, held)
		}
		if held && uint64(len(got)) != seq-1-since {
			t.Fatalf("%d events after %d, want %d", len(got), since, seq-1-since)
		}
	})
}

func TestChunksAreBounded(t *testing.T) {
	var events []encodedEvent
	for i := range 600 {
		events = append(events, encodedEvent{uint64(i + 1), bytes.Repeat([]byte("1"), 10)})
	}
	events = append(events, encodedEvent{601, bytes.Repeat([]byte("1"), maxChunkBytes+1)}, encodedEvent{602, []byte("1")})
	end := view.Cursor{History: "h", Seq: 602, Hash: "end"}
	got := chunks(events, end)
	if len(got) != 5 { // 256, 256, 88, the large one, the last
		t.Fatalf("%d chunks", len(got))
	}
	for i, c := range got {
		if bytes.Contains(c, []byte(`"hash":"end"`)) != (i == len(got)-1) {
			t.Fatalf("chunk %d says %s", i, c[len(c)-80:])
		}
	}
	if chunks(nil, end) != nil {
		t.Fatal("a message of no events")
	}
}

func TestBetween(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	age := func(ms int64) *int64 { return &ms }
	since := at.Add(-time.Hour)
	base := func() view.Picture {
		return view.Picture{
			Fleet:  view.Fleet{Name: "geese", Term: 1, AsOf: view.AsOf{AgeMillis: 10}},
			Robots: []view.Robot{{ID: "a", StatusSince: since, Labels: map[string]string{"k": "v"}, HeardAgeMillis: age(1000)}, {ID: "b"}},
		}
	}
	for name, c := range map[string]struct {
		change           func(*view.Picture)
		changed, removed int
		header           bool
	}{
		"nothing":               {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(3000) }, 0, 0, false},
		"only the header's age": {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(3000); p.Fleet.AsOf.AgeMillis = 99 }, 0, 0, false},
		"rounding":              {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(2500) }, 0, 0, false},
		"heard again":           {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(2499) }, 1, 0, false},
		"no longer heard of":    {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = nil }, 1, 0, false},
		"the same time, another zone": {func(p *view.Picture) {
			p.Robots[0].HeardAgeMillis = age(3000)
			p.Robots[0].StatusSince = since.In(time.FixedZone("x", 3600))
		}, 0, 0, false},
		"a label": {func(p *view.Picture) {
			p.Robots[1].Labels = map[string]string{"k": "w"}
			p.Robots[0].HeardAgeMillis = age(3000)
		}, 1, 0, false},
		"a status":          {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(3000); p.Robots[1].Status = view.Offline }, 1, 0, false},
		"one gone, one new": {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(3000); p.Robots[1].ID = "c" }, 1, 1, false},
		"the leader":        {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(3000); p.Fleet.Leader = &view.NodeRef{ID: "a"} }, 0, 0, true},
		"a peer":            {func(p *view.Picture) { p.Robots[0].HeardAgeMillis = age(3000); p.Peers = []view.Peer{{ID: "a"}} }, 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			next := base()
			c.change(&next)
			d := between(newPicture(base(), at), newPicture(next, at.Add(2*time.Second)))
			if len(d.changed) != c.changed || len(d.removed) != c.removed || d.header != c.header {
				t.Fatalf("got %+v", d)
			}
			if n := len(d.messages(newPicture(next, at))); n > 2 || (n == 0) != (c.changed+c.removed == 0 && !c.header) {
				t.Fatalf("%d messages", n)
			}
		})
	}
}
