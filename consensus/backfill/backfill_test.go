package backfill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/history"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quick = bounds{
	open: time.Second, retryLow: 5 * time.Millisecond, retryHigh: 50 * time.Millisecond, look: 50 * time.Millisecond,
	bytesPerSecond: 64 << 20, pieceBytes: 32 << 10,
}

// world is a few nodes with replicas of one log.
type world struct {
	t     *testing.T
	net   *testnet.Net
	index uint64
}

// peer is one of them.
type peer struct {
	*Service
	id   ident.NodeID
	copy *replica.Replica
	host *testnet.Host

	mu   sync.Mutex
	asks []ident.NodeID
	log  *bytes.Buffer
}

func newWorld(t *testing.T) *world { return &world{t: t, net: testnet.New()} }

func (w *world) peer(i int, options replica.Options) *peer {
	w.t.Helper()
	id := testnet.ID(i)
	copy, err := replica.Open(filepath.Join(w.t.TempDir(), string(id)), options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { copy.Close() })
	host, err := w.net.Start(id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(host.Kill)
	p := &peer{id: id, copy: copy, host: host, log: &bytes.Buffer{}}
	p.Service = New(Config{
		Self: id, Link: host.Link("backfill"), Source: copy, Sink: copy, Peers: p.peers, Log: slog.New(slog.DiscardHandler),
	})
	p.Service.bounds = quick
	host.Handle("backfill", p.Handle)
	return p
}

func (p *peer) peers() []ident.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asks)
}

func (p *peer) asksOf(whom ...*peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = []ident.NodeID{p.id}
	for _, w := range whom {
		p.asks = append(p.asks, w.id)
	}
}

