package propose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

func TestAnyNodeProposes(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	for i, w := range f.live {
		robot := event.RobotRegistered{Name: fmt.Sprintf("n%d", i), Type: event.LeKiwi, Version: "v1", Arch: "arm64", OS: "linux"}.Draft(w.id)
		r, err := w.proposer.Propose(t.Context(), []event.Draft{robot}, Authority{})
		if err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
		if r.First != r.Last || r.Cursor.Seq < r.Last {
			t.Fatalf("node %d: receipt %+v", i, r)
		}
		events, err := w.copy.Events(t.Context(), r.First-1, replica.Filter{}, 1)
		if err != nil || len(events) != 1 || events[0].Actor.Kind != event.KindNode || events[0].Actor.ID != string(w.id) || events[0].Producer.Node != w.id {
			t.Fatalf("node %d: %+v %v", i, events, err)
		}
		if r, err = w.proposer.Propose(t.Context(), group(i), ada); err != nil {
			t.Fatalf("node %d for a person: %v", i, err)
		}
	}
	f.converge()
}

func TestProposalsOutliveLeaders(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	end := f.live[len(f.live)-1]
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	acked := map[string]uint64{}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil && next.Load() < 5000 {
				n := int(next.Add(1))
				r, err := end.proposer.Propose(t.Context(), group(n), ada)
				if err != nil {
					t.Errorf("proposal %d: %v", n, err)
					return
				}
				mu.Lock()
				acked[fmt.Sprintf("g%d", n)] = r.First
				mu.Unlock()
			}
		})
	}
	more := func(what string) {
		t.Helper()
		before := next.Load()
		until(t, what, func() bool { return next.Load() > before+100 })
	}
	more("proposals")
	for range 2 {
		if err := f.leader().group.Transfer(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		more("proposals to a new leader")
	}
	f.kill(f.leader())
	more("proposals after the leader's death")
	cancel()
	wg.Wait()
	groups := f.converge()
	for g, seq := range acked {
		if groups[g] != 1 {
			t.Fatalf("%s, acknowledged at %d, is there %d times", g, seq, groups[g])
		}
	}
	if len(acked) < 400 || len(groups) != len(acked) {
		t.Fatalf("%d acknowledged, %d there", len(acked), len(groups))
	}
}

// TestLostAnswersAreAppliedOnce: the leader decides, its answer never arrives.
func TestLostAnswersAreAppliedOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	end := f.live[voters]
	var lost atomic.Int64
	open := end.proposer.cfg.Open
	end.proposer.cfg.Open = func(ctx context.Context, id ident.NodeID) (net.Conn, error) {
		conn, err := open(ctx, id)
		if err == nil && lost.Load() < 3 {
			conn = &deafConn{Conn: conn, lost: &lost}
		}
		return conn, err
	}
	r, err := end.proposer.Propose(t.Context(), group(1), ada)
	if err != nil {
		t.Fatal(err)
	}
	if lost.Load() != 3 {
		t.Fatalf("%d answers were lost", lost.Load())
	}
	r2, err := end.proposer.Propose(t.Context(), group(2), ada)
	if err != nil || r2.First != r.Last+1 {
		t.Fatalf("the next is %+v after %+v, %v", r2, r, err)
	}
	if groups := f.converge(); groups["g1"] != 1 || groups["g2"] != 1 {
		t.Fatalf("%v", groups)
	}
}

// deafConn breaks when the first answer arrives.
type deafConn struct {
	net.Conn
	lost *atomic.Int64
}

func (c *deafConn) Read(p []byte) (int, error) {
	if _, err := c.Conn.Read(p); err != nil {
		return 0, err
	}
	c.lost.Add(1)
	c.Conn.Close()
	return 0, errors.New("answer lost")
}

