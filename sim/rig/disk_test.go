package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const testDisk = 32 << 20

func TestPowerCutLosesWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	r := New(t, 3)
	cut, spared := r.Hosts[:2], r.Hosts[2]
	var disks []*Disk
	for _, h := range r.Hosts {
		disks = append(disks, h.Disk("data", testDisk))
	}
	bystander := spared.Start("sleep", "65") // has copies of all mounts
	for round := range 3 {
		for i, h := range cut {
			d := disks[i]
			p := h.Start("sh", "-c", fmt.Sprintf(`cd data; echo synced > synced-%d; sync synced-%d .; echo lost > lost-%d; cat lost-%d; exec sleep 66`, round, round, round, round))
			Wait(t, 5*time.Second, "the file is written", func() error {
				if strings.TrimSpace(p.Log()) != "lost" {
					return ErrNotYet
				}
				return nil
			})
			if _, err := os.Stat(filepath.Join(d.Dir, fmt.Sprintf("lost-%d", round))); err != nil {
				t.Fatal(err)
			}
		}
		r.PowerCut(cut...)
		if _, err := os.Stat(filepath.Join(disks[0].Dir, "synced-0")); err == nil {
			t.Error("the disk is still mounted")
		}
		r.PowerOn(cut...)
		for _, d := range disks[:2] {
			for old := range round + 1 {
				if text, err := os.ReadFile(filepath.Join(d.Dir, fmt.Sprintf("synced-%d", old))); string(text) != "synced\n" {
					t.Errorf("round %d: what was synced in round %d: %q, %v", round, old, text, err)
				}
				if text, _ := os.ReadFile(filepath.Join(d.Dir, fmt.Sprintf("lost-%d", old))); len(text) > 0 {
					t.Errorf("round %d: what was not synced in round %d is there: %q", round, old, text)
				}
			}
		}
	}
	if bystander.Ended() {
		t.Error("a host whose power was not cut has lost its process")
	}
}

func TestFrozenDiskMakesWritersWait(t *testing.T) {
	t.Parallel()
	r := New(t, 1)
	h := r.Hosts[0]
	d := h.Disk("data", testDisk)
	d.Freeze()
	p := h.Start("sh", "-c", "echo before; echo x > data/x; echo after")
	Wait(t, 5*time.Second, "the process waits in the kernel", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
		if err == nil && !strings.Contains(string(stat), ") D ") {
			err = fmt.Errorf("stat is %s", stat)
		}
		return err
	})
	p.Signal(syscall.SIGKILL)
	if p.Ended() {
		t.Error("a process that waits for a frozen disk was killed")
	}
	d.Thaw()
	Wait(t, 5*time.Second, "the process dies after the thaw", func() error {
		if !p.Ended() {
			return ErrNotYet
		}
		return nil
	})
	if p.Log() != "before\n" {
		t.Errorf("it said %q", p.Log())
	}
	d.Freeze() // the clean-up must cope with this
	h.Start("sh", "-c", "echo y > data/y")
}

func TestFullAndBrokenDisk(t *testing.T) {
	t.Parallel()
	r := New(t, 1)
	h := r.Hosts[0]
	d := h.Disk("data", testDisk)
	write := func() error {
		_, err := h.Run("dd", "if=/dev/zero", "of="+filepath.Join(d.Dir, "file"), "bs=1M", "count=2", "conv=fsync")
		return err
	}
	before := d.Free()
	d.Fill(1 << 20)
	if left := d.Free(); left > 1<<20 || left < 512<<10 {
		t.Errorf("%d bytes are left, want 1 MiB at most and nearly that", left)
	}
	if err := write(); err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("writing to a full disk: %v", err)
	}
	d.Fill(0)
	if left := d.Free(); left > 4096 {
		t.Errorf("%d bytes are left on a full disk", left)
	}
	d.Empty()
	if err := write(); err != nil {
		t.Errorf("there is space again: %v", err)
	}
	if left := d.Free(); left < before-(4<<20) {
		t.Errorf("%d bytes are free, were %d", left, before)
	}
	d.Break()
	if err := write(); err == nil || !strings.Contains(err.Error(), "Read-only") {
		t.Errorf("writing to a broken disk: %v", err)
	}
	d.Remount()
	if err := write(); err != nil {
		t.Errorf("writing to a disk that was mounted again: %v", err)
	}
}

