package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(holdVariable) != "" {
		hold()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestHostsReachEachOtherAndNobodyElse(t *testing.T) {
	t.Parallel()
	r := New(t, 3)
	for i, h := range r.Hosts {
		if want := fmt.Sprintf("h%d", i+1); h.Name != want {
			t.Errorf("host %d is called %s, want %s", i, h.Name, want)
		}
		if info, err := os.Stat(h.Dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("directory of %s: %v, %v", h.Name, info, err)
		}
		serveGreeting(t, h)
	}
	guest := r.Add("guest")
	for _, from := range r.Hosts {
		for _, to := range r.Hosts[:3] {
			if err := greet(from, to.Addr()); err != nil {
				t.Errorf("from %s to %s: %v", from.Name, to.Name, err)
			}
		}
	}
	if guest.Addr() == r.Unused() {
		t.Error("the guest's address is given out again")
	}
	// From the machine's own network the LAN is not there. Something else may
	// answer at that address, so what counts is who.
	outside := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	if answer, err := outside.Get("http://" + at(r.Hosts[0].Addr())); err == nil {
		defer answer.Body.Close()
		if name, _ := io.ReadAll(answer.Body); string(name) == "h1" {
			t.Error("a host answers outside its LAN")
		}
	}
}

func TestTwoRigsDoNotMeet(t *testing.T) {
	t.Parallel()
	one, other := New(t, 1), New(t, 2)
	serveGreeting(t, other.Hosts[1])
	if err := greet(other.Hosts[0], other.Hosts[1].Addr()); err != nil {
		t.Error(err)
	}
	if err := greet(one.Hosts[0], other.Hosts[1].Addr()); err == nil {
		t.Error("two rigs share a LAN")
	}
}

func TestMulticast(t *testing.T) {
	t.Parallel()
	r := New(t, 3)
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	var ears []*net.UDPConn
	for _, h := range r.Hosts[1:] {
		ear := inHost(t, h, func() (*net.UDPConn, error) {
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return nil, err
			}
			return net.ListenMulticastUDP("udp4", eth0, group)
		})
		defer ear.Close()
		ears = append(ears, ear)
	}
	// No interface is named: the default route chooses eth0.
	mouth := inHost(t, r.Hosts[0], func() (*net.UDPConn, error) { return net.DialUDP("udp4", nil, group) })
	defer mouth.Close()
	if _, err := mouth.Write([]byte("who is there")); err != nil {
		t.Fatal(err)
	}
	for i, ear := range ears {
		buffer := make([]byte, 64)
		ear.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := ear.ReadFromUDPAddrPort(buffer)
		if err != nil {
			t.Fatalf("host h%d hears nothing: %v", i+2, err)
		}
		if got := string(buffer[:n]); got != "who is there" || from.Addr().Unmap() != r.Hosts[0].Addr() {
			t.Errorf("host h%d heard %q from %s", i+2, got, from)
		}
	}
}

func TestFaultsOfLinks(t *testing.T) {
	t.Parallel()
	r := New(t, 4)
	a, b, c, d := r.Hosts[0], r.Hosts[1], r.Hosts[2], r.Hosts[3]
	for _, h := range r.Hosts {
		echo(t, h)
	}
	all := r.Hosts
	for _, tc := range []struct {
		name   string
		fault  func()
		heal   func()
		passes func(from, to *Host) bool
	}{
		{"cut", b.Cut, b.Heal, func(from, to *Host) bool { return from != b && to != b }},
		{"block", b.Block, b.Heal, func(from, to *Host) bool { return from != b && to != b }},
		{"one way", func() { r.Drop(a, b) }, a.Heal, func(from, to *Host) bool { return from != a || to != b }},
		{"split", func() { r.Split(all[:2], all[2:3]) }, r.Heal, func(from, to *Host) bool {
			return !(to == c && (from == a || from == b)) && !(from == c && (to == a || to == b))
		}},
		{"many, healed at once", func() { a.Cut(); b.Block(); r.Drop(c, d) }, r.Heal, func(from, to *Host) bool {
			return from == d && to == c
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Neighbours are known before the fault, so that a one-way path can
			// be told from a lost ARP answer.
			everyPath(t, all, func(_, _ *Host) bool { return true })
			tc.fault()
			everyPath(t, all, tc.passes)
			tc.heal()
			everyPath(t, all, func(_, _ *Host) bool { return true })
		})
	}
}

func TestCutTakesTheCarrierAndBlockDoesNot(t *testing.T) {
	t.Parallel()
	r := New(t, 2)
	h := r.Hosts[0]
	carrier := func() bool {
		t.Helper()
		out, err := h.Run("cat", "/sys/class/net/eth0/carrier")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out) == "1"
	}
	h.Block()
	if !carrier() {
		t.Error("blocked: no carrier")
	}
	h.Cut()
	if carrier() {
		t.Error("cut: still a carrier")
	}
	serveGreeting(t, h)
	if err := greet(h, h.Addr()); err != nil {
		t.Errorf("a host that is cut off does not reach itself: %v", err)
	}
	h.Heal()
	if !carrier() {
		t.Error("healed: no carrier")
	}
}

