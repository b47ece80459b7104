package rig

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestScriptIsLikeATest(t *testing.T) {
	var order []string
	var dir string
	err := Script("a script", func(t testing.TB) {
		dir = t.TempDir()
		t.Cleanup(func() {
			order = append(order, "first cleanup")
			t.Fatal("while cleaning up")
		})
		t.Cleanup(func() { order = append(order, "second cleanup", fmt.Sprint(t.Context().Err())) })
		if t.Failed() || t.Context().Err() != nil {
			t.Fatal("has not begun well")
		}
		t.Errorf("%d robots", 4)
		order = append(order, "goes on")
		t.Fatalf("too few")
		order = append(order, "never")
	})
	if got := strings.Join(order, ", "); got != "goes on, second cleanup, context canceled, first cleanup" {
		t.Errorf("order %q", got)
	}
	if err == nil || err.Error() != "4 robots\ntoo few\nwhile cleaning up" {
		t.Errorf("error %q", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left behind", dir)
	}
	if err := Script("good", func(t testing.TB) { t.Log("fine") }); err != nil {
		t.Error(err)
	}
	if err := Script("skips", func(t testing.TB) { t.Skip("needs", " root") }); err == nil || err.Error() != "skipped: needs root" {
		t.Errorf("error %v", err)
	}
}

func TestWaitSaysWhatIsMissing(t *testing.T) {
	err := Script("waits", func(t testing.TB) {
		Wait(t, 50*time.Millisecond, "five robots", func() error { return errors.New("only four") })
	})
	if err == nil || !strings.HasPrefix(err.Error(), "waited ") || !strings.HasSuffix(err.Error(), "for: five robots; last: only four") {
		t.Errorf("error %v", err)
	}
	asked := 0
	took := Wait(t, 5*time.Second, "the third time", func() error {
		if asked++; asked < 3 {
			return ErrNotYet
		}
		return nil
	})
	if asked != 3 || took < pollInterval || took > 5*time.Second {
		t.Errorf("asked %d times in %v", asked, took)
	}
}

func TestMissingNamesTheFirstThing(t *testing.T) {
	has := func(names ...string) func(string) (string, error) {
		return func(name string) (string, error) {
			for _, n := range names {
				if n == name {
					return "/usr/bin/" + n, nil
				}
			}
			return "", os.ErrNotExist
		}
	}
	for _, tc := range []struct {
		euid     int
		lookPath func(string) (string, error)
		want     string
	}{
		{1000, has("ip", "nft"), "root, to make network namespaces"},
		{0, has("nft"), "ip (Debian package iproute2)"},
		{0, has("ip"), "nft (Debian package nftables)"},
		{0, has("ip", "nft"), ""},
	} {
		if got := missing(tc.euid, tc.lookPath); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestUnavailableSkipsOrFails(t *testing.T) {
	for value, want := range map[string]string{
		"":  "skipped: needs root",
		"1": "needs root, and SKEIN_NO_SKIP=1 allows no skip",
	} {
		t.Setenv("SKEIN_NO_SKIP", value)
		err := Script("needy", func(t testing.TB) { unavailable(t, "needs root") })
		if err == nil || err.Error() != want {
			t.Errorf("SKEIN_NO_SKIP=%q: error %v, want %q", value, err, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"h1": true, "viewer-2": true, "abcdefghijklmno": true,
		"": false, "abcdefghijklmnop": false, "H1": false, "a b": false, "a/b": false, "-a": false, "br0": false, "switch": false, "lo": false,
	} {
		if got := validName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestParseCounters(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      200       1    0    0    0     0       0          0
  eth0: 1234567890123 3    0    0    0     0          0         0     5678       4    0    0    0     0       0          0
`
	sent, received, err := parseCounters(text, "eth0")
	if err != nil || sent != 5678 || received != 1234567890123 {
		t.Errorf("sent %d, received %d, %v", sent, received, err)
	}
	for _, bad := range []string{"", "eth1: 1 2", "eth0: 1 2 3", "eth0: a 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0"} {
		if _, _, err := parseCounters(bad, "eth0"); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestRuleset(t *testing.T) {
	d := drops{{from: "h2"}: true, {to: "h2"}: true, {"h1", "h3"}: true}
	const want = `add table bridge rig
delete table bridge rig
table bridge rig {
 chain forward {
  type filter hook forward priority 0; policy accept;
  oifname "h2" drop
  iifname "h1" oifname "h3" drop
  iifname "h2" drop
 }
}
`
	if got := d.ruleset(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
