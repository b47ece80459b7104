package doctor

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/mesh/ident"
	"skein/sim/rig"
)

var goodTime = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// healthy is a machine on which nothing is wrong.
func healthy() Machine {
	return Machine{
		Now:       func() time.Time { return goodTime },
		ClockSync: func() (ClockSync, error) { return ClockSync{Synchronised: true, MaxErrorMillis: 3}, nil },
		Memory:    func() (Memory, error) { return Memory{900 * mib, 2000 * mib}, nil },
		Space:     func(string) (Space, error) { return Space{FreeBytes: 4000 * mib, TotalBytes: 8000 * mib}, nil },
	}
}

// want fails unless check ended with status, and a trouble says what to do.
func want(t *testing.T, c Check, status Status, found string) {
	t.Helper()
	if c.Status != status || !strings.Contains(c.Found, found) {
		t.Errorf("got %+v, want status %s and a finding with %q", c, status, found)
	}
	if (c.Status == OK) != (c.Fix == "") {
		t.Errorf("%s ended %s with fix %q: only a trouble has a fix, and each has one", c.Name, c.Status, c.Fix)
	}
	if strings.Contains(c.Found+c.Fix, "\n") {
		t.Errorf("%s takes more than one line: %+v", c.Name, c)
	}
}

func TestClockSet(t *testing.T) {
	cases := []struct {
		now, built time.Time
		status     Status
		found      string
	}{
		{goodTime, time.Time{}, OK, "2026-07-01"},
		{time.Unix(0, 0), time.Time{}, Fail, "not set"},
		{time.Date(2024, 12, 31, 23, 59, 59, 0, time.UTC), time.Time{}, Fail, "not set"},
		{time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}, OK, "2025-01-01"},
		{time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}, Fail, "future"},
		{goodTime, goodTime.Add(23 * time.Hour), OK, ""},
		{goodTime, goodTime.Add(25 * time.Hour), Warn, "was built on 2026-07-02"},
	}
	for _, c := range cases {
		want(t, clockSet(c.now, c.built), c.status, c.found)
	}
}

func TestClockSync(t *testing.T) {
	want(t, clockSynced(ClockSync{Synchronised: true, MaxErrorMillis: 7}, nil), OK, "7 ms")
	want(t, clockSynced(ClockSync{}, nil), Warn, "no time service")
	want(t, clockSynced(ClockSync{}, errors.New("forbidden")), Skip, "forbidden")
}

func TestClockSkewTellsWhoseClockIsOff(t *testing.T) {
	cases := []struct {
		skews  []int64
		status Status
		found  string
	}{
		{nil, Skip, "not spoken"},
		{[]int64{12, -40, 3}, OK, "within 40 ms of 3"},
		{[]int64{2000, -2000, 0}, OK, "within 2 s"},
		{[]int64{3_660_000, 3_660_100, 3_659_900}, Fail, "61 min behind"},
		{[]int64{-3_660_000, -3_660_100, -3_659_900}, Fail, "61 min ahead of"},
		{[]int64{300_000, 300_000, 300_000}, Warn, "5 min behind"},
		{[]int64{300_001, 300_001, 300_001}, Fail, "5 min behind"},
		{[]int64{1, 2, 3_600_000}, Warn, "clock of r2 is 60 min off"},
	}
	for _, c := range cases {
		r := answer{Running: Running{Name: "me"}, answered: true}
		for i, s := range c.skews {
			r.Skews = append(r.Skews, Skew{fmt.Sprintf("r%d", i), s})
		}
		want(t, clockSkew(r), c.status, c.found)
	}
	want(t, clockSkew(answer{}), Skip, "no node runs")
	want(t, clockSkew(answer{forbidden: true}), Skip, "may not ask")
}

