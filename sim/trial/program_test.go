package trial

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skein/sim/rig"
)

// outcome is what a command of the program said in the end.
type outcome struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// bench is a folder on this machine for programs that need no LAN: everything
// on loopback, every port free.
type bench struct {
	t     testing.TB
	skein string
	// dir is the folder, where commands run.
	dir string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	return &bench{t: t, skein: rig.Skein(t), dir: t.TempDir()}
}

// on is the same folder for a subtest.
func (b *bench) on(t testing.TB) *bench { return &bench{t: t, skein: b.skein, dir: b.dir} }

// program prepares the program to run in the folder, ended with the test.
func (b *bench) program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.skein, args...)
	cmd.Dir = b.dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "SKEIN_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a command to its end; one that takes longer than limit fails the test.
func (b *bench) run(limit time.Duration, args ...string) outcome {
	b.t.Helper()
	out, err := b.try(limit, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// try is run for goroutines other than the test's.
func (b *bench) try(limit time.Duration, args ...string) (outcome, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	cmd := b.program(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	out := outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(start)}
	if ctx.Err() != nil {
		return out, fmt.Errorf("skein %s did not end within %s: %s", strings.Join(args, " "), limit, out.stderr)
	}
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return out, err
	}
	return out, nil
}

// must runs a command that must succeed and returns what it printed.
func (b *bench) must(args ...string) string {
	b.t.Helper()
	out := b.run(settle, args...)
	if out.code != 0 {
		b.t.Fatalf("skein %s: exit code %d: %s", strings.Join(args, " "), out.code, out.stderr)
	}
	return out.stdout
}

// path is a path in the folder.
func (b *bench) path(name ...string) string {
	return filepath.Join(append([]string{b.dir}, name...)...)
}

func (b *bench) write(name, content string) string {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return b.path(name)
}

// settings is a configuration for loopback with free ports, and more lines at
// its top.
func (b *bench) settings(name string, more ...string) string {
	b.t.Helper()
	top := strings.Join(more, "\n")
	if !strings.Contains(top, "http =") {
		top += "\nhttp = \"127.0.0.1:0\""
	}
	return b.write(name, top+"\n[mesh]\nloopback = true\nlink_port = 0\ngossip_port = 0\n")
}

// daemon is a node that runs in the background.
type daemon struct {
	t      testing.TB
	cmd    *exec.Cmd
	done   chan struct{}
	mu     sync.Mutex
	stderr bytes.Buffer
}

// Write takes what the node logs.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.Write(p)
}

func (d *daemon) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.String()
}

// start runs a command in the background until the test ends.
func (b *bench) start(args ...string) *daemon {
	b.t.Helper()
	// Its end is kill or the clean-up, which must see the node stop by itself.
	d := &daemon{t: b.t, cmd: b.program(context.Background(), args...), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d, d
	if err := d.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // the result is in ProcessState
	}()
	b.t.Cleanup(func() {
		d.stop()
		if b.t.Failed() {
			b.t.Logf("skein %s:\n%s", strings.Join(args, " "), d.log())
		}
	})
	return d
}

// stop asks the node to end and waits.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-d.done:
	case <-time.After(settle):
		_ = d.cmd.Process.Kill()
		d.t.Errorf("the node did not stop within %s of SIGTERM", settle)
	}
}

// kill ends the node as a power cut would.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// await waits until the node of a data directory says that it is ready.
func (b *bench) await(data string) {
	b.t.Helper()
	rig.Wait(b.t, settle, data+" answers and knows a leader", func() error {
		out, err := b.try(settle, "status", "--data", b.path(data))
		if err == nil && out.code != 0 {
			err = errors.New(out.stderr)
		}
		return err
	})
}

// complains checks how a command failed: with code, with nothing on standard
// output, with exactly one line besides the log on standard error, and with
// each of words in that line. It must name a next step: after a semicolon, or a
// command or setting to type.
func complains(t testing.TB, out outcome, code int, words ...string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(out.stderr) {
		if !strings.HasPrefix(line, "time=") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "skein: ") {
		t.Fatalf("want one line on standard error that starts with \"skein: \", got %d:\n%s", len(lines), out.stderr)
	}
	if out.code != code {
		t.Errorf("exit code %d, want %d: %s", out.code, code, lines[0])
	}
	if out.stdout != "" {
		t.Errorf("standard output of a failed command: %q", out.stdout)
	}
	if !strings.Contains(lines[0], "; ") && !strings.Contains(lines[0], "`") {
		t.Errorf("does not say what to do: %s", lines[0])
	}
	for _, word := range words {
		if !strings.Contains(lines[0], word) {
			t.Errorf("does not say %q: %s", word, lines[0])
		}
	}
}

// contents is a digest of every file under dir, by path, without those named.
// A start counts itself and takes a lock; those are no damage.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := entry.Info()
		if err != nil || name == "lock" || name == "boots" || name == "." {
			return err
		}
		digest := ""
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			digest = fmt.Sprintf("%x", sha256.Sum256(text))
		}
		out[name] = info.Mode().String() + digest
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unharmed fails the test for every file that is not as it was.
func unharmed(t testing.TB, before, after map[string]string) {
	t.Helper()
	for name, digest := range before {
		if after[name] != digest {
			t.Errorf("%s was changed or removed", name)
		}
	}
}

// unchanged is unharmed, and nothing new besides.
func unchanged(t testing.TB, before, after map[string]string) {
	t.Helper()
	unharmed(t, before, after)
	for name := range after {
		if _, there := before[name]; !there {
			t.Errorf("%s was made", name)
		}
	}
}

// occupied is a port of loopback that somebody listens on.
func occupied(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
