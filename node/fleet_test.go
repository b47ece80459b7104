package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/mesh/link"
	"skein/node/client"
	"skein/node/config"
	"skein/node/gateway/view"
)

// TestMain looks for goroutines that nobody ended. A probe of memberlist that was
// under way at the end runs into its own timeout, seconds later.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// settle bounds every wait; the machine may be busy and -race is slow.
const settle = 60 * time.Second

// loopback is a configuration for one of many nodes on this machine.
func loopback(data, name, fleetFile string) config.Config {
	c := config.Default()
	c.Data, c.Name, c.FleetFile, c.HTTP = data, name, fleetFile, "127.0.0.1:0"
	c.Mesh.LinkPort, c.Mesh.GossipPort, c.Mesh.Loopback = 0, 0, true
	return c
}

// founder makes a fleet, runs its first node until the test ends, and returns
// it with its fleet file.
func founder(t *testing.T, fleet string) (*Node, string) {
	t.Helper()
	data := filepath.Join(t.TempDir(), fleet)
	r, err := InitFleet(t.Context(), InitOptions{Data: data, Name: fleet, NodeName: fleet + "-1"})
	if err != nil {
		t.Fatal(err)
	}
	return boot(t, loopback(data, fleet+"-1", r.FleetFile)), r.FleetFile
}

// boot runs a node until the test ends.
func boot(t *testing.T, c config.Config) *Node {
	t.Helper()
	n, err := New(c, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", c.Name, err)
		}
	})
	return n
}

// eventually polls until ok returns nil.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(settle)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("test ended while waiting: %s: %v", what, err)
		}
	}
}

// lists is nil when a node lists exactly these robots as online.
func lists(ctx context.Context, n *Node, want ...string) error {
	c, err := client.New(client.Options{Addresses: []string{"unix:" + n.self.dir.ControlSocket()}, Timeout: 5 * time.Second, Now: time.Now})
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Robots(ctx)
	if err != nil {
		return err
	}
	var online []string
	for _, r := range list.Robots {
		if r.Status == view.Online {
			online = append(online, r.Name)
		}
	}
	if !slices.Equal(online, want) {
		return errors.New("lists " + strings.Join(online, ", "))
	}
	return nil
}

// TestTwoFleetsInOneProcess: they share the process, the interface and the mDNS
// group, and nothing else; also a node that knows the other's address gets no
// further than the handshake.
func TestTwoFleetsInOneProcess(t *testing.T) {
	fleets := map[string][]*Node{}
	for _, name := range []string{"geese", "swans"} {
		first, file := founder(t, name)
		second := boot(t, loopback(filepath.Join(t.TempDir(), name), name+"-2", file))
		fleets[name] = []*Node{first, second}
	}
	var all []*Node
	for name, nodes := range fleets {
		for _, n := range nodes {
			eventually(t, n.self.cfg.Name+" lists its own fleet", func() error { return lists(t.Context(), n, name+"-1", name+"-2") })
			all = append(all, n)
		}
	}
	of := func(n *Node) ident.FleetID { return n.self.member.Load().Fleet() }
	for _, a := range all {
		for _, b := range all {
			if of(a) == of(b) {
				continue
			}
			if slices.Contains(a.host.Connected(), b.ID()) {
				t.Errorf("%s is connected to %s", a.self.cfg.Name, b.self.cfg.Name)
			}
			if slices.ContainsFunc(a.self.book.All(), func(e ident.Endpoint) bool { return e.ID == b.ID() }) {
				t.Errorf("%s remembers %s", a.self.cfg.Name, b.self.cfg.Name)
			}
			a.host.Know(b.endpoint())
			ctx, cancel := context.WithTimeout(t.Context(), settle)
			_, err := a.host.Open(ctx, b.ID(), proposeProtocol)
			cancel()
			if !errors.Is(err, link.ErrNotAdmitted) && !errors.Is(err, link.ErrRefused) {
				t.Errorf("%s opens a stream to %s: %v", a.self.cfg.Name, b.self.cfg.Name, err)
			}
		}
	}
	for name, nodes := range fleets {
		for _, n := range nodes {
			if err := lists(t.Context(), n, name+"-1", name+"-2"); err != nil {
				t.Errorf("afterwards %s %v", n.self.cfg.Name, err)
			}
		}
	}
}

// endpoint is where a node on loopback is.
func (n *Node) endpoint() ident.Endpoint {
	return ident.Endpoint{ID: n.ID(), PublicKey: n.self.key.Public(), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, LinkPort: n.host.Port()}
}

// TestClockOffKeepsARobotOut: a command gives up at once and says what to do;
// a node that runs as a service waits until somebody has set the clock.
func TestClockOffKeepsARobotOut(t *testing.T) {
	_, file := founder(t, "geese")
	for name, c := range map[string]struct {
		now  func() time.Time
		says string
	}{
		"an hour behind": {func() time.Time { return time.Now().Add(-time.Hour) }, "60 min behind"},
		"an hour ahead":  {func() time.Time { return time.Now().Add(time.Hour) }, "60 min ahead"},
		"not set":        {func() time.Time { return time.Unix(60, 0) }, "not set"},
	} {
		t.Run(name, func(t *testing.T) {
			err := applicant(t, file, c.now, false)
			refusal, ok := errors.AsType[*join.Refusal](err)
			if !ok || refusal.Code != join.CodeClockSkew || !strings.Contains(refusal.Message, c.says) || !strings.Contains(refusal.Next, "timedatectl set-ntp true") {
				t.Errorf("refused with %v", err)
			}
		})
	}
	t.Run("set while it waits", func(t *testing.T) {
		var asked atomic.Int32
		err := applicant(t, file, func() time.Time {
			if asked.Add(1) < 6 { // asked twice in a conversation
				return time.Now().Add(-time.Hour)
			}
			return time.Now()
		}, true)
		if err != nil || asked.Load() < 6 {
			t.Errorf("asked for the time %d times; %v", asked.Load(), err)
		}
	})
}

// applicant is a robot with a clock of its own that tries to join.
func applicant(t *testing.T, fleetFile string, now func() time.Time, patient bool) error {
	t.Helper()
	s, err := openSelf(loopback(filepath.Join(t.TempDir(), "late"), "late", fleetFile), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.now = now
	c, err := s.credential()
	if err != nil {
		t.Fatal(err)
	}
	host, err := link.New(link.Config{Key: s.key, Root: c.Root(), Chain: s.chain, Log: s.log})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	err = s.joinFleet(ctx, host, c, patient)
	if member := s.member.Load() != nil; member != (err == nil) {
		t.Errorf("member is %v, error %v", member, err)
	}
	return err
}
