package doctor

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what this computer can be asked. Tests give fixtures.
type Machine struct {
	Now func() time.Time
	// BuiltAt is when the program's sources were committed; zero if unknown.
	BuiltAt   time.Time
	ClockSync func() (ClockSync, error)
	Memory    func() (Memory, error)
	Space     func(dir string) (Space, error)
}

// ThisMachine asks the Linux machine that we run on.
func ThisMachine() Machine {
	return Machine{
		Now:       time.Now,
		BuiltAt:   builtAt(),
		ClockSync: kernelClock,
		Memory:    readMemory,
		Space:     statSpace,
	}
}

func builtAt() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// kernelClock reads adjtimex(2) without changing anything (modes = 0).
func kernelClock() (ClockSync, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return ClockSync{}, fmt.Errorf("adjtimex: %w", err)
	}
	return ClockSync{
		Synchronised:   state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		MaxErrorMillis: int64(t.Maxerror) / 1000,
	}, nil
}

func statSpace(dir string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Space{}, err
	}
	block := uint64(s.Bsize)
	return Space{
		FreeBytes:  s.Bavail * block,
		TotalBytes: s.Blocks * block,
		Volatile:   int64(s.Type) == unix.TMPFS_MAGIC || int64(s.Type) == unix.RAMFS_MAGIC,
	}, nil
}

func readMemory() (Memory, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return Memory{}, err
	}
	defer f.Close()
	return parseMemory(f)
}

// parseMemory reads the two lines we need of proc_meminfo(5), given in KiB.
func parseMemory(r io.Reader) (Memory, error) {
	var m Memory
	lines := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for lines.Scan() {
		key, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok || key != "MemTotal" && key != "MemAvailable" {
			continue
		}
		kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("%s in /proc/meminfo: %w", key, err)
		}
		if key == "MemTotal" {
			m.TotalBytes = kib << 10
		} else {
			m.AvailableBytes = kib << 10
		}
	}
	if err := lines.Err(); err != nil {
		return Memory{}, err
	}
	if m.TotalBytes == 0 || m.AvailableBytes == 0 {
		return Memory{}, fmt.Errorf("/proc/meminfo lacks MemTotal or MemAvailable")
	}
	return m, nil
}
