package propose

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// seat is a Group that the test steers.
type seat struct {
	self   ident.NodeID
	mu     sync.Mutex
	leader ident.NodeID
	submit func(event.Batch) (replica.Outcome, error)
}

func (s *seat) Leader() (ident.NodeID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leader, s.leader != ""
}

func (s *seat) Accepts() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leader != s.self {
		return errNoLeader
	}
	return nil
}

func (s *seat) lead(id ident.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader = id
}

// Offer runs submit beside its caller, as a seat does.
func (s *seat) Offer(b event.Batch, done func(replica.Outcome, error)) error {
	go func() { done(s.submit(b)) }()
	return nil
}

// upToDate is a copy that has everything.
type upToDate struct{}

func (upToDate) Wait(context.Context, uint64) error { return nil }
func (upToDate) Cursor() event.Cursor               { return event.Cursor{History: "h", Seq: 1000} }

type lone struct {
	*Proposer
	seat   *seat
	host   *testnet.Host
	opened atomic.Int64
}

func newLone(t *testing.T, n *testnet.Net, i int) *lone {
	t.Helper()
	host, err := n.Start(testnet.ID(i))
	if err != nil {
		t.Fatal(err)
	}
	l := &lone{seat: &seat{self: host.ID}, host: host}
	l.Proposer = New(Config{Self: host.ID, Boot: 1, Group: l.seat, Replica: upToDate{}, Verify: verify, Log: testLog(t),
		Open: func(ctx context.Context, id ident.NodeID) (net.Conn, error) {
			l.opened.Add(1)
			return host.Link("propose").Open(ctx, id)
		}})
	host.Handle("propose", l.Handle)
	t.Cleanup(func() { l.Close(); host.Kill() })
	return l
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantFault(t *testing.T, err error, code event.Code) *event.Fault {
	t.Helper()
	fault, ok := event.FaultOf(err)
	if !ok || fault.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	return fault
}

// TestSilentLeaderIsLeft: the first leader reads and never answers.
func TestSilentLeaderIsLeft(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, silent, good := newLone(t, n, 0), newLone(t, n, 1), newLone(t, n, 2)
	asked := make(chan request, 10)
	silent.host.Handle("propose", func(ctx context.Context, conn net.Conn, _ ident.NodeID) {
		for {
			q, _, err := readOne(conn)
			if err != nil {
				return
			}
			asked <- q
		}
	})
	good.seat.lead(good.cfg.Self)
	good.seat.submit = func(b event.Batch) (replica.Outcome, error) { return replica.Outcome{First: 5, Last: 5}, nil }
	node.seat.lead(silent.cfg.Self)
	go func() {
		<-asked
		node.seat.lead(good.cfg.Self)
	}()
	r, err := node.Propose(within(t, 3*tryTimeout), group(1), ada)
	if err != nil || r.First != 5 {
		t.Fatalf("%+v %v", r, err)
	}
}

// TestSilentStreamIsReplaced: the leader is well, only this stream is dead.
func TestSilentStreamIsReplaced(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, leader := newLone(t, n, 0), newLone(t, n, 1)
	leader.seat.lead(leader.cfg.Self)
	leader.seat.submit = func(event.Batch) (replica.Outcome, error) { return replica.Outcome{First: 5, Last: 5}, nil }
	var streams atomic.Int64
	leader.host.Handle("propose", func(ctx context.Context, conn net.Conn, remote ident.NodeID) {
		if streams.Add(1) > 1 {
			leader.Handle(ctx, conn, remote)
			return
		}
		for {
			if _, _, err := readOne(conn); err != nil {
				return
			}
		}
	})
	node.seat.lead(leader.cfg.Self)
	if _, err := node.Propose(within(t, 2*tryTimeout), group(1), ada); err != nil {
		t.Fatal(err)
	}
}

func TestSilentLeaderAndNoTime(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, silent := newLone(t, n, 0), newLone(t, n, 1)
	silent.host.Handle("propose", func(ctx context.Context, conn net.Conn, _ ident.NodeID) { <-ctx.Done() })
	node.seat.lead(silent.cfg.Self)
	_, err := node.Propose(within(t, 200*time.Millisecond), group(1), ada)
	wantFault(t, err, event.CodeUnknownOutcome)
}

func TestHintsAreFollowedButNotInCircles(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, old, leader := newLone(t, n, 0), newLone(t, n, 1), newLone(t, n, 2)
	leader.seat.lead(leader.cfg.Self)
	leader.seat.submit = func(b event.Batch) (replica.Outcome, error) { return replica.Outcome{First: 7, Last: 7}, nil }
	old.seat.lead(leader.cfg.Self)
	node.seat.lead(old.cfg.Self) // has not heard of the change
	if r, err := node.Propose(within(t, 5*time.Second), group(1), ada); err != nil || r.First != 7 {
		t.Fatalf("%+v %v", r, err)
	}
	// Two that name each other.
	leader.seat.lead(old.cfg.Self)
	before := node.opened.Load()
	_, err := node.Propose(within(t, 20*pause), group(2), ada)
	if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeNoLeader && f.Code != event.CodeUnknownOutcome { // the last answer may be late
		t.Fatalf("got %v", err)
	}
	if tries := node.opened.Load() - before; tries > 2*21 {
		t.Fatalf("%d streams in 20 pauses", tries)
	}
}

func TestNumbersAreUsedOnce(t *testing.T) {
	t.Parallel()
	node := newLone(t, testnet.New(), 0)
	node.seat.lead(node.cfg.Self)
	var seen []event.Producer
	node.seat.submit = func(b event.Batch) (replica.Outcome, error) {
		seen = append(seen, b.Producer)
		if len(seen) < 3 {
			return replica.Outcome{}, event.Refuse(event.CodeUnknownOutcome, "", "", "leadership lost")
		}
		return replica.Outcome{First: 1, Last: 1}, nil
	}
	for range 2 {
		if _, err := node.Propose(within(t, 5*time.Second), group(1), ada); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 4 || seen[0] != seen[1] || seen[1] != seen[2] || seen[3].N != seen[2].N+1 || seen[0].Node != node.cfg.Self || seen[0].Boot != 1 {
		t.Fatalf("producers were %v", seen)
	}
}

// TestOnlyTheStateRefusesAfterAnUncertainTry: the first try may have been
// decided, so a token that has expired since proves nothing.
func TestOnlyTheStateRefusesAfterAnUncertainTry(t *testing.T) {
	t.Parallel()
	unknown := event.Refuse(event.CodeUnknownOutcome, "", "", "leadership lost")
	conflict := event.Refuse(event.CodeConflict, "", "", "version is 7")
	busy := event.Refuse(event.CodeBusy, "", "", "queue full")
	for name, tc := range map[string]struct {
		answers []replica.Outcome
		errs    []error
		expired bool
		want    event.Code
	}{
		"token expires":       {[]replica.Outcome{{}}, []error{unknown}, true, event.CodeUnknownOutcome},
		"state says no":       {[]replica.Outcome{{}, {Err: conflict}}, []error{unknown, nil}, false, event.CodeConflict},
		"busy, then no":       {[]replica.Outcome{{}, {}, {Err: conflict}}, []error{unknown, busy, nil}, false, event.CodeConflict},
		"busy at first":       {[]replica.Outcome{{}}, []error{busy}, false, event.CodeBusy},
		"state has forgotten": {[]replica.Outcome{{Err: unknown}}, []error{nil}, false, event.CodeUnknownOutcome},
	} {
		t.Run(name, func(t *testing.T) {
			node := newLone(t, testnet.New(), 0)
			node.seat.lead(node.cfg.Self)
			tries := 0
			node.cfg.Verify = func(token string) (event.Actor, error) {
				if tc.expired && tries > 0 {
					return event.Actor{}, errors.New("expired")
				}
				return verify(token)
			}
			node.seat.submit = func(event.Batch) (replica.Outcome, error) {
				i := min(tries, len(tc.answers)-1)
				tries++
				return tc.answers[i], tc.errs[i]
			}
			_, err := node.Propose(within(t, 500*time.Millisecond), group(1), ada)
			wantFault(t, err, tc.want)
			if tries != len(tc.answers) {
				t.Fatalf("%d tries, want %d", tries, len(tc.answers))
			}
		})
	}
}

func TestReceiptDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	node := newLone(t, testnet.New(), 0)
	node.seat.lead(node.cfg.Self)
	node.seat.submit = func(event.Batch) (replica.Outcome, error) { return replica.Outcome{First: 3, Last: 4}, nil }
	node.cfg.Replica = behind{}
	r, err := node.Propose(within(t, 100*time.Millisecond), group(1), ada)
	if err != nil || r.First != 3 || r.Last != 4 || r.Cursor.Seq != 2 {
		t.Fatalf("%+v %v", r, err)
	}
}

type behind struct{}

func (behind) Wait(ctx context.Context, _ uint64) error { <-ctx.Done(); return ctx.Err() }
func (behind) Cursor() event.Cursor                     { return event.Cursor{Seq: 2} }

func TestOnlyTheLeaderLooksAtTokens(t *testing.T) {
	t.Parallel()
	node := newLone(t, testnet.New(), 0)
	node.cfg.Verify = func(string) (event.Actor, error) {
		t.Error("token verified on a node that does not lead")
		return event.Actor{}, nil
	}
	var a answer
	node.decide(new(event.Decoder), request{ID: 3, Token: "ada"}, group(1), testnet.ID(9), func(got answer) { a = got })
	if a.Fault == nil || a.Fault.Code != event.CodeNoLeader || a.State {
		t.Fatalf("%+v", a)
	}
}

func TestProducerIsTheStreamsOtherEnd(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	leader, node := newLone(t, n, 0), newLone(t, n, 1)
	leader.seat.lead(leader.cfg.Self)
	got := make(chan event.Batch, 1)
	leader.seat.submit = func(b event.Batch) (replica.Outcome, error) { got <- b; return replica.Outcome{First: 1, Last: 1}, nil }
	conn, err := node.host.Link("propose").Open(t.Context(), leader.cfg.Self)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sendByHand(t, conn, request{ID: 1, Boot: 4, N: 9, Drafts: appendDrafts(nil, []event.Draft{
		{Stream: "node/" + string(node.cfg.Self), Type: event.TypeNodeLeft, Data: []byte("{}")}})})
	b := <-got
	if b.Producer != (event.Producer{Node: node.cfg.Self, Boot: 4, N: 9}) || b.Actor.Kind != event.KindNode || b.Actor.ID != string(node.cfg.Self) {
		t.Fatalf("%+v", b)
	}
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	leader, node := newLone(t, n, 0), newLone(t, n, 1)
	leader.seat.lead(leader.cfg.Self)
	var now, most atomic.Int64
	release := make(chan struct{})
	leader.seat.submit = func(event.Batch) (replica.Outcome, error) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		<-release
		return replica.Outcome{First: 1, Last: 1}, nil
	}
	conn, err := node.host.Link("propose").Open(t.Context(), leader.cfg.Self)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { // the leader stops reading at some point
		for i := range maxUnderWay + 50 {
			sendByHand(t, conn, request{ID: uint64(i), Boot: 1, N: uint64(i + 1), Drafts: appendDrafts(nil, ownDrafts(node.cfg.Self))})
		}
	}()
	until(t, "as many as are allowed", func() bool { return now.Load() == maxUnderWay })
	time.Sleep(50 * time.Millisecond) // for one more to begin, if it could
	close(release)
	if most.Load() != maxUnderWay {
		t.Fatalf("%d at once", most.Load())
	}
	for range maxUnderWay + 50 {
		if _, err := wire.ReadFrame(conn, maxAnswer); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNonsenseEndsAStream(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	leader, node := newLone(t, n, 0), newLone(t, n, 1)
	leader.seat.lead(leader.cfg.Self)
	for _, say := range [][]byte{
		{0xff, 0xff, 0xff, 0xff}, append(binary.BigEndian.AppendUint32(nil, 2), 0xff, 0xff),
		append(binary.BigEndian.AppendUint32(nil, 5), 1, 1, 1, 2, 1), // a token that was never said
		append(binary.BigEndian.AppendUint32(nil, 6), 1, 1, 1, 0, 1, 9), binary.BigEndian.AppendUint32(nil, 0),
	} {
		conn, err := node.host.Link("propose").Open(t.Context(), leader.cfg.Self)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(say); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 8)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%q: read %d bytes, %v", say, n, err)
		}
		conn.Close()
	}
}

