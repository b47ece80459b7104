package natslog

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"skein/scripts/bench/log/load"
)

const (
	streamName = "BENCH"
	subject    = "bench.events"
	// maxPending is more than any window.
	maxPending = 8192
)

// Client is one connection to one server.
type Client struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	payload []byte
}

// NewClient connects to a server.
func NewClient(ports [][2]int, member int) (*Client, error) {
	conn, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", ports[member][1]), nats.DontRandomize())
	if err != nil {
		return nil, fmt.Errorf("reach NATS: %w", err)
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(maxPending))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Client{conn: conn, js: js, payload: make([]byte, load.PayloadBytes)}, nil
}

// attempt bounds one try to create the stream: a request that is sent before the
// servers have found each other is never answered.
const attempt = 2 * time.Second

// CreateStream makes the stream: three replicas, on disk.
func (c *Client) CreateStream(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, attempt)
		_, err := c.js.CreateOrUpdateStream(try, jetstream.StreamConfig{
			Name: streamName, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: 3,
		})
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create the stream: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Append implements load.Appender: one synchronous publish.
func (c *Client) Append(ctx context.Context) error {
	_, err := c.js.Publish(ctx, subject, c.payload)
	return err
}

// Pipeline implements load.Pipeliner with asynchronous publishes.
func (c *Client) Pipeline(ctx context.Context, window int, done func(int, time.Duration, error)) {
	type sent struct {
		future jetstream.PubAckFuture
		at     time.Time
	}
	underWay := make(chan sent, window-1) // one more is being waited for
	go func() {
		defer close(underWay)
		for ctx.Err() == nil {
			at := time.Now()
			future, err := c.js.PublishAsync(subject, c.payload)
			if err != nil {
				done(1, 0, err)
				return
			}
			underWay <- sent{future, at}
		}
	}()
	for s := range underWay {
		select {
		case <-s.future.Ok():
			done(1, time.Since(s.at), nil)
		case err := <-s.future.Err():
			done(1, time.Since(s.at), err)
		}
	}
}

// Close ends the client.
func (c *Client) Close() error {
	c.conn.Close()
	return nil
}
