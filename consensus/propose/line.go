package propose

import (
	"bufio"
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
	// sendTimeout bounds one write: a peer that does not take it in that time is
	// as good as gone.
	sendTimeout = 5 * time.Second
	// unusedTimeout ends a stream on which nothing is asked. The leader waits a
	// little longer, so that it is the proposer who closes.
	unusedTimeout = time.Minute
	leaderTimeout = unusedTimeout + 30*time.Second
	// lookEvery is how often it is looked whether an answer is overdue.
	lookEvery = tryTimeout / 8
	// readBuffer is how much is read from a stream at once.
	readBuffer = 32 << 10
)

// line is one stream to a leader, with requests under way on it.
type line struct {
	to   ident.NodeID
	conn net.Conn
	out  *outbox
	// running are the goroutines that read and write.
	running sync.WaitGroup
	// tokens belong to who holds out.mu.
	tokens tokenTable

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]asked
	// oldest is an id below which nothing waits.
	oldest uint64
	ended  error // why the line is of no more use; nil while it is
	look   *time.Timer
}

// asked is a request that waits for its answer.
type asked struct {
	since time.Time
	// done is called once with the answer, or with why none will come. It must be
	// quick.
	done func(answer, error)
}

var errNoWord = errors.New("the leader gives no answer")

func newLine(to ident.NodeID, conn net.Conn) *line {
	l := &line{to: to, conn: conn, waiting: map[uint64]asked{}, oldest: 1}
	l.out = newOutbox(conn, func(err error) { l.close(err) })
	l.look = time.AfterFunc(lookEvery, l.lookOnce)
	l.running.Go(l.receive) // both end when close is called or the stream breaks
	l.running.Go(l.out.run)
	return l
}

func (l *line) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended == nil
}

// close ends the line; who waits on it is told.
func (l *line) close(why error) {
	l.mu.Lock()
	if l.ended != nil {
		l.mu.Unlock()
		return
	}
	l.ended = why
	waiting := l.waiting
	l.waiting = nil
	l.look.Stop()
	l.mu.Unlock()
	l.conn.Close()
	l.out.close()
	for _, a := range waiting {
		a.done(answer{}, why)
	}
}

// lookOnce closes the line if an answer is overdue, so that the next try does not
// wait on it again.
func (l *line) lookOnce() {
	l.mu.Lock()
	if l.ended != nil {
		l.mu.Unlock()
		return
	}
	for l.oldest <= l.nextID {
		a, ok := l.waiting[l.oldest]
		if ok && time.Since(a.since) > tryTimeout {
			l.mu.Unlock()
			l.close(errNoWord)
			return
		}
		if ok {
			break
		}
		l.oldest++
	}
	l.look.Reset(lookEvery)
	l.mu.Unlock()
}

func (l *line) receive() {
	in := bufio.NewReaderSize(l.conn, readBuffer)
	for {
		var err error
		if in.Buffered() == 0 {
			err = l.conn.SetReadDeadline(time.Now().Add(unusedTimeout))
		}
		var b []byte
		if err == nil {
			b, err = wire.ReadFrame(in, maxAnswer)
		}
		var a answer
		if err == nil {
			a, err = decodeAnswer(b)
		}
		if err != nil {
			l.close(fmt.Errorf("stream to the leader: %w", err))
			return
		}
		if waiter, ok := l.take(a.ID); ok {
			waiter.done(a, nil)
		}
	}
}

func (l *line) take(id uint64) (asked, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.waiting[id]
	delete(l.waiting, id)
	return a, ok
}

// post sends a request. done is told of its answer, or that it is not known what
// became of it; it may be called before post returns. The id can be given to take.
func (l *line) post(q request, done func(answer, error)) (id uint64) {
	l.mu.Lock()
	if why := l.ended; why != nil {
		l.mu.Unlock()
		done(answer{}, why)
		return 0
	}
	l.nextID++
	q.ID = l.nextID
	l.waiting[q.ID] = asked{time.Now(), done}
	l.mu.Unlock()
	sent := l.out.put(true, func(b []byte) []byte { return appendRequest(b, &q, &l.tokens) })
	if !sent {
		if waiter, ok := l.take(q.ID); ok {
			waiter.done(answer{}, net.ErrClosed)
		}
	}
	return q.ID
}

// ask is post that waits. An error means that it is not known what became of the
// request.
func (l *line) ask(ctx context.Context, q request) (answer, error) {
	type word struct {
		answer
		error
	}
	got := make(chan word, 1)
	id := l.post(q, func(a answer, err error) { got <- word{a, err} })
	select {
	case w := <-got:
		return w.answer, w.error
	case <-ctx.Done():
		l.take(id)
		return answer{}, ctx.Err()
	}
}
