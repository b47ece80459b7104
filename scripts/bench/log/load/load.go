// Package load is the load that every system gets: synchronous clients, and
// clients that keep a window of appends under way.
//
// A round is a few seconds of one shape of load on one system. Appends that
// were begun in the round and answered after its end do not count; nothing is
// taken back or repeated. What fails counts as a failure and as nothing else.
//
// All packages of this module may import it.
package load

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"
)

// PayloadBytes is the payload of every event.
const PayloadBytes = 256

// Appender appends one event; it returns when a majority has it on disk. It is
// used by many goroutines.
type Appender interface {
	Append(ctx context.Context) error
}

// Pipeliner keeps a window of events under way.
type Pipeliner interface {
	// Pipeline keeps window events under way until ctx ends. It calls done for
	// each answer, which may be one for several events, with the time since they
	// were sent; from one goroutine or many.
	Pipeline(ctx context.Context, window int, done func(events int, took time.Duration, err error))
}

// Round is what one round gave.
type Round struct {
	// Events were acknowledged in Wall.
	Events int
	Wall   time.Duration
	// Latencies are those of the answers.
	Latencies []time.Duration
	// Failed is how many appends failed, First why the first did.
	Failed int
	First  error
	// CPU is the processor time that this process, the load, has used.
	CPU time.Duration
}

// PerSecond is the events acknowledged in a second.
func (r Round) PerSecond() float64 { return float64(r.Events) / r.Wall.Seconds() }

// tally collects the answers of one client.
type tally struct {
	mu    sync.Mutex
	round Round
	over  time.Time
}

func (t *tally) done(events int, took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case time.Now().After(t.over):
	case err != nil:
		t.round.Failed += events
		if t.round.First == nil {
			t.round.First = err
		}
	default:
		t.round.Events += events
		t.round.Latencies = append(t.round.Latencies, took)
	}
}

// Sync runs a round of n synchronous clients, spread over appenders.
func Sync[A Appender](ctx context.Context, appenders []A, n int, wall time.Duration) Round {
	return run(ctx, n, wall, func(ctx context.Context, i int, t *tally) {
		a := appenders[i%len(appenders)]
		for ctx.Err() == nil {
			began := time.Now()
			err := a.Append(context.WithoutCancel(ctx))
			t.done(1, time.Since(began), err)
			if err != nil {
				Pause(ctx)
			}
		}
	})
}

// Windowed runs a round in which each pipeliner has window events under way.
func Windowed[P Pipeliner](ctx context.Context, pipeliners []P, window int, wall time.Duration) Round {
	return run(ctx, len(pipeliners), wall, func(ctx context.Context, i int, t *tally) {
		pipeliners[i].Pipeline(ctx, window, t.done)
	})
}

// Slots is a Pipeline of a system whose client has none: each place in the
// window is a goroutine that appends.
func Slots(ctx context.Context, window int, done func(int, time.Duration, error), appendOne func(context.Context) error) {
	var all sync.WaitGroup
	for range window {
		all.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := appendOne(context.WithoutCancel(ctx))
				done(1, time.Since(began), err)
				if err != nil {
					Pause(ctx)
				}
			}
		})
	}
	all.Wait()
}

// Pause keeps a system that refuses from being asked in a tight loop.
func Pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
}

func run(ctx context.Context, n int, wall time.Duration, client func(context.Context, int, *tally)) Round {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began, cpu := time.Now(), cpuTime()
	tallies := make([]tally, n)
	var all sync.WaitGroup
	for i := range tallies {
		tallies[i].over = began.Add(wall)
		all.Go(func() { client(ctx, i, &tallies[i]) })
	}
	select {
	case <-time.After(wall):
	case <-ctx.Done():
	}
	// What is answered later than wall does not count, however late the timer was.
	sum := Round{Wall: min(time.Since(began), wall), CPU: cpuTime() - cpu}
	cancel()
	all.Wait()
	for i := range tallies {
		r := &tallies[i].round
		sum.Events += r.Events
		sum.Failed += r.Failed
		sum.Latencies = append(sum.Latencies, r.Latencies...)
		if sum.First == nil {
			sum.First = r.First
		}
	}
	slices.Sort(sum.Latencies)
	return sum
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Chain is a Pipeline of a system that answers by a call: every answer sends the
// next, so that no goroutine waits for each place in the window. send must call
// then once, and not before it has returned unless that takes no lock.
func Chain(ctx context.Context, window int, done func(int, time.Duration, error), send func(then func(error))) {
	var all sync.WaitGroup
	var one func()
	one = func() {
		began := time.Now()
		send(func(err error) {
			done(1, time.Since(began), err)
			if ctx.Err() != nil {
				all.Done()
				return
			}
			if err != nil {
				Pause(ctx)
			}
			one()
		})
	}
	all.Add(window)
	for range window {
		one()
	}
	all.Wait()
}
