package telemetry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// minGap is the least time between two looks that gives honest rates: the
// kernel counts processor time in ticks of 10 ms. A sample taken sooner repeats
// the rates before.
const minGap = 500 * time.Millisecond

// Config says where to read.
type Config struct {
	// Root holds proc and sys; "" is "/". Tests use a fixture tree.
	Root string
	// DataDir is the directory whose file system's fill level is reported.
	DataDir string
}

// Reader takes samples. It remembers the counters of the look before, because
// CPU and network are rates. Not safe for concurrent use.
type Reader struct {
	proc    procfs.FS
	root    string
	dataDir string
	sensors sensors

	// base is the look that the next rates are differences to; rates are those
	// found last.
	base  counters
	rates rates
}

// counters is what the kernel counts up since boot.
type counters struct {
	at  time.Time
	cpu cpuTime
	net procfs.NetDev
}

// cpuTime is processor time in seconds over all processors.
type cpuTime struct{ busy, all float64 }

type rates struct{ cpuPercent, rxPerSec, txPerSec float64 }

// New opens the sources and takes the first look at the counters, so that a
// sample half a second later already has rates. It fails only if there is no
// proc file system at all.
func New(cfg Config, now time.Time) (*Reader, error) {
	root := cfg.Root
	if root == "" {
		root = "/"
	}
	proc, err := procfs.NewFS(filepath.Join(root, "proc"))
	if err != nil {
		return nil, fmt.Errorf("open telemetry sources: %w; is /proc mounted?", err)
	}
	r := &Reader{proc: proc, root: root, dataDir: cfg.DataDir, sensors: sensors{sys: filepath.Join(root, "sys")}}
	// A source that cannot be read now is reported by the first sample.
	r.base, _ = r.count(now)
	return r, nil
}

// Sample looks at the machine. The sample is good even when err is not nil:
// err joins the sources that could not be read, whose figures are zero or nil.
func (r *Reader) Sample(now time.Time) (Sample, error) {
	var s Sample
	next, err := r.count(now)
	if gap := next.at.Sub(r.base.at); gap >= minGap {
		r.rates = rates{cpuPercent: cpuPercent(r.base.cpu, next.cpu)}
		r.rates.rxPerSec, r.rates.txPerSec = netRates(r.base.net, next.net, gap.Seconds())
		r.base = next
	} else if gap < 0 { // the wall clock was set back and now carries no monotonic time
		r.base = next
	}
	s.CPUPercent = r.rates.cpuPercent
	s.NetRxBytesPerSec, s.NetTxBytesPerSec = r.rates.rxPerSec, r.rates.txPerSec
	err = errors.Join(err, r.readMemory(&s), r.readDisk(&s), r.readLoad(&s), r.readUptime(&s))
	s.TemperatureC = r.sensors.temperature(now)
	s.BatteryPercent = r.sensors.battery(now)
	return s, err
}

func (r *Reader) count(now time.Time) (counters, error) {
	c := counters{at: now}
	stat, cpuErr := r.proc.Stat()
	if cpuErr != nil {
		cpuErr = fmt.Errorf("read processor times: %w", cpuErr)
	}
	t := stat.CPUTotal
	// Guest time is already part of user time.
	c.cpu.busy = t.User + t.Nice + t.System + t.IRQ + t.SoftIRQ + t.Steal
	c.cpu.all = c.cpu.busy + t.Idle + t.Iowait
	net, netErr := r.proc.NetDev()
	if netErr != nil {
		netErr = fmt.Errorf("read network counters: %w", netErr)
	}
	c.net = net
	return c, errors.Join(cpuErr, netErr)
}

// cpuPercent is 0 when either look failed. Idle time runs backwards on some
// kernels; the result stays a share.
func cpuPercent(prev, next cpuTime) float64 {
	all := next.all - prev.all
	if prev.all == 0 || all <= 0 {
		return 0
	}
	return min(100, max(0, 100*(next.busy-prev.busy)/all))
}

// netRates sums the growth of each interface that was there at both looks, so
// that one that appears, goes away or is reset makes no false burst.
func netRates(prev, next procfs.NetDev, seconds float64) (rxPerSec, txPerSec float64) {
	for name, n := range next {
		p, ok := prev[name]
		if name == "lo" || !ok || n.RxBytes < p.RxBytes || n.TxBytes < p.TxBytes {
			continue
		}
		rxPerSec += float64(n.RxBytes-p.RxBytes) / seconds
		txPerSec += float64(n.TxBytes-p.TxBytes) / seconds
	}
	return rxPerSec, txPerSec
}

func (r *Reader) readMemory(s *Sample) error {
	m, err := r.proc.Meminfo()
	if err != nil {
		return fmt.Errorf("read memory: %w", err)
	}
	if m.MemTotalBytes == nil || m.MemAvailableBytes == nil {
		return errors.New("read memory: /proc/meminfo has no MemTotal or no MemAvailable")
	}
	s.MemTotalBytes = *m.MemTotalBytes
	s.MemUsedBytes = s.MemTotalBytes - min(*m.MemAvailableBytes, s.MemTotalBytes)
	return nil
}

func (r *Reader) readDisk(s *Sample) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.dataDir, &fs); err != nil {
		return fmt.Errorf("read fill level of %s: %w", r.dataDir, err)
	}
	block := uint64(fs.Bsize)
	s.DiskTotalBytes = fs.Blocks * block
	s.DiskUsedBytes = (fs.Blocks - min(fs.Bfree, fs.Blocks)) * block
	return nil
}

func (r *Reader) readLoad(s *Sample) error {
	l, err := r.proc.LoadAvg()
	if err != nil {
		return fmt.Errorf("read load: %w", err)
	}
	s.Load1 = l.Load1
	return nil
}

func (r *Reader) readUptime(s *Sample) error {
	text, err := os.ReadFile(filepath.Join(r.root, "proc", "uptime"))
	if err != nil {
		return fmt.Errorf("read uptime: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	if s.UptimeSeconds, err = strconv.ParseFloat(first, 64); err != nil {
		return fmt.Errorf("read uptime: %w", err)
	}
	return nil
}