func TestNonsenseFromALeader(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, bad := newLone(t, n, 0), newLone(t, n, 1)
	bad.host.Handle("propose", func(_ context.Context, conn net.Conn, _ ident.NodeID) {
		if _, _, err := readOne(conn); err == nil {
			wire.WriteFrame(conn, []byte("]"), maxAnswer)
		}
	})
	node.seat.lead(bad.cfg.Self)
	_, err := node.Propose(within(t, 300*time.Millisecond), group(1), ada)
	wantFault(t, err, event.CodeUnknownOutcome)
}

func TestAfterCloseNothingIsOpened(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, leader := newLone(t, n, 0), newLone(t, n, 1)
	leader.seat.lead(leader.cfg.Self)
	leader.seat.submit = func(event.Batch) (replica.Outcome, error) { return replica.Outcome{First: 1, Last: 1}, nil }
	node.seat.lead(leader.cfg.Self)
	if _, err := node.Propose(within(t, 5*time.Second), group(1), ada); err != nil {
		t.Fatal(err)
	}
	node.Close()
	node.Close()
	_, err := node.Propose(within(t, 100*time.Millisecond), group(2), ada)
	wantFault(t, err, event.CodeNoLeader)
	if node.opened.Load() != 1 {
		t.Fatalf("%d streams", node.opened.Load())
	}
}

