package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// mdnsGroup is where multicast DNS speaks (RFC 6762, section 3).
var mdnsGroup = netip.MustParseAddrPort("224.0.0.251:5353")

const (
	// echoWait is how long the kernel gets to hand back our own question.
	echoWait = 500 * time.Millisecond
	// maxProbed bounds how many interfaces are tried (containers have many).
	maxProbed = 8
)

// errNoEcho: the question went out and nothing came back.
var errNoEcho = errors.New("sent, but our own packet did not come back")

// checkMulticast tells whether robots on the LAN can be found without any
// configured address. Hearing our own question proves that interface, group
// membership and local firewall let it through; it says nothing about a switch
// or access point that drops multicast further on.
func checkMulticast(ctx context.Context, only []string) Check {
	const name = "multicast"
	interfaces, err := candidates(only)
	if err != nil {
		return Check{name, Fail, fmt.Sprintf("cannot list network interfaces: %v", err), "ip -brief address"}
	}
	if len(interfaces) == 0 {
		return Check{name, Fail, "no interface is up with multicast and an IPv4 address: robots on the LAN cannot be found",
			"ip -brief link, then for the right one: sudo ip link set dev NAME up multicast on"}
	}
	var good, bad []string
	var firstErr error
	for _, i := range interfaces {
		if err := probe(ctx, i); err != nil {
			bad = append(bad, i.Name)
			firstErr = errors.Join(firstErr, err)
			continue
		}
		good = append(good, i.Name)
	}
	switch {
	case len(bad) == 0:
		return Check{name, OK, fmt.Sprintf("%s is heard on %s", mdnsGroup, strings.Join(good, ", ")), ""}
	case len(good) > 0:
		return Check{name, Warn, fmt.Sprintf("works on %s, not on %s", strings.Join(good, ", "), strings.Join(bad, ", ")), multicastFix(firstErr)}
	}
	return Check{name, Fail, fmt.Sprintf("%s on %s: %s", mdnsGroup, strings.Join(bad, ", "), oneLine(firstErr)), multicastFix(firstErr)}
}

func multicastFix(err error) string {
	if errors.Is(err, syscall.EADDRINUSE) {
		return "sudo ss -lunp 'sport = :5353' shows who holds the port for itself; stop that program"
	}
	return "let UDP port 5353 through this machine's firewall, for example: sudo ufw allow 5353/udp"
}

// oneLine keeps the first line of a joined error.
func oneLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// candidates are the interfaces to try: the named ones, or all that claim to
// be able. At most maxProbed.
func candidates(only []string) ([]net.Interface, error) {
	if len(only) > 0 {
		var named []net.Interface
		for _, name := range only {
			i, err := net.InterfaceByName(name)
			if err != nil {
				return nil, fmt.Errorf("interface %s: %w", name, err)
			}
			named = append(named, *i)
		}
		return named, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var able []net.Interface
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagLoopback == 0 && hasIPv4(i) && len(able) < maxProbed {
			able = append(able, i)
		}
	}
	return able, nil
}

func hasIPv4(i net.Interface) bool {
	addrs, err := i.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return true
		}
	}
	return false
}

// probe asks one harmless mDNS question on one interface and waits to hear it.
func probe(ctx context.Context, i net.Interface) error {
	lc := net.ListenConfig{Control: shareAddress}
	pc, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", mdnsGroup.Port()))
	if err != nil {
		return fmt.Errorf("listen on UDP port %d: %w", mdnsGroup.Port(), err)
	}
	defer pc.Close()
	group := net.UDPAddrFromAddrPort(mdnsGroup)
	p := ipv4.NewPacketConn(pc)
	if err := errors.Join(p.JoinGroup(&i, group), p.SetMulticastInterface(&i), p.SetMulticastLoopback(true)); err != nil {
		return fmt.Errorf("join the multicast group: %w", err)
	}
	question, err := newQuestion()
	if err != nil {
		return err
	}
	if err := pc.SetDeadline(time.Now().Add(echoWait)); err != nil {
		return err
	}
	if _, err := pc.WriteTo(question, group); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	buf := make([]byte, 9000)
	for ctx.Err() == nil {
		n, _, err := pc.ReadFrom(buf)
		if err != nil {
			return errNoEcho
		}
		if bytes.Equal(buf[:n], question) {
			return nil
		}
	}
	return ctx.Err()
}

// newQuestion asks for a service instance that cannot exist, so nobody answers.
func newQuestion() ([]byte, error) {
	name, err := dnsmessage.NewName("doctor-" + strings.ToLower(rand.Text()) + "._skein._tcp.local.")
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}}}
	return m.Pack()
}

// shareAddress lets us listen beside a running node and avahi. Both options are
// needed: Linux lets two sockets share only if both set the same one.
func shareAddress(_, _ string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		inner = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, inner)
}
