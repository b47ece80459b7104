package discover

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/pion/logging"
	"github.com/pion/mdns/v2"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// listenFor is how long the answers to one question are waited for. RFC 6762
	// section 6 lets an answer take up to 120 ms, and Wi-Fi may add to that.
	listenFor = 2 * time.Second
	// firstAsk is the wait between the first two questions; each further wait is
	// three times as long, up to lastAsk.
	firstAsk = 100 * time.Millisecond
	lastAsk  = 2 * time.Minute
	// never keeps the library from repeating a question: this package does.
	never = 24 * time.Hour
)

// station is mDNS at one place: own socket, own responder, own questions.
type station struct {
	conn   *mdns.Conn
	cancel context.CancelFunc
	asking sync.WaitGroup
}

// open sets up a station and starts to ask.
func (s *Service) open(at place, iface net.Interface) (*station, error) {
	socket, err := listenMulticast()
	if err != nil {
		return nil, fmt.Errorf("open UDP port 5353: %w", err)
	}
	options := []mdns.ServerOption{
		mdns.WithInterfaces(iface), mdns.WithIncludeLoopback(s.cfg.Loopback), mdns.WithLocalAddress(at.addr.AsSlice()),
		mdns.WithCacheRefresh(false), mdns.WithQueryInterval(never), mdns.WithLoggerFactory(quiet{s.cfg.Log}),
	}
	if me := s.cfg.Self(); me.ID != "" {
		options = append(options, mdns.WithLocalNames(string(me.ID)+".local"), mdns.WithService(s.instance(me)))
	}
	conn, err := mdns.NewServer(ipv4.NewPacketConn(socket), nil, options...)
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("start mDNS: %w", err)
	}
	conn.OnServiceDiscovered(s.heard)
	ctx, cancel := context.WithCancel(context.Background())
	st := &station{conn: conn, cancel: cancel}
	st.asking.Go(func() { st.ask(ctx, s.cfg.Log) })
	return st, nil
}

// listenMulticast opens port 5353 beside whoever else has it.
func listenMulticast() (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
		if controlErr != nil {
			return controlErr
		}
		return err
	}}
	// Bound to the group, not to 0.0.0.0: then the kernel gives every such
	// socket a copy of each multicast packet, and never a unicast one that is
	// meant for another program on the port.
	conn, err := config.ListenPacket(context.Background(), "udp4", "224.0.0.251:5353")
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// ask asks at once, soon again, and then ever more seldom.
func (st *station) ask(ctx context.Context, log *slog.Logger) {
	for wait := firstAsk; ; wait = min(3*wait, lastAsk) {
		round, cancel := context.WithTimeout(ctx, listenFor)
		st.asking.Go(func() { <-round.Done(); cancel() })
		if err := st.conn.Browse(round, ServiceType); err != nil {
			log.Debug("mDNS question not sent", "err", err)
		}
		// A quarter more or less keeps nodes that started together apart.
		jitter := time.Duration(rand.Int64N(int64(wait)/2)) - wait/4
		timer := time.NewTimer(wait + jitter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// stop ends the station and waits for it.
func (st *station) stop() {
	st.cancel()
	st.asking.Wait()
	st.conn.Close()
}

// quiet puts the library's log lines at debug level: what matters to an
// operator this package says itself.
type quiet struct{ log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
func (q quiet) NewLogger(string) logging.LeveledLogger { return q }

func (q quiet) say(format string, args ...any) {
	q.log.Debug("mdns", "text", fmt.Sprintf(format, args...))
}

func (quiet) Trace(string)                        {}
func (quiet) Tracef(string, ...any)               {}
func (quiet) Debug(string)                        {}
func (quiet) Debugf(string, ...any)               {}
func (q quiet) Info(text string)                  { q.say("%s", text) }
func (q quiet) Infof(format string, args ...any)  { q.say(format, args...) }
func (q quiet) Warn(text string)                  { q.say("%s", text) }
func (q quiet) Warnf(format string, args ...any)  { q.say(format, args...) }
func (q quiet) Error(text string)                 { q.say("%s", text) }
func (q quiet) Errorf(format string, args ...any) { q.say(format, args...) }
