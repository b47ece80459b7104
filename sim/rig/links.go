package rig

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// carrierLimit is how long the kernel may take to notice a cable.
const carrierLimit = 10 * time.Second

// drop is one rule of the switch: frames from one port to another are lost. An
// empty name stands for every port.
type drop struct{ from, to string }

// drops are the rules in force.
type drops map[drop]bool

// ruleset is the whole filter as nft reads it; loading it replaces the former
// one in one step.
func (d drops) ruleset() string {
	var b strings.Builder
	b.WriteString("add table bridge rig\ndelete table bridge rig\ntable bridge rig {\n chain forward {\n  type filter hook forward priority 0; policy accept;\n")
	rules := slices.SortedFunc(maps.Keys(d), func(a, b drop) int {
		return strings.Compare(a.from+" "+a.to, b.from+" "+b.to)
	})
	for _, rule := range rules {
		b.WriteString(" ")
		if rule.from != "" {
			fmt.Fprintf(&b, " iifname %q", rule.from)
		}
		if rule.to != "" {
			fmt.Fprintf(&b, " oifname %q", rule.to)
		}
		b.WriteString(" drop\n")
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

// Cut pulls the host's cable: its eth0 loses carrier, and programs on it can see
// that. Heal puts it back.
func (h *Host) Cut() {
	h.rig.t.Helper()
	h.rig.setPort(h, "down")
}

// Block makes the switch lose everything from and to the host, which keeps its
// carrier: nothing on the host tells that it is alone. Heal undoes it.
func (h *Host) Block() {
	h.rig.t.Helper()
	h.rig.dropped[drop{from: h.Name}] = true
	h.rig.dropped[drop{to: h.Name}] = true
	h.rig.loadDrops()
}

// Heal undoes Cut and Block of this host, and what Drop and Split did to it. It
// returns when frames pass again.
func (h *Host) Heal() {
	h.rig.t.Helper()
	h.rig.setPort(h, "up")
	h.rig.awaitCarrier(h)
	maps.DeleteFunc(h.rig.dropped, func(d drop, _ bool) bool { return d.from == h.Name || d.to == h.Name })
	h.rig.loadDrops()
}

// Drop loses what one host sends to another, in this direction only.
func (r *Rig) Drop(from, to *Host) {
	r.t.Helper()
	r.dropped[drop{from.Name, to.Name}] = true
	r.loadDrops()
}

// Split parts the LAN: nothing passes between the two groups. Hosts in neither
// group still reach both.
func (r *Rig) Split(one, other []*Host) {
	r.t.Helper()
	for _, a := range one {
		for _, b := range other {
			r.dropped[drop{a.Name, b.Name}] = true
			r.dropped[drop{b.Name, a.Name}] = true
		}
	}
	r.loadDrops()
}

// Heal makes the whole LAN good again. It returns when frames pass.
func (r *Rig) Heal() {
	r.t.Helper()
	for _, h := range r.Hosts {
		r.setPort(h, "up")
	}
	r.awaitCarrier(r.Hosts...)
	clear(r.dropped)
	r.loadDrops()
}

func (r *Rig) setPort(h *Host, state string) {
	r.t.Helper()
	if err := ip(r.claim.namespace("switch"), "link set "+h.Name+" "+state); err != nil {
		r.t.Fatalf("rig: set the port of host %s %s: %v", h.Name, state, err)
	}
}

// awaitCarrier waits until both ends of the hosts' cables know that they are
// plugged in. The kernel tells them, and the bridge, up to a second later; until
// then the bridge forwards nothing.
func (r *Rig) awaitCarrier(hosts ...*Host) {
	r.t.Helper()
	for _, h := range hosts {
		Wait(r.t, carrierLimit, "carrier of host "+h.Name, func() error {
			return errors.Join(running(h.namespace, "eth0"), running(r.claim.namespace("switch"), h.Name))
		})
	}
}

func running(namespace, device string) error {
	return within(namespace, func() error {
		link, err := net.InterfaceByName(device)
		if err == nil && link.Flags&net.FlagRunning == 0 {
			err = fmt.Errorf("%s has no carrier", device)
		}
		return err
	})
}

func (r *Rig) loadDrops() {
	r.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", r.claim.namespace("switch"), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(r.dropped.ruleset())
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("rig: load the rules of the switch: %v: %s", err, bytes.TrimSpace(out))
	}
}