func TestReaddress(t *testing.T) {
	t.Parallel()
	r := New(t, 3)
	asker, one, two := r.Hosts[0], r.Hosts[1], r.Hosts[2]
	serveGreeting(t, one)
	serveGreeting(t, two)
	expect := func(addr netip.Addr, name string) {
		t.Helper()
		if got, err := greeting(asker, addr); err != nil || got != name {
			t.Errorf("at %s answers %q (%v), want %q", addr, got, err, name)
		}
	}
	before := one.Addr()
	expect(before, "h2")
	fresh := r.Unused()
	one.Readdress(fresh)
	if one.Addr() != fresh {
		t.Errorf("Addr is %s, want %s", one.Addr(), fresh)
	}
	expect(fresh, "h2")
	if err := greet(asker, before); err == nil {
		t.Error("the old address still answers")
	}
	// Another host takes an address the asker knows by the first one's card.
	one.Readdress(r.Unused())
	two.Readdress(fresh)
	expect(fresh, "h3")
	expect(one.Addr(), "h2")
	was := one.Addr()
	r.Swap(one, two)
	if one.Addr() != fresh || two.Addr() != was {
		t.Errorf("after the exchange h2 is at %s and h3 at %s, want %s and %s", one.Addr(), two.Addr(), fresh, was)
	}
	expect(fresh, "h2")
	expect(was, "h3")
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	r := New(t, 2)
	h := r.Hosts[0]
	polite := h.Start("sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready in $PWD; while :; do sleep 0.05; done")
	stubborn := h.Start("sh", "-c", "trap '' TERM; echo ready >&2; while :; do sleep 0.05; done")
	neighbour := r.Hosts[1].Start("sleep", "60")
	Wait(t, 5*time.Second, "both are ready", func() error {
		if !strings.Contains(polite.Log(), "ready in "+h.Dir) || !strings.Contains(stubborn.Log(), "ready") {
			return ErrNotYet
		}
		return nil
	})
	if polite.Ended() || polite.ExitCode() != -1 {
		t.Error("a running process has ended")
	}
	if code := polite.Stop(); code != 3 || !strings.HasSuffix(polite.Log(), "bye\n") {
		t.Errorf("exit code %d, log %q", code, polite.Log())
	}
	if code := polite.Stop(); code != 3 {
		t.Errorf("stopped twice: exit code %d", code)
	}
	stubborn.Signal(syscall.SIGSTOP)
	h.Kill() // also what ignores SIGTERM and what is paused
	if !stubborn.Ended() || stubborn.ExitCode() != -1 {
		t.Errorf("killed: ended %v, exit code %d", stubborn.Ended(), stubborn.ExitCode())
	}
	if neighbour.Ended() {
		t.Error("another host's process died")
	}
}

