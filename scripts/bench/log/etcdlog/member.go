// Package etcdlog runs three members of etcd for the benchmark, and puts to it.
package etcdlog

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"skein/scripts/bench/log/proc"
)

// System is the name of the member processes.
const System = "etcd"

// Default and Tuned are the variants: heartbeats and elections of 100 and 1,000
// ms, as etcd has them, or of 50 and 250 ms.
const (
	Default = "default"
	Tuned   = "tuned"
)

// member is the inside of a member process.
type member struct{ etcd *embed.Etcd }

// Start starts the member of a spec.
func Start(ctx context.Context, s proc.Spec) (proc.Member, error) {
	c := embed.NewConfig()
	c.Name = name(s.Index)
	c.Dir = filepath.Join(s.Own(), "data")
	c.LogLevel, c.LogOutputs = "error", []string{"stderr"}
	c.ListenPeerUrls = []url.URL{address(s.Ports[s.Index][0])}
	c.AdvertisePeerUrls = c.ListenPeerUrls
	c.ListenClientUrls = []url.URL{address(s.Ports[s.Index][1])}
	c.AdvertiseClientUrls = c.ListenClientUrls
	var members []string
	for i, p := range s.Ports {
		at := address(p[0])
		members = append(members, name(i)+"="+at.String())
	}
	c.InitialCluster = strings.Join(members, ",")
	if s.Again {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	if s.Variant == Tuned {
		c.TickMs, c.ElectionMs = 50, 250
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, err
	}
	if s.Again { // the others are there: wait until it is one of them
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(20 * time.Second):
			e.Close()
			return nil, fmt.Errorf("etcd member %d is not ready in 20 s", s.Index)
		}
	}
	return &member{e}, nil
}

func name(i int) string { return fmt.Sprintf("m%d", i) }

func address(port int) url.URL {
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

// Obey implements proc.Member.
func (m *member) Obey(_ context.Context, order string, _ json.RawMessage) (any, error) {
	switch order {
	case "leading":
		return m.etcd.Server.Leader() == m.etcd.Server.MemberID(), nil
	case "applied":
		return m.etcd.Server.AppliedIndex(), nil
	}
	return nil, fmt.Errorf("members of etcd know no order %q", order)
}

// Close implements proc.Member.
func (m *member) Close() error {
	m.etcd.Close()
	return nil
}
