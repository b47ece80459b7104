package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skein/node/gateway/auth"
)

const (
	// maxConnsPerRemote bounds the connections of one remote (for IPv6 a /64), so
	// that one machine cannot take them all. This machine itself is exempt.
	maxConnsPerRemote = 512
	// userTimeout is when the kernel gives up on a peer that acknowledges
	// nothing, so that a console whose Wi-Fi is gone does not stay for a quarter
	// of an hour.
	userTimeout = 30 * time.Second
	// maxSocketPath is the most that the kernel takes for a Unix socket.
	maxSocketPath = 107
	// dialTimeout bounds the question whether an old socket is still served.
	dialTimeout = time.Second
)

// listen opens the HTTP port, with errors that name the setting.
func listen(at netip.AddrPort) (net.Listener, error) {
	l, err := net.Listen("tcp", at.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen for HTTP on %s: the port is in use; stop the program that has it, or set `http` to another address: %w", at, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen for HTTP on %s: this needs privileges; set `http` to a port above 1023: %w", at, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen for HTTP on %s: this machine has no such address; set `http` to one that it has, or to 0.0.0.0 for all: %w", at, err)
	case err != nil:
		return nil, fmt.Errorf("listen for HTTP on %s (setting `http`): %w", at, err)
	}
	return l, nil
}

// listenControl opens the control socket for the owner of this process.
func listenControl(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("open control socket %s: the path has %d characters, the system takes %d; use a shorter `data` directory", path, len(path), maxSocketPath)
	}
	if _, err := os.Lstat(path); err == nil {
		if c, err := net.DialTimeout("unix", path, dialTimeout); err == nil {
			c.Close()
			return nil, fmt.Errorf("open control socket %s: another skein serves it; stop that one, or use another `data` directory", path)
		}
		// Left behind by a process that was killed.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open control socket: remove the old one: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	return ownerOnly{l}, nil
}

// ownerOnly lets in this process's user and root. The file's mode says the same,
// but only after the socket is there.
type ownerOnly struct{ net.Listener }

// Accept returns the next connection of the owner.
func (l ownerOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerOf(c); err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

// peerOf is the user at the other end of a Unix connection.
func peerOf(c net.Conn) (uint32, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// bounded is a listener that hangs up on whoever is one too many. It does not
// make them wait: a full house that waits is full for ever.
type bounded struct {
	net.Listener
	most    int
	refused func()

	mu      sync.Mutex
	open    int
	remotes map[string]int
}

func newBounded(l net.Listener, most int, refused func()) *bounded {
	return &bounded{Listener: l, most: most, refused: refused, remotes: map[string]int{}}
}

// Accept returns the next connection that is within the bounds.
func (l *bounded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		key, counted := remoteOf(c)
		if !l.enter(key, counted) {
			l.refused()
			c.Close()
			continue
		}
		giveUpOnSilence(c)
		return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(key, counted) })}, nil
	}
}

// remoteOf is whom a connection counts for; this machine counts for nobody.
func remoteOf(c net.Conn) (key string, counted bool) {
	text := c.RemoteAddr().String()
	ap, err := netip.ParseAddrPort(text)
	return auth.RemoteKey(text), err == nil && !ap.Addr().Unmap().IsLoopback()
}

func (l *bounded) enter(key string, counted bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most || counted && l.remotes[key] >= maxConnsPerRemote {
		return false
	}
	l.open++
	if counted {
		l.remotes[key]++
	}
	return true
}

func (l *bounded) leave(key string, counted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if !counted {
		return
	}
	if l.remotes[key]--; l.remotes[key] == 0 {
		delete(l.remotes, key)
	}
}

func (l *bounded) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// giveUpOnSilence sets the kernel's own timeout. Without it nothing breaks, it
// only takes longer; so an error is no reason to refuse the connection.
func giveUpOnSilence(c net.Conn) {
	tcp, is := c.(*net.TCPConn)
	if !is {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
		})
	}
}
