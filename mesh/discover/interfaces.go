package discover

import (
	"net"
	"net/netip"
	"slices"
)

// maxInterfaces bounds how many interfaces are used at once, and maxHostAddrs
// the addresses announced on each.
const (
	maxInterfaces = 16
	maxHostAddrs  = 4
)

// port is an interface that discovery uses, as it was last seen.
type port struct {
	index int
	name  string
	addrs []netip.Addr
}

// usablePorts lists the interfaces to use: the loopback one if asked for, else
// all that are up, can multicast and have an IPv4 address. only, if given,
// restricts them by name.
func usablePorts(loopback bool, only []string) ([]port, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var ports []port
	for _, ifc := range ifaces {
		if !eligible(ifc, loopback) || len(only) > 0 && !slices.Contains(only, ifc.Name) {
			continue
		}
		p := port{index: ifc.Index, name: ifc.Name}
		if loopback {
			p.addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		} else if addrs, err := ifc.Addrs(); err == nil {
			p.addrs = hostAddrs(addrs)
		}
		if len(p.addrs) > 0 && len(ports) < maxInterfaces {
			ports = append(ports, p)
		}
	}
	return ports, nil
}

func eligible(ifc net.Interface, loopback bool) bool {
	if ifc.Flags&net.FlagUp == 0 {
		return false
	}
	isLoopback := ifc.Flags&net.FlagLoopback != 0
	// Linux's lo lacks the multicast flag, yet carries multicast.
	return loopback && isLoopback || !loopback && !isLoopback && ifc.Flags&net.FlagMulticast != 0
}

// hostAddrs are an interface's IPv4 addresses, link-local ones only if there is
// no other.
func hostAddrs(addrs []net.Addr) []netip.Addr {
	var routable, local []netip.Addr
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(n.IP)
		switch addr = addr.Unmap(); {
		case !ok || !addr.Is4():
		case addr.IsLinkLocalUnicast():
			local = append(local, addr)
		default:
			routable = append(routable, addr)
		}
	}
	if len(routable) == 0 {
		routable = local
	}
	return routable[:min(len(routable), maxHostAddrs)]
}

func (p port) equal(o port) bool {
	return p.index == o.index && p.name == o.name && slices.Equal(p.addrs, o.addrs)
}
