package raftgroup

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	net0 "net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"skein/consensus/event"
	"skein/consensus/raftgroup/testnet"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// Overhead that the test streams do not have: what Noise (length and tag), yamux
// (frame header), TCP and IP (headers with timestamps) add to one write.
const (
	secureFraming = 2 + 16 + 12
	tcpIP         = 52
)

func quantile(all []time.Duration, q float64) float64 {
	slices.Sort(all)
	return all[min(len(all)-1, int(q*float64(len(all))))].Seconds() * 1000
}

// benchTimings lets other timings be tried: SKEIN_TIMINGS="election lease beat commit".
func benchTimings(c *Config) {
	var t [4]int
	if n, _ := fmt.Sscan(os.Getenv("SKEIN_TIMINGS"), &t[0], &t[1], &t[2], &t[3]); n == 4 {
		ms := func(i int) time.Duration { return time.Duration(t[i]) * time.Millisecond }
		c.Timings = Timings{Election: ms(0), Lease: ms(1), Beat: ms(2), Commit: ms(3)}
	}
}

// BenchmarkFailover: the leader of three is killed; time to the first accepted
// write of a client that tries every voter every millisecond.
func BenchmarkFailover(b *testing.B) {
	c := newCluster(b, benchTimings)
	all := c.form(3)
	c.mustDecide(1)
	var took []time.Duration
	n := uint64(1)
	for b.Loop() {
		b.StopTimer()
		lead := c.leader(c.all()...)
		until(b, "three up to date", func() bool {
			for _, m := range c.all() {
				if len(m.machine.list()) < int(n) {
					return false
				}
			}
			return len(c.all()) == 3
		})
		time.Sleep(time.Duration(n%10) * 37 * time.Millisecond) // any phase of the timers
		b.StartTimer()
		n++
		began := time.Now()
		c.forget(lead)
		gone := make(chan error, 1)
		go func() { gone <- lead.kill() }()
		c.mustDecide(n)
		took = append(took, time.Since(began))
		b.StopTimer()
		if err := <-gone; err != nil { // then it has let go of its disk
			b.Fatal(err)
		}
		c.start(slices.IndexFunc(all, func(m *member) bool { return m.id == lead.id }))
		b.StartTimer()
	}
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.9), "p90-ms")
	b.ReportMetric(quantile(took, 1), "max-ms")
}

