package ws

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/coder/websocket"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
)

// voters is the log that some nodes agreed on.
type voters struct {
	mu      sync.Mutex
	entries [][]byte
	labels  int
}

func newVoters(t testing.TB) *voters {
	v := &voters{}
	v.add(t, fleettest.Genesis())
	registered := event.RobotRegistered{Name: "goose", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(fleettest.Node(0))
	registered.Schema = 1
	v.add(t, event.Batch{Actor: fleettest.Itself(fleettest.Node(0)), Drafts: []event.Draft{registered}})
	return v
}

// founding is how many events newVoters makes.
const founding = 8

func (v *voters) add(t testing.TB, b event.Batch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: 1_700_000_000_000 + int64(len(v.entries)), Batches: []event.Batch{b}})
	if err != nil {
		t.Error(err)
	}
	v.entries = append(v.entries, data)
}

// decide adds entries, each of n label changes of about size bytes.
func (v *voters) decide(t testing.TB, entries, n, size int) {
	for range entries {
		b := event.Batch{Actor: fleettest.Admin("ada")}
		for range n {
			v.labels++
			change := event.RobotLabelsChanged{Set: map[string]string{"n": fmt.Sprint(v.labels), "pad": strings.Repeat("x", size)}}
			b.Drafts = append(b.Drafts, change.Draft(fleettest.Node(0)))
		}
		v.add(t, b)
	}
}

func (v *voters) from(i int) [][]byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.entries[min(i, len(v.entries)):]
}

// feeder is a node with a real replica behind a real HTTP server.
type feeder struct {
	t     testing.TB
	log   *voters
	store *replica.Replica
	gate  *gate
	ws    *Server
	url   string
	stop  func()
}

