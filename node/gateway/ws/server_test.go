package ws

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"skein/node/gateway/view"
)

func TestAConsoleSeesTheFleetAndEveryChange(t *testing.T) {
	r := newStock()
	r.decide(5, 0)
	r.hear("a", 1)
	r.hear("b", 1)
	r.peers = []view.Peer{{ID: "p", Name: "peer", HTTP: "http://192.0.2.9:7780"}}
	n := newNode(t, r, quickTiming())

	p, _, err := n.dial()
	if err != nil {
		t.Fatal(err)
	}
	p.say(`{"type":"auth","token":"good"}`)
	m := p.next()
	if m.Type != "welcome" || m.Person != "anna" || m.Node.ID != "self" || m.Fleet.Name != "geese" || len(m.Peers) != 1 {
		t.Fatalf("welcome %+v", m)
	}
	p.watch(nil, 3)
	m = p.until("snapshot")
	if m.Cursor.Seq != 5 || len(m.Robots) != 2 || len(m.Events) != 3 || m.Events[0].Seq != 3 || m.Reset || m.Robots[0].HeardAgeMillis == nil {
		t.Fatalf("snapshot %+v", m)
	}

	r.decide(2, 0)
	m = p.until("events")
	if len(m.Events) != 2 || m.Events[0].Seq != 6 || m.Cursor != (view.Cursor{History: "h1", Seq: 7, Hash: hashAt("h1", 7)}) {
		t.Fatalf("events %+v", m)
	}
	r.hear("b", 2)
	m = p.until("robots")
	if len(m.Changed) != 1 || m.Changed[0].ID != "b" || m.Changed[0].Telemetry.Load1 != 2 || len(m.Removed) != 0 {
		t.Fatalf("robots %+v", m)
	}
	r.change(func() { delete(r.robots, "a") })
	m = p.until("robots")
	if len(m.Changed) != 0 || len(m.Removed) != 1 || m.Removed[0] != "a" {
		t.Fatalf("robots %+v", m)
	}
	r.change(func() { r.term, r.peers = 9, nil })
	m = p.until("fleet")
	for m.Fleet.Term != 9 { // the number of robots in the header changed before
		m = p.until("fleet")
	}
	if len(m.Peers) != 0 {
		t.Fatalf("fleet %+v", m)
	}
	m = p.until("tick")
	if m.Cursor.Seq != 7 {
		t.Fatalf("tick %+v", m)
	}
}