func TestPorts(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	port := uint16(held.Addr().(*net.TCPAddr).Port)
	addr := held.Addr().String()
	both := []string{"tcp", "udp"}

	want(t, checkPort(t.Context(), Port{"gossip", "key.gossip", both, addr}, answer{}), Fail, "another program")
	want(t, checkPort(t.Context(), Port{"gossip", "key.gossip", both, addr}, answer{Running: Running{Name: "gander", Holders: map[uint16]string{port: "gander"}}, answered: true}), OK, "running node gander")
	want(t, checkPort(t.Context(), Port{"gossip", "key.gossip", both, addr}, answer{Running: Running{Name: "gander", Holders: map[uint16]string{port + 1: "gander"}}, answered: true}), Fail, "another program")
	want(t, checkPort(t.Context(), Port{"gossip", "key.gossip", both, addr}, answer{Running: Running{Name: "gander", Holders: map[uint16]string{port: "goose"}}, answered: true}), Warn, "held by goose")
	want(t, checkPort(t.Context(), Port{"gossip", "key.gossip", both, addr}, answer{forbidden: true}), Skip, "maybe by the node")
	want(t, checkPort(t.Context(), Port{"http", "key.http", both, "127.0.0.1:0"}, answer{}), OK, "any free port")
	want(t, checkPort(t.Context(), Port{"http", "key.http", both, "192.0.2.1:7780"}, answer{}), Fail, "no address of this machine")
	for _, bad := range []string{"7780", ":x", ":70000", ""} {
		want(t, checkPort(t.Context(), Port{"http", "key.http", both, bad}, answer{}), Fail, "no host:port")
	}

	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	c := checkPort(t.Context(), Port{"gossip", "key.gossip", []string{"udp"}, udp.LocalAddr().String()}, answer{})
	want(t, c, Fail, "(udp) is held")
	if !strings.Contains(c.Fix, "ss -lunp") {
		t.Errorf("fix %q does not look for a UDP socket", c.Fix)
	}

	free := addr
	held.Close()
	want(t, checkPort(t.Context(), Port{"http", "key.http", []string{"tcp"}, free}, answer{}), OK, "is free")
}

// The loopback interface carries multicast when it is named, which lets this
// test hear itself without a packet on any wire.
func TestMulticastIsHeardOnLoopback(t *testing.T) {
	want(t, checkMulticast(t.Context(), []string{"lo"}), OK, "224.0.0.251:5353 is heard on lo")
	want(t, checkMulticast(t.Context(), []string{"nosuch0"}), Fail, "nosuch0")
}

