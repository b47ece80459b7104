package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/gateway/auth"
	"skein/node/gateway/rest"
	"skein/node/gateway/view"
	"skein/node/gateway/ws"
)

// watched is a node with a real copy of the log behind the real servers.
type watched struct {
	*realFace
	store *replica.Replica
	url   string
	stop  func()
}

// wsFace is what the console's half asks; here nobody does.
type wsFace struct{ *realFace }

func (wsFace) Events(context.Context, uint64, view.EventFilter, int) ([]view.Event, bool, error) {
	return nil, false, nil
}

func newWatched(t *testing.T, node, admin ident.Key, o replica.Options) *watched {
	t.Helper()
	store, err := replica.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	f := &realFace{node: node, admin: admin}
	quiet := slog.New(slog.DiscardHandler)
	service := auth.New(auth.Config{Key: node, Fleet: ident.FleetIDOf(admin.Public()), Directory: f, Now: now, Log: quiet})
	rests, err := rest.New(rest.Config{
		Root: admin.Public(), Auth: service, Fleet: f, Past: f, Reads: f, Events: f, Proposer: f, Node: f,
		AllowOrigin: func(string) bool { return false }, Now: now, Log: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := ws.New(ws.Config{
		Self: node.ID(), Gate: service, Fleet: f, Events: wsFace{f}, Past: f, History: store,
		AllowOrigin: func(string) bool { return false }, Metrics: metrics.NewSet(), Log: quiet,
	})
	mux := http.NewServeMux()
	mux.Handle("/", rests)
	mux.HandleFunc("GET /api/v1/watch", socket.Watch)
	h := httptest.NewServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- socket.Run(ctx) }()
	w := &watched{realFace: f, store: store, url: h.URL}
	w.stop = sync.OnceFunc(func() {
		cancel()
		h.CloseClientConnections()
		h.Close()
		rests.Close()
		if err := errors.Join(<-ended, store.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// decided is a log of n label changes after the founding.
func decided(t *testing.T, n int) [][]byte {
	t.Helper()
	id := fleettest.Node(0)
	registered := event.RobotRegistered{Name: "goose", Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(id)
	registered.Schema = 1
	batches := []event.Batch{fleettest.Genesis(), {Actor: fleettest.Itself(id), Drafts: []event.Draft{registered}}}
	for i := range n {
		change := event.RobotLabelsChanged{Set: map[string]string{"n": fmt.Sprint(i)}}
		batches = append(batches, event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{change.Draft(id)}})
	}
	var entries [][]byte
	for i, b := range batches {
		data, err := replica.EncodeEntry(replica.Entry{TimeMillis: now().UnixMilli() + int64(i), Batches: []event.Batch{b}})
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, data)
	}
	return entries
}

// apply brings the node to the end of entries.
func (w *watched) apply(t *testing.T, entries [][]byte) {
	t.Helper()
	index, _ := w.store.Applied()
	for i := int(index); i < len(entries); i++ {
		if out, err := w.store.ApplyEntry(uint64(i+1), 1, entries[i]); err != nil || out[0].Err != nil {
			t.Fatal(err, out)
		}
	}
}

var errEnough = errors.New("enough")

// A watch goes on at the next node when one is gone, with each event once.
func TestWatchGoesOnAtAnotherNode(t *testing.T) {
	keys := []ident.Key{fleettest.Key(1), fleettest.Key(2)}
	entries := decided(t, 300)
	a, b := newWatched(t, keys[0], keys[1], replica.Options{}), newWatched(t, keys[0], keys[1], replica.Options{})
	a.apply(t, entries[:150])
	b.apply(t, entries)
	c := connect(t, Options{Addresses: []string{a.url, b.url}, Identity: &Identity{"admin", keys[1]}})
	var seen []uint64
	var lost []error
	var from uint64
	var moved sync.WaitGroup
	err := c.Watch(t.Context(), Watching{
		WatchRequest: view.WatchRequest{Since: &from},
		Lost:         func(err error) { lost = append(lost, err) },
		Each: func(f view.WatchFrame) error {
			for _, e := range f.Events {
				seen = append(seen, e.Seq)
			}
			switch {
			case len(seen) == 7+1+148 && len(lost) == 0:
				moved.Go(a.stop) // it holds nothing more
			case len(seen) == 7+1+300:
				return errEnough
			}
			return nil
		},
	})
	moved.Wait()
	if !errors.Is(err, errEnough) {
		t.Fatalf("ended with %v after %d events", err, len(seen))
	}
	for i, seq := range seen {
		if seq != uint64(i+1) {
			t.Fatalf("event %d at place %d", seq, i)
		}
	}
	if len(lost) == 0 {
		t.Error("nobody was told that a node was lost")
	}
}

// A node that is behind is left for one that is not, and the watch does not go back.
func TestWatchLeavesANodeThatIsBehind(t *testing.T) {
	keys := []ident.Key{fleettest.Key(1), fleettest.Key(2)}
	entries := decided(t, 100)
	behind, ahead := newWatched(t, keys[0], keys[1], replica.Options{}), newWatched(t, keys[0], keys[1], replica.Options{})
	behind.apply(t, entries[:10])
	ahead.apply(t, entries)
	at := ahead.store.Cursor()
	c := connect(t, Options{Addresses: []string{behind.url, ahead.url}, Identity: &Identity{"admin", keys[1]}})
	more := decided(t, 101)
	var kinds []string
	err := c.Watch(t.Context(), Watching{
		WatchRequest: view.WatchRequest{Cursor: &at},
		Lost:         func(err error) { ahead.apply(t, more) },
		Each: func(f view.WatchFrame) error {
			kinds = append(kinds, f.Type)
			if len(f.Events) > 0 {
				if f.Events[0].Seq != at.Seq+1 {
					t.Errorf("event %d after %d", f.Events[0].Seq, at.Seq)
				}
				return errEnough
			}
			return nil
		},
	})
	if !errors.Is(err, errEnough) || !slices.Contains(kinds, view.WatchBehind) {
		t.Fatalf("ended with %v after %v", err, kinds)
	}
}

func TestWatchRefused(t *testing.T) {
	keys := []ident.Key{fleettest.Key(1), fleettest.Key(2)}
	a := newWatched(t, keys[0], keys[1], replica.Options{})
	each := func(view.WatchFrame) error { return nil }
	anonymous := connect(t, Options{Addresses: []string{a.url}})
	if err := anonymous.Watch(t.Context(), Watching{Each: each}); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("without identity: %v", err)
	}
	stranger := connect(t, Options{Addresses: []string{a.url}, Identity: &Identity{"admin", keys[0]}})
	if p, is := errors.AsType[*view.Problem](stranger.Watch(t.Context(), Watching{Each: each})); !is || p.Status != 401 {
		t.Errorf("with another's key: %+v", p)
	}
	admin := connect(t, Options{Addresses: []string{a.url}, Identity: &Identity{"admin", keys[1]}})
	absurd := uint64(1) << 60
	if p, is := errors.AsType[*view.Problem](admin.Watch(t.Context(), Watching{WatchRequest: view.WatchRequest{Since: &absurd}, Each: each})); !is || p.Code != "invalid" {
		t.Errorf("an absurd place: %+v", p)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	lost := connect(t, Options{Addresses: []string{other.URL}, Identity: &Identity{"admin", keys[1]}})
	if err := lost.Watch(t.Context(), Watching{Each: each}); !errors.Is(err, ErrNotSkein) {
		t.Errorf("at another server: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	nobody := connect(t, Options{Addresses: []string{"http://127.0.0.1:1"}, Identity: &Identity{"admin", keys[1]}})
	if err := nobody.Watch(ctx, Watching{Each: each}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
}
