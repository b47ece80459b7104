package raftgroup

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
	"skein/mesh/ident"
)

func idsOf(is ...int) (ids []ident.NodeID) {
	for _, i := range is {
		ids = append(ids, testnet.ID(i))
	}
	return ids
}

func wide(drafts int) queued {
	b := event.Batch{Drafts: make([]event.Draft, drafts)}
	return queued{b, b.Size(), nil}
}

func TestQueueRefusesAtItsBound(t *testing.T) {
	t.Parallel()
	q := newQueue()
	for range MaxQueued / 512 {
		if f := q.put(wide(512)); f != nil {
			t.Fatal(f)
		}
	}
	f := q.put(wide(1))
	if f == nil || f.Code != event.CodeBusy || f.RetryAfterMillis < 10 || f.RetryAfterMillis > 5000 || f.Next == "" {
		t.Fatalf("over the bound: %+v", f)
	}
	q.observe(80 * time.Second)
	if slow := q.put(wide(1)); slow.RetryAfterMillis != 5000 {
		t.Fatalf("slow entries: retry after %d ms", slow.RetryAfterMillis)
	}
	if taken := q.take(); len(taken) != 1 || q.drafts != MaxQueued-512 {
		t.Fatalf("took %d batches, %d drafts left", len(taken), q.drafts)
	}
	if f := q.put(wide(512)); f != nil {
		t.Fatal(f)
	}
	if left := q.shut(); len(left) != MaxQueued/512 {
		t.Fatalf("%d left", len(left))
	}
	if f := q.put(wide(1)); f == nil || f.Code != event.CodeNoLeader {
		t.Fatalf("after the end: %+v", f)
	}
}

func TestTakeFillsAnEntryInOrder(t *testing.T) {
	t.Parallel()
	q := newQueue()
	sizes := []int{500, 12, 1, 512, 1}
	for _, n := range sizes {
		q.put(wide(n))
	}
	for _, want := range [][]int{sizes[:2], sizes[2:3], sizes[3:4], sizes[4:], nil} {
		var got []int
		for _, p := range q.take() {
			got = append(got, len(p.batch.Drafts))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("took %v, want %v", got, want)
		}
	}
	big := func() queued {
		p := wide(1)
		p.batch.Drafts[0].Data = json.RawMessage(strings.Repeat("x", MaxEntryBytes/2+1))
		p.size = p.batch.Size()
		return p
	}
	q.put(big())
	q.put(big())
	if got := q.take(); len(got) != 1 {
		t.Fatalf("took %d batches over the bytes of an entry", len(got))
	}
}

func TestManyWritersShareEntries(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(3)
	before := all[0].Status().LastIndex
	const writers = 400
	var wg sync.WaitGroup
	for n := range uint64(writers) {
		wg.Go(func() {
			if _, err := all[0].Submit(t.Context(), batch(n+1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries := all[0].Status().LastIndex - before
	if entries > writers/4 {
		t.Fatalf("%d proposals took %d entries", writers, entries)
	}
}

func TestEnqueueKeepsOrder(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	lead := c.form(1)[0]
	var want []uint64
	var last *Pending
	for n := uint64(1); n <= 1000; n++ {
		p, err := lead.Enqueue(batch(n))
		if err != nil {
			t.Fatal(err)
		}
		want, last = append(want, n), p
	}
	if _, err := last.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := lead.machine.list(); !slices.Equal(got, want) {
		t.Fatal("batches were decided in another order than they were enqueued")
	}
}

func TestTimeOfEntriesNeverGoesBack(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.UnixMilli(1_700_000_000_000)
	c := newCluster(t, func(cfg *Config) {
		cfg.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); now = now.Add(-time.Hour); return now }
	})
	lead := c.form(1)[0]
	c.mustDecide(1, 2, 3)
	lead.machine.mu.Lock()
	defer lead.machine.mu.Unlock()
	if times := lead.machine.times; len(times) != 3 || !slices.IsSorted(times) {
		t.Fatalf("%v", times)
	}
}

func TestBadBatchesAreRefusedAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	lead := c.form(1)[0]
	unknown := batch(1)
	unknown.Drafts[0].Type = "robot.exploded"
	empty := batch(2)
	empty.Drafts = nil
	nobody := batch(3)
	nobody.Actor = event.Actor{}
	for _, b := range []event.Batch{unknown, empty, nobody} {
		_, err := lead.Submit(t.Context(), b)
		if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeInvalid && f.Code != event.CodeUnknownType {
			t.Fatalf("got %v", err)
		}
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(2)
	c.net.Isolate(all[0].id)
	p, err := all[0].Enqueue(batch(1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Wait(ctx)
	if f, ok := event.FaultOf(err); !ok || f.Code != event.CodeUnknownOutcome {
		t.Fatalf("got %v", err)
	}
}

func TestChangedTellsEveryWaiter(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	all := c.form(2)
	changed := all[1].Changed()
	also := all[1].Changed()
	if err := all[0].Transfer(t.Context(), all[1].id); err != nil {
		t.Fatal(err)
	}
	for _, ch := range []<-chan struct{}{changed, also} {
		select {
		case <-ch:
		case <-time.After(5 * time.Second):
			t.Fatal("not told of a new leader")
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{ID: testnet.ID(0), Dir: "x", Link: (&testnet.Host{}).Link("raft"), Machine: newMachine(), Log: slog.New(slog.DiscardHandler)}
	if _, err := good.withDefaults(); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []func(*Config){
		func(c *Config) { c.ID = "" },
		func(c *Config) { c.Machine = nil },
		func(c *Config) { c.Timings.Lease = shippedElection },
		func(c *Config) { c.Timings.Beat = shippedElection },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Fatalf("accepted %+v", c.Timings)
		}
	}
}

func TestRaftsLogIsQuiet(t *testing.T) {
	t.Parallel()
	var said []string
	sink := &logSink{log: slog.New(&recorder{&said}), said: map[string]time.Time{}}
	sink.Accept("", hclog.Info, "entering leader state", "leader-id", "x")
	sink.Accept("", hclog.Error, "failed to heartbeat to", "peer", hclog.Fmt("%s!", "x"))
	sink.Accept("", hclog.Error, "failed to heartbeat to", "peer", "x!")
	sink.Accept("", hclog.Error, "failed to heartbeat to", "peer", "y")
	if want := []string{"DEBUG leaderId=x", "WARN peer=x!", "DEBUG peer=x!", "WARN peer=y"}; !slices.Equal(said, want) {
		t.Fatalf("said %q", said)
	}
}

// recorder keeps level and last attribute.
type recorder struct{ said *[]string }

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	last := ""
	rec.Attrs(func(a slog.Attr) bool { last = a.String(); return true })
	*r.said = append(*r.said, rec.Level.String()+" "+last)
	return nil
}
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r *recorder) WithGroup(string) slog.Handler      { return r }