func TestRefusalsTravel(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	end := f.live[voters]
	if _, err := end.proposer.Propose(t.Context(), group(1), ada); err != nil {
		t.Fatal(err)
	}
	never := uint64(40)
	for name, tc := range map[string]struct {
		drafts []event.Draft
		by     Authority
		code   event.Code
		path   string
	}{
		"about another node": {[]event.Draft{event.VoterEligible{Eligible: true}.Draft(fleettest.Node(0))}, Authority{}, event.CodeNotAllowed, "drafts[0].type"},
		"person only":        {group(2), Authority{}, event.CodeNotAllowed, "drafts[0].type"},
		"bad token":          {group(2), Authority{Token: "eve"}, event.CodeNotAllowed, ""},
		"unknown type":       {[]event.Draft{{Stream: "fleet", Type: "fleet.exploded", Data: json.RawMessage(`{}`)}}, ada, event.CodeUnknownType, "drafts[0].type"},
		"bad field":          {append(group(2), event.Draft{Stream: "group/x", Type: event.TypeGroupCreated, Data: json.RawMessage(`{"description":7}`)}), ada, event.CodeInvalid, "drafts[1].data.description"},
		"not JSON":           {[]event.Draft{{Stream: "group/x", Type: event.TypeGroupCreated, Data: json.RawMessage(`{`)}}, ada, event.CodeInvalid, ""},
		"nothing":            {nil, ada, event.CodeInvalid, ""},
		"old version":        {[]event.Draft{group(1)[0].At(never)}, ada, event.CodeConflict, "drafts[0]"},
	} {
		_, err := end.proposer.Propose(t.Context(), tc.drafts, tc.by)
		fault, ok := event.FaultOf(err)
		if !ok || fault.Code != tc.code || !strings.HasPrefix(fault.Path, tc.path) || fault.Next == "" && tc.code != event.CodeConflict {
			t.Errorf("%s: got %+v (%v)", name, fault, err)
		}
	}
	if groups := f.converge(); len(groups) != 1 {
		t.Fatalf("%v", groups)
	}
}

func TestLargestBatchTravels(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	end := f.live[voters]
	var drafts []event.Draft
	for i := range event.MaxDrafts / 2 {
		name := fmt.Sprintf("big%d", i)
		drafts = append(drafts, event.GroupCreated{Description: strings.Repeat("<", event.MaxText)}.Draft(name), event.GroupDeleted{}.Draft(name))
		drafts[2*i].Cause = strings.Repeat("&", event.MaxCause)
	}
	r, err := end.proposer.Propose(t.Context(), drafts, ada)
	if err != nil || r.Last-r.First != event.MaxDrafts-1 {
		t.Fatalf("%+v %v", r, err)
	}
	_, err = end.proposer.Propose(t.Context(), append(drafts, drafts[0]), ada)
	if fault, ok := event.FaultOf(err); !ok || fault.Code != event.CodeInvalid {
		t.Fatalf("one more than the most: %v", err)
	}
	huge := []event.Draft{{Stream: "group/x", Type: event.TypeGroupCreated, Data: json.RawMessage(`"` + strings.Repeat("x", maxRequest) + `"`)}}
	_, err = end.proposer.Propose(t.Context(), huge, ada)
	if fault, ok := event.FaultOf(err); !ok || fault.Code != event.CodeInvalid {
		t.Fatalf("over what can be sent: %v", err)
	}
	f.converge()
}

func TestManyProposalsShareAStream(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	end := f.live[voters]
	var wg sync.WaitGroup
	const many = 300
	for i := range many {
		wg.Go(func() {
			if _, err := end.proposer.Propose(t.Context(), group(i), ada); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := end.opened.Load(); n != 1 {
		t.Fatalf("%d streams were opened", n)
	}
	if groups := f.converge(); len(groups) != many {
		t.Fatalf("%d groups", len(groups))
	}
}

func TestWithoutAMajority(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	lead := f.leader()
	end := f.live[voters]
	f.kill(f.live[1])
	f.kill(f.live[1])
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := end.proposer.Propose(ctx, group(1), ada)
	if fault, ok := event.FaultOf(err); !ok || fault.Code != event.CodeNoLeader && fault.Code != event.CodeUnknownOutcome {
		t.Fatalf("got %v", err)
	}
	until(t, "the leader gives up", func() bool { _, ok := lead.group.Leading(); return !ok })
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = lead.proposer.Propose(ctx, group(2), ada)
	if fault, ok := event.FaultOf(err); !ok || fault.Code != event.CodeNoLeader {
		t.Fatalf("got %v", err)
	}
}

// readOne reads one request from a stream by hand.
func readOne(conn net.Conn) (request, []event.Draft, error) {
	b, err := wire.ReadFrame(conn, maxRequest)
	if err != nil {
		return request{}, nil, err
	}
	return new(requests).decode(b)
}
