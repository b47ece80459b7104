package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MinDiskBytes and MaxDiskBytes bound a disk. An image takes only what is
// written to it.
const (
	MinDiskBytes = 16 << 20
	MaxDiskBytes = 4 << 30
)

const (
	// ioctlShutdown is EXT4_IOC_SHUTDOWN; flag 2 leaves the journal as it is, so
	// all that was not synced is gone (linux/ext4.h). It is not in x/sys/unix.
	ioctlShutdown   = 0x8004587d
	shutdownNoFlush = 2
	ioctlFreeze     = 0xc0045877 // FIFREEZE
	ioctlThaw       = 0xc0045878 // FITHAW
	// unmountLimit is how long the kernel may take to let go of a disk whose last
	// process was killed.
	unmountLimit = 10 * time.Second
	ballastFile  = "ballast"
)

// Disk is a disk of one host: ext4 in an image file, mounted below the host's
// directory. What is done to it is done by the kernel, not played.
type Disk struct {
	// Dir is where it is mounted, mode 0700.
	Dir string

	host    *Host
	image   string
	mounted bool
}

// Disk makes an empty disk and mounts it at Dir/name. Make disks before starting
// processes: one that runs already does not see a later mount. The sizes allowed
// are MinDiskBytes to MaxDiskBytes.
func (h *Host) Disk(name string, bytes int64) *Disk {
	h.rig.t.Helper()
	if !validName(name) || bytes < MinDiskBytes || bytes > MaxDiskBytes {
		h.rig.t.Fatalf("rig: a disk %q of %d bytes; use a short name of lower-case letters and %d to %d bytes", name, bytes, MinDiskBytes, MaxDiskBytes)
	}
	for _, tool := range []struct{ name, pkg string }{{"mount", "mount"}, {"umount", "mount"}, {"losetup", "mount"}, {"mkfs.ext4", "e2fsprogs"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			unavailable(h.rig.t, fmt.Sprintf("needs %s (Debian package %s)", tool.name, tool.pkg))
		}
	}
	if err := h.rig.shareMounts(); err != nil {
		unavailable(h.rig.t, fmt.Sprintf("needs the right to mount: %v", err))
	}
	d := &Disk{Dir: filepath.Join(h.Dir, name), host: h, image: filepath.Join(h.Dir, name+".img")}
	if err := d.make(bytes); err != nil {
		h.rig.t.Fatalf("rig: host %s: make disk %s: %v", h.Name, name, err)
	}
	if err := d.mount(); err != nil {
		unavailable(h.rig.t, fmt.Sprintf("needs loop devices with ext4: %v", err))
	}
	for _, step := range []error{os.Remove(filepath.Join(d.Dir, "lost+found")), os.Chmod(d.Dir, 0o700)} {
		if step != nil {
			h.rig.t.Fatalf("rig: host %s: make disk %s: %v", h.Name, name, step)
		}
	}
	h.disks = append(h.disks, d)
	return d
}

// shareMounts lets a disk that is unmounted disappear everywhere at once. `ip
// netns exec` gives each process a copy of all mounts, and one copy would keep a
// disk alive that was cut from power: the next mount would find its dead
// superblock again.
func (r *Rig) shareMounts() error {
	if r.shared {
		return nil
	}
	if err := unix.Mount(r.claim.dir, r.claim.dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", r.claim.dir, err)
	}
	if err := unix.Mount("", r.claim.dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts below %s: %w", r.claim.dir, err)
	}
	r.shared = true
	return nil
}

