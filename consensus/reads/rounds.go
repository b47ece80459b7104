package reads

import (
	"context"
	"net"
	"sync"
)

// rounds shares one piece of work among those who ask for it. A round answers
// only who asked before it began.
type rounds[T any] struct {
	mu      sync.Mutex
	running bool
	next    *round[T] // not begun; nil when nobody waits
}

type round[T any] struct {
	done chan struct{}
	val  T
	err  error
}

// do waits for the next round. The work is bounded by tryTimeout and by s, not
// by the ctx of one of those who wait.
func (r *rounds[T]) do(ctx context.Context, s *Service, work func(context.Context) (T, error)) (T, error) {
	mine := r.join(s, work)
	select {
	case <-mine.done:
		return mine.val, mine.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (r *rounds[T]) join(s *Service, work func(context.Context) (T, error)) *round[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round[T]{done: make(chan struct{})}
	}
	mine := r.next
	if r.running {
		return mine
	}
	if r.running = s.start(func() { r.run(s, work) }); !r.running {
		mine.err = net.ErrClosed
		close(mine.done)
		r.next = nil
	}
	return mine
}

// run does round after round until nobody waits.
func (r *rounds[T]) run(s *Service, work func(context.Context) (T, error)) {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.running = now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, tryTimeout)
		now.val, now.err = work(ctx)
		cancel()
		close(now.done)
	}
}
