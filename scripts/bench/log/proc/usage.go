package proc

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Usage is what a process takes of the machine.
type Usage struct {
	// RSS and Anonymous are its resident memory, all of it and the part that no
	// file is behind, in bytes.
	RSS, Anonymous int64
	// CPU is the processor time it has used since its start, to 10 ms.
	CPU time.Duration
}

// clockTick is the unit of processor time in /proc, which Linux fixes for
// everything it shows to programs.
const clockTick = 10 * time.Millisecond

// UsageOf reads the usage of a process from /proc, so on Linux only.
func UsageOf(pid int) (Usage, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	for line := range strings.Lines(string(status)) {
		for name, into := range map[string]*int64{"VmRSS:": &u.RSS, "RssAnon:": &u.Anonymous} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				if _, err := fmt.Sscan(rest, into); err != nil {
					return Usage{}, fmt.Errorf("memory of process %d: %w", pid, err)
				}
				*into <<= 10
			}
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The second field, a name in brackets, may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if len(fields) < 13 {
		return Usage{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return Usage{}, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	u.CPU = time.Duration(user+system) * clockTick
	return u, nil
}
