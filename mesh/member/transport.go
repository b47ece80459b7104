package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of the transport.
const (
	maxPacketBytes    = 65535
	maxInboundStreams = 64
	packetQueue       = 256
)

// placeAddr is the address that every node gives memberlist, and memberlist
// keeps for every node. It is reserved (RFC 1112, class E) and never sent to.
//
// memberlist takes an address for part of who a node is: a member that appears
// at another one is a "conflict" until the old entry has died. Here a node is
// its key, so memberlist gets a constant, and where packets go is looked up
// under the node's name in the metadata that the node signed.
//
// The port that goes with it is 0: a probe then carries no port, which saves 12
// bytes of it, and is answered to where it came from if the name is not known.
var placeAddr = netip.AddrFrom4([4]byte{240, 0, 0, 1})

// errNowhere: nothing is known about where that node is.
var errNowhere = errors.New("no address is known")

// transport carries memberlist's packets and streams over UDP and TCP on one
// port. It implements memberlist.NodeAwareTransport.
type transport struct {
	table *table
	// home are the networks this node is in, best first.
	home atomic.Pointer[[]netip.Prefix]

	udp *net.UDPConn
	tcp *net.TCPListener

	packets chan *memberlist.Packet
	streams chan net.Conn
	slots   chan struct{} // one token for each inbound stream that is open

	ctx  context.Context // ends with the transport
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// listen binds UDP and TCP to the same port. Port 0 takes a free one.
func listen(bind netip.AddrPort) (*net.UDPConn, *net.TCPListener, error) {
	const tries = 10 // a port that is free for TCP may be taken for UDP
	var failed error
	for range tries {
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
		if err != nil {
			return nil, nil, err
		}
		port := uint16(tcp.Addr().(*net.TCPAddr).Port)
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(bind.Addr(), port)))
		if err == nil {
			return udp, tcp, nil
		}
		tcp.Close()
		failed = err
		if bind.Port() != 0 {
			break
		}
	}
	return nil, nil, failed
}

func newTransport(bind netip.AddrPort, t *table) (*transport, error) {
	udp, tcp, err := listen(bind)
	if err != nil {
		return nil, err
	}
	tr := &transport{
		table:   t,
		udp:     udp,
		tcp:     tcp,
		packets: make(chan *memberlist.Packet, packetQueue),
		streams: make(chan net.Conn),
		slots:   make(chan struct{}, maxInboundStreams),
	}
	tr.home.Store(&[]netip.Prefix{})
	tr.ctx, tr.stop = context.WithCancel(context.Background())
	tr.wg.Go(tr.readPackets)
	tr.wg.Go(tr.acceptStreams)
	return tr, nil
}

func (tr *transport) port() uint16 { return uint16(tr.tcp.Addr().(*net.TCPAddr).Port) }

// FinalAdvertiseAddr implements memberlist.Transport: see placeAddr.
func (tr *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return placeAddr.AsSlice(), 0, nil
}

// WriteTo implements memberlist.Transport.
func (tr *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return tr.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. A packet for a node
// whose place is unknown, or that is refused, is dropped without an error: as
// for a packet lost on the way, memberlist then tries the node by other means.
func (tr *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	targets, err := tr.targets(a)
	if err != nil {
		return time.Now(), nil
	}
	_, err = tr.udp.WriteToUDPAddrPort(b, targets[0])
	return time.Now(), err
}

// DialTimeout implements memberlist.Transport.
func (tr *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return tr.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. It tries the
// node's addresses in turn.
func (tr *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	targets, err := tr.targets(a)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(tr.ctx, timeout)
	defer cancel()
	var d net.Dialer
	var failed []error
	for i, to := range targets {
		share, done := context.WithTimeout(ctx, timeout/time.Duration(len(targets)-i))
		conn, err := d.DialContext(share, "tcp", to.String())
		done()
		if err == nil {
			return tr.own(conn, func() {}), nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// own ties a connection to the life of the transport: memberlist may be waiting
// on it for streamTimeout when the node stops.
func (tr *transport) own(conn net.Conn, release func()) net.Conn {
	unhook := context.AfterFunc(tr.ctx, func() { conn.Close() })
	return &ownedConn{conn, sync.OnceFunc(func() { unhook(); release() })}
}

// ownedConn releases what it holds when it is closed.
type ownedConn struct {
	net.Conn
	release func()
}

func (c *ownedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// targets says where a node is, best address first. addr itself counts when it
// is a real one and nothing is known under the name: that is how a join reaches
// a node that is not known yet, and an answer one that we have not heard of.
func (tr *transport) targets(a memberlist.Address) ([]netip.AddrPort, error) {
	addrs, port, known := tr.table.where(a.Name)
	if !known {
		to, err := netip.ParseAddrPort(a.Addr)
		if err != nil || to.Addr() == placeAddr {
			return nil, fmt.Errorf("%w: %s", errNowhere, &a)
		}
		return []netip.AddrPort{to}, nil
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%w: %s", errNowhere, &a)
	}
	targets := make([]netip.AddrPort, 0, len(addrs))
	for _, addr := range nearFirst(addrs, *tr.home.Load()) {
		targets = append(targets, netip.AddrPortFrom(addr, port))
	}
	return targets, nil
}

// PacketCh implements memberlist.Transport.
func (tr *transport) PacketCh() <-chan *memberlist.Packet { return tr.packets }

// StreamCh implements memberlist.Transport.
func (tr *transport) StreamCh() <-chan net.Conn { return tr.streams }

// Shutdown implements memberlist.Transport.
func (tr *transport) Shutdown() error {
	tr.stop()
	err := errors.Join(tr.udp.Close(), tr.tcp.Close())
	tr.wg.Wait()
	return err
}

// readPackets hands packets on; when memberlist falls behind, the newest are
// dropped, as the network would.
func (tr *transport) readPackets() {
	buf := make([]byte, maxPacketBytes)
	for {
		n, from, err := tr.udp.ReadFromUDPAddrPort(buf)
		if tr.ctx.Err() != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if err != nil || n == 0 || !tr.table.hear(from) {
			continue // an error here is about one packet: ICMP, or no buffer space
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
		select {
		case tr.packets <- p:
		default:
		}
	}
}

// acceptStreams hands streams on, at most maxInboundStreams at once; more are
// closed at once, so strangers cannot pile them up.
func (tr *transport) acceptStreams() {
	for {
		conn, err := tr.tcp.AcceptTCP()
		if err != nil {
			if !tr.pause(err) {
				return
			}
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !tr.table.admits(from) || !tr.takeSlot() {
			conn.Close()
			continue
		}
		owned := tr.own(conn, func() { <-tr.slots })
		select {
		case tr.streams <- owned:
		case <-tr.ctx.Done():
			owned.Close()
			return
		}
	}
}

func (tr *transport) takeSlot() bool {
	select {
	case tr.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// pause waits a moment after a failed accept (such as no free file descriptor),
// and reports whether to go on.
func (tr *transport) pause(err error) bool {
	const moment = 100 * time.Millisecond
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-time.After(moment):
		return true
	case <-tr.ctx.Done():
		return false
	}
}