func TestInjectedFaults(t *testing.T) {
	t.Parallel()
	r := New(t, 1)
	h := r.Hosts[0]
	d := h.Disk("data", testDisk)
	file := h.WriteFile("file", "x")

	t.Run("an error from the start", func(t *testing.T) {
		p, i := h.StartInjected([]string{"fsync:error=EIO", "fdatasync:error=EIO"}, "sync", file)
		awaitEnd(t, p)
		if p.ExitCode() == 0 || !strings.Contains(p.Log(), "Input/output error") {
			t.Errorf("exit code %d, said %q", p.ExitCode(), p.Log())
		}
		Wait(t, 5*time.Second, "strace says so too", func() error {
			if i.Hits() != 1 {
				return errors.New(i.Trace())
			}
			return nil
		})
	})
	t.Run("killed at the second write", func(t *testing.T) {
		p, i := h.StartInjected([]string{"write:signal=SIGKILL:when=2"}, "dd", "if=/dev/zero", "of="+filepath.Join(d.Dir, "zero"), "bs=4k", "count=3")
		awaitEnd(t, p)
		if p.ExitCode() != -1 {
			t.Errorf("exit code %d, trace:\n%s", p.ExitCode(), i.Trace())
		}
		if info, err := os.Stat(filepath.Join(d.Dir, "zero")); err != nil || info.Size() > 2*4096 {
			t.Errorf("what it wrote: %v, %v", info, err)
		}
	})
	t.Run("attached to a process that runs, and let go", func(t *testing.T) {
		p := h.Start("sh", "-c", "while :; do sync "+file+" 2>/dev/null && echo fine || echo bad; sleep 0.02; done")
		says := func(what string) {
			t.Helper()
			from := len(p.Log())
			Wait(t, 10*time.Second, "it says "+what, func() error {
				lines := strings.Fields(p.Log()[from:])
				if len(lines) < 3 || lines[len(lines)-1] != what {
					return fmt.Errorf("said %v", lines)
				}
				return nil
			})
		}
		says("fine")
		i := p.Inject("fsync,fdatasync:error=EIO")
		says("bad")
		i.Stop()
		says("fine")
		if i.Hits() == 0 {
			t.Error("nothing was tampered with")
		}
		p.Kill()
	})
}

func awaitEnd(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not end; said %q", p.command, p.Log())
	}
}

func TestDiskOfAbsurdSizeIsRefused(t *testing.T) {
	t.Parallel()
	for _, bytes := range []int64{-1, 0, MinDiskBytes - 1, MaxDiskBytes + 1} {
		err := Script("makes a disk", func(t testing.TB) { New(t, 1).Hosts[0].Disk("data", bytes) })
		if err == nil || !strings.Contains(err.Error(), "bytes; use a short name") {
			t.Errorf("%d bytes: %v", bytes, err)
		}
	}
}

func TestParseMounts(t *testing.T) {
	const text = `70 1 254:0 /tmp/rig /tmp/rig rw shared:1 - ext4 /dev/vda rw
71 70 7:0 / /tmp/rig/h1/data rw shared:2 - ext4 /dev/loop0 rw
72 1 7:1 / /tmp/rig2/data rw - ext4 /dev/loop1 rw
short
`
	if got := strings.Join(parseMounts(text, "/tmp/rig"), " "); got != "/tmp/rig/h1/data /tmp/rig" {
		t.Errorf("got %s", got)
	}
}
