package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceDir is where ip(8) keeps named network namespaces.
const namespaceDir = "/run/netns"

// ip runs lines of ip(8)'s batch language in a namespace, "" for the machine's
// own. It stops at the first line that fails.
func ip(namespace string, lines ...string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(lines, "; "), err, bytes.TrimSpace(out))
	}
	return nil
}

// addressLines give eth0 its address. The default route names no gateway: a
// socket that sends to a multicast group or to nowhere then chooses eth0.
func addressLines(addr netip.Addr) []string {
	return []string{
		fmt.Sprintf("addr add %s/%d brd + dev eth0", addr, prefixBits),
		"route add default dev eth0",
	}
}

// within runs fn on a thread that is in the network namespace. Sockets that fn
// makes stay in it; goroutines that fn starts do not start in it.
func within(namespace string, fn func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine; t.Fatal and t.Skip must not be called in there")
		defer func() { result <- err }()
		err = enter(namespace, fn)
	}()
	return <-result
}

// enter runs fn in the namespace and goes home. If the thread cannot get home,
// or fn does not return, it stays locked to this goroutine and ends with it:
// nobody else ever runs in the wrong namespace.
func enter(namespace string, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	target, err := os.Open(filepath.Join(namespaceDir, namespace))
	if err != nil {
		return err
	}
	defer target.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", namespace, err)
	}
	result := fn()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(result, fmt.Errorf("leave namespace %s: %w", namespace, err))
	}
	runtime.UnlockOSThread()
	return result
}

// counters reads an interface's totals from inside its namespace: /proc/net
// follows the thread, /sys/class/net would follow the mount.
func counters(namespace, device string) (sent, received uint64, err error) {
	var text []byte
	err = within(namespace, func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	return parseCounters(string(text), device)
}

// parseCounters reads net/dev: after the name come eight fields for what was
// received and eight for what was sent, bytes first.
func parseCounters(text, device string) (sent, received uint64, err error) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != device {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) < 16 {
			return 0, 0, fmt.Errorf("counters of %s have %d fields, want 16", device, len(fields))
		}
		received, err = strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		sent, err = strconv.ParseUint(fields[8], 10, 64)
		return sent, received, err
	}
	return 0, 0, fmt.Errorf("no interface %s", device)
}

// skipAddressDetection switches IPv6's duplicate address detection off, so that
// link-local addresses are usable when New returns, as on a host that has been
// up for a while.
func (h *Host) skipAddressDetection() error {
	err := within(h.namespace, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}