func (d *Disk) make(bytes int64) error {
	image, err := os.OpenFile(d.image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(image.Truncate(bytes), image.Close(), os.Mkdir(d.Dir, 0o700))
	}
	if err != nil {
		return err
	}
	// Nothing is left to be written later, and root has no reserve.
	return command("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image)
}

// mount attaches a loop device, which goes with the mount, and replays the journal.
func (d *Disk) mount() error {
	if err := command("mount", "-o", "loop,errors=remount-ro", d.image, d.Dir); err != nil {
		return err
	}
	d.mounted = true
	return nil
}

// unmount returns when the kernel has let go of the disk: no copy of the mount
// is left and the loop device is free.
func (d *Disk) unmount() error {
	deadline := time.Now().Add(unmountLimit)
	for {
		var err error
		if d.mounted {
			err = unix.Unmount(d.Dir, 0)
		}
		if err == nil {
			d.mounted = false
			err = d.detached()
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("unmount %s: %w; does a process of another host use it?", d.Dir, err)
		}
		time.Sleep(pollInterval)
	}
}

// detached: no loop device has the image any more.
func (d *Disk) detached() error {
	out, err := exec.Command("losetup", "-j", d.image).CombinedOutput()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("still attached: %s", strings.TrimSpace(string(out)))
	}
	return err
}

// PowerCut takes the power from hosts at once: what was not synced to their
// disks is gone, every process is dead. PowerOn brings the disks back.
//
// Processes stand still before their disks go, and never go on. For in that moment the
// kernel (6.18) says of writes that they are synced and forgets them: its shutdown loses
// the error of a block that was to be used for the first time. No machine without power
// could tell anybody.
func (r *Rig) PowerCut(hosts ...*Host) {
	r.t.Helper()
	var all []*Process
	for _, h := range hosts {
		all = append(all, h.processes...)
	}
	for _, p := range all {
		p.Signal(syscall.SIGSTOP)
	}
	for _, p := range all {
		if err := p.awaitHalt(); err != nil {
			r.t.Fatalf("rig: cut the power of host %s: %v", p.host.Name, err)
		}
	}
	for _, h := range hosts {
		for _, d := range h.disks {
			if err := d.control(func(fd int) error { return unix.IoctlSetPointerInt(fd, ioctlShutdown, shutdownNoFlush) }); err != nil {
				r.t.Fatalf("rig: cut the power of host %s: %v", h.Name, err)
			}
		}
	}
	for _, p := range all {
		p.Signal(syscall.SIGKILL)
	}
	for _, h := range hosts {
		h.Kill()
		for _, d := range h.disks {
			if err := d.unmount(); err != nil {
				r.t.Fatalf("rig: cut the power of host %s: %v", h.Name, err)
			}
		}
	}
}

// PowerOn mounts the disks of hosts after a PowerCut. What ran before is not started.
func (r *Rig) PowerOn(hosts ...*Host) {
	r.t.Helper()
	for _, h := range hosts {
		for _, d := range h.disks {
			if err := d.mount(); err != nil {
				r.t.Fatalf("rig: power of host %s: %v", h.Name, err)
			}
		}
	}
}

// Remount unmounts the disk and mounts it again, which makes one that Break has
// made read-only writable. Its processes must have ended.
func (d *Disk) Remount() {
	d.host.rig.t.Helper()
	if err := errors.Join(d.unmount(), d.mount()); err != nil {
		d.host.rig.t.Fatalf("rig: host %s: mount again: %v", d.host.Name, err)
	}
}

// Freeze makes every write to the disk wait until Thaw. A process that waits in
// there cannot even be killed.
func (d *Disk) Freeze() {
	d.host.rig.t.Helper()
	if err := d.control(func(fd int) error { return unix.IoctlSetInt(fd, ioctlFreeze, 0) }); err != nil {
		d.host.rig.t.Fatalf("rig: host %s: freeze: %v", d.host.Name, err)
	}
}

// Thaw ends Freeze.
func (d *Disk) Thaw() {
	d.host.rig.t.Helper()
	if err := d.control(func(fd int) error { return unix.IoctlSetInt(fd, ioctlThaw, 0) }); err != nil {
		d.host.rig.t.Fatalf("rig: host %s: thaw: %v", d.host.Name, err)
	}
}

