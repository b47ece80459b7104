package follow

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
	"skein/consensus/raftgroup/testnet"
	"skein/mesh/ident"
)

func someRecord(tb testing.TB) history.Record {
	r, err := history.NewRecord(7, 2, []event.Event{{Seq: 1, Time: time.UnixMilli(1_700_000_000_000).UTC(), Stream: "group/a", Version: 1,
		Type: event.TypeGroupCreated, Schema: 1, Actor: fleettest.Admin("ada"), Data: event.GroupCreated{}.Draft("a").Data}}, history.Position{})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestFramesRoundTrip(t *testing.T) {
	mark := markOf(3, 99, 1234*time.Millisecond, 0, 1, 2)
	mark.Index, mark.Voters = 120, mark.Path
	record := someRecord(t)
	for _, tc := range []struct {
		kind kind
		v    any
		want frame
	}{
		{kindRequest, request{Cursor: event.Cursor{History: "h", Seq: 4}, Snapshot: true}, frame{request: request{Cursor: event.Cursor{History: "h", Seq: 4}, Snapshot: true}}},
		{kindRefusal, refusal{Reason: reasonFull, Try: mark.Path}, frame{refusal: refusal{Reason: reasonFull, Try: mark.Path}}},
		{kindMark, mark, frame{mark: mark}},
	} {
		b, err := jsonFrame(tc.kind, tc.v)
		if err != nil {
			t.Fatal(err)
		}
		tc.want.kind = tc.kind
		if got, err := parseFrame(b); err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Fatalf("%c: %+v %v", tc.kind, got, err)
		}
	}
	if got, err := parseFrame(tickFrame(mark)); err != nil || got.mark.Seq != 99 || got.mark.Index != 120 || got.mark.AgeMillis != 1234 {
		t.Fatalf("tick: %+v %v", got, err)
	}
	frames := recordFrames([]history.Record{record, record})
	if got, err := parseFrame(frames[0]); len(frames) != 1 || err != nil || len(got.records) != 2 || !bytes.Equal(got.records[1], record.Bytes()) {
		t.Fatalf("records: %+v %v", got, err)
	}
}

func TestMarksOfNoHonestParent(t *testing.T) {
	deep := make([]int, maxPath+1)
	for _, m := range []Mark{{}, markOf(1, 1, -time.Second, 0), markOf(1, 1, 0, deep...), func() Mark { m := markOf(1, 1, 0, 0, 1); m.Leader = testnet.ID(1); return m }(),
		func() Mark { m := markOf(1, 1, 0, 0); m.Voters = make([]ident.NodeID, maxVoters+1); return m }()} {
		if m.check() == nil {
			t.Fatalf("accepted %+v", m)
		}
	}
	if err := markOf(1, 1, 0, deep[:maxPath]...).check(); err != nil {
		t.Fatal(err)
	}
}

// TestIdleTrafficIsSmall: what a child costs in 5 s is one tick.
func TestIdleTrafficIsSmall(t *testing.T) {
	const header, secure, tcpIP = 4, 2 + 16 + 12, 52
	perSecond := float64(len(tickFrame(Mark{}))+header+secure+2*tcpIP)/shippedTimes.mark.Seconds() +
		float64(1+header+secure+2*tcpIP)/shippedTimes.keepAlive.Seconds()
	if perSecond > 100 {
		t.Fatalf("%.0f B/s", perSecond)
	}
	t.Logf("%.0f B/s a child, both directions, headers included", perSecond)
}

func FuzzParseFrame(f *testing.F) {
	record := someRecord(f)
	mark, _ := jsonFrame(kindMark, markOf(3, 99, time.Second, 0, 1))
	ask, _ := jsonFrame(kindRequest, request{Cursor: event.Cursor{History: "h", Seq: 4}})
	no, _ := jsonFrame(kindRefusal, refusal{Reason: reasonLoop})
	for _, seed := range [][]byte{{}, {'K'}, {'E'}, {'P'}, tickFrame(Mark{Seq: 5}), mark, ask, no, recordFrames([]history.Record{record})[0], []byte("Cpiece"), []byte("R\xff\xff\xff\xff")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b)
		if err != nil {
			return
		}
		total := 0
		for _, r := range got.records {
			total += len(r)
			history.ParseRecord(r)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of records out of %d", total, len(b))
		}
		if got.kind == kindMark && got.mark.check() != nil {
			t.Fatal("a mark passed that does not pass")
		}
	})
}
