package rig

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// MaxHosts bounds a rig; beyond it the machine is tested, not the program.
const MaxHosts = 250

const (
	prefixBits = 16
	bridge     = "br0"
	// maxPortName is IFNAMSIZ without its zero byte: a host's name is also the
	// name of its port on the bridge.
	maxPortName = 15
)

// Rig is one LAN. New makes it; the end of the test removes it.
type Rig struct {
	// Hosts are h1 to hN in order, and then those that Add made.
	Hosts []*Host

	t       testing.TB
	claim   *claim
	spawner *spawner
	dropped drops
	spare   netip.Addr
	// shared: mounts below the claim's directory are the same for all processes.
	shared bool
}

// New makes a LAN of n hosts, h1 to hN, with the addresses 10.77.0.1 to .N and
// a default route through eth0, so that multicast needs no interface named.
func New(t testing.TB, n int) *Rig {
	t.Helper()
	if reason := missing(os.Geteuid(), exec.LookPath); reason != "" {
		unavailable(t, "needs "+reason)
	}
	if n < 0 || n > MaxHosts {
		t.Fatalf("rig: %d hosts asked for, 0 to %d are possible", n, MaxHosts)
	}
	claim, err := newClaim()
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	r := &Rig{
		t:       t,
		claim:   claim,
		spawner: newSpawner(),
		dropped: drops{},
		spare:   netip.AddrFrom4([4]byte{10, 77, 1, 0}),
	}
	// Made before the clean-up is registered, so that it is still there when the
	// clean-up shows the logs.
	t.ArtifactDir()
	t.Cleanup(r.close)
	if err := r.makeSwitch(); err != nil {
		unavailable(t, fmt.Sprintf("needs the right to make network namespaces and bridges: %v", err))
	}
	for i := range n {
		r.add(fmt.Sprintf("h%d", i+1), netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}))
	}
	r.awaitCarrier(r.Hosts...)
	return r
}

// Add puts one more host on the running LAN, with an address from Unused. The
// name is up to 15 lower-case letters, digits and '-'.
func (r *Rig) Add(name string) *Host {
	r.t.Helper()
	h := r.add(name, r.Unused())
	r.awaitCarrier(h)
	return h
}

// Unused gives an address of the LAN that no host has or had.
func (r *Rig) Unused() netip.Addr {
	r.spare = r.spare.Next()
	return r.spare
}

func (r *Rig) makeSwitch() error {
	if err := ip("", "netns add "+r.claim.namespace("switch")); err != nil {
		return err
	}
	// Snooping without a querier would forward multicast or not as the kernel
	// was built; off means: to every port, as a simple switch does.
	return ip(r.claim.namespace("switch"),
		"link add "+bridge+" type bridge mcast_snooping 0 stp_state 0 forward_delay 0",
		"link set "+bridge+" up")
}

func (r *Rig) add(name string, addr netip.Addr) *Host {
	r.t.Helper()
	if !validName(name) || r.find(name) != nil {
		r.t.Fatalf("rig: %q is no new host name; use up to %d lower-case letters, digits and '-'", name, maxPortName)
	}
	h := &Host{Name: name, Dir: filepath.Join(r.claim.dir, name), rig: r, namespace: r.claim.namespace(name), addr: addr}
	steps := []func() error{
		func() error { return os.Mkdir(h.Dir, 0o700) },
		func() error { return ip("", "netns add "+h.namespace) },
		func() error {
			return ip(r.claim.namespace("switch"),
				"link add "+name+" type veth peer name eth0 netns "+h.namespace,
				"link set "+name+" master "+bridge+" up")
		},
		h.skipAddressDetection,
		func() error {
			return ip(h.namespace, append([]string{"link set lo up", "link set eth0 up"}, addressLines(addr)...)...)
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			r.t.Fatalf("rig: make host %s: %v", name, err)
		}
	}
	r.Hosts = append(r.Hosts, h)
	return h
}

func (r *Rig) find(name string) *Host {
	for _, h := range r.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// close ends the processes, shows their logs if the test failed, and removes
// everything. It reports what it could not remove and goes on.
func (r *Rig) close() {
	if err := thawBelow(r.claim.dir); err != nil {
		r.t.Errorf("rig: clean up: %v", err)
	}
	for _, h := range r.Hosts {
		for _, i := range h.injections {
			i.stop()
		}
		for _, p := range h.processes {
			p.end()
		}
	}
	r.spawner.close()
	if r.t.Failed() {
		for _, h := range r.Hosts {
			for _, p := range h.processes {
				r.t.Logf("rig: %s", p.epitaph())
			}
		}
	}
	if err := r.claim.release(); err != nil {
		r.t.Errorf("rig: clean up: %v", err)
	}
}

func validName(name string) bool {
	outside := func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", c) }
	return name != "" && len(name) <= maxPortName && name != bridge && name != "switch" && name != "lo" &&
		!strings.HasPrefix(name, "-") && !strings.ContainsFunc(name, outside)
}

// missing names the first thing a rig needs and does not have, or "".
func missing(euid int, lookPath func(string) (string, error)) string {
	if euid != 0 {
		return "root, to make network namespaces"
	}
	for _, tool := range []struct{ name, pkg string }{{"ip", "iproute2"}, {"nft", "nftables"}} {
		if _, err := lookPath(tool.name); err != nil {
			return fmt.Sprintf("%s (Debian package %s)", tool.name, tool.pkg)
		}
	}
	return ""
}

// unavailable skips the test, or fails it where nothing may be skipped.
func unavailable(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("SKEIN_NO_SKIP") == "1" {
		t.Fatalf("%s, and SKEIN_NO_SKIP=1 allows no skip", reason)
	}
	t.Skip(reason)
}
