package propose

import (
	"context"
	"net"
	"sync"
	"time"

	"skein/mesh/ident"
	"skein/mesh/wire"
)

// sendTimeout bounds the writing of one request or answer: a peer that does not
// take it in that time is as good as gone.
const sendTimeout = 5 * time.Second

// line is one stream to a leader, with requests under way on it.
type line struct {
	to   ident.NodeID
	conn net.Conn

	sendMu sync.Mutex

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan answer // each has room for one
	ended   error                  // why the line is of no more use; nil while it is
	over    chan struct{}          // closed when ended is set
}

func newLine(to ident.NodeID, conn net.Conn) *line {
	l := &line{to: to, conn: conn, waiting: map[uint64]chan answer{}, over: make(chan struct{})}
	go l.receive() // ends when close is called or the stream breaks
	return l
}

func (l *line) alive() bool {
	select {
	case <-l.over:
		return false
	default:
		return true
	}
}

// close ends the line; who waits on it is told.
func (l *line) close(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = why
		close(l.over)
		l.conn.Close()
	}
}

func (l *line) receive() {
	for {
		a, err := readAnswer(l.conn)
		if err != nil {
			l.close(err)
			return
		}
		l.mu.Lock()
		if waiter, ok := l.waiting[a.ID]; ok {
			delete(l.waiting, a.ID)
			waiter <- a
		}
		l.mu.Unlock()
	}
}

// ask sends a request and waits for its answer. An error means that it is not
// known what became of the request.
func (l *line) ask(ctx context.Context, q request) (answer, error) {
	waiter := make(chan answer, 1)
	l.mu.Lock()
	l.nextID++
	q.ID = l.nextID
	l.waiting[q.ID] = waiter
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, q.ID)
		l.mu.Unlock()
	}()
	if err := l.send(q); err != nil {
		l.close(err)
		return answer{}, err
	}
	select {
	case a := <-waiter:
		return a, nil
	case <-l.over:
		return answer{}, l.ended
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

func (l *line) send(q request) error {
	l.sendMu.Lock()
	defer l.sendMu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return wire.WriteJSON(l.conn, q, maxRequest)
}
