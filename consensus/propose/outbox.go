package propose

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

const (
	// maxOut is how much may wait to be written on a stream; who has more to say
	// waits.
	maxOut = 1 << 20
	// keptOut is how large a buffer may be that is kept for the next write.
	keptOut = 256 << 10
)

// outbox writes frames. What comes while a write is under way goes out together
// with the next, so that many small messages cost one write.
type outbox struct {
	conn net.Conn
	// fail is told once why nothing more can be written.
	fail func(error)
	wake chan struct{}

	mu     sync.Mutex
	room   sync.Cond
	out    []byte
	closed bool
}

func newOutbox(conn net.Conn, fail func(error)) *outbox {
	o := &outbox{conn: conn, fail: fail, wake: make(chan struct{}, 1)}
	o.room.L = &o.mu
	return o
}

// put adds a frame that fill appends to what it is given. It waits while too much
// waits to be written, unless the frame is an answer, of which there are no more
// than requests. It reports false when the outbox is closed.
func (o *outbox) put(wait bool, fill func([]byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for wait && len(o.out) > maxOut && !o.closed {
		o.room.Wait()
	}
	if o.closed {
		return false
	}
	at := len(o.out)
	o.out = fill(append(o.out, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(o.out[at:], uint32(len(o.out)-at-4))
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return true
}

// close makes run return. What was not written is dropped.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		close(o.wake)
		o.room.Broadcast()
	}
}

// run writes until close, or until it cannot.
func (o *outbox) run() {
	var spare []byte
	for range o.wake {
		o.mu.Lock()
		out, closed := o.out, o.closed
		o.out = spare[:0]
		o.room.Broadcast()
		o.mu.Unlock()
		if closed {
			return
		}
		err := o.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
		if err == nil && len(out) > 0 {
			_, err = o.conn.Write(out)
		}
		if err != nil {
			o.fail(err)
			return
		}
		if spare = out; cap(spare) > keptOut {
			spare = nil
		}
	}
}
