package telemetry

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a fixture tree of /proc and /sys that a test changes as it goes.
type machine struct {
	t    testing.TB
	root string
}

func newMachine(t testing.TB) machine {
	m := machine{t, t.TempDir()}
	m.cpu(100, 900)
	m.write("proc/meminfo", "MemTotal:        8000 kB\nMemFree:         1000 kB\nMemAvailable:    6000 kB\n")
	m.net("lo", 5_000_000, 5_000_000, "wlan0", 1000, 2000)
	m.write("proc/loadavg", "0.75 0.50 0.25 1/200 4242\n")
	m.write("proc/uptime", "3600.25 7000.00\n")
	return m
}

func (m machine) write(path, text string) {
	m.t.Helper()
	full := filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	// By rename: a sampler that reads meanwhile sees the old or the new text.
	if err := os.WriteFile(full+"~", []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(full+"~", full); err != nil {
		m.t.Fatal(err)
	}
}

// cpu sets busy and idle time since boot, in ticks of 10 ms.
func (m machine) cpu(busy, idle int) {
	line := fmt.Sprintf("%d 0 0 %d 0 0 0 0 0 0", busy, idle)
	m.write("proc/stat", "cpu  "+line+"\ncpu0 "+line+"\nintr 5 1 2 2\nctxt 9\nbtime 1700000000\nprocesses 3\nprocs_running 1\nprocs_blocked 0\nsoftirq 10 1 1 1 1 1 1 1 1 1 1\n")
}

// net sets the counters: name, received bytes, sent bytes, and so on.
func (m machine) net(v ...any) {
	var text strings.Builder
	text.WriteString("Inter-|   Receive   |  Transmit\n face |bytes packets\n")
	for i := 0; i < len(v); i += 3 {
		text.WriteString(fmt.Sprintf("%6s: %d 1 0 0 0 0 0 0 %d 1 0 0 0 0 0 0\n", v[i], v[i+1], v[i+2]))
	}
	m.write("proc/net/dev", text.String())
}

func (m machine) reader(now time.Time) *Reader {
	m.t.Helper()
	r, err := New(Config{Root: m.root, DataDir: m.root}, now)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m machine) sample(r *Reader, now time.Time) Sample {
	m.t.Helper()
	s, err := r.Sample(now)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestSampleReadsEverySource(t *testing.T) {
	m := newMachine(t)
	m.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
	m.write("sys/class/thermal/thermal_zone0/temp", "48250\n")
	m.write("sys/class/power_supply/BAT0/type", "Battery\n")
	m.write("sys/class/power_supply/BAT0/capacity", "81\n")
	r := m.reader(start)

	m.cpu(100+150, 900+50) // 75 % busy
	m.net("lo", 9_000_000, 9_000_000, "wlan0", 1000+4000, 2000+8000)
	s := m.sample(r, start.Add(4*time.Second))

	if math.Abs(s.CPUPercent-75) > 0.01 {
		t.Errorf("cpu %v %%, want 75", s.CPUPercent)
	}
	if s.MemTotalBytes != 8000*1024 || s.MemUsedBytes != 2000*1024 {
		t.Errorf("memory %d of %d, want 2000 of 8000 kB", s.MemUsedBytes, s.MemTotalBytes)
	}
	if s.DiskTotalBytes == 0 || s.DiskUsedBytes > s.DiskTotalBytes {
		t.Errorf("disk %d of %d", s.DiskUsedBytes, s.DiskTotalBytes)
	}
	if s.NetRxBytesPerSec != 1000 || s.NetTxBytesPerSec != 2000 {
		t.Errorf("network %v in, %v out; want 1000 and 2000 without loopback", s.NetRxBytesPerSec, s.NetTxBytesPerSec)
	}
	if s.UptimeSeconds != 3600.25 || s.Load1 != 0.75 {
		t.Errorf("uptime %v, load %v", s.UptimeSeconds, s.Load1)
	}
	if s.TemperatureC == nil || *s.TemperatureC != 48.25 {
		t.Errorf("temperature %v, want 48.25", s.TemperatureC)
	}
	if s.BatteryPercent == nil || *s.BatteryPercent != 81 {
		t.Errorf("battery %v, want 81", s.BatteryPercent)
	}
}

func TestMissingSensorsAreNil(t *testing.T) {
	m := newMachine(t)
	s := m.sample(m.reader(start), start.Add(time.Second))
	if s.TemperatureC != nil || s.BatteryPercent != nil {
		t.Fatalf("a machine without sensors gave %v °C and %v %%", s.TemperatureC, s.BatteryPercent)
	}
}

func TestRatesNeedHalfASecond(t *testing.T) {
	m := newMachine(t)
	r := m.reader(start)
	m.cpu(200, 900)
	if s := m.sample(r, start.Add(minGap-time.Millisecond)); s.CPUPercent != 0 {
		t.Fatalf("cpu %v %% after less than half a second, want none yet", s.CPUPercent)
	}
	m.cpu(200, 1000)
	if s := m.sample(r, start.Add(minGap)); math.Abs(s.CPUPercent-50) > 0.01 {
		t.Fatalf("cpu %v %%, want 50 over the whole time since start", s.CPUPercent)
	}
	// Asked again at once, it repeats what it knows.
	if s := m.sample(r, start.Add(minGap+time.Millisecond)); math.Abs(s.CPUPercent-50) > 0.01 {
		t.Fatalf("cpu %v %% a millisecond later, want 50 still", s.CPUPercent)
	}
	// The wall clock is set back an hour: carry on from there.
	m.sample(r, start.Add(-time.Hour))
	m.cpu(200, 1100)
	if s := m.sample(r, start.Add(-time.Hour+time.Second)); s.CPUPercent != 0 {
		t.Fatalf("cpu %v %% of an idle second after a clock step, want 0", s.CPUPercent)
	}
}

func TestInterfacesThatComeGoOrRestartMakeNoBurst(t *testing.T) {
	m := newMachine(t)
	m.net("eth0", 1000, 1000, "wlan0", 9000, 9000, "usb0", 5, 5)
	r := m.reader(start)
	m.net("eth0", 1500, 1200, "wlan0", 10, 10, "vpn0", 1_000_000, 1_000_000) // wlan0 reset, usb0 gone, vpn0 new
	s := m.sample(r, start.Add(time.Second))
	if s.NetRxBytesPerSec != 500 || s.NetTxBytesPerSec != 200 {
		t.Fatalf("network %v in, %v out; want eth0's 500 and 200 alone", s.NetRxBytesPerSec, s.NetTxBytesPerSec)
	}
}

func TestTemperatureIsTheHottestPlausibleBoardSensor(t *testing.T) {
	m := newMachine(t)
	zone := func(n int, kind, milli string) {
		m.write(fmt.Sprintf("sys/class/thermal/thermal_zone%d/type", n), kind)
		m.write(fmt.Sprintf("sys/class/thermal/thermal_zone%d/temp", n), milli)
	}
	zone(0, "cpu-thermal", "41000")
	zone(1, "iwlwifi_1", "99000")     // a radio
	zone(2, "gpu-thermal", "-273000") // not connected
	zone(3, "broken", "not a number")
	m.write("sys/class/hwmon/hwmon0/name", "coretemp\n")
	m.write("sys/class/hwmon/hwmon0/temp1_input", "44500\n")
	m.write("sys/class/hwmon/hwmon0/temp2_input", "255000\n")
	m.write("sys/class/hwmon/hwmon1/name", "nvme\n")
	m.write("sys/class/hwmon/hwmon1/temp1_input", "70000\n")
	s := m.sample(m.reader(start), start)
	if s.TemperatureC == nil || *s.TemperatureC != 44.5 {
		t.Fatalf("temperature %v, want coretemp's 44.5", s.TemperatureC)
	}
}

func TestBatteries(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"mean of two, one by energy": {map[string]string{
			"BAT0/type": "Battery", "BAT0/capacity": "80",
			"BAT1/type": "Battery", "BAT1/energy_now": "300", "BAT1/energy_full": "600"}, 65},
		"charge counter over full":    {map[string]string{"b/type": "Battery", "b/charge_now": "110", "b/charge_full": "100"}, 100},
		"a mouse is no robot battery": {map[string]string{"hid/type": "Battery", "hid/scope": "Device", "hid/capacity": "50"}, -1},
		"mains":                       {map[string]string{"AC/type": "Mains", "AC/online": "1"}, -1},
		"empty bay":                   {map[string]string{"b/type": "Battery", "b/present": "0", "b/capacity": "0"}, -1},
		"unreadable":                  {map[string]string{"b/type": "Battery", "b/capacity": "?"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			for path, text := range c.files {
				m.write("sys/class/power_supply/"+path, text+"\n")
			}
			got := m.sample(m.reader(start), start).BatteryPercent
			if c.want < 0 && got != nil || c.want >= 0 && (got == nil || *got != c.want) {
				t.Fatalf("battery %v, want %v", got, c.want)
			}
		})
	}
}

func TestSensorsAreFoundAgainEveryMinute(t *testing.T) {
	m := newMachine(t)
	r := m.reader(start)
	m.sample(r, start)
	m.write("sys/class/power_supply/BAT0/type", "Battery")
	m.write("sys/class/power_supply/BAT0/capacity", "7")
	if m.sample(r, start.Add(rescanEvery-time.Second)).BatteryPercent != nil {
		t.Fatal("the directories were walked again within the minute")
	}
	if m.sample(r, start.Add(rescanEvery)).BatteryPercent == nil {
		t.Fatal("a battery plugged in a minute ago is still not seen")
	}
}

func TestAFailingSourceLeavesTheOthers(t *testing.T) {
	m := newMachine(t)
	r := m.reader(start)
	m.write("proc/meminfo", "nonsense\n")
	if err := os.Remove(filepath.Join(m.root, "proc/loadavg")); err != nil {
		t.Fatal(err)
	}
	m.cpu(150, 950)
	s, err := r.Sample(start.Add(time.Second))
	if err == nil || !strings.Contains(err.Error(), "memory") || !strings.Contains(err.Error(), "load") {
		t.Fatalf("error %v does not name both sources", err)
	}
	if s.MemTotalBytes != 0 || s.Load1 != 0 || s.CPUPercent != 50 || s.UptimeSeconds == 0 {
		t.Fatalf("sample %+v", s)
	}
}

func TestNoProc(t *testing.T) {
	if _, err := New(Config{Root: filepath.Join(t.TempDir(), "nothing")}, start); err == nil {
		t.Fatal("opened telemetry without /proc")
	}
}

func TestThisMachine(t *testing.T) {
	now := time.Now()
	r, err := New(Config{DataDir: t.TempDir()}, now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Sample(now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if s.MemTotalBytes < 16<<20 || s.MemUsedBytes == 0 || s.MemUsedBytes >= s.MemTotalBytes ||
		s.DiskTotalBytes == 0 || s.UptimeSeconds <= 0 || s.CPUPercent < 0 || s.CPUPercent > 100 {
		t.Fatalf("implausible sample of this machine: %+v", s)
	}
}

func BenchmarkSampleThisMachine(b *testing.B) {
	r, err := New(Config{DataDir: b.TempDir()}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.Sample(time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
