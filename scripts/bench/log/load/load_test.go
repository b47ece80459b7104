package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slow takes a millisecond for an append and counts how many are under way.
type slow struct {
	underWay, most, all atomic.Int64
	err                 error
}

// Append implements Appender.
func (s *slow) Append(context.Context) error {
	now := s.underWay.Add(1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	time.Sleep(time.Millisecond)
	s.underWay.Add(-1)
	s.all.Add(1)
	return s.err
}

// Pipeline implements Pipeliner.
func (s *slow) Pipeline(ctx context.Context, window int, done func(int, time.Duration, error)) {
	Slots(ctx, window, done, s.Append)
}

// chained is slow by calls.
type chained struct{ slow }

// Pipeline implements Pipeliner.
func (c *chained) Pipeline(ctx context.Context, window int, done func(int, time.Duration, error)) {
	Chain(ctx, window, done, func(then func(error)) { go func() { then(c.Append(ctx)) }() })
}

const wall = 200 * time.Millisecond

func check(t *testing.T, r Round, window int64, all ...*slow) {
	t.Helper()
	var appended int64
	for _, s := range all {
		appended += s.all.Load()
		if most := s.most.Load(); most != window {
			t.Errorf("%d were under way at once, want %d", most, window)
		}
		if n := s.underWay.Load(); n != 0 {
			t.Errorf("%d are still under way", n)
		}
	}
	// What was answered after the end does not count, which is some windows if the
	// timer is late.
	if n := int64(r.Events); n == 0 || n > appended || n < appended*9/10 {
		t.Errorf("%d events counted of %d", n, appended)
	}
	if len(r.Latencies) != r.Events || r.Latencies[0] < time.Millisecond {
		t.Errorf("%d latencies of %d events", len(r.Latencies), r.Events)
	}
	if r.Wall != wall || r.Failed != 0 || r.First != nil {
		t.Errorf("%v, %d failed, %v", r.Wall, r.Failed, r.First)
	}
}

func TestSync(t *testing.T) {
	a, b := &slow{}, &slow{}
	check(t, Sync(t.Context(), []*slow{a, b}, 8, wall), 4, a, b)
}

func TestWindowed(t *testing.T) {
	a, b := &slow{}, &slow{}
	check(t, Windowed(t.Context(), []*slow{a, b}, 16, wall), 16, a, b)
	c := &chained{}
	check(t, Windowed(t.Context(), []*chained{c}, 16, wall), 16, &c.slow)
}

func TestFailuresAreNoEvents(t *testing.T) {
	broken := errors.New("broken")
	s := &slow{err: broken}
	for _, r := range []Round{Sync(t.Context(), []*slow{s}, 4, wall), Windowed(t.Context(), []*slow{s}, 4, wall)} {
		if r.Events != 0 || len(r.Latencies) != 0 || r.Failed == 0 || !errors.Is(r.First, broken) {
			t.Errorf("%d events, %d failed, %v", r.Events, r.Failed, r.First)
		}
	}
}

func TestARoundEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { Sync(ctx, []*slow{{}}, 4, time.Hour) })
	cancel()
	all.Wait()
}
