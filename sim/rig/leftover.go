package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A rig that lives is a file in claimDir, named by its id, locked by its owner,
// holding the path of its data. The lock dies with the owner, however it dies,
// so whoever gets the lock of a file may remove that rig. Ids need not be
// trusted as process ids, and rigs in several containers do not collide.
const (
	claimDir  = "/run/skein-rig"
	guardName = "guard"
	prefix    = "skein-rig-"
)

// endLimit is how long a killed process may take to be gone.
const endLimit = 5 * time.Second

// claim is a living rig's right to its names.
type claim struct {
	id   string
	dir  string // data of the hosts; removed with the claim
	file *os.File
}

func (c *claim) namespace(host string) string { return prefix + c.id + "-" + host }

// newClaim removes what dead rigs left and takes a new id.
func newClaim() (*claim, error) {
	if err := os.MkdirAll(claimDir, 0o755); err != nil {
		return nil, err
	}
	// The guard makes looking for dead rigs and creating a living one exclusive:
	// a file that is not locked yet must not be taken for dead.
	guard, err := os.OpenFile(filepath.Join(claimDir, guardName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	if err := lock(guard, unix.LOCK_EX); err != nil {
		return nil, err
	}
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("remove what an earlier rig left: %w", err)
	}
	for n := 1; ; n++ {
		id := fmt.Sprintf("%d-%d", os.Getpid(), n)
		file, err := os.OpenFile(filepath.Join(claimDir, id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue // another rig of this process
		}
		if err != nil {
			return nil, err
		}
		return claimed(id, file)
	}
}

func claimed(id string, file *os.File) (*claim, error) {
	if err := lock(file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	// Not t.TempDir: its long path would leave no room for a socket's name.
	dir, err := os.MkdirTemp("", prefix)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // as the kernel names what is mounted in there
	}
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteString(dir); err != nil {
		return nil, err
	}
	return &claim{id: id, dir: dir, file: file}, nil
}

// release removes everything of this rig and then the claim itself.
func (c *claim) release() error {
	return errors.Join(remove(c.id, c.dir), os.Remove(c.file.Name()), c.file.Close())
}

// sweep removes every rig whose owner is gone.
func sweep() error {
	entries, err := os.ReadDir(claimDir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == guardName {
			continue
		}
		if err := sweepOne(filepath.Join(claimDir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func sweepOne(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its owner has just removed it
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := lock(file, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil // its owner lives
	} else if err != nil {
		return err
	}
	dir, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := remove(filepath.Base(path), string(dir)); err != nil {
		return err
	}
	return os.Remove(path)
}

func lock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// remove ends every process in the namespaces of rig id and deletes them, the
// disks and dir. A dir that does not look like ours is left alone.
func remove(id, dir string) error {
	ours := strings.HasPrefix(filepath.Base(dir), prefix)
	if ours {
		if err := thawBelow(dir); err != nil {
			return err
		}
	}
	namespaces, err := filepath.Glob(filepath.Join(namespaceDir, prefix+id+"-*"))
	if err != nil {
		return err
	}
	var lines []string
	for _, path := range namespaces {
		name := filepath.Base(path)
		if err := endProcesses(name); err != nil {
			return err
		}
		lines = append(lines, "netns del "+name)
	}
	if len(lines) > 0 {
		if err := ip("", lines...); err != nil {
			return err
		}
	}
	if !ours {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// endProcesses kills what runs in a namespace, also grandchildren that nobody
// else knows, and waits until it is gone.
func endProcesses(namespace string) error {
	for deadline := time.Now().Add(endLimit); ; {
		pids, err := processesIn(namespace)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v in namespace %s do not die", pids, namespace)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d in namespace %s: %w", pid, namespace, err)
			}
		}
		time.Sleep(pollInterval)
	}
}

func processesIn(namespace string) ([]int, error) {
	out, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		return nil, fmt.Errorf("ip netns pids %s: %w", namespace, err)
	}
	var pids []int
	for field := range strings.FieldsSeq(string(out)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("ip netns pids %s: %w", namespace, err)
		}
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