func TestMulticastWhileAnotherHoldsThePort(t *testing.T) {
	// On a host of its own: on this machine other tests use the port meanwhile.
	var c Check
	err := rig.New(t, 1).Hosts[0].Do(func() error {
		alone, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(mdnsGroup.Port())})
		if err != nil {
			return err
		}
		defer alone.Close()
		c = checkMulticast(t.Context(), []string{"lo"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, c, Fail, "address already in use")
	if !strings.Contains(c.Fix, "ss -lunp 'sport = :5353'") {
		t.Errorf("fix %q does not show who holds the port", c.Fix)
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	want(t, checkSpace("/d", Space{FreeBytes: 63 * mib}, nil), Fail, "63 MB free")
	want(t, checkSpace("/d", Space{FreeBytes: 64 * mib}, nil), Warn, "64 MB free")
	want(t, checkSpace("/d", Space{FreeBytes: 512 * mib}, nil), OK, "512 MB free")
	want(t, checkSpace("/d", Space{FreeBytes: 512 * mib, Volatile: true}, nil), Warn, "restart forgets")
	want(t, checkSpace("/d", Space{}, errors.New("stale handle")), Fail, "stale handle")

	checks := checkDisk(healthy(), filepath.Join(dir, "not", "yet"))
	if len(checks) != 3 {
		t.Fatalf("got %+v, want space, writable and fsync", checks)
	}
	want(t, checks[1], OK, dir)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the check left %v behind (%v)", left, err)
	}
	want(t, checkDisk(healthy(), "")[0], Skip, "no data directory")

	denied := fmt.Errorf("open: %w", fs.ErrPermission)
	want(t, notWritable("/d", "/d", denied), Fail, "may not write in /d")
	want(t, notWritable("/d/x", "/d", denied), Fail, "/d/x does not exist")
	want(t, notWritable("/d", "/d", errors.New("read-only file system")), Fail, "read-only")
}

func TestFsync(t *testing.T) {
	rounds := func(middle, worst time.Duration) []time.Duration {
		took := slices.Repeat([]time.Duration{middle}, fsyncRounds)
		took[fsyncRounds-1] = worst
		return took
	}
	want(t, judgeFsync("/d", rounds(20*time.Millisecond, 200*time.Millisecond)), OK, "20.0 ms")
	want(t, judgeFsync("/d", rounds(21*time.Millisecond, 22*time.Millisecond)), Warn, "slow for a voter")
	want(t, judgeFsync("/d", rounds(time.Millisecond, 201*time.Millisecond)), Warn, "201.0 ms at worst")
	want(t, judgeFsync("/d", rounds(201*time.Millisecond, 202*time.Millisecond)), Fail, "too slow")
}

func TestMemory(t *testing.T) {
	m, err := parseMemory(strings.NewReader("MemTotal:  2048 kB\nMemFree: 3 kB\nMemAvailable:    1024 kB\n"))
	if err != nil || m != (Memory{AvailableBytes: 1 << 20, TotalBytes: 2 << 20}) {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, bad := range []string{"", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n"} {
		if _, err := parseMemory(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	want(t, checkMemory(Memory{memoryFailBytes - 1, mib}, nil), Fail, "needs 50 MB")
	want(t, checkMemory(Memory{memoryFailBytes, mib}, nil), Warn, "48 MB available")
	want(t, checkMemory(Memory{memoryWarnBytes, mib}, nil), OK, "128 MB available")
	want(t, checkMemory(Memory{}, errors.New("no /proc")), Skip, "no /proc")
}

// robot is a data directory as joining leaves it.
func robot(t *testing.T) (o Options, key ident.Key) {
	t.Helper()
	dir := t.TempDir()
	root, errRoot := ident.NewKey()
	key, errKey := ident.NewKey()
	if err := errors.Join(errRoot, errKey); err != nil {
		t.Fatal(err)
	}
	o = Options{Machine: healthy(), Data: dir, KeyFile: filepath.Join(dir, "node.key"), MembershipFile: filepath.Join(dir, "membership.json")}
	chain := ident.NewChain(ident.FleetIDOf(root.Public()), key.Public(), false, goodTime, root, nil)
	if err := errors.Join(key.Save(o.KeyFile), ident.NewMembership("geese", root.Public(), chain).Save(o.MembershipFile)); err != nil {
		t.Fatal(err)
	}
	return o, key
}

func TestKeys(t *testing.T) {
	o, _ := robot(t)
	checks := checkKeys(o)
	want(t, checks[0], OK, "is the key of node")
	want(t, checks[1], OK, "admitted to fleet geese")

	if err := os.Chmod(o.KeyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	checks = checkKeys(o)
	want(t, checks[0], Fail, "can be read by others")
	if len(checks) != 1 || checks[0].Fix != "chmod 600 "+o.KeyFile {
		t.Errorf("got %+v", checks)
	}

	if err := errors.Join(os.WriteFile(o.KeyFile, []byte("rubbish"), 0o600), os.Chmod(o.KeyFile, 0o600)); err != nil {
		t.Fatal(err)
	}
	want(t, checkKeys(o)[0], Fail, "is damaged")

	if err := os.Remove(o.KeyFile); err != nil {
		t.Fatal(err)
	}
	want(t, checkKeys(o)[0], Warn, "no key yet")
	want(t, checkKeys(Options{})[0], Skip, "no data directory")
}

func TestCertificate(t *testing.T) {
	o, key := robot(t)
	other, otherKey := robot(t)
	o.MembershipFile = other.MembershipFile
	want(t, checkKeys(o)[1], Fail, otherKey.ID().Short())
	if key.ID() == otherKey.ID() {
		t.Fatal("two robots have one key")
	}

	// A certificate that a stranger's root signed for the right key.
	root, err := ident.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	chain := ident.NewChain(ident.FleetIDOf(root.Public()), key.Public(), false, goodTime, root, nil)
	foreign := ident.NewMembership("foxes", ed25519.PublicKey(otherKey.Public()), chain)
	if err := foreign.Save(o.MembershipFile); err != nil {
		t.Fatal(err)
	}
	want(t, checkKeys(o)[1], Fail, "not of this fleet")

	o.MembershipFile = filepath.Join(t.TempDir(), "none")
	want(t, checkKeys(o)[1], Warn, "not joined")
}

func TestPrivateFiles(t *testing.T) {
	o, _ := robot(t)
	o.PrivateFiles = []string{filepath.Join(o.Data, "admin.json"), filepath.Join(o.Data, "absent")}
	if err := os.WriteFile(o.PrivateFiles[0], []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	checks := checkKeys(o)
	if len(checks) != 3 {
		t.Fatalf("got %+v, want key, certificate and one private file", checks)
	}
	want(t, checks[2], OK, "is private")
	if err := os.Chmod(o.PrivateFiles[0], 0o644); err != nil {
		t.Fatal(err)
	}
	want(t, checkKeys(o)[2], Fail, "0644")
}

func TestConfig(t *testing.T) {
	want(t, checkConfig("/etc/skein.toml", nil), OK, "is valid")
	want(t, checkConfig("/etc/skein.toml", errors.New("htpp: unknown key; did you mean \"http\"?")), Fail, "did you mean")
	want(t, checkConfig("", nil), OK, "defaults")
}

func TestRunCountsAndKeepsOrder(t *testing.T) {
	o, _ := robot(t)
	o.Interfaces = []string{"lo"}
	o.Ports = []Port{{"http", "http", []string{"tcp"}, "127.0.0.1:0"}}
	o.Machine.Now = func() time.Time { return time.Unix(0, 0) }
	o.Machine.ClockSync = func() (ClockSync, error) { return ClockSync{}, nil }
	o.Node = func(context.Context) (Running, error) { return Running{Name: "gander", Skews: []Skew{{"r", 5}}}, nil }
	report := Run(t.Context(), o)
	var names []string
	for _, c := range report.Checks {
		names = append(names, c.Name)
	}
	const order = "clock.set clock.ntp clock.skew port.http multicast disk.space disk.writable disk.fsync memory keys.node keys.certificate config"
	if strings.Join(names, " ") != order {
		t.Errorf("checks are %v\nwant       %s", names, order)
	}
	if report.Failed != 1 || report.Warnings < 1 {
		t.Errorf("failed %d, warnings %d; want the clock to fail and NTP to warn", report.Failed, report.Warnings)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Run(gone, o); len(r.Checks) != 0 {
		t.Errorf("a cancelled run made checks: %+v", r.Checks)
	}
}

// The real machine is not judged here, only whether it can be asked.
func TestThisMachineAnswers(t *testing.T) {
	m := ThisMachine()
	if memory, err := m.Memory(); err != nil || memory.AvailableBytes == 0 || memory.AvailableBytes > memory.TotalBytes {
		t.Errorf("memory %+v, %v", memory, err)
	}
	if space, err := m.Space(t.TempDir()); err != nil || space.FreeBytes == 0 || space.FreeBytes > space.TotalBytes {
		t.Errorf("space %+v, %v", space, err)
	}
	if _, err := m.ClockSync(); err != nil {
		t.Logf("adjtimex is forbidden here: %v", err)
	}
	if _, err := m.Space(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("space of a directory that does not exist")
	}
	took, err := measureFsync(t.TempDir())
	if err != nil || len(took) != fsyncRounds || !slices.IsSorted(took) {
		t.Errorf("fsync times %v, %v", took, err)
	}
}

// parseMemory reads a file that the kernel writes; it must not fall over a
// strange one.
func FuzzParseMemory(f *testing.F) {
	f.Add("MemTotal:  2048 kB\nMemAvailable:    1024 kB\n")
	f.Add("MemTotal: 18446744073709551615 kB\n")
	f.Add(":")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parseMemory(strings.NewReader(text)); err == nil && (m.TotalBytes == 0 || m.AvailableBytes == 0) {
			t.Errorf("accepted %q as %+v", text, m)
		}
	})
}
