package propose

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	// sendTimeout bounds the writing of one request or answer: a peer that does
	// not take it in that time is as good as gone.
	sendTimeout = 5 * time.Second
	// unusedTimeout ends a stream on which nothing is asked. The leader waits a
	// little longer, so that it is the proposer who closes.
	unusedTimeout = time.Minute
	leaderTimeout = unusedTimeout + 30*time.Second
)

// line is one stream to a leader, with requests under way on it.
type line struct {
	to   ident.NodeID
	conn net.Conn
	// gone is closed when the goroutine that reads has ended.
	gone chan struct{}

	sendMu sync.Mutex

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan answer // each has room for one
	ended   error                  // why the line is of no more use; nil while it is
	over    chan struct{}          // closed when ended is set
}

var errNoWord = errors.New("the leader gives no answer")

func newLine(to ident.NodeID, conn net.Conn) *line {
	l := &line{to: to, conn: conn, gone: make(chan struct{}), waiting: map[uint64]chan answer{}, over: make(chan struct{})}
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
	defer close(l.gone)
	for {
		err := l.conn.SetReadDeadline(time.Now().Add(unusedTimeout))
		var b []byte
		if err == nil {
			b, err = wire.ReadFrame(l.conn, maxAnswer)
		}
		var a answer
		if err == nil {
			a, err = decodeAnswer(b)
		}
		if err != nil {
			l.close(fmt.Errorf("stream to the leader: %w", err))
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
// known what became of the request. A line that gives no answer in time is
// closed, so that the next try does not wait on it again.
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
	patience := time.NewTimer(tryTimeout)
	defer patience.Stop()
	select {
	case a := <-waiter:
		return a, nil
	case <-l.over:
		return answer{}, l.ended
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-patience.C:
		l.close(errNoWord)
		return answer{}, errNoWord
	}
}

func (l *line) send(q request) error {
	b, err := encode(q)
	if err != nil {
		return err
	}
	l.sendMu.Lock()
	defer l.sendMu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return wire.WriteFrame(l.conn, b, maxRequest)
}