// BenchmarkIdle: what three voters send while nothing happens.
func BenchmarkIdle(b *testing.B) {
	c := newCluster(b, benchTimings)
	all := c.form(3)
	c.mustDecide(1)
	time.Sleep(2 * time.Second)
	for b.Loop() {
		var bytes, writes [3]int64
		for i, m := range all {
			bytes[i], writes[i] = m.host.Sent()
		}
		const window = 10 * time.Second
		before := cpuTime(b)
		time.Sleep(window)
		b.ReportMetric(100*(cpuTime(b)-before).Seconds()/window.Seconds()/3, "mean-CPU-%")
		most, sum := 0.0, 0.0
		for i, m := range all {
			bs, ws := m.host.Sent()
			perSecond := float64(bs-bytes[i]+(ws-writes[i])*(secureFraming+tcpIP)) / window.Seconds()
			most = max(most, perSecond)
			sum += perSecond
			b.Logf("node %d: %.0f B/s payload in %.1f writes/s, %.0f B/s with framing", i,
				float64(bs-bytes[i])/window.Seconds(), float64(ws-writes[i])/window.Seconds(), perSecond)
		}
		b.ReportMetric(most, "leader-B/s")
		b.ReportMetric(sum/3, "mean-B/s")
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFollowerLag: a commit on an idle log until a follower has applied it.
func BenchmarkFollowerLag(b *testing.B) {
	c := newCluster(b, benchTimings)
	all := c.form(3)
	n := uint64(0)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		time.Sleep(150 * time.Millisecond)
		n++
		b.StartTimer()
		began := time.Now()
		c.mustDecide(n)
		for _, m := range all[1:] {
			if err := m.machine.has(context.Background(), n); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	b.ReportMetric(quantile(took, 0.5), "p50-ms")
	b.ReportMetric(quantile(took, 0.99), "p99-ms")
}

// submitter has one event of 256 bytes decided.
type submitter interface {
	submit(ctx context.Context, n uint64) error
	// offer does not wait; done is called once.
	offer(n uint64, done func(error)) error
}

// payload makes a batch of one event with data of 256 bytes.
func payload(n uint64) event.Batch {
	b := batch(n)
	b.Drafts[0].Data = append(append([]byte(`{"epoch":1,"x":"`), make([]byte, 238)...), '"', '}')
	return b
}

// grouped submits to a Group whose machine does nothing.
type grouped struct{ *Group }

func (g grouped) submit(ctx context.Context, n uint64) error {
	_, err := g.Submit(ctx, payload(n))
	return err
}

func (g grouped) offer(n uint64, done func(error)) error {
	return g.Offer(payload(n), func(_ replica.Outcome, err error) { done(err) })
}

// idle is a machine that only counts, as the machine of bare does.
type idle struct{ *memMachine }

func (m idle) ApplyEntry(index, term uint64, data []byte) ([]replica.Outcome, error) {
	_, n := binary.Uvarint(data[1:])
	batches, _ := binary.Uvarint(data[1+n:])
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.term = index, term
	return make([]replica.Outcome, batches), nil
}

// bare is hashicorp/raft on its own: the same store without seals, the same
// streams, and the plainest group commit that keeps two entries under way.
type bare struct {
	raft  *raft.Raft
	queue chan bareItem
}

type bareItem struct {
	data []byte
	done func(error)
}

func (b bare) submit(ctx context.Context, n uint64) error {
	got := make(chan error, 1)
	if err := b.offer(n, func(err error) { got <- err }); err != nil {
		return err
	}
	return <-got
}

func (b bare) offer(_ uint64, done func(error)) error {
	b.queue <- bareItem{make([]byte, 256+64), done}
	return nil
}

func (b bare) run() {
	type sent struct {
		items  []bareItem
		future raft.ApplyFuture
	}
	underWay := make(chan sent)
	go func() {
		for s := range underWay {
			err := s.future.Error()
			for _, i := range s.items {
				i.done(err)
			}
		}
	}()
	defer close(underWay)
	for first := range b.queue {
		s := sent{items: []bareItem{first}}
		for more := true; more && len(s.items) < MaxEntryDrafts; {
			select {
			case i := <-b.queue:
				s.items = append(s.items, i)
			default:
				more = false
			}
		}
		var data []byte
		for _, i := range s.items {
			data = append(data, i.data...)
		}
		s.future = b.raft.Apply(data, 0)
		underWay <- s
	}
}

type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (nothing) Restore(io.ReadCloser) error         { return nil }

// formBare makes three nodes of bare raft, the first of which leads.
func formBare(b *testing.B, kind raftlog.Kind) bare {
	net := testnet.New()
	var servers raft.Configuration
	var first *raft.Raft
	for i := range 3 {
		id := testnet.ID(i)
		servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	for i := range 3 {
		id := testnet.ID(i)
		host, err := net.Start(id)
		if err != nil {
			b.Fatal(err)
		}
		layer := newStreams(Config{ID: id, Link: host.Link("raft")}, newFailure())
		host.Handle("raft", func(ctx context.Context, conn net0.Conn, remote ident.NodeID) { layer.serve(ctx, conn, remote) })
		conf := raft.DefaultConfig()
		conf.LocalID, conf.Logger = raft.ServerID(id), hclog.NewNullLogger()
		var store raftlog.Files
		disk, err := raftlog.Open(raftlog.Config{Dir: b.TempDir(), ID: id, Kind: kind, Between: func(f raftlog.Files) raftlog.Files { store = f; return f }})
		if err != nil {
			b.Fatal(err)
		}
		if kind == raftlog.WAL {
			store = unsealed{store}
		}
		cache, err := raft.NewLogCache(512, store)
		if err != nil {
			b.Fatal(err)
		}
		tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer, MaxPool: 3, Timeout: 3 * time.Second, Logger: hclog.NewNullLogger()})
		snaps := raft.NewDiscardSnapshotStore()
		if i == 0 {
			if err := raft.BootstrapCluster(conf, store, store, snaps, tr, servers); err != nil {
				b.Fatal(err)
			}
		}
		r, err := raft.NewRaft(conf, nothing{}, cache, store, snaps, tr)
		if err != nil {
			b.Fatal(err)
		}
		if i == 0 {
			first = r
		}
		b.Cleanup(func() { r.Shutdown().Error(); host.Kill(); layer.Close(); disk.Close() })
	}
	until(b, "bare raft has a leader", func() bool { return first.State() == raft.Leader })
	s := bare{first, make(chan bareItem, MaxQueued)}
	go s.run()
	b.Cleanup(func() { close(s.queue) })
	return s
}

// unsealed gives raft-wal entries without a seal.
type unsealed struct{ raftlog.Files }

func (u unsealed) IsMonotonic() bool { return true }

// BenchmarkSubmit: synchronous and windowed clients against the leader, fsync on,
// for both stores, beside bare raft on the same store.
func BenchmarkSubmit(b *testing.B) {
	for _, kind := range []raftlog.Kind{raftlog.Bolt, raftlog.WAL} {
		for name, form := range map[string]func(*testing.B) submitter{
			"group": func(b *testing.B) submitter {
				c := newCluster(b, benchTimings)
				c.kind, c.idle = kind, true
				return grouped{c.form(3)[0].Group}
			},
			"bare": func(b *testing.B) submitter { return formBare(b, kind) },
		} {
			b.Run(fmt.Sprintf("%s/%s", kind, name), func(b *testing.B) { benchSubmitter(b, form(b)) })
		}
	}
}

func benchSubmitter(b *testing.B, s submitter) {
	for _, clients := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			var next atomic.Uint64
			var wg sync.WaitGroup
			took := make([][]time.Duration, clients)
			before := cpuTime(b)
			b.ResetTimer()
			for w := range clients {
				wg.Go(func() {
					for n := next.Add(1); n <= uint64(b.N); n = next.Add(1) {
						began := time.Now()
						if err := s.submit(b.Context(), n); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(began))
					}
				})
			}
			wg.Wait()
			report(b, before)
			b.ReportMetric(quantile(slices.Concat(took...), 0.5), "p50-ms")
			b.ReportMetric(quantile(slices.Concat(took...), 0.99), "p99-ms")
		})
	}
	b.Run("window=2048", func(b *testing.B) {
		slots := make(chan struct{}, 2048)
		before := cpuTime(b)
		b.ResetTimer()
		for n := range uint64(b.N) {
			slots <- struct{}{}
			for {
				err := s.offer(n+1, func(err error) {
					<-slots
					if err != nil {
						b.Error(err)
					}
				})
				if err == nil {
					break
				}
				b.Fatal(err)
			}
		}
		for range cap(slots) {
			slots <- struct{}{}
		}
		report(b, before)
	})
}

func report(b *testing.B, before time.Duration) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "CPU-µs/event")
}
