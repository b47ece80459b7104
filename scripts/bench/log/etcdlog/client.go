package etcdlog

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"skein/scripts/bench/log/load"
)

// Batch is how many puts a transaction of the windowed load has.
const Batch = 64

// Client is one connection to one member.
type Client struct {
	etcd *clientv3.Client
	name string
	n    atomic.Uint64
	// value is the payload less the key, so that an event has the same size everywhere.
	value string
}

// NewClient connects to a member.
func NewClient(i int, ports [][2]int, member int) (*Client, error) {
	at := address(ports[member][1])
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{at.String()}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("reach etcd: %w", err)
	}
	return &Client{etcd: c, name: fmt.Sprintf("client%d", i), value: strings.Repeat("v", load.PayloadBytes)}, nil
}

func (c *Client) key() string { return fmt.Sprintf("%s/%d", c.name, c.n.Add(1)%4096) }

// Append implements load.Appender: one put.
func (c *Client) Append(ctx context.Context) error {
	_, err := c.etcd.Put(ctx, c.key(), c.value)
	return err
}

// Pipeline implements load.Pipeliner with transactions of Batch puts, as many
// at once as make up the window: etcd has no other way to send many.
func (c *Client) Pipeline(ctx context.Context, window int, done func(int, time.Duration, error)) {
	load.Slots(ctx, window/Batch, func(_ int, took time.Duration, err error) { done(Batch, took, err) }, c.transact)
}

func (c *Client) transact(ctx context.Context) error {
	puts := make([]clientv3.Op, Batch)
	first := c.n.Add(Batch)
	for i := range puts {
		puts[i] = clientv3.OpPut(fmt.Sprintf("%s/%d", c.name, (first+uint64(i))%4096), c.value)
	}
	_, err := c.etcd.Txn(ctx).Then(puts...).Commit()
	return err
}

// Read reads a key from the member's own copy, which may be old.
func (c *Client) Read(ctx context.Context) error {
	_, err := c.etcd.Get(ctx, c.key(), clientv3.WithSerializable())
	return err
}

// Close ends the client.
func (c *Client) Close() error { return c.etcd.Close() }
