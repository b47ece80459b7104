package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/node/gateway/view"
)

// growingLog is a log to which a test appends while a command follows it.
type growingLog struct {
	mu      sync.Mutex
	events  []view.Event
	history string
	since   string // what was asked last
}

func (l *growingLog) append(n int, typ, stream string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.events = append(l.events, made(uint64(len(l.events)+1), typ, stream, "{}"))
	}
}

func (l *growingLog) serve(f *fakeFleet) {
	f.handle("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.since = r.URL.Query().Get("since")
		writeJSON(w, 200, answerEvents(r, l.events, false, l.history))
	})
	f.handle("GET /api/v1/fleet", func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		fleet := sampleFleet()
		fleet.AsOf.Cursor = view.Cursor{History: l.history, Seq: uint64(len(l.events))}
		writeJSON(w, 200, fleet)
	})
}

// waitAsked waits until somebody asked for what comes after seq since.
func (l *growingLog) waitAsked(t *testing.T, since string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		l.mu.Lock()
		asked := l.since
		l.mu.Unlock()
		if asked == since {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("last asked since %s, want %s", asked, since)
		}
		time.Sleep(time.Millisecond)
	}
}

// tail is a running `skein events tail`.
type tail struct {
	out, err *output
	stop     context.CancelFunc
	code     chan int
}

func startTail(t *testing.T, s *shell, args ...string) *tail {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	a, out, stderr := s.app()
	tl := &tail{out, stderr, stop, make(chan int, 1)}
	go func() { tl.code <- a.run(ctx, append([]string{"events"}, args...)) }()
	t.Cleanup(stop)
	return tl
}

func (tl *tail) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-tl.code:
		return code
	case <-time.After(10 * time.Second):
		t.Fatal("the command did not end")
		return -1
	}
}

// printed are the sequence numbers of all JSON lines so far.
func (tl *tail) printed(t *testing.T) []uint64 {
	t.Helper()
	var got []uint64
	for line := range strings.Lines(tl.out.String()) {
		var e view.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in line %q", err, line)
		}
		got = append(got, e.Seq)
	}
	return got
}

func seqMark(seq int) string { return fmt.Sprintf(`{"seq":%d,`, seq) }

func TestTailGivesEachEventOnceOverTheLossOfANode(t *testing.T) {
	log := &growingLog{history: "h1"}
	log.append(30, "robot.online", "robot/a")
	f := newFakeFleet(t)
	log.serve(f)
	first := httptest.NewServer(f)
	s := f.shell(t)
	s.env["SKEIN_HTTP"] = first.URL + "," + f.url
	tl := startTail(t, s, "tail", "--json", "--limit", "4")
	tl.out.waitFor(t, seqMark(30))
	log.append(1200, "robot.online", "robot/a") // more than two pages
	tl.out.waitFor(t, seqMark(1230))
	first.CloseClientConnections()
	first.Close()
	log.append(5, "robot.offline", "robot/b")
	tl.out.waitFor(t, seqMark(1235))
	tl.stop()
	if code := tl.wait(t); code != exitOK {
		t.Errorf("exit code %d after an interrupt: %s", code, tl.err)
	}
	got := tl.printed(t)
	for i, seq := range got {
		if seq != uint64(27+i) {
			t.Fatalf("line %d is event %d, want %d: lost, doubled or out of order", i, seq, 27+i)
		}
	}
	if len(got) != 1235-26 {
		t.Errorf("%d events, want %d", len(got), 1235-26)
	}
}

func TestTailSurvivesAFleetWithoutNodes(t *testing.T) {
	log := &growingLog{history: "h1"}
	log.append(1, "robot.online", "robot/a")
	f := newFakeFleet(t)
	log.serve(f)
	server := httptest.NewServer(f)
	address := server.Listener.Addr().String()
	s := f.shell(t)
	s.env["SKEIN_HTTP"] = server.URL
	tl := startTail(t, s, "tail", "--json")
	tl.out.waitFor(t, seqMark(1))
	server.CloseClientConnections()
	server.Close()
	tl.err.waitFor(t, "still trying")
	log.append(1, "robot.online", "robot/a")
	again := httptest.NewUnstartedServer(f)
	listener, err := net.Listen("tcp", address)
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); {
		listener, err = net.Listen("tcp", address) // the kernel, or another test, may hold it for a moment
	}
	if err != nil {
		t.Fatal(err)
	}
	again.Listener.Close()
	again.Listener = listener
	again.Start()
	defer again.Close()
	tl.out.waitFor(t, seqMark(2))
	tl.stop()
	tl.wait(t)
	if got := tl.printed(t); len(got) != 2 {
		t.Errorf("printed %v", got)
	}
}

func TestTailFilters(t *testing.T) {
	a := "robot/" + string(ganderID)
	log := &growingLog{history: "h1"}
	log.append(3, "robot.online", a)
	log.append(3, "node.left", "node/a")
	f := newFakeFleet(t)
	log.serve(f)
	tl := startTail(t, f.shell(t), "list", "--follow", "--json", "--type", "robot.", "--stream", a)
	tl.out.waitFor(t, seqMark(3))
	log.append(2, "robot.offline", "robot/"+string(gooseID))
	log.append(1, "node.left", a)
	log.append(1, "robot.offline", a)
	tl.out.waitFor(t, seqMark(10))
	log.append(7, "node.left", "node/a")
	log.waitAsked(t, "17") // does not read over and over what it skips
	tl.stop()
	tl.wait(t)
	if got := fmt.Sprint(tl.printed(t)); got != "[1 2 3 10]" {
		t.Errorf("printed %s, want [1 2 3 10]", got)
	}
}

func TestListSinceFollows(t *testing.T) {
	log := &growingLog{history: "h1"}
	log.append(9, "robot.online", "robot/a")
	f := newFakeFleet(t)
	log.serve(f)
	tl := startTail(t, f.shell(t), "list", "--follow", "--json", "--since", "4", "--limit", "2")
	tl.out.waitFor(t, seqMark(9))
	tl.stop()
	tl.wait(t)
	if got := fmt.Sprint(tl.printed(t)); got != "[5 6 7 8 9]" {
		t.Errorf("printed %s, want all after 4", got)
	}
}

func TestTailSaysThatTheHistoryIsNew(t *testing.T) {
	log := &growingLog{history: "h1"}
	log.append(50, "robot.online", "robot/a")
	f := newFakeFleet(t)
	log.serve(f)
	tl := startTail(t, f.shell(t), "tail", "--json", "--limit", "1")
	tl.out.waitFor(t, seqMark(50))
	log2 := &growingLog{history: "h2"}
	log2.append(45, "robot.online", "robot/a")
	log.append(1, "robot.online", "robot/a")
	tl.out.waitFor(t, seqMark(51))
	log2.serve(f)
	tl.err.waitFor(t, "new history")
	log2.append(1, "robot.online", "robot/a")
	tl.out.waitFor(t, seqMark(46))
	tl.stop()
	tl.wait(t)
	if got := fmt.Sprint(tl.printed(t)); got != "[50 51 46]" {
		t.Errorf("printed %s", got)
	}
}

func TestTailEndsWhenRefused(t *testing.T) {
	f := newFakeFleet(t)
	tl := startTail(t, f.shell(t), "tail", "--json")
	tl.out.waitFor(t, seqMark(40))
	f.refuse("GET /api/v1/events", 403, string(event.CodeNotAllowed), "you were removed", "ask an admin")
	if code := tl.wait(t); code != exitNotAllowed || !strings.Contains(tl.err.String(), "you were removed; ask an admin") {
		t.Errorf("exit code %d, %s", code, tl.err)
	}
}