// Break makes the kernel find an error in the file system, after which it is
// read-only. Remount undoes it.
func (d *Disk) Break() {
	d.host.rig.t.Helper()
	device, err := d.device()
	if err == nil {
		err = os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("skein-rig"), 0)
	}
	if err != nil {
		d.host.rig.t.Fatalf("rig: host %s: break the file system: %v", d.host.Name, err)
	}
}

// Free is how many bytes may still be written.
func (d *Disk) Free() int64 {
	d.host.rig.t.Helper()
	free, err := d.free()
	if err != nil {
		d.host.rig.t.Fatalf("rig: host %s: %v", d.host.Name, err)
	}
	return free
}

func (d *Disk) free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.Dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", d.Dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// Fill takes space from the disk until only leave bytes are left. Empty gives
// it back.
func (d *Disk) Fill(leave int64) {
	d.host.rig.t.Helper()
	if err := d.fill(leave); err != nil {
		d.host.rig.t.Fatalf("rig: host %s: fill the disk: %v", d.host.Name, err)
	}
}

func (d *Disk) fill(leave int64) (err error) {
	ballast, err := os.OpenFile(filepath.Join(d.Dir, ballastFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ballast.Close()) }()
	for range 100 {
		free, err := d.free()
		if err != nil || free <= leave {
			return err
		}
		at, err := ballast.Seek(0, 2)
		if err != nil {
			return err
		}
		// The map of the blocks takes some too: halve what does not fit.
		for want := free - leave; want > 0; want /= 2 {
			if err = unix.Fallocate(int(ballast.Fd()), 0, at, want); !errors.Is(err, unix.ENOSPC) {
				break
			}
		}
		if errors.Is(err, unix.ENOSPC) {
			return nil // full to the last block
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("still more than %d bytes free", leave)
}

// Empty undoes Fill.
func (d *Disk) Empty() {
	d.host.rig.t.Helper()
	if err := os.Remove(filepath.Join(d.Dir, ballastFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.host.rig.t.Fatalf("rig: host %s: empty the disk: %v", d.host.Name, err)
	}
}

// control opens the disk's root for one ioctl.
func (d *Disk) control(do func(fd int) error) error {
	root, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := do(int(root.Fd())); err != nil {
		return fmt.Errorf("ioctl on %s: %w", d.Dir, err)
	}
	return nil
}

// device is the kernel's name of the disk, such as loop3.
func (d *Disk) device() (string, error) {
	var s unix.Stat_t
	if err := unix.Stat(d.Dir, &s); err != nil {
		return "", err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev)))
	return filepath.Base(link), err
}

// command runs a program to its end; the error shows what it said.
func command(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountsBelow lists what is mounted on dir and below it, the last mounted first.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(text), dir), nil
}

func parseMounts(text, dir string) (found []string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		// The kernel writes a space as \040. Our own paths have none, and a path
		// that is not ours is none of our business.
		if at := fields[4]; at == dir || strings.HasPrefix(at, dir+"/") {
			found = append([]string{at}, found...)
		}
	}
	return found
}

// thawBelow lets processes die that wait for a frozen disk.
func thawBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	for _, at := range mounts {
		d := Disk{Dir: at}
		_ = d.control(func(fd int) error { return unix.IoctlSetInt(fd, ioctlThaw, 0) }) // refused by what is not frozen
	}
	return err
}

// unmountBelow removes every mount on dir and below it. Nobody must use them.
func unmountBelow(dir string) error {
	for deadline := time.Now().Add(unmountLimit); ; {
		mounts, err := mountsBelow(dir)
		if err != nil || len(mounts) == 0 {
			return err
		}
		for _, at := range mounts {
			err = errors.Join(err, unix.Unmount(at, 0))
		}
		if err != nil && time.Now().After(deadline) {
			return fmt.Errorf("unmount below %s: %w", dir, err)
		}
		time.Sleep(pollInterval)
	}
}
