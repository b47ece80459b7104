package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Injection is strace at work on a process.
type Injection struct {
	host  *Host
	trace string
	cmd   *exec.Cmd // nil: it ends with the program
	done  chan struct{}
}

// StartInjected starts a program under strace, which tampers with its system
// calls as rules say, in strace's own words: "fsync,fdatasync:error=EIO:when=3",
// "pwrite64:delay_enter=200000" (microseconds), "renameat:signal=SIGKILL:when=7".
// strace counts "when" for each thread on its own. The process is the program
// itself: its id, its end and its log are the program's.
func (h *Host) StartInjected(rules []string, program string, args ...string) (*Process, *Injection) {
	h.rig.t.Helper()
	needStrace(h.rig.t)
	i := &Injection{host: h, trace: h.traceFile()}
	words := []string{"-D", "-f", "-o", i.trace} // -D: strace is the grandchild
	if !slices.ContainsFunc(rules, func(rule string) bool { return strings.Contains(rule, ":signal=") }) {
		// With a filter in the kernel only the calls in question stop, so the
		// program is as fast as ever otherwise. Signals cannot be sent from there.
		words = append(words, "--seccomp-bpf")
	}
	words = append(words, straceRules(rules)...)
	return h.Start("strace", append(append(words, program), args...)...), i
}

// Inject attaches strace to a process that runs. It returns when the process is
// under its hand; every system call is slower until Stop.
func (p *Process) Inject(rules ...string) *Injection {
	t := p.host.rig.t
	t.Helper()
	needStrace(t)
	i := &Injection{host: p.host, trace: p.host.traceFile(), done: make(chan struct{})}
	words := append([]string{"-f", "-o", i.trace, "-p", fmt.Sprint(p.Pid())}, straceRules(rules)...)
	i.cmd = exec.CommandContext(context.Background(), "strace", words...)
	said, err := os.Create(i.trace + ".said")
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	defer said.Close()
	i.cmd.Stderr = said
	if err := p.host.rig.spawner.start(i.cmd); err != nil {
		t.Fatalf("rig: host %s: start strace: %v", p.host.Name, err)
	}
	p.host.injections = append(p.host.injections, i)
	go func() {
		defer close(i.done)
		_ = i.cmd.Wait() // it ends when the process does, or by Stop
	}()
	Wait(t, stopLimit, "strace holds "+p.command, func() error {
		text, err := os.ReadFile(said.Name())
		if err != nil || !strings.Contains(string(text), "attached") {
			return errors.Join(err, fmt.Errorf("strace said %q", text))
		}
		return nil
	})
	return i
}

// Stop lets the process go on as before. It is harmless when that has ended.
func (i *Injection) Stop() {
	i.host.rig.t.Helper()
	if !i.stop() {
		i.host.rig.t.Fatalf("rig: host %s: strace does not let go", i.host.Name)
	}
}

func (i *Injection) stop() bool {
	if i.cmd == nil {
		return true
	}
	_ = i.cmd.Process.Signal(syscall.SIGINT) // fails only when it has ended
	select {
	case <-i.done:
		return true
	case <-time.After(endLimit):
		_ = i.cmd.Process.Kill()
		return false
	}
}

// Hits is how many system calls failed or were delayed so far. strace may write of
// one a moment after the program felt it.
func (i *Injection) Hits() int {
	i.host.rig.t.Helper()
	text, err := os.ReadFile(i.trace)
	if err != nil {
		i.host.rig.t.Fatalf("rig: host %s: what strace wrote: %v", i.host.Name, err)
	}
	return strings.Count(string(text), "(INJECTED)") + strings.Count(string(text), "(DELAYED)")
}

// Trace is what strace wrote, for the log of a failed test.
func (i *Injection) Trace() string {
	text, err := os.ReadFile(i.trace)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-epitaphBytes):])
}

// straceRules are the arguments for rules: trace exactly the calls that are
// tampered with.
func straceRules(rules []string) []string {
	var calls, args []string
	for _, rule := range rules {
		set, _, _ := strings.Cut(rule, ":")
		calls = append(calls, set)
		args = append(args, "-e", "inject="+rule)
	}
	return append([]string{"-e", "trace=" + strings.Join(calls, ",")}, args...)
}

// traceFile is a new name for what strace writes.
func (h *Host) traceFile() string {
	h.traces++
	return filepath.Join(h.Dir, fmt.Sprintf("strace-%d", h.traces))
}

func needStrace(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		unavailable(t, "needs strace (Debian package strace)")
	}
}
