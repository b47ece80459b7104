package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the clients that reach into a host.
const (
	dialLimit    = 3 * time.Second
	answerLimit  = 15 * time.Second
	runLimit     = 60 * time.Second
	maxJSONBytes = 16 << 20
)

// Host is one machine of the LAN.
type Host struct {
	// Name is "h1", "h2", … or what Add was given; also the bridge port's name.
	Name string
	// Dir is the host's own directory; processes start in it.
	Dir string

	rig       *Rig
	namespace string
	addr      netip.Addr
	processes []*Process
	disks     []*Disk
	// injections are the straces that were attached; traces counts all of them.
	injections []*Injection
	traces     int
}

// Addr is the host's present address on eth0.
func (h *Host) Addr() netip.Addr { return h.addr }

// Do runs fn on a thread inside the host's network. Sockets made by fn itself
// (not by goroutines it starts) belong to the host for ever.
func (h *Host) Do(fn func() error) error { return within(h.namespace, fn) }

// Dial connects from inside the host, trying for at most 3 s. The address must
// be an IP and a port.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial from host %s: %w; names are not resolved here", h.Name, err)
	}
	// http.Transport goes on dialling after a request was given up; the end of
	// the test ends that too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.rig.t.Context(), cancel)()
	dialer := net.Dialer{Timeout: dialLimit}
	err = h.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Client is an HTTP client whose connections start inside the host: one host's
// browser for another, or, with 127.0.0.1, a look at a host that is cut off.
// Also for WebSockets: there is no limit on the whole exchange.
func (h *Host) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:           h.Dial,
		DisableKeepAlives:     true, // a connection from before a fault must not answer after it
		ResponseHeaderTimeout: answerLimit,
	}}
}

// GetJSON asks url from inside the host and decodes an answer of status 200.
// It returns its error because it is mostly asked until it succeeds.
func (h *Host) GetJSON(url string, into any) error {
	ctx, cancel := context.WithTimeout(h.rig.t.Context(), answerLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := h.Client().Do(request)
	if err != nil {
		return fmt.Errorf("on host %s: %w", h.Name, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxJSONBytes))
	if err != nil {
		return fmt.Errorf("on host %s: read %s: %w", h.Name, url, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("on host %s: %s: %s: %.300s", h.Name, url, answer.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("on host %s: decode %s: %w: %.300s", h.Name, url, err, body)
	}
	return nil
}

// WriteFile puts a file (mode 0600) into the host's directory and returns its path.
func (h *Host) WriteFile(name, content string) string {
	h.rig.t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.rig.t.Fatalf("rig: host %s: %v", h.Name, err)
	}
	return path
}

// Run runs a command on the host to its end, at most a minute, and returns what
// it wrote to standard output. The error of a command that failed wraps an
// *exec.ExitError and shows standard error.
func (h *Host) Run(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.rig.t.Context(), runLimit)
	defer cancel()
	cmd := h.command(ctx, program, args)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("on host %s: %s %s: %w: %s", h.Name, filepath.Base(program), strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// command prepares a program to run on the host. `ip netns exec` replaces itself
// by the program, so the process id is the program's, and mounts a /sys that
// shows the host's interfaces.
func (h *Host) command(ctx context.Context, program string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.namespace, program}, args...)...)
	cmd.Dir = h.Dir
	cmd.Env = withoutProxies(os.Environ())
	return cmd
}

// withoutProxies drops the settings that would send a host's requests to a
// proxy, which no host can reach.
func withoutProxies(environment []string) []string {
	var kept []string
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// Readdress gives the host another address and drops the old one, as a new DHCP
// lease does. Connections from the old address are dead.
func (h *Host) Readdress(addr netip.Addr) {
	h.rig.t.Helper()
	if !addr.Is4() || !netip.PrefixFrom(h.addr, prefixBits).Masked().Contains(addr) {
		h.rig.t.Fatalf("rig: host %s: %s is not on its LAN; ask Unused for an address", h.Name, addr)
	}
	if err := ip(h.namespace, append([]string{"addr flush dev eth0 scope global"}, addressLines(addr)...)...); err != nil {
		h.rig.t.Fatalf("rig: give host %s another address: %v", h.Name, err)
	}
	h.addr = addr
	if err := h.announce(); err != nil {
		h.rig.t.Fatalf("rig: announce the new address of host %s: %v", h.Name, err)
	}
}

// Swap exchanges the addresses of two hosts, as after a mix-up of leases. For a
// moment nobody has either. Connections of both are dead, and who asks for an
// address meets the other host.
func (r *Rig) Swap(a, b *Host) {
	r.t.Helper()
	for _, h := range []*Host{a, b} {
		if err := ip(h.namespace, "addr flush dev eth0 scope global"); err != nil {
			r.t.Fatalf("rig: take the address of host %s: %v", h.Name, err)
		}
	}
	a.addr, b.addr = b.addr, a.addr
	for _, h := range []*Host{a, b} {
		if err := ip(h.namespace, addressLines(h.addr)...); err != nil {
			r.t.Fatalf("rig: give host %s another address: %v", h.Name, err)
		}
	}
	for _, h := range []*Host{a, b} {
		if err := h.announce(); err != nil {
			r.t.Fatalf("rig: announce the new address of host %s: %v", h.Name, err)
		}
	}
}

// announce broadcasts a gratuitous ARP question, which tells every neighbour that
// knew this address by another host's card; DHCP clients do the same. Neighbours
// heed it at once, also when they learned of the other card a moment ago.
func (h *Host) announce() error {
	return h.Do(func() error {
		card, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		everybody := unix.SockaddrLinklayer{Protocol: 0x0608, Ifindex: card.Index, Halen: 6, // ARP, in network order
			Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		return unix.Sendto(socket, gratuitous(card.HardwareAddr, h.addr), 0, &everybody)
	})
}

// gratuitous is an ARP question (RFC 826) for the asker's own address.
func gratuitous(card net.HardwareAddr, addr netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, a question
	b = append(append(b, card...), addr.AsSlice()...)
	return append(append(b, make([]byte, 6)...), addr.AsSlice()...)
}

// Traffic is what an interface has carried, in bytes of whole Ethernet frames.
type Traffic struct{ SentBytes, ReceivedBytes uint64 }

// Traffic reads the totals of the host's eth0 since it was made.
func (h *Host) Traffic() Traffic {
	h.rig.t.Helper()
	sent, received, err := counters(h.namespace, "eth0")
	if err != nil {
		h.rig.t.Fatalf("rig: traffic of host %s: %v", h.Name, err)
	}
	return Traffic{sent, received}
}
