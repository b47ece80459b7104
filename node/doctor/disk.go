package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	mib = 1 << 20
	// A follower keeps the state and a 16 MB tail, a voter its history too.
	diskFailBytes = 64 * mib
	diskWarnBytes = 512 * mib
	// The election timeout is about 300 ms and a voter fsyncs before it
	// answers: near 200 ms it would be taken for dead.
	fsyncFail = 200 * time.Millisecond
	fsyncWarn = 20 * time.Millisecond
	// fsyncRounds of fsyncBytes: about what one event costs.
	fsyncRounds = 20
	fsyncBytes  = 256
	// A node should stay below 50 MB resident.
	memoryFailBytes = 48 * mib
	memoryWarnBytes = 128 * mib
)

// Space is the room in one file system.
type Space struct {
	FreeBytes, TotalBytes uint64
	// Volatile: it is kept in memory and lost at a restart (tmpfs).
	Volatile bool
}

func checkDisk(m Machine, data string) []Check {
	if data == "" {
		return []Check{{"disk.space", Skip, "no data directory was named", "skein doctor --data DIR"}}
	}
	dir := nearestDirectory(data)
	space, err := m.Space(dir)
	checks := []Check{checkSpace(dir, space, err)}
	took, err := measureFsync(dir)
	if err != nil {
		return append(checks, notWritable(data, dir, err))
	}
	checks = append(checks, Check{"disk.writable", OK, dir + " can be written", ""})
	return append(checks, judgeFsync(dir, took))
}

// nearestDirectory is data itself or the closest parent that exists, which is
// where data would be made.
func nearestDirectory(data string) string {
	dir := filepath.Clean(data)
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return dir
		}
		dir = parent
	}
}

func checkSpace(dir string, s Space, err error) Check {
	const name = "disk.space"
	if err != nil {
		return Check{name, Fail, fmt.Sprintf("cannot ask the file system of %s: %v", dir, err), "df -h " + dir}
	}
	found := fmt.Sprintf("%d MB free of %d MB in %s", s.FreeBytes/mib, s.TotalBytes/mib, dir)
	fix := fmt.Sprintf("sudo du -xh %s | sort -h | tail -20 shows what fills it", dir)
	switch {
	case s.FreeBytes < diskFailBytes:
		return Check{name, Fail, found, fix}
	case s.Volatile:
		return Check{name, Warn, found + ", but it is kept in memory: a restart forgets keys and log", "skein run --data DIR on a real disk"}
	case s.FreeBytes < diskWarnBytes:
		return Check{name, Warn, found, fix}
	}
	return Check{name, OK, found, ""}
}

func notWritable(data, dir string, err error) Check {
	const name = "disk.writable"
	switch {
	case errors.Is(err, fs.ErrPermission) && dir != filepath.Clean(data):
		return Check{name, Fail, fmt.Sprintf("%s does not exist and this user may not make it", data),
			fmt.Sprintf("sudo install -d -m 700 -o \"$(id -un)\" %s", data)}
	case errors.Is(err, fs.ErrPermission):
		return Check{name, Fail, fmt.Sprintf("this user may not write in %s", dir),
			"run this as the user that runs skein, for example: sudo skein doctor"}
	}
	return Check{name, Fail, fmt.Sprintf("cannot write in %s: %v", dir, err), "sudo dmesg | tail; findmnt -T " + dir}
}

// measureFsync appends to a temporary file as the log does and returns how
// long each fsync took, sorted. It removes the file again.
func measureFsync(dir string) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".skein-doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, fsyncBytes)
	for range fsyncRounds {
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took, nil
}

func judgeFsync(dir string, took []time.Duration) Check {
	const name = "disk.fsync"
	middle, worst := took[len(took)/2], took[len(took)-1]
	found := fmt.Sprintf("%d fsyncs took %s each (median), %s at worst", len(took), short(middle), short(worst))
	fix := fmt.Sprintf("keep this robot a follower (skein node withdraw ROBOT), or move %s to a faster disk", dir)
	switch {
	case middle > fsyncFail:
		return Check{name, Fail, found + ": too slow for a voter", fix}
	case middle > fsyncWarn || worst > fsyncFail:
		return Check{name, Warn, found + ": slow for a voter", fix}
	}
	return Check{name, OK, found, ""}
}

func short(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// Memory is what /proc/meminfo says.
type Memory struct{ AvailableBytes, TotalBytes uint64 }

func checkMemory(m Memory, err error) Check {
	const name = "memory"
	if err != nil {
		return Check{name, Skip, fmt.Sprintf("cannot read the memory figures: %v", err), "free -m"}
	}
	found := fmt.Sprintf("%d MB available of %d MB", m.AvailableBytes/mib, m.TotalBytes/mib)
	const fix = "ps -eo rss,comm --sort -rss | head shows what uses it"
	switch {
	case m.AvailableBytes < memoryFailBytes:
		return Check{name, Fail, found + ": a node needs 50 MB", fix}
	case m.AvailableBytes < memoryWarnBytes:
		return Check{name, Warn, found, fix}
	}
	return Check{name, OK, found, ""}
}