// run runs the service until the test, or the one who calls stop, ends it.
func (w *world) run(p *peer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("%s ended with %v", p.id, err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// decide appends n entries on every one of the peers; salt makes them differ from
// those of another salt.
func (w *world) decide(n int, salt string, on ...*peer) {
	w.t.Helper()
	for range n {
		w.index++
		name := fmt.Sprintf("g%s%d", salt, w.index)
		batch := event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{
			event.GroupCreated{Description: fmt.Sprintf("%0200d", w.index)}.Draft(name), event.GroupDeleted{}.Draft(name)}}
		if on[0].copy.Cursor().Seq == 0 {
			batch = fleettest.Genesis()
		}
		data, err := replica.EncodeEntry(replica.Entry{TimeMillis: 1_700_000_000_000, Batches: []event.Batch{batch}})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range on {
			if outcomes, err := p.copy.ApplyEntry(w.index, 1, data); err != nil || outcomes[0].Err != nil {
				w.t.Fatal(err, outcomes)
			}
		}
	}
}

// snapshot gives to the state of from, without its past.
func (w *world) snapshot(from, to *peer) {
	w.t.Helper()
	pipe, in := io.Pipe()
	go func() { in.CloseWithError(from.copy.Snapshot(in)) }()
	if err := to.copy.Restore(pipe); err != nil {
		w.t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// whole checks that p holds what from holds, byte for byte.
func whole(t *testing.T, from, p *peer) {
	t.Helper()
	eventually(t, "the past is complete", func() bool { _, lacking := p.copy.Gap(); return !lacking })
	want, got := texts(t, from), texts(t, p)
	if !slices.Equal(got, want) {
		t.Fatalf("%d events are held, want %d", len(got), len(want))
	}
}

func texts(t *testing.T, p *peer) (all []string) {
	t.Helper()
	for since := uint64(0); ; {
		events, err := p.copy.Events(t.Context(), since, replica.Filter{}, replica.MaxEvents)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			all = append(all, string(e.AppendJSON(nil)))
			since = e.Seq
		}
		if len(events) < replica.MaxEvents {
			return all
		}
	}
}

func TestAGapIsFilledWhileTheLogGrows(t *testing.T) {
	w := newWorld(t)
	full, late := w.peer(0, replica.Options{}), w.peer(1, replica.Options{})
	w.decide(1500, "", full)
	w.snapshot(full, late)
	if gap, lacking := late.copy.Gap(); !lacking || gap.Seq != full.copy.Cursor().Seq {
		t.Fatalf("gap %d, %v", gap.Seq, lacking)
	}
	late.asksOf(full)
	w.run(late)
	w.decide(300, "more", full, late)
	whole(t, full, late)
	if late.copy.First() != 1 {
		t.Fatalf("the first event held is %d", late.copy.First())
	}
}

// TestAnotherPeerGoesOn: the first peer dies in the middle, the second goes on
// where it was, and nothing that was fetched is fetched again.
func TestAnotherPeerGoesOn(t *testing.T) {
	w := newWorld(t)
	first, second, late := w.peer(0, replica.Options{}), w.peer(1, replica.Options{}), w.peer(2, replica.Options{})
	w.decide(2000, "", first, second)
	w.snapshot(first, late)
	first.bounds.bytesPerSecond = 128 << 10
	late.asksOf(first)
	stop := w.run(late)
	gap, _ := late.copy.Gap()
	eventually(t, "a first piece", func() bool { now, _ := late.copy.Gap(); return now.Seq < gap.Seq })
	first.host.Kill()
	stop()
	half, lacking := late.copy.Gap()
	if !lacking {
		t.Fatal("it was too quick to be interrupted")
	}
	late.asksOf(first, second)
	w.run(late)
	whole(t, second, late)
	sent, _ := second.host.Sent()
	t.Logf("up to event %d from the second peer, %d bytes", half.Seq, sent)
	if most := int64(half.Seq)*600 + 4096; sent > most {
		t.Fatalf("the second peer sent %d bytes for %d events: what was there already was sent again", sent, half.Seq)
	}
}

// TestOtherPastsAreNotTaken: a peer of another fleet's log, one that has no past
// either, and one that lies are passed over.
func TestOtherPastsAreNotTaken(t *testing.T) {
	w := newWorld(t)
	full, late, short := w.peer(0, replica.Options{}), w.peer(1, replica.Options{}), w.peer(2, replica.Options{})
	other, liar := w.peer(3, replica.Options{}), w.peer(4, replica.Options{})
	w.decide(1, "", full, other)
	w.decide(400, "", full)
	w.index -= 400
	w.decide(500, "x", other)
	w.snapshot(full, late)
	w.snapshot(full, short)
	var lied atomic.Bool
	liar.host.Handle("backfill", func(_ context.Context, conn net.Conn, _ ident.NodeID) {
		var q question
		if wire.ReadJSON(conn, &q, wire.MaxControl) != nil {
			return
		}
		after, records, _ := other.copy.RecordsBefore(q.Before, 1<<10)
		wire.WriteJSON(conn, piece{After: after.Seq, Hash: after.Hash.String(), Records: len(records)}, wire.MaxControl)
		for _, r := range records {
			wire.WriteFrame(conn, r.Bytes(), history.MaxRecord)
		}
		lied.Store(true)
		conn.Close()
	})
	gap, _ := late.copy.Gap()
	late.asksOf(other, short, liar)
	w.run(late)
	eventually(t, "it was lied to", lied.Load)
	if now, _ := late.copy.Gap(); now != gap {
		t.Fatalf("a past of another log was taken: up to %d", now.Seq)
	}
	late.asksOf(other, short, liar, full)
	whole(t, full, late)
}

func TestOneIsServedAtATime(t *testing.T) {
	w := newWorld(t)
	full, late := w.peer(0, replica.Options{}), w.peer(1, replica.Options{})
	w.decide(10, "", full)
	w.snapshot(full, late)
	gap, _ := late.copy.Gap()
	ask := func() (net.Conn, error) {
		conn, err := late.host.Link("backfill").Open(t.Context(), full.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.WriteJSON(conn, question{gap.Seq, gap.Hash.String()}, wire.MaxControl); err != nil {
			t.Fatal(err)
		}
		_, _, err = readPiece(conn)
		return conn, err
	}
	held, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	second, err := ask()
	second.Close()
	if err != refusal(reasonBusy) {
		t.Fatalf("the second one: %v, want busy", err)
	}
	held.Close()
	eventually(t, "the place is free", func() bool {
		conn, err := ask()
		conn.Close()
		return err == nil
	})
}

func TestANodeThatKeepsATailAsksNobody(t *testing.T) {
	w := newWorld(t)
	full, late := w.peer(0, replica.Options{}), w.peer(1, replica.Options{TailBytes: 1 << 20})
	w.decide(100, "", full)
	w.snapshot(full, late)
	var asked atomic.Int32
	full.host.Handle("backfill", func(context.Context, net.Conn, ident.NodeID) { asked.Add(1) })
	late.asksOf(full)
	stop := w.run(late)
	w.decide(20, "more", full, late)
	time.Sleep(5 * quick.look)
	stop()
	if asked.Load() > 0 {
		t.Fatal("it asked")
	}
}

// FuzzPiece: whatever a peer answers, it is records that parse or an error, and
// no more of them than are allowed.
func FuzzPiece(f *testing.F) {
	frame := func(parts ...[]byte) []byte {
		var b bytes.Buffer
		for _, p := range parts {
			wire.WriteFrame(&b, p, 1<<20)
		}
		return b.Bytes()
	}
	f.Add(frame([]byte(`{"reason":"none"}`)))
	f.Add(frame([]byte(`{"after":3,"hash":"`+fmt.Sprintf("%064d", 1)+`","records":2}`), []byte{1, 2}, []byte{3}))
	f.Add(frame([]byte(`{"after":18446744073709551615,"hash":"zz","records":-1}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		go func() { // ends with the pipe
			far.Write(b)
			far.Close()
		}()
		_, records, err := readPiece(near)
		near.Close()
		if err == nil && (len(records) == 0 || len(records) > maxRecords) {
			t.Fatalf("took %d records", len(records))
		}
	})
}