// sendByHand writes one request without a proposer.
func sendByHand(t *testing.T, conn net.Conn, q request) {
	if err := wire.WriteFrame(conn, appendRequest(nil, &q, &tokenTable{}), maxRequest); err != nil && t.Context().Err() == nil {
		t.Error(err)
	}
}

// ownDrafts is what a node may say of itself.
func ownDrafts(id ident.NodeID) []event.Draft {
	return []event.Draft{{Stream: "node/" + string(id), Type: event.TypeNodeLeft, Data: []byte("{}")}}
}

// TestStartNeedsNoGoroutine: a thousand proposals are under way on one stream,
// all are answered, and the token is said once.
func TestStartNeedsNoGoroutine(t *testing.T) {
	t.Parallel()
	n := testnet.New()
	node, leader := newLone(t, n, 0), newLone(t, n, 1)
	leader.seat.lead(leader.cfg.Self)
	node.seat.lead(leader.cfg.Self)
	var mu sync.Mutex
	seen := map[uint64]bool{}
	leader.seat.submit = func(b event.Batch) (replica.Outcome, error) {
		mu.Lock()
		defer mu.Unlock()
		if seen[b.Producer.N] || b.Actor.Kind != event.KindPerson {
			t.Errorf("%+v twice, or by nobody", b)
		}
		seen[b.Producer.N] = true
		return replica.Outcome{First: b.Producer.N, Last: b.Producer.N}, nil
	}
	if _, err := node.Propose(within(t, 5*time.Second), group(1), ada); err != nil { // opens the stream
		t.Fatal(err)
	}
	before, _ := node.host.Sent()
	var all []*Pending
	for range 1000 {
		w, err := node.Start(within(t, 10*time.Second), group(1), ada)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	for i, w := range all {
		if r, err := w.Wait(t.Context()); err != nil || r.First != uint64(i+2) {
			t.Fatalf("proposal %d: %+v %v", i, r, err)
		}
	}
	after, _ := node.host.Sent()
	if each := (after - before) / 1000; each > 160 {
		t.Fatalf("%d bytes a proposal", each)
	}
}

// TestTokensComeAndGo: more persons than a stream remembers.
func TestTokensComeAndGo(t *testing.T) {
	var table tokenTable
	var in requests
	for i := range 1000 {
		token := "token " + strings.Repeat("x", i*i%(3*maxTokens))
		q, _, err := in.decode(appendRequest(nil, &request{ID: 1, Token: token, Drafts: appendDrafts(nil, nil)}, &table))
		if err != nil || q.Token != token {
			t.Fatalf("token %d: %q %v", i, q.Token, err)
		}
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	seven := uint64(7)
	drafts := []event.Draft{{Stream: "s", Type: "t", Schema: 2, Data: []byte(`"<&>"`), Cause: "<&>", Expect: &seven}, {Data: []byte{}}}
	q := request{ID: 1 << 60, Boot: 2, N: 3, Token: "t", Drafts: appendDrafts(nil, drafts)}
	got, back, err := new(requests).decode(appendRequest(nil, &q, &tokenTable{}))
	if err != nil || !reflect.DeepEqual(got, q) || !reflect.DeepEqual(back, drafts) {
		t.Fatalf("%+v %+v %v", got, back, err)
	}
	for _, a := range []answer{{ID: 4, First: 5, Last: 9}, {ID: 1, Fault: errNoLeader, State: true, Leader: testnet.ID(3)}} {
		if got, err := decodeAnswer(appendAnswer(nil, &a)); err != nil || !reflect.DeepEqual(got, a) {
			t.Fatalf("%+v %v", got, err)
		}
	}
	long := answer{ID: 1, Fault: event.Refuse(event.CodeConflict, event.ReasonVersion, "", "%s", strings.Repeat("x", maxAnswer))}
	if got, err := decodeAnswer(appendAnswer(nil, &long)); err != nil || got.Fault.Code != event.CodeConflict || got.Fault.Reason != event.ReasonVersion {
		t.Fatalf("%+v %v", got, err)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	drafts := appendDrafts(nil, group(1))
	f.Add(appendRequest(nil, &request{ID: 1, Boot: 2, N: 3, Token: "t", Drafts: drafts}, &tokenTable{}))
	f.Add(appendRequest(nil, &request{ID: 1, Drafts: appendDrafts(nil, nil)}, &tokenTable{}))
	f.Add([]byte{})
	f.Add([]byte{1, 1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	p := New(Config{Self: testnet.ID(0), Group: &seat{self: testnet.ID(0), leader: testnet.ID(0), submit: func(b event.Batch) (replica.Outcome, error) {
		if err := b.Validate(); err != nil {
			panic(err)
		}
		return replica.Outcome{First: 1, Last: 1}, nil
	}}, Replica: upToDate{}, Verify: verify})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, drafts, err := new(requests).decode(b)
		if err != nil {
			return
		}
		got := make(chan answer, 2)
		p.decide(new(event.Decoder), q, drafts, testnet.ID(1), func(a answer) { got <- a })
		if a := <-got; (a.Fault == nil) == (a.First == 0) {
			t.Fatalf("%x was answered with %+v", b, a)
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, a := range []answer{{ID: 1, First: 2, Last: 3}, {ID: 1, Fault: errNoLeader, Leader: testnet.ID(1)}} {
		f.Add(appendAnswer(nil, &a))
	}
	for _, seed := range []string{"", "\x01\x01{}", "\x01\x01{\"fault\":{}}", "\x01\x00\x00\x00"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(b)
		if err == nil && (a.Fault == nil) != (a.First > 0 && a.Last >= a.First) {
			t.Fatalf("%x is %+v", b, a)
		}
		if err == nil && a.Fault != nil {
			_ = a.Fault.Error()
		}
	})
}

func TestNumbersUnderWayStayTogether(t *testing.T) {
	t.Parallel()
	if maxOpen >= fleet.SessionWindow {
		t.Fatalf("%d may be under way, %d are remembered", maxOpen, fleet.SessionWindow)
	}
	var w window
	for n := uint64(1); n <= maxOpen; n++ {
		if got, f := w.take(t.Context()); f != nil || got != n {
			t.Fatalf("%d %v", got, f)
		}
	}
	_, f := w.take(within(t, 20*time.Millisecond))
	wantFault(t, f, event.CodeBusy)
	for n := uint64(2); n <= maxOpen; n++ {
		w.settle(n) // all but the oldest
	}
	if _, f = w.take(within(t, 20*time.Millisecond)); f == nil {
		t.Fatal("a number was given that is too far from the oldest under way")
	}
	got := make(chan uint64)
	go func() { n, _ := w.take(t.Context()); got <- n }()
	w.settle(1)
	if n := <-got; n != maxOpen+1 || w.low != maxOpen+1 {
		t.Fatalf("number %d, oldest %d", n, w.low)
	}
}
