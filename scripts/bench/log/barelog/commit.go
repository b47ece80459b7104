package barelog

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein/scripts/bench/log/load"
)

// maxEntry is the most events of an entry, as raftgroup has it.
const maxEntry = 512

// waiting is one event on its way.
type waiting struct {
	from    *peer
	number  uint64
	payload []byte
}

// peer is a client's connection. Only the goroutine that answers writes to it.
type peer struct {
	conn    net.Conn
	answers []byte
}

// committer makes entries of what waits as soon as one may be under way.
type committer struct {
	raft *raft.Raft
	wake chan struct{}

	mu    sync.Mutex
	queue []waiting
}

func newCommitter(r *raft.Raft) *committer {
	c := &committer{raft: r, wake: make(chan struct{}, 1)}
	underWay := make(chan entry) // one entry waits to go in, one is being answered: two in flight
	go c.coalesce(underWay)
	go answer(underWay)
	return c
}

type entry struct {
	events []waiting
	future raft.ApplyFuture
}

func (c *committer) put(w waiting) {
	c.mu.Lock()
	c.queue = append(c.queue, w)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) take() []waiting {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxEntry)
	taken := c.queue[:n:n]
	c.queue = c.queue[n:]
	return taken
}

// coalesce runs as long as the process.
func (c *committer) coalesce(underWay chan<- entry) {
	for range c.wake {
		for events := c.take(); len(events) > 0; events = c.take() {
			data := make([]byte, 0, len(events)*load.PayloadBytes)
			for _, e := range events {
				data = append(data, e.payload...)
			}
			underWay <- entry{events, c.raft.Apply(data, 5*time.Second)}
		}
	}
}

// answer tells who waits, with one write a connection and entry. Clients of an
// entry that failed are hung up on.
func answer(underWay <-chan entry) {
	for e := range underWay {
		err := e.future.Error()
		var peers []*peer
		for _, w := range e.events {
			if len(w.from.answers) == 0 {
				peers = append(peers, w.from)
			}
			w.from.answers = binary.BigEndian.AppendUint64(w.from.answers, w.number)
		}
		for _, p := range peers {
			if err != nil {
				p.conn.Close()
			} else if _, err := p.conn.Write(p.answers); err != nil {
				p.conn.Close()
			}
			p.answers = p.answers[:0]
		}
	}
}
