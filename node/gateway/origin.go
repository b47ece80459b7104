package gateway

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"skein/node/gateway/view"
)

// origins are the faces that pages of this fleet can have come from. A page
// outlives its node: it moves here because that node is gone, so a robot that
// is offline counts, one that was revoked or left does not.
func origins(p view.Picture) []view.Peer {
	out := slices.Clone(p.Peers)
	for _, r := range p.Robots {
		if r.Status == view.Offline && r.HTTP != "" {
			out = append(out, view.Peer{ID: r.ID, Name: r.Name, HTTP: r.HTTP})
		}
	}
	return out
}

// fleetOrigin reports whether a page of that origin was served by a node of the
// fleet: by the address that the node is known under, by its name in mDNS, or,
// where a fleet runs on one machine, by any name of that machine for itself.
func fleetOrigin(origin string, peers []view.Peer) bool {
	page, err := url.Parse(origin)
	if err != nil || page.Host == "" {
		return false
	}
	for _, p := range peers {
		node, err := url.Parse(p.HTTP)
		if err != nil || node.Host == "" || node.Scheme != page.Scheme {
			continue
		}
		if strings.EqualFold(node.Host, page.Host) {
			return true
		}
		if node.Port() == page.Port() && sameMachine(page.Hostname(), node.Hostname(), p) {
			return true
		}
	}
	return false
}

func sameMachine(page, node string, p view.Peer) bool {
	if isLoopback(page) && isLoopback(node) {
		return true
	}
	name, local := strings.CutSuffix(strings.ToLower(page), ".local")
	return local && name != "" && (name == string(p.ID) || name == strings.ToLower(p.Name))
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