func newFeeder(t testing.TB, v *voters, o replica.Options, times timing) *feeder {
	t.Helper()
	store, err := replica.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	f := &feeder{t: t, log: v, store: store, gate: &gate{bad: map[string]bool{}}}
	s := newServer(Config{
		Self: "self", Gate: f.gate, Fleet: newStock(), Events: newStock(), Past: newStock(), History: store,
		AllowOrigin: func(string) bool { return false }, Metrics: metrics.NewSet(), Log: slog.New(slog.DiscardHandler),
	}, times)
	f.ws = s
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Test-Local") != "" {
			r = r.WithContext(auth.WithLocal(r.Context()))
		}
		s.Watch(w, r)
	}))
	// Otherwise the kernel takes megabytes for who does not read.
	h.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			c.(*net.TCPConn).SetWriteBuffer(16 << 10)
		}
	}
	h.Start()
	f.url = h.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		h.Close()
		if err := store.Close(); err != nil {
			t.Errorf("close the replica: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// apply applies at most the next n entries.
func (f *feeder) apply(most int) int {
	index, _ := f.store.Applied()
	entries := f.log.from(int(index))
	for i, data := range entries[:min(most, len(entries))] {
		if out, err := f.store.ApplyEntry(index+uint64(i)+1, 1, data); err != nil || out[0].Err != nil {
			f.t.Errorf("apply: %v %v", err, out)
		}
	}
	return min(most, len(entries))
}

func (f *feeder) applyAll() {
	for f.apply(1000) > 0 {
	}
}

// stream is a client of the WebSocket of events.
type stream struct {
	t    testing.TB
	conn *websocket.Conn
}

func (f *feeder) dial(headers ...string) *stream {
	f.t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(16 << 10)
		}
		return c, err
	}}
	conn, _, err := websocket.Dial(ctx, f.url+"/api/v1/watch", &websocket.DialOptions{
		Subprotocols: []string{EventsSubprotocol}, HTTPHeader: h, HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	conn.SetReadLimit(16 << 20)
	f.t.Cleanup(func() { conn.CloseNow() })
	return &stream{f.t, conn}
}

func (s *stream) say(text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// watch logs in and asks; the welcome is read.
func (f *feeder) watch(request view.WatchRequest) *stream {
	f.t.Helper()
	s := f.dial()
	s.say(`{"type":"auth","token":"good"}`)
	s.ask(request)
	if w := s.next(); w.Type != view.WatchWelcome || w.Node == nil || w.Node.ID != "self" {
		f.t.Fatalf("got %+v, want welcome", w)
	}
	return s
}

func (s *stream) ask(request view.WatchRequest) {
	s.t.Helper()
	text, err := json.Marshal(struct {
		Type string `json:"type"`
		view.WatchRequest
	}{"watch", request})
	if err != nil {
		s.t.Fatal(err)
	}
	s.say(string(text))
}

func (s *stream) read() (view.WatchFrame, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := s.conn.Read(ctx)
	var f view.WatchFrame
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	return f, err
}

func (s *stream) next() view.WatchFrame {
	s.t.Helper()
	f, err := s.read()
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// until skips ticks.
func (s *stream) until(kind string) view.WatchFrame {
	s.t.Helper()
	for {
		if f := s.next(); f.Type != view.WatchTick {
			if f.Type != kind {
				s.t.Fatalf("got %+v, want %s", f, kind)
			}
			return f
		}
	}
}

func since(seq uint64) view.WatchRequest { return view.WatchRequest{Since: &seq} }

func TestWatchingEvents(t *testing.T) {
	v := newVoters(t)
	f := newFeeder(t, v, replica.Options{}, quickTiming())
	v.decide(t, 50, 4, 100)
	f.applyAll()
	s := f.watch(since(0))
	at := view.Cursor{}
	read := func(to uint64) {
		for at.Seq < to {
			m := s.until(view.WatchEvents)
			for _, e := range m.Events {
				if e.Seq != at.Seq+1 || e.Type == "" || e.Data == nil || e.Time.IsZero() {
					t.Fatalf("event %+v after %d", e, at.Seq)
				}
				at.Seq = e.Seq
			}
			if at = m.Cursor; !f.store.Held(at) {
				t.Fatalf("cursor %+v is no place in the log", at)
			}
		}
	}
	read(founding + 200)
	v.decide(t, 1, 3, 10)
	f.applyAll()
	read(founding + 203)
	tick := s.next()
	if tick.Type != view.WatchTick || tick.Cursor != at || tick.AgeMillis == nil {
		t.Errorf("got %+v, want a tick", tick)
	}
}

// The cursor moves over what the filter leaves out, and ticks tell.
func TestWatchingWithAFilter(t *testing.T) {
	v := newVoters(t)
	f := newFeeder(t, v, replica.Options{}, quickTiming())
	v.decide(t, 20, 4, 10)
	f.applyAll()
	r := since(0)
	r.Filter = view.WatchFilter{Type: "person.", Actor: string(fleettest.Node(0))}
	s := f.watch(r)
	if m := s.until(view.WatchEvents); len(m.Events) != 1 || m.Events[0].Type != event.TypePersonAdded {
		t.Fatalf("got %+v", m)
	}
	for tick := s.next(); tick.Cursor != f.store.Cursor(); tick = s.next() {
		if tick.Type != view.WatchTick {
			t.Fatalf("got %+v", tick)
		}
	}
}

func TestWhoMayWatchEvents(t *testing.T) {
	f := newFeeder(t, newVoters(t), replica.Options{}, quickTiming())
	for name, c := range map[string]struct {
		say    []string
		status websocket.StatusCode
		code   string
	}{
		"no such token":   {[]string{`{"type":"auth","token":"forged"}`}, 4401, "unauthenticated"},
		"no token":        {[]string{`{"type":"auth"}`}, 4401, "unauthenticated"},
		"may not read":    {[]string{`{"type":"auth","token":"blind"}`}, 4403, "not_allowed"},
		"not judged yet":  {[]string{`{"type":"auth","token":"early"}`}, websocket.StatusTryAgainLater, "not_ready"},
		"watch first":     {[]string{`{"type":"watch"}`}, websocket.StatusPolicyViolation, "invalid"},
		"not JSON":        {[]string{`{`}, websocket.StatusPolicyViolation, "invalid"},
		"strange cursor":  {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","cursor":{"seq":1}}`}, websocket.StatusPolicyViolation, "invalid"},
		"absurd since":    {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","since":9007199254740992}`}, websocket.StatusPolicyViolation, "invalid"},
		"negative since":  {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","since":-1}`}, websocket.StatusPolicyViolation, "invalid"},
		"both":            {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","since":1,"cursor":{"history":"h","seq":1}}`}, websocket.StatusPolicyViolation, "invalid"},
		"long filter":     {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","filter":{"stream":"` + strings.Repeat("x", 257) + `"}}`}, websocket.StatusPolicyViolation, "invalid"},
		"since twice":     {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","since":1,"since":2}`}, websocket.StatusPolicyViolation, "invalid"},
		"Since":           {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","Since":1}`}, websocket.StatusPolicyViolation, "invalid"},
		"a filter's TYPE": {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","filter":{"TYPE":"robot."}}`}, websocket.StatusPolicyViolation, "invalid"},
		"half a pair":     {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","filter":{"actor":"\ud800"}}`}, websocket.StatusPolicyViolation, "invalid"},
		"no number":       {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","since":"1"}`}, websocket.StatusPolicyViolation, "invalid"},
		"no time":         {[]string{`{"type":"auth","token":"good"}`, `{"type":"watch","filter":{"from":"yesterday"}}`}, websocket.StatusPolicyViolation, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			s := f.dial()
			for _, text := range c.say {
				s.say(text)
			}
			m, err := s.read()
			if err != nil || m.Type != view.WatchError || m.Code != c.code || m.Message == "" || m.Next == "" {
				t.Fatalf("got %+v, %v", m, err)
			}
			wantWordsForPeople(t, m.Message+"; "+m.Next)
			if _, err := s.read(); websocket.CloseStatus(err) != c.status {
				t.Fatalf("closed with %v, want %v", err, c.status)
			}
		})
	}
	t.Run("the owner of the process", func(t *testing.T) {
		s := f.dial("X-Test-Local", "1")
		s.say(`{"type":"auth"}`)
		s.ask(since(0))
		if w := s.next(); w.Type != view.WatchWelcome {
			t.Fatalf("got %+v", w)
		}
	})
	t.Run("too late", func(t *testing.T) {
		times := quickTiming()
		times.speak = 20 * time.Millisecond
		s := newFeeder(t, newVoters(t), replica.Options{}, times).dial()
		if m, err := s.read(); err != nil || m.Code != "auth_too_late" {
			t.Fatalf("got %+v, %v", m, err)
		}
		if _, err := s.read(); websocket.CloseStatus(err) != 4408 {
			t.Fatalf("closed with %v", err)
		}
	})
}

// wantWordsForPeople wants none of the program's own names in a text.
func wantWordsForPeople(t testing.TB, text string) {
	t.Helper()
	for _, of := range []string{"Go struct", "Go value", "json:", "watcherMessage", "clientMessage", "WatchRequest", "package"} {
		if strings.Contains(text, of) {
			t.Errorf("%q speaks of the program's inside (%s)", text, of)
		}
	}
}

func TestAWatcherWhoseTokenEnds(t *testing.T) {
	f := newFeeder(t, newVoters(t), replica.Options{}, quickTiming())
	s := f.watch(since(0))
	f.gate.mu.Lock()
	f.gate.bad["anna"] = true
	f.gate.mu.Unlock()
	for {
		m, err := s.read()
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == view.WatchError {
			if m.Code != "unauthenticated" {
				t.Fatalf("got %+v", m)
			}
			return
		}
	}
}

// Whatever a watcher says after its request ends it.
func TestAWatcherThatTalks(t *testing.T) {
	f := newFeeder(t, newVoters(t), replica.Options{}, quickTiming())
	s := f.watch(since(0))
	s.say(`{"type":"watch"}`)
	for {
		if _, err := s.read(); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Fatalf("closed with %v", err)
			}
			return
		}
	}
}

func TestTheNodeOfAWatcherStops(t *testing.T) {
	v := newVoters(t)
	f := newFeeder(t, v, replica.Options{}, quickTiming())
	f.applyAll()
	s := f.watch(view.WatchRequest{})
	go f.stop()
	m := s.until(view.WatchCut)
	if m.Cursor != f.store.Cursor() || m.Reason == "" {
		t.Fatalf("got %+v", m)
	}
	if _, err := s.read(); websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
		t.Fatalf("closed with %v", err)
	}
}

// A watcher that reads nothing holds up nobody and is hung up on.
func TestAWatcherThatDoesNotRead(t *testing.T) {
	v := newVoters(t)
	times := quickTiming()
	times.writing = 2 * time.Second
	f := newFeeder(t, v, replica.Options{}, times)
	f.watch(since(0)) // and never reads on
	v.decide(t, 40, 100, 128)
	f.applyAll()
	quick := f.watch(since(0))
	for at := uint64(0); at < founding+4_000; {
		at = quick.until(view.WatchEvents).Cursor.Seq
	}
	eventually(t, "it is hung up on", func() bool { return f.watching() == 1 })
}

func (f *feeder) watching() int {
	f.ws.mu.Lock()
	defer f.ws.mu.Unlock()
	return len(f.ws.watchers)
}

// Case 24 over WebSockets: watchers that move between nodes which lag, stop and
// hold less than all get each event once, in order, or an explicit gap.
func TestWanderersOverWebSockets(t *testing.T) {
	v := newVoters(t)
	nodes := []*feeder{
		newFeeder(t, v, replica.Options{}, quickTiming()),
		newFeeder(t, v, replica.Options{}, quickTiming()),
		newFeeder(t, v, replica.Options{TailBytes: 32 << 10}, quickTiming()),
	}
	const entries, size = 400, 4
	var work sync.WaitGroup
	work.Go(func() { v.decide(t, entries, size, 50) })
	for i, n := range nodes {
		work.Go(func() {
			r := rand.New(rand.NewSource(int64(i)))
			for index := uint64(0); index < 2+entries; index, _ = n.store.Applied() {
				if n.apply(1+r.Intn(20)) == 0 || r.Intn(5) == 0 {
					time.Sleep(time.Duration(r.Intn(2000)) * time.Microsecond)
				}
			}
		})
	}
	for seed := range 4 {
		work.Go(func() { wander(t, nodes, rand.New(rand.NewSource(int64(seed)))) })
	}
	work.Wait()
}

func wander(t *testing.T, nodes []*feeder, r *rand.Rand) {
	const last = founding + 400*4
	at, moves, gaps := view.Cursor{}, 0, 0
	for deadline := time.Now().Add(patience); at.Seq < last && time.Now().Before(deadline); moves++ {
		request := view.WatchRequest{Cursor: &at}
		if at.History == "" {
			request = since(0)
		}
		n := nodes[r.Intn(len(nodes))]
		s := n.watch(request)
		for range 1 + r.Intn(10) {
			m, err := s.read()
			if err != nil {
				t.Error(err)
				return
			}
			switch m.Type {
			case view.WatchEvents:
				for _, e := range m.Events {
					if e.Seq != at.Seq+1 {
						t.Errorf("event %d after %d", e.Seq, at.Seq)
					}
					at.Seq = e.Seq
				}
				if at.Seq != m.Cursor.Seq {
					t.Errorf("the cursor is %d after event %d", m.Cursor.Seq, at.Seq)
				}
			case view.WatchCompacted:
				if gaps++; n.store.First() == 1 || m.Cursor.Seq <= at.Seq {
					t.Errorf("a gap from %d to %d at a node that holds all from %d", at.Seq, m.Cursor.Seq, n.store.First())
				}
			case view.WatchBehind, view.WatchTick:
			default:
				t.Errorf("got %+v", m)
			}
			at = m.Cursor
		}
		s.conn.CloseNow()
	}
	if at.Seq < last {
		t.Errorf("only at event %d of %d after %d moves", at.Seq, last, moves)
	}
}
