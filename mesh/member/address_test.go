package member

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func ips(list ...string) []netip.Addr {
	out := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestNearFirst(t *testing.T) {
	home := []netip.Prefix{netip.MustParsePrefix("10.1.0.5/16"), netip.MustParsePrefix("172.17.0.1/16")}
	for _, c := range []struct{ addrs, want []netip.Addr }{
		{ips("10.1.0.6"), ips("10.1.0.6")},
		{ips("192.168.0.6", "10.1.0.6"), ips("10.1.0.6", "192.168.0.6")},
		{ips("192.168.0.6", "fd00::6", "10.1.0.6"), ips("10.1.0.6", "192.168.0.6", "fd00::6")},
		// Every robot with docker has this one: it leads to ourselves.
		{ips("192.168.0.6", "172.17.0.1"), ips("192.168.0.6", "172.17.0.1")},
		{ips("192.168.0.6", "192.168.1.6"), ips("192.168.0.6", "192.168.1.6")},
	} {
		if got := nearFirst(c.addrs, home); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.addrs, got, c.want)
		}
	}
}

func TestRankOfAddresses(t *testing.T) {
	order := ips("8.8.8.8", "10.0.0.1", "1.1.1.1", "fd00::1", "169.254.0.1")
	preferred := order[0]
	for i := range len(order) - 1 {
		if rankOf(order[i], preferred) >= rankOf(order[i+1], preferred) {
			t.Errorf("%v is not better than %v", order[i], order[i+1])
		}
	}
}

func TestVirtualInterfacesAreSkipped(t *testing.T) {
	for name, want := range map[string]bool{"eth0": true, "wlan0": true, "docker0": false, "br-1234": false, "veth9": false, "virbr0": false} {
		if got := usable(net.Interface{Name: name, Flags: net.FlagUp}); got != want {
			t.Errorf("%s: usable %v, want %v", name, got, want)
		}
	}
	if usable(net.Interface{Name: "lo", Flags: net.FlagUp | net.FlagLoopback}) || usable(net.Interface{Name: "eth0"}) {
		t.Error("lo, or an interface that is down, is used")
	}
}

func TestBackOffGrowsToItsBoundAndWithTheFleet(t *testing.T) {
	times := DefaultTimings()
	for failed, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if got := backOff(failed, 5, times, 0); got != want*time.Second {
			t.Errorf("round %d: %v, want %v", failed, got, want*time.Second)
		}
	}
	if got := backOff(1000, 100, times, 0); got != 150*time.Second {
		t.Errorf("100 nodes: %v, want 2m30s, so that the fleet as a whole stays at one attempt each 1.5 s", got)
	}
	if got := backOff(3, 5, times, 0.999); got < 4*time.Second || got > 5*time.Second {
		t.Errorf("most jitter: %v, want about half of 8 s", got)
	}
}