func TestTheNameOfTheNode(t *testing.T) {
	r := newStock()
	r.hear("self", 1)
	n := newNode(t, r, quickTiming())
	p, _, err := n.dial()
	if err != nil {
		t.Fatal(err)
	}
	p.say(`{"type":"auth","token":"good"}`)
	if m := p.next(); m.Node.Name != "robot self" {
		t.Fatalf("welcome %+v", m)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	for name, c := range map[string]struct {
		say    []string
		status websocket.StatusCode
		code   string
	}{
		"not judged yet":      {[]string{`{"type":"auth","token":"early"}`}, 1013, "not_ready"},
		"bad token":           {[]string{`{"type":"auth","token":"forged"}`}, 4401, "unauthenticated"},
		"no token":            {[]string{`{"type":"auth"}`}, 4401, "unauthenticated"},
		"may not read":        {[]string{`{"type":"auth","token":"blind"}`}, 4403, "not_allowed"},
		"says nothing":        {nil, 4408, "auth_too_late"},
		"asks for nothing":    {[]string{`{"type":"auth","token":"good"}`}, 4408, "auth_too_late"},
		"asks before auth":    {[]string{`{"type":"watch","cursor":null,"events":1}`}, 1008, "invalid"},
		"authenticates twice": {[]string{`{"type":"auth","token":"good"}`, `{"type":"auth","token":"good"}`}, 1008, "invalid"},
		"asks twice":          {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch"}`, `{"type":"watch"}`}, 1008, "invalid"},
		"not JSON":            {[]string{`hello`}, 1008, "invalid"},
		"token twice":         {[]string{`{"type":"auth","token":"forged","token":"good"}`}, 1008, "invalid"},
		"Token":               {[]string{`{"type":"auth","Token":"good"}`}, 1008, "invalid"},
		"cursor and Cursor":   {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","cursor":null,"Cursor":{"history":"h","seq":1}}`}, 1008, "invalid"},
		"half a pair":         {[]string{`{"type":"auth","token":"\udc00"}`}, 1008, "invalid"},
		"an odd token":        {[]string{`{"type":"auth","token":7}`}, 1008, "invalid"},
		"unknown type":        {[]string{`{"type":"drive"}`}, 1008, "invalid"},
		"too many events":     {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","events":501}`}, 1008, "invalid"},
		"16 KB are too long":  {[]string{`{"type":"auth","token":"` + strings.Repeat("x", maxClientBytes) + `"}`}, 1009, ""},
	} {
		t.Run(name, func(t *testing.T) {
			times := quickTiming()
			if c.code == endTooLate.code {
				times.speak = 100 * time.Millisecond
			}
			p, _, err := newNode(t, newStock(), times).dial()
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range c.say {
				p.say(text)
			}
			p.closed(c.status, c.code)
		})
	}
}

func TestAMessageAtTheBoundIsRead(t *testing.T) {
	n := newNode(t, newStock(), quickTiming())
	p, _, err := n.dial()
	if err != nil {
		t.Fatal(err)
	}
	text := `{"type":"auth","token":"good","pad":""}`
	p.say(strings.Replace(text, `""`, `"`+strings.Repeat("x", maxClientBytes-len(text))+`"`, 1))
	if m := p.next(); m.Type != "welcome" {
		t.Fatalf("got %+v", m)
	}
}

func TestBinaryMessagesAreRefused(t *testing.T) {
	n := newNode(t, newStock(), quickTiming())
	p, _, err := n.dial()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.conn.Write(t.Context(), websocket.MessageBinary, []byte(`{"type":"auth","token":"good"}`)); err != nil {
		t.Fatal(err)
	}
	p.closed(1008, "invalid")
}

// A page that another site served may not use the visitor's network position.
func TestOrigins(t *testing.T) {
	n := newNode(t, newStock(), quickTiming())
	for origin, good := range map[string]bool{
		"":                              true, // no browser
		n.url:                           true, // the page this node served
		"http://192.0.2.9:7780":         true, // another node of the fleet
		"http://[2001:db8::9]:7780":     true,
		"https://192.0.2.9:7780":        false,
		"http://192.0.2.9":              false,
		"http://192.0.2.9:7780.evil.io": false,
		"http://evil.example":           false,
		"null":                          false,
		"http://*":                      false,
		"file://":                       false,
	} {
		_, resp, err := n.dial("Origin", origin)
		if origin == "" {
			_, resp, err = n.dial()
		}
		if good != (err == nil) {
			t.Errorf("origin %q: error %v, want accepted %v", origin, err, good)
		}
		if !good && resp != nil && resp.StatusCode != 403 {
			t.Errorf("origin %q: status %d, want 403", origin, resp.StatusCode)
		}
	}
}

func TestTheSubprotocolIsNeeded(t *testing.T) {
	n := newNode(t, newStock(), quickTiming())
	for _, offered := range [][]string{nil, {"graphql-ws"}} {
		_, resp, err := websocket.Dial(t.Context(), n.url, &websocket.DialOptions{Subprotocols: offered})
		if err == nil || resp.StatusCode != 400 {
			t.Fatalf("offering %v: %v", offered, err)
		}
	}
	c, _, err := websocket.Dial(t.Context(), n.url, &websocket.DialOptions{Subprotocols: []string{"other", Subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if c.Subprotocol() != Subprotocol {
		t.Fatalf("subprotocol %q", c.Subprotocol())
	}
}

func TestATokenThatEndsEndsTheConnection(t *testing.T) {
	n := newNode(t, newStock(), quickTiming())
	p := n.open()
	p.watch(nil, 0)
	p.until("snapshot")
	n.gate.mu.Lock()
	n.gate.bad["anna"] = true
	n.gate.mu.Unlock()
	p.closed(4401, "unauthenticated")
}

func TestTheNodeStops(t *testing.T) {
	r := newStock()
	n := newNode(t, r, quickTiming())
	p := n.open()
	p.watch(nil, 0)
	p.until("snapshot")
	waiting := n.open() // authenticated, has not asked yet
	ahead := n.open()   // waits for this node to catch up
	ahead.watch(&view.Cursor{History: "h1", Seq: 1000}, 0)
	ahead.until("behind")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.stop()
	}()
	p.closed(1001, "stopping")
	waiting.closed(1001, "stopping")
	ahead.closed(1001, "stopping")
	<-ended
	if n := r.watched(); n != 0 {
		t.Fatalf("%d watches remain", n)
	}
}

// Somebody who neither reads nor answers the goodbye delays the end by no more
// than its bound.
func TestStoppingWaitsForNobody(t *testing.T) {
	times := quickTiming()
	times.goodbye = 200 * time.Millisecond
	n := newNode(t, newStock(), times)
	for range 3 {
		n.open().watch(nil, 0) // and never read again
	}
	began := time.Now()
	n.stop()
	if d := time.Since(began); d > times.goodbye+2*time.Second {
		t.Fatalf("stopping took %v", d)
	}
}

func TestNothingRunsWhileNobodyLooks(t *testing.T) {
	r := newStock()
	n := newNode(t, r, quickTiming())
	if r.watched() != 0 {
		t.Fatal("watched before anybody came")
	}
	var pages []*page
	for range 5 {
		p := n.open()
		p.watch(nil, 0)
		p.until("snapshot")
		pages = append(pages, p)
	}
	if r.watched() != 1 {
		t.Fatalf("%d watches for five pages, want one", r.watched())
	}
	for _, p := range pages {
		p.conn.Close(websocket.StatusNormalClosure, "")
	}
	eventually(t, "the watch is released", func() bool { return r.watched() == 0 })
	looks := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.looks
	}
	n.server.hub.mu.Lock()
	if n := len(n.server.hub.joined); n != 0 {
		t.Errorf("%d clients are still joined", n)
	}
	n.server.hub.mu.Unlock()
	before := looks()
	for range 10 {
		r.hear("a", 1)
	}
	if after := looks(); after != before {
		t.Fatalf("%d looks while nobody was connected", after-before)
	}
	p := n.open() // and it starts again
	p.watch(nil, 0)
	if m := p.until("snapshot"); len(m.Robots) != 1 {
		t.Fatalf("snapshot %+v", m)
	}
}

func TestAFailedHandshakeLeavesNothing(t *testing.T) {
	n := newNode(t, newStock(), quickTiming())
	ctx, cancel := context.WithCancel(t.Context())
	c, _, err := websocket.Dial(ctx, n.url, &websocket.DialOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	c.CloseNow()
	eventually(t, "the connection is forgotten", func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		return len(n.server.clients) == 0
	})
}

func FuzzDecodeClient(f *testing.F) {
	for _, text := range []string{
		`{"type":"auth","token":"t"}`, `{"type":"watch","cursor":null,"events":100}`,
		`{"type":"watch","cursor":{"history":"h","seq":18446744073709551615,"hash":"00"},"events":0}`,
		`{"type":"at","at":"7"}`, `{"type":"at","at":"2026-01-01T00:00:00Z"}`, `{"type":"at","at":"x"}`, `{"type":"watch","events":-1}`, `[]`, `null`, `{"type":["auth"]}`, "\x00", `{"type":"watch","cursor":{"seq":1e99}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeClient(text)
		if err != nil {
			end := endBadMessage(err)
			if len(end.encoded()) > 4096 {
				t.Fatal("the answer to a bad message grows with it")
			}
			if end.message == "" || end.next == "" || strings.Contains(end.message, "Go struct") {
				t.Fatalf("%q: %+v", text, end)
			}
			return
		}
		switch m.Type {
		case "auth":
		case "at":
			if len(m.At) > maxMoment {
				t.Fatalf("accepted %+v", m)
			}
		case "watch":
			if *m.Events < 0 || *m.Events > maxEvents || m.Cursor != nil && m.Cursor.History == "" {
				t.Fatalf("accepted %+v", m)
			}
		default:
			t.Fatalf("accepted type %q", m.Type)
		}
	})
}

func BenchmarkBroadcast(b *testing.B) {
	for _, clients := range []int{1, 100} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			r := newStock()
			for i := range 100 {
				r.hear(view.Robot{}.ID+idOf(i), 1)
			}
			n := newNode(b, r, shippedTiming())
			for range clients {
				p := n.open()
				p.watch(nil, 0)
				p.until("snapshot")
				go func() {
					for {
						if _, _, err := p.conn.Read(b.Context()); err != nil {
							return
						}
					}
				}()
			}
			for i := 0; b.Loop(); i++ {
				r.hear(idOf(i%100), float64(i))
				n.server.hub.advance(b.Context())
			}
		})
	}
}
