// Package natslog runs three servers of NATS with JetStream for the benchmark,
// and publishes to a stream with three replicas.
package natslog

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"skein/scripts/bench/log/proc"
)

// System is the name of the member processes.
const System = "jetstream"

// member is the inside of a member process.
type member struct{ server *server.Server }

// Start starts the member of a spec. Every write is synced before it is
// acknowledged (sync_interval: always).
func Start(_ context.Context, s proc.Spec) (proc.Member, error) {
	var routes []*url.URL
	for i, p := range s.Ports {
		if i != s.Index {
			routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p[0])})
		}
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: name(s.Index), Host: "127.0.0.1", Port: s.Ports[s.Index][1],
		Cluster:   server.ClusterOpts{Name: "bench", Host: "127.0.0.1", Port: s.Ports[s.Index][0]},
		Routes:    routes,
		JetStream: true, StoreDir: s.Own(), SyncAlways: true,
		NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		srv.Shutdown()
		return nil, fmt.Errorf("NATS server %d is not ready in 20 s", s.Index)
	}
	return &member{srv}, nil
}

func name(i int) string { return fmt.Sprintf("m%d", i) }

// Obey implements proc.Member.
func (m *member) Obey(_ context.Context, order string, _ json.RawMessage) (any, error) {
	if order == "leading" {
		return m.server.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, streamName), nil
	}
	return nil, fmt.Errorf("NATS servers know no order %q", order)
}

// Close implements proc.Member.
func (m *member) Close() error {
	m.server.Shutdown()
	return nil
}