// TestHalt: a process that was told to stop says nothing any more, however busy it was.
func TestHalt(t *testing.T) {
	t.Parallel()
	r := New(t, 1)
	busy := r.Hosts[0].Start("sh", "-c", "while :; do echo busy; done")
	said := func() int64 {
		info, err := os.Stat(busy.log)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for range 20 {
		before := said()
		Wait(t, 5*time.Second, "it says something", func() error {
			if said() == before {
				return ErrNotYet
			}
			return nil
		})
		busy.Signal(syscall.SIGSTOP)
		if err := busy.awaitHalt(); err != nil {
			t.Fatal(err)
		}
		before = said()
		if running, err := busy.running(); running || err != nil {
			t.Fatalf("it runs: %v, %v", running, err)
		}
		if _, err := r.Hosts[0].Run("true"); err != nil { // some milliseconds
			t.Fatal(err)
		}
		if now := said(); now != before {
			t.Fatalf("it has said %d bytes since it stood still", now-before)
		}
		busy.Signal(syscall.SIGCONT)
	}
	busy.Kill()
	if err := busy.awaitHalt(); err != nil {
		t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.invalid")
	r := New(t, 1)
	h := r.Hosts[0]
	out, err := h.Run("sh", "-c", "echo to stdout; echo to stderr >&2; env | grep -ci _proxy=; exit 4")
	if out != "to stdout\n0\n" {
		t.Errorf("output %q", out)
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 4 || !strings.Contains(err.Error(), "to stderr") {
		t.Errorf("error %v", err)
	}
}

func TestGetJSON(t *testing.T) {
	t.Parallel()
	r := New(t, 2)
	serve(t, r.Hosts[0], http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/good" {
			http.Error(w, "no such thing", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"robots": 5}`)
	}))
	var got struct{ Robots int }
	base := "http://" + at(r.Hosts[0].Addr())
	if err := r.Hosts[1].GetJSON(base+"/good", &got); err != nil || got.Robots != 5 {
		t.Errorf("got %+v, %v", got, err)
	}
	err := r.Hosts[1].GetJSON(base+"/bad", &got)
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v", err)
	}
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	r := New(t, 2)
	a, b := r.Hosts[0], r.Hosts[1]
	beforeA, beforeB := a.Traffic(), b.Traffic()
	const payload, count = 1000, 100
	conn := inHost(t, a, func() (net.Conn, error) { return net.Dial("udp4", at(b.Addr())) })
	defer conn.Close()
	for range count {
		// Nobody listens there: every other write reports that.
		if _, err := conn.Write(make([]byte, payload)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	sent := a.Traffic().SentBytes - beforeA.SentBytes
	received := b.Traffic().ReceivedBytes - beforeB.ReceivedBytes
	// At least half of the writes are real; headers are 42 bytes a frame.
	if sent < payload*count/2 || sent > 2*payload*count {
		t.Errorf("sent %d bytes, want about %d", sent, payload*count)
	}
	if received < payload*count/2 {
		t.Errorf("received %d bytes, want about %d", received, payload*count)
	}
}

// inHost makes a socket in a host.
func inHost[T any](t *testing.T, h *Host, open func() (T, error)) (socket T) {
	t.Helper()
	if err := h.Do(func() (err error) { socket, err = open(); return err }); err != nil {
		t.Fatalf("host %s: %v", h.Name, err)
	}
	return socket
}

const port = 8099

func at(addr netip.Addr) string { return netip.AddrPortFrom(addr, port).String() }

// serve answers HTTP on a host until the test ends.
func serve(t *testing.T, h *Host, handler http.Handler) {
	t.Helper()
	listener := inHost(t, h, func() (net.Listener, error) { return net.Listen("tcp4", fmt.Sprintf(":%d", port)) })
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// serveGreeting makes the host answer with its name.
func serveGreeting(t *testing.T, h *Host) {
	t.Helper()
	serve(t, h, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, h.Name) }))
}

func greet(from *Host, to netip.Addr) error {
	_, err := greeting(from, to)
	return err
}

func greeting(from *Host, to netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at(to), nil)
	if err != nil {
		return "", err
	}
	answer, err := from.Client().Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// echo makes a host write down, one line each, from whom datagrams arrive.
func echo(t *testing.T, h *Host) {
	t.Helper()
	conn := inHost(t, h, func() (*net.UDPConn, error) { return net.ListenUDP("udp4", &net.UDPAddr{Port: port}) })
	file, err := os.Create(filepath.Join(h.Dir, "heard"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 64)
		for {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			fmt.Fprintf(file, "%s\n", buffer[:n])
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		file.Close()
	})
}

// everyPath sends a datagram on every path and checks that exactly those arrive
// which should. A path that should be dead is judged after all others arrived.
func everyPath(t *testing.T, hosts []*Host, passes func(from, to *Host) bool) {
	t.Helper()
	round := fmt.Sprint(time.Now().UnixNano())
	for _, from := range hosts {
		for _, to := range hosts {
			if from == to {
				continue
			}
			conn := inHost(t, from, func() (net.Conn, error) { return net.Dial("udp4", at(to.Addr())) })
			if _, err := conn.Write([]byte(from.Name + " " + round)); err != nil {
				t.Errorf("from %s to %s: %v", from.Name, to.Name, err)
			}
			conn.Close()
		}
	}
	heard := func(from, to *Host) bool {
		file, err := os.Open(filepath.Join(to.Dir, "heard"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if lines.Text() == from.Name+" "+round {
				return true
			}
		}
		return false
	}
	var dead [][2]*Host
	for _, from := range hosts {
		for _, to := range hosts {
			if from == to {
				continue
			}
			if !passes(from, to) {
				dead = append(dead, [2]*Host{from, to})
				continue
			}
			Wait(t, 5*time.Second, "from "+from.Name+" to "+to.Name, func() error {
				if heard(from, to) {
					return nil
				}
				return ErrNotYet
			})
		}
	}
	for _, path := range dead {
		if heard(path[0], path[1]) {
			t.Errorf("from %s to %s: passes, should not", path[0].Name, path[1].Name)
		}
	}
}

func TestNamespacesAreGoneAfterwards(t *testing.T) {
	t.Parallel()
	var mine, dir string
	t.Run("rig", func(t *testing.T) {
		r := New(t, 1)
		r.Hosts[0].Start("sh", "-c", "sleep 61 & sleep 62")
		mine, dir = r.claim.id, r.claim.dir
		if len(namespacesOf(t, mine)) != 2 {
			t.Errorf("namespaces %v, want host and switch", namespacesOf(t, mine))
		}
	})
	if mine == "" {
		t.Skip("needs what the rig needs")
	}
	if left := namespacesOf(t, mine); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, path := range []string{dir, filepath.Join(claimDir, mine)} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("left behind: %s", path)
		}
	}
}

func namespacesOf(t *testing.T, id string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(namespaceDir, prefix+id+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}
