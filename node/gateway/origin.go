package gateway

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"skein/node/gateway/view"
)

// fleetOrigin reports whether a page of that origin was served by a node of the
// fleet, by what gossip says of addresses: of dead nodes too, for it is their
// pages that move on to others. A node is known by any of its addresses, by its
// id or name in mDNS, and by the loopback names, which only its own machine can
// mean. Tokens, not origins, are what protects the fleet: no page sends one that
// was not given to it.
func fleetOrigin(origin string, nodes []view.Node) bool {
	page, err := url.Parse(origin)
	if err != nil || !strings.EqualFold(page.Scheme, "http") || page.Hostname() == "" {
		return false
	}
	port := page.Port()
	if port == "" {
		port = "80"
	}
	return slices.ContainsFunc(nodes, func(n view.Node) bool {
		return !n.Revoked && n.HTTPPort != 0 && strconv.Itoa(int(n.HTTPPort)) == port && isCalled(n, strings.ToLower(page.Hostname()))
	})
}

func isCalled(n view.Node, host string) bool {
	if name, local := strings.CutSuffix(host, ".local"); local {
		return name != "" && (name == string(n.ID) || name == strings.ToLower(n.Name))
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.Unmap().IsLoopback() || slices.Contains(n.Addrs, addr.Unmap().String()))
}
