package ws

import (
	"context"
	"sync"
)

const (
	// maxQueued and maxQueuedBytes bound what waits for one client. A message
	// larger than the bound may wait alone, or a large fleet could not be shown.
	maxQueued      = 256
	maxQueuedBytes = 1 << 20
)

// queue is what waits to be written to one client. Many push, one pops.
type queue struct {
	mu       sync.Mutex
	messages [][]byte
	bytes    int
	end      *ending
	// ready and room hold at most one signal each: there may be something to
	// pop, there may be room to push.
	ready chan struct{}
	room  chan struct{}
}

func newQueue() *queue {
	return &queue{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push adds messages and reports false if they do not fit. All or none. After
// finish it drops them and reports true: the client is being told why already.
func (q *queue) push(messages ...[]byte) bool {
	size := 0
	for _, m := range messages {
		size += len(m)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end != nil || len(messages) == 0 {
		return true
	}
	if len(q.messages) > 0 && (len(q.messages)+len(messages) > maxQueued || q.bytes+size > maxQueuedBytes) {
		return false
	}
	q.messages = append(q.messages, messages...)
	q.bytes += size
	signal(q.ready)
	return true
}

// pushWait waits until message fits. One caller at a time.
func (q *queue) pushWait(ctx context.Context, message []byte) error {
	for !q.push(message) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.room:
		}
	}
	return nil
}

// finish drops what waits and makes pop return end. The first end stays.
func (q *queue) finish(end *ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end == nil {
		q.end, q.messages, q.bytes = end, nil, 0
		signal(q.ready)
		signal(q.room)
	}
}

// pop waits for the next message, or for finish or the end of ctx: then the
// message is nil, and at ctx's end so is the ending.
func (q *queue) pop(ctx context.Context) ([]byte, *ending) {
	for {
		if m, end := q.take(); m != nil || end != nil {
			return m, end
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-q.ready:
		}
	}
}

func (q *queue) take() ([]byte, *ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end != nil || len(q.messages) == 0 {
		return nil, q.end
	}
	m := q.messages[0]
	q.messages[0] = nil
	q.messages = q.messages[1:]
	q.bytes -= len(m)
	if len(q.messages) == 0 {
		q.messages = nil // let go of the array that grew
	}
	signal(q.room)
	return m, nil
}
