package trial

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skein/sim/rig"
)

// TestAvahiResolvesTheRobots: a browser of DNS-SD that knows nothing of Skein
// finds every robot from another host, with its address and link port.
func TestAvahiResolvesTheRobots(t *testing.T) {
	for _, tool := range []struct{ name, pkg string }{
		{"avahi-daemon", "avahi-daemon"}, {"avahi-browse", "avahi-utils"}, {"dbus-daemon", "dbus-daemon"},
	} {
		if _, err := exec.LookPath(tool.name); err != nil {
			if os.Getenv("SKEIN_NO_SKIP") == "1" {
				t.Fatalf("needs %s (Debian package %s)", tool.name, tool.pkg)
			}
			t.Skipf("needs %s (Debian package %s)", tool.name, tool.pkg)
		}
	}
	lan := rig.New(t, 3)
	geese := Found(t, rig.Skein(t), "geese", lan.Hosts[:2], 1)
	laptop := lan.Hosts[2]
	bus := startAvahi(t, laptop)

	rig.Wait(t, settle, "avahi-browse resolves both robots", func() error {
		// env, because the bus of this laptop is at an address of its own.
		out, err := laptop.Run("env", "DBUS_SYSTEM_BUS_ADDRESS="+bus, "avahi-browse", "--resolve", "--parsable", "--terminate", "_skein._tcp")
		if err != nil {
			return err
		}
		for _, r := range geese.Robots {
			if !resolved(out, r) {
				return fmt.Errorf("%s is not in:\n%s", r.Name, out)
			}
		}
		return nil
	})
	if out, err := laptop.Run("env", "DBUS_SYSTEM_BUS_ADDRESS="+bus, "avahi-browse", "--parsable", "--terminate", "_skein._tcp"); err != nil {
		t.Error(err)
	} else if n := strings.Count(out, ";IPv4;"); n != len(geese.Robots) {
		t.Errorf("%d services are announced, want one a robot:\n%s", n, out)
	}
}

// resolved: a line "=;eth0;IPv4;<instance>;_skein._tcp;local;<host>;<address>;<port>;<txt>".
func resolved(out string, r *Robot) bool {
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), ";")
		if len(f) >= 10 && f[0] == "=" && f[7] == r.Addr().String() && f[8] == "7781" &&
			f[6] == f[3]+".local" && strings.Contains(f[9], `"v=1"`) && strings.Contains(f[9], `"h=7780"`) {
			return true
		}
	}
	return false
}

// startAvahi runs avahi on a host, with a system bus of its own, and returns
// the address of the bus.
func startAvahi(t *testing.T, h *rig.Host) string {
	t.Helper()
	address := "unix:path=" + filepath.Join(h.Dir, "bus")
	conf := h.WriteFile("bus.conf", `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>`+address+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/></policy></busconfig>`)
	bus := h.Start("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+conf)
	rig.Wait(t, settle, "the bus listens", func() error {
		if bus.Ended() {
			t.Fatalf("dbus-daemon ended: %s", bus.Log())
		}
		_, err := os.Stat(filepath.Join(h.Dir, "bus"))
		return err
	})
	// It keeps its pid file and socket in /run/avahi-daemon: a /run of its own
	// lets it run beside another avahi of this machine.
	settings := h.WriteFile("avahi.conf", "[server]\nallow-interfaces=eth0\nuse-ipv6=no\nenable-dbus=yes\n[publish]\ndisable-publishing=yes\n")
	daemon := h.Start("unshare", "--mount", "sh", "-c",
		`mount -t tmpfs tmpfs /run && exec env DBUS_SYSTEM_BUS_ADDRESS="$1" avahi-daemon --no-drop-root --no-chroot --no-rlimits --file "$2"`, "avahi", address, settings)
	rig.Wait(t, settle, "avahi answers", func() error {
		if daemon.Ended() {
			t.Fatalf("avahi-daemon ended: %s", daemon.Log())
		}
		if strings.Contains(daemon.Log(), "Server startup complete") {
			return nil
		}
		return errors.New(daemon.Log())
	})
	return address
}
