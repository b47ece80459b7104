package discover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// group is where multicast DNS happens.
var group = netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 251}), mdnsPort)

const (
	mdnsPort = 5353
	// maxPacket is the largest packet that RFC 6762 section 17 allows.
	maxPacket = 9000
)

// openSocket opens a socket that sends and hears multicast DNS on one interface
// only, and shares the port with every other responder on this host.
//
// It is bound to the group address, not to all addresses: unicast packets to
// port 5353 then keep going to the host's own responder (avahi), for which they
// are meant. net.ListenPacket cannot do that (it replaces a group address by
// 0.0.0.0), hence the system calls.
func openSocket(ifIndex int) (*net.UDPConn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open mDNS socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "mdns")
	defer file.Close() // FilePacketConn has its own copy
	to := group.Addr().As4()
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		// Only what arrives on the interface joined below, not on those that
		// other sockets of this host have joined.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0),
		// RFC 6762 section 11.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 255),
		// Others on this host shall hear us.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifIndex)}),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: to, Ifindex: int32(ifIndex)}),
	)
	if err != nil {
		return nil, fmt.Errorf("set up mDNS socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: mdnsPort, Addr: to}); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("another program keeps UDP port %d to itself; stop it or let it share the port (SO_REUSEADDR): %w", mdnsPort, err)
		}
		return nil, fmt.Errorf("bind mDNS socket: %w", err)
	}
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("use mDNS socket: %w", err)
	}
	return conn.(*net.UDPConn), nil
}
