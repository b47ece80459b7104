package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopLimit is how long a program may take to end by itself.
const stopLimit = 15 * time.Second

// haltLimit is how long a process may take to stand still, and haltPoll how often it
// is looked at.
const (
	haltLimit = 5 * time.Second
	haltPoll  = 200 * time.Microsecond
)

// epitaphBytes is how much of a log's end is shown when a test fails.
const epitaphBytes = 8 << 10

// Process is a program that runs on a host.
type Process struct {
	host    *Host
	command string
	log     string
	cmd     *exec.Cmd
	done    chan struct{}
}

// Start runs a program on the host until it ends, Kill or Stop ends it, or the
// test is over. Its output goes to a log that is shown if the test fails, and
// kept by `go test -artifacts`.
func (h *Host) Start(program string, args ...string) *Process {
	h.rig.t.Helper()
	p := &Process{
		host:    h,
		command: strings.Join(append([]string{filepath.Base(program)}, args...), " "),
		// The rig ends its processes itself, after the test's context is over.
		cmd:  h.command(context.Background(), program, args),
		done: make(chan struct{}),
	}
	log, err := h.newLog(filepath.Base(program))
	if err != nil {
		h.rig.t.Fatalf("rig: log of %s: %v", p.command, err)
	}
	defer log.Close()
	p.log = log.Name()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := h.rig.spawner.start(p.cmd); err != nil {
		h.rig.t.Fatalf("rig: host %s: start %s: %v", h.Name, p.command, err)
	}
	h.processes = append(h.processes, p)
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the result is in ProcessState
	}()
	return p
}

// newLog makes the next log file of the host, under the test's artifacts.
func (h *Host) newLog(program string) (*os.File, error) {
	dir := filepath.Join(h.rig.t.ArtifactDir(), "rig-"+h.rig.claim.id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s-%d-%s.log", h.Name, len(h.processes)+1, program)
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
}

// Kill ends every process of the host with SIGKILL: no goodbye, nothing flushed.
// It returns when they are gone. The host itself stays on the LAN.
func (h *Host) Kill() {
	h.rig.t.Helper()
	for _, p := range h.processes {
		p.Kill()
	}
}

// Stop asks every process of the host to end (SIGTERM) and waits for each; one
// that takes longer than 15 s fails the test.
func (h *Host) Stop() {
	h.rig.t.Helper()
	for _, p := range h.processes {
		p.Stop()
	}
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (p *Process) Kill() {
	p.host.rig.t.Helper()
	if !p.end() {
		p.host.rig.t.Fatalf("rig: %s on host %s does not die", p.command, p.host.Name)
	}
}

// Stop sends SIGTERM and waits until the process has ended, at most 15 s. It
// returns the exit code; a process that had ended before is no fault.
func (p *Process) Stop() int {
	p.host.rig.t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		p.host.rig.t.Fatalf("rig: %s on host %s did not stop within %v of SIGTERM", p.command, p.host.Name, stopLimit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal, such as SIGSTOP to pause and SIGCONT to go on. A
// process that has ended ignores it.
func (p *Process) Signal(signal syscall.Signal) {
	p.host.rig.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.host.rig.t.Fatalf("rig: signal %s on host %s: %v", p.command, p.host.Name, err)
	}
}

// awaitHalt returns when no thread runs any more after SIGSTOP. One that is within a
// system call (D) may end that, and stops before it is back in the program.
func (p *Process) awaitHalt() error {
	for deadline := time.Now().Add(haltLimit); ; time.Sleep(haltPoll) {
		running, err := p.running()
		switch {
		case err != nil || !running:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%s does not stand still within %v of SIGSTOP", p.command, haltLimit)
		}
	}
}

// running reports whether a thread of the process is in the program, or may be soon.
func (p *Process) running() (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid()))
	if err != nil || p.Ended() { // asked after the look: the id may be another's then
		return false, err
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return false, err
		}
		_, state, found := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		if !found || !strings.ContainsAny(state[:1], "TtDZX") {
			return true, nil
		}
	}
	return false, nil
}

// Pid is the process id of the program itself.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ExitCode is the program's exit code; -1 while it runs and when a signal ended it.
func (p *Process) ExitCode() int {
	if !p.Ended() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// Log is everything the process has written so far, both streams in one.
func (p *Process) Log() string {
	p.host.rig.t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.host.rig.t.Fatalf("rig: log of %s: %v", p.command, err)
	}
	return string(text)
}

// end kills the process, also a stopped one, and reports whether it is gone.
func (p *Process) end() bool {
	_ = p.cmd.Process.Kill() // fails only when it has ended
	select {
	case <-p.done:
		return true
	case <-time.After(endLimit):
		return false
	}
}

// epitaph says how a process ended and shows the end of its log.
func (p *Process) epitaph() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("host %s: %s: %v", p.host.Name, p.command, err)
	}
	cut := ""
	if len(text) > epitaphBytes {
		text, cut = text[len(text)-epitaphBytes:], "…"
	}
	return fmt.Sprintf("host %s: %s: %v\n%s%s", p.host.Name, p.command, p.cmd.ProcessState, cut, text)
}

// spawner starts processes from one thread that lives as long as the rig. Linux
// sends a child its death signal when the *thread* that started it ends, so the
// children of a test that is killed die with it, and only then.
type spawner struct {
	requests chan func()
	ended    chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		runtime.LockOSThread() // never unlocked: the thread ends here
		for request := range s.requests {
			request()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	result := make(chan error, 1)
	s.requests <- func() { result <- cmd.Start() }
	return <-result
}

func (s *spawner) close() {
	close(s.requests)
	<-s.ended
}
