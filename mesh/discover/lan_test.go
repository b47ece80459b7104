package discover

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/sim/rig"
)

// onHost hatches a bird on a host of a LAN in namespaces.
func onHost(t *testing.T, h *rig.Host, fleet ident.FleetID, self ident.Endpoint) *bird {
	t.Helper()
	return hatch(t, Config{Fleet: fleet}, self, h.Do)
}

// announcedOut waits until nobody has been heard for longer than the gaps
// between a node's unasked announcements: what is heard from then on has
// another reason.
func announcedOut(t *testing.T, birds ...*bird) {
	t.Helper()
	const longest = announceGap << (announceTimes - 2)
	last, since := -1, time.Now()
	until(t, 15*time.Second, "the first announcements are over", func() bool {
		calls := 0
		for _, b := range birds {
			b.mu.Lock()
			calls += b.calls
			b.mu.Unlock()
		}
		if calls != last {
			last, since = calls, time.Now()
		}
		return time.Since(since) > longest+announceGap/2
	})
}

func TestTwoFleetsOnOneLANFindThemselvesOnly(t *testing.T) {
	r := rig.New(t, 8)
	var g, s []*bird
	for i, h := range r.Hosts {
		if i%2 == 0 {
			g = append(g, onHost(t, h, geese(t), someone(t, 7781)))
		} else {
			s = append(s, onHost(t, h, swans(t), someone(t, 7781)))
		}
	}
	t.Logf("geese met after %v", meet(t, 5*time.Second, g...))
	t.Logf("swans met after %v", meet(t, 5*time.Second, s...))
	for i, b := range g {
		for _, o := range g {
			if e, ok := o.has(b.self.ID); ok && (len(e.Addrs) != 1 || e.Addrs[0] != r.Hosts[2*i].Addr()) {
				t.Fatalf("host %d is thought to be at %v, is at %v", 2*i, e.Addrs, r.Hosts[2*i].Addr())
			}
		}
	}
}

func TestNewAddressIsFollowed(t *testing.T) {
	r := rig.New(t, 2)
	a := onHost(t, r.Hosts[0], geese(t), someone(t, 7781))
	b := onHost(t, r.Hosts[1], geese(t), someone(t, 7781))
	meet(t, 5*time.Second, a, b)
	announcedOut(t, a, b)
	to := r.Unused()
	r.Hosts[1].Readdress(to)
	took := until(t, 5*time.Second, "the new address is known", func() bool {
		e, _ := a.has(b.self.ID)
		return len(e.Addrs) == 1 && e.Addrs[0] == to
	})
	t.Logf("new address known after %v", took)
}

func TestInterfaceThatComesLaterIsUsed(t *testing.T) {
	r := rig.New(t, 2)
	late := r.Hosts[1]
	addr := netip.PrefixFrom(late.Addr(), 16)
	run := func(args ...string) {
		t.Helper()
		if out, err := late.Run("ip", args...); err != nil {
			t.Fatalf("ip %v: %v %s", args, err, out)
		}
	}
	run("addr", "flush", "dev", "eth0")
	a := onHost(t, r.Hosts[0], geese(t), someone(t, 7781))
	b := onHost(t, late, geese(t), someone(t, 7781))
	run("addr", "add", addr.String(), "dev", "eth0")
	t.Logf("met after %v", meet(t, 5*time.Second, a, b))
	announcedOut(t, a, b)
	a.forget()
	b.forget()
	run("link", "set", "eth0", "down")
	until(t, 5*time.Second, "b has noticed", func() bool {
		out, err := late.Run("cat", "/proc/net/igmp")
		return err == nil && !strings.Contains(out, "FB0000E0")
	})
	run("link", "set", "eth0", "up")
	meet(t, 15*time.Second, a, b)
}

// TestNobodyAnswersItself counts what a lonely node sends: its announcements and
// its questions, and nothing because of them.
func TestNobodyAnswersItself(t *testing.T) {
	h := rig.New(t, 1).Hosts[0] // where nobody else asks
	var conn *net.UDPConn
	if err := h.Do(func() (err error) { conn, err = openSocket(loIndex); return err }); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	self := someone(t, 1000)
	hatch(t, Config{Fleet: geese(t), Loopback: true}, self, h.Do)
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	announced, asked := 0, 0
	for buf := make([]byte, maxPacket); asked < 3; { // at about 0, 1 and 4 s
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("heard %d questions: %v", asked, err)
		}
		msg, err := parse(buf[:n])
		switch {
		case err != nil:
		case msg.query && slices.Contains(msg.known, self.ID):
			asked++
		case len(msg.announced) == 1 && msg.announced[0].node.ID == self.ID:
			announced++
		}
	}
	if announced > announceTimes {
		t.Fatalf("a node that nobody asked announced itself %d times", announced)
	}
}

