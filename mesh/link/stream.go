package link

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-yamux/v5"
	manet "github.com/multiformats/go-multiaddr/net"

	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Stream is one ordered, flow-controlled byte stream to another node. It
// implements net.Conn. Reads and writes may run at the same time; several
// readers or several writers at once need their own order.
//
// A missed deadline is os.ErrDeadlineExceeded. After the other side has closed,
// Read gives io.EOF but Write may succeed for up to a window (256 KiB): who only
// writes must also read to notice. A peer whose cable is cut is noticed by
// deadlines first and by the connection's keep-alive after about 35 s.
type Stream struct {
	raw  network.Stream
	conn *conn
	// budget is how many more bytes may be read; negative: no bound.
	budget atomic.Int64
	kept   atomic.Bool
}

var _ net.Conn = (*Stream)(nil)

func newStream(raw network.Stream, c *conn) *Stream {
	s := &Stream{raw: raw, conn: c}
	s.budget.Store(-1)
	return s
}

// Remote is the node at the other end. On a stream of HandleOpen it is a
// stranger whose key is proven and whose membership is not.
func (s *Stream) Remote() ident.NodeID { return s.conn.remote.node }

// RemotePublicKey is the key whose possession the other end has proven.
func (s *Stream) RemotePublicKey() ed25519.PublicKey { return s.conn.remote.key }

// Protocol is what the stream was opened for.
func (s *Stream) Protocol() Protocol { return Protocol(s.raw.Protocol()) }

// Keep leaves the stream open when the handler returns. Who calls it must see
// to Close or Reset.
func (s *Stream) Keep() { s.kept.Store(true) }

// Read implements net.Conn.
func (s *Stream) Read(p []byte) (int, error) {
	left := s.budget.Load()
	if left == 0 {
		return 0, fmt.Errorf("%w: %s may send at most %d bytes here", wire.ErrTooLarge, s.Remote().Short(), openReadMax)
	}
	if left > 0 && int64(len(p)) > left {
		p = p[:left]
	}
	n, err := s.raw.Read(p)
	if left > 0 {
		s.budget.Add(int64(-n))
	}
	return n, plainError(err)
}

// Write implements net.Conn.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.raw.Write(p)
	return n, plainError(err)
}

// Close ends both directions; what was written is still delivered.
func (s *Stream) Close() error { return s.raw.Close() }

// CloseWrite tells the other side that no more will come; reading goes on.
func (s *Stream) CloseWrite() error { return s.raw.CloseWrite() }

// Reset ends both directions now; either side may lose what is on its way.
func (s *Stream) Reset() error { return s.raw.Reset() }

// SetDeadline implements net.Conn; the zero time means none.
func (s *Stream) SetDeadline(t time.Time) error { return s.raw.SetDeadline(t) }

// SetReadDeadline implements net.Conn; the zero time means none.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.raw.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn; the zero time means none.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.raw.SetWriteDeadline(t) }

// LocalAddr is this end of the TCP connection below.
func (s *Stream) LocalAddr() net.Addr {
	addr, _ := manet.ToNetAddr(s.raw.Conn().LocalMultiaddr())
	return addr
}

// RemoteAddr is the other end of the TCP connection below; identity is Remote.
func (s *Stream) RemoteAddr() net.Addr {
	addr, _ := manet.ToNetAddr(s.raw.Conn().RemoteMultiaddr())
	return addr
}

// plainError turns yamux's own deadline error into the standard library's, so
// that errors.Is works as on any net.Conn.
func plainError(err error) error {
	if errors.Is(err, yamux.ErrTimeout) {
		return os.ErrDeadlineExceeded
	}
	return err
}
