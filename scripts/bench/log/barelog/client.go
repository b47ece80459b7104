package barelog

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"skein/scripts/bench/log/load"
)

// Client is one connection to the leader, for many goroutines.
type Client struct {
	conn    net.Conn
	wake    chan struct{}
	payload [load.PayloadBytes]byte

	mu      sync.Mutex
	next    uint64
	out     []byte
	waiting map[uint64]func(error)
	ended   error
}

var errGone = errors.New("the connection has ended")

// NewClient connects to the leader.
func NewClient(ports [][2]int, leader int) (*Client, error) {
	conn, err := net.Dial("tcp", address(ports[leader][1]))
	if err != nil {
		return nil, fmt.Errorf("reach the leader of bare raft: %w", err)
	}
	c := &Client{conn: conn, wake: make(chan struct{}, 1), waiting: map[uint64]func(error){}}
	go c.write()
	go c.read()
	return c, nil
}

// send sends one event; then is called once, when it is answered.
func (c *Client) send(then func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		go then(c.ended)
		return
	}
	c.next++
	c.waiting[c.next] = then
	c.out = binary.BigEndian.AppendUint64(c.out, c.next)
	c.out = append(c.out, c.payload[:]...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write sends what has gathered, until the connection ends.
func (c *Client) write() {
	var spare []byte
	for range c.wake {
		c.mu.Lock()
		out := c.out
		c.out = spare[:0]
		ended := c.ended
		c.mu.Unlock()
		if ended != nil {
			return
		}
		if _, err := c.conn.Write(out); err != nil {
			c.end(err)
			return
		}
		spare = out
	}
}

func (c *Client) read() {
	in := bufio.NewReaderSize(c.conn, 64<<10)
	var number [8]byte
	for {
		if _, err := io.ReadFull(in, number[:]); err != nil {
			c.end(err)
			return
		}
		n := binary.BigEndian.Uint64(number[:])
		c.mu.Lock()
		then := c.waiting[n]
		delete(c.waiting, n)
		c.mu.Unlock()
		if then != nil {
			then(nil)
		}
	}
}

// end tells whoever waits that no answer will come.
func (c *Client) end(why error) {
	c.mu.Lock()
	if c.ended == nil {
		c.ended = fmt.Errorf("%w: %w", errGone, why)
	}
	left := c.waiting
	c.waiting = map[uint64]func(error){}
	ended := c.ended
	c.mu.Unlock()
	c.conn.Close()
	for _, then := range left {
		then(ended)
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Append implements load.Appender.
func (c *Client) Append(ctx context.Context) error {
	done := make(chan error, 1)
	c.send(func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pipeline implements load.Pipeliner. Every answer sends the next.
func (c *Client) Pipeline(ctx context.Context, window int, done func(int, time.Duration, error)) {
	load.Chain(ctx, window, done, c.send)
}

// Close ends the client.
func (c *Client) Close() error {
	c.end(net.ErrClosed)
	return nil
}
