package member

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// virtual are prefixes of interface names that lead to no other robot:
// containers' and virtual machines' bridges. An address there, such as docker's
// 172.17.0.1, is the same on every robot.
var virtual = [...]string{"docker", "br-", "veth", "virbr", "cni", "flannel", "lxc", "lxdbr", "podman"}

// localPrefixes lists this machine's addresses that others may reach, with
// their networks, best first: that of the default route, then those of private
// ranges, then others, link-local ones last. only, if given, names the
// interfaces to look at and their order of preference.
func localPrefixes(only []string) ([]netip.Prefix, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	type candidate struct {
		prefix netip.Prefix
		rank   int
	}
	var found []candidate
	preferred := defaultSource()
	for _, ifc := range ifaces {
		place := slices.Index(only, ifc.Name)
		if !usable(ifc) || len(only) > 0 && place < 0 {
			continue
		}
		addrs, err := ifc.Addrs()
		if err != nil {
			continue // it vanished while we looked
		}
		for _, a := range addrs {
			if p, ok := prefixOf(a); ok {
				found = append(found, candidate{p, max(place, 0)*10 + rankOf(p.Addr(), preferred)})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.rank, b.rank) })
	prefixes := make([]netip.Prefix, 0, len(found))
	for _, c := range found {
		prefixes = append(prefixes, c.prefix)
	}
	return prefixes, nil
}

func usable(ifc net.Interface) bool {
	if ifc.Flags&net.FlagUp == 0 || ifc.Flags&net.FlagLoopback != 0 {
		return false
	}
	return !slices.ContainsFunc(virtual[:], func(prefix string) bool { return strings.HasPrefix(ifc.Name, prefix) })
}

func prefixOf(a net.Addr) (netip.Prefix, bool) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	addr = addr.Unmap()
	// An IPv6 link-local address means nothing without this machine's name for
	// the interface, so it cannot be told to others.
	if !ok || addr.Is6() && addr.IsLinkLocalUnicast() {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, ones), true
}

// rankOf orders addresses for use by others; lower is better.
func rankOf(a, preferred netip.Addr) int {
	switch {
	case a == preferred:
		return 0
	case a.IsLinkLocalUnicast():
		return 4
	case a.Is6():
		return 3
	case a.IsPrivate():
		return 1
	default:
		return 2
	}
}

// defaultSource is the address from which packets leave by the default route.
// Connecting a UDP socket sends nothing; it makes the kernel choose.
func defaultSource() netip.Addr {
	c, err := net.Dial("udp4", "203.0.113.1:9") // TEST-NET-3, RFC 5737: on nobody's link
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

// nearFirst orders a node's addresses for use from here: the first that lies in
// one of our networks moves to the front. An address that we have ourselves
// (docker's bridge again) is no reason.
func nearFirst(addrs []netip.Addr, home []netip.Prefix) []netip.Addr {
	near := slices.IndexFunc(addrs, func(a netip.Addr) bool {
		return slices.ContainsFunc(home, func(p netip.Prefix) bool { return p.Contains(a) && p.Addr() != a })
	})
	if near <= 0 {
		return addrs
	}
	ordered := append([]netip.Addr{addrs[near]}, addrs[:near]...)
	return append(ordered, addrs[near+1:]...)
}
