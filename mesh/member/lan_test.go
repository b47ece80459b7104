package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/mesh/keyring"
	"skein/sim/rig"
)

// nodeEnv makes the test program be a node instead: its value is a nodeSpec.
const nodeEnv = "SKEIN_TEST_MEMBER_NODE"

// nodeSpec is what a node process is told.
type nodeSpec struct {
	Seed  []byte
	Keys  keyring.Keys
	Dir   string
	Known []ident.Endpoint
}

// runNode is a node in a process of its own; it writes its members as a line of
// JSON whenever they change.
func runNode(text string) error {
	var spec nodeSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	key, err := ident.KeyFromSeed(spec.Seed)
	if err != nil {
		return err
	}
	ring, err := keyring.Open(filepath.Join(spec.Dir, "keys"))
	if err != nil {
		return err
	}
	if err := ring.Set(spec.Keys); err != nil {
		return err
	}
	var s *Service
	tell := func() {
		line, _ := json.Marshal(s.Members())
		fmt.Println(string(line))
	}
	s, err = New(Config{
		Key: key, Bind: netip.MustParseAddrPort("0.0.0.0:7782"), Ring: ring, Changed: func() { tell() },
		Meta:  func() Meta { return Meta{LinkPort: 7781, HTTPPort: 7780, Boot: 1} },
		Known: func() []ident.Endpoint { return spec.Known },
		Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return s.Run(context.Background())
}

// hostNode is a node process on a host.
type hostNode struct {
	id   ident.NodeID
	host *rig.Host
	proc *rig.Process
}

// told are all lists that the node has written so far.
func (n *hostNode) told() [][]Member {
	var lists [][]Member
	for line := range strings.Lines(n.proc.Log()) {
		var list []Member
		if strings.HasPrefix(line, "[") && json.Unmarshal([]byte(line), &list) == nil {
			lists = append(lists, list)
		}
	}
	return lists
}

// says what the node's last list has of another.
func (n *hostNode) says(id ident.NodeID) Member {
	lists := n.told()
	if len(lists) == 0 {
		return Member{}
	}
	for _, m := range lists[len(lists)-1] {
		if m.ID == id {
			return m
		}
	}
	return Member{}
}

func startHostNodes(t *testing.T, r *rig.Rig) []*hostNode {
	t.Helper()
	keys := firstKeys(t)
	var nodes []*hostNode
	var known []ident.Endpoint
	for _, h := range r.Hosts {
		key := newKey(t)
		known = append(known, ident.Endpoint{ID: key.ID(), PublicKey: key.Public(), Addrs: []netip.Addr{h.Addr()}, LinkPort: 7781, GossipPort: 7782})
		spec, err := json.Marshal(nodeSpec{key.Seed(), keys, h.Dir, known})
		if err != nil {
			t.Fatal(err)
		}
		proc := h.Start("env", nodeEnv+"="+string(spec), os.Args[0])
		nodes = append(nodes, &hostNode{key.ID(), h, proc})
	}
	return nodes
}

// agree waits until every node lists every other as alive where it is.
func agree(t *testing.T, limit time.Duration, nodes []*hostNode) time.Duration {
	t.Helper()
	return rig.Wait(t, limit, "all list each other where they are", func() error {
		for _, n := range nodes {
			for _, o := range nodes {
				m := n.says(o.id)
				if m.State != Alive || len(m.Addrs) != 1 || m.Addrs[0] != o.host.Addr() {
					return fmt.Errorf("%s lists %s as %q at %v, it is at %v", n.host.Name, o.host.Name, m.State, m.Addrs, o.host.Addr())
				}
			}
		}
		return nil
	})
}

func TestNewAddressIsNoReasonToDie(t *testing.T) {
	nodes := startHostNodes(t, rig.New(t, 4))
	agree(t, 15*time.Second, nodes)
	moved := nodes[3]
	before := make([]int, len(nodes))
	for i, n := range nodes {
		before[i] = len(n.told())
	}
	start := time.Now()
	old := moved.host.Addr()
	moved.host.Readdress(netip.MustParseAddr("10.77.9.9"))
	t.Logf("the new address of a node (was %v) is known to all after %v", old, agree(t, 15*time.Second, nodes))
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	for i, n := range nodes {
		for _, list := range n.told()[before[i]:] {
			for _, m := range list {
				if m.State != Alive {
					t.Fatalf("%s thought that %s is %s", n.host.Name, m.ID, m.State)
				}
			}
		}
	}
}

func TestCableOutAndIn(t *testing.T) {
	nodes := startHostNodes(t, rig.New(t, 4))
	agree(t, 15*time.Second, nodes)
	alone, rest := nodes[0], nodes[1:]
	alone.host.Block()
	rig.Wait(t, 20*time.Second, "the others take it for dead", func() error {
		for _, n := range rest {
			if got := n.says(alone.id).State; got != Dead {
				return errors.New("it is " + string(got))
			}
		}
		return nil
	})
	alone.host.Heal()
	t.Logf("whole again after %v", agree(t, 40*time.Second, nodes))
}