// avahi is an independent responder and browser on a host of its own.
type avahi struct {
	host *rig.Host
	env  string
}

// startAvahi runs avahi-daemon with a message bus of its own.
func startAvahi(t *testing.T, h *rig.Host) avahi {
	t.Helper()
	for _, program := range []string{"avahi-daemon", "avahi-browse", "dbus-daemon", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (packages avahi-daemon, avahi-utils, dbus-daemon, util-linux)", program)
		}
	}
	socket := h.Dir + "/bus"
	bus := h.WriteFile("bus.conf", fmt.Sprintf(`<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`, socket))
	conf := h.WriteFile("avahi.conf", "[server]\nuse-ipv6=no\n[wide-area]\nenable-wide-area=no\n")
	env := "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + socket
	h.Start("dbus-daemon", "--config-file="+bus, "--nofork", "--nopidfile")
	rig.Wait(t, 5*time.Second, "the message bus listens", func() error {
		_, err := h.Run("test", "-S", socket)
		return err
	})
	// A private /run, because the daemon insists on its pid file there.
	h.Start("unshare", "-m", "sh", "-c", "mount -t tmpfs none /run && exec env "+env+" avahi-daemon --no-drop-root --no-chroot -f "+conf)
	a := avahi{h, env}
	rig.Wait(t, 15*time.Second, "avahi answers", func() error {
		_, err := h.Run("env", env, "avahi-browse", "-at")
		return err
	})
	return a
}

func TestAvahiResolvesNodesAndSeesThemComeAndGo(t *testing.T) {
	r := rig.New(t, 4)
	a := startAvahi(t, r.Hosts[3])
	first := onHost(t, r.Hosts[0], geese(t), someone(t, 7781))
	watch := a.host.Start("env", a.env, "avahi-browse", "-rp", "_skein._tcp")
	line := func(sign string, b *bird) string {
		return sign + ";eth0;IPv4;" + string(b.self.ID) + ";_skein._tcp;local"
	}
	sees := func(limit time.Duration, sign string, b *bird) {
		t.Helper()
		took := until(t, limit, "avahi says "+line(sign, b), func() bool { return strings.Contains(watch.Log(), line(sign, b)) })
		t.Logf("avahi says %s after %v", sign, took)
	}
	sees(5*time.Second, "=", first)
	// One that comes later must be noticed by whoever is already looking, and
	// one that goes must be forgotten long before its records run out.
	second := onHost(t, r.Hosts[1], geese(t), someone(t, 7791))
	sees(5*time.Second, "=", second)
	second.stop()
	sees(5*time.Second, "-", second)
	third := onHost(t, r.Hosts[2], geese(t), someone(t, 7801))
	until(t, 5*time.Second, "first and third find each other", func() bool {
		_, ft := first.has(third.self.ID)
		_, tf := third.has(first.self.ID)
		return ft && tf
	})

	out, err := a.host.Run("env", a.env, "avahi-browse", "-rpt", "_skein._tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []*bird{first, third} {
		host := r.Hosts[0]
		if b == third {
			host = r.Hosts[2]
		}
		want := line("=", b) + ";" + string(b.self.ID) + ".local;" + host.Addr().String() + ";" + fmt.Sprint(b.self.LinkPort) + ";"
		at := strings.Index(out, want)
		if at < 0 {
			t.Fatalf("avahi resolves\n%s\nwithout\n%s", out, want)
		}
		resolved, _, _ := strings.Cut(out[at:], "\n")
		for _, text := range []string{`"v=1"`, `"f=` + fleetTag(geese(t)) + `"`, fmt.Sprintf(`"g=%d"`, b.self.GossipPort), fmt.Sprintf(`"h=%d"`, b.self.HTTPPort)} {
			if !strings.Contains(resolved, text) {
				t.Errorf("TXT lacks %s: %s", text, resolved)
			}
		}
	}
	if strings.Contains(out, string(second.self.ID)) {
		t.Errorf("avahi still lists a node that said goodbye:\n%s", out)
	}
}

// TestSharesThePortWithAvahi: a node on the host of an avahi-daemon and that
// daemon itself both keep working.
func TestSharesThePortWithAvahi(t *testing.T) {
	r := rig.New(t, 2)
	a := startAvahi(t, r.Hosts[0])
	b := onHost(t, r.Hosts[0], geese(t), someone(t, 7781))
	c := onHost(t, r.Hosts[0], geese(t), someone(t, 7791))
	d := onHost(t, r.Hosts[1], geese(t), someone(t, 7781))
	meet(t, 5*time.Second, b, c, d)
	out, err := a.host.Run("env", a.env, "avahi-browse", "-rpt", "_skein._tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*bird{b, c, d} {
		if !strings.Contains(out, "=;eth0;IPv4;"+string(n.self.ID)) {
			t.Errorf("avahi does not resolve %s:\n%s", n.self.ID, out)
		}
	}
}
