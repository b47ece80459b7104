package rig

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holdVariable makes this test binary hold a rig until it is killed.
const holdVariable = "SKEIN_RIG_HOLD"

// hold makes a rig with a process that outlives its parent's death signal, says
// what it made, and waits to be killed.
func hold() {
	err := Script("hold", func(t testing.TB) {
		r := New(t, 2)
		d := r.Hosts[0].Disk("data", MinDiskBytes)
		// The child of the child gets no death signal: only the sweep ends it.
		p := r.Hosts[0].Start("sh", "-c", "cd data; sleep 63 & echo $!; wait")
		Wait(t, 5*time.Second, "the grandchild runs", func() error {
			if strings.TrimSpace(p.Log()) == "" {
				return ErrNotYet
			}
			return nil
		})
		d.Freeze()
		fmt.Println(r.claim.id, r.claim.dir, p.Pid(), strings.TrimSpace(p.Log()))
		select {}
	})
	fmt.Println(err) // is not what the test expects to read
}

func TestAKilledRigIsSweptAndALivingOneIsNot(t *testing.T) {
	living := New(t, 1)
	keeper := living.Hosts[0].Start("sleep", "64")

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdVariable+"=1", "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var id, dir string
	var child, grandchild int
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if _, scanErr := fmt.Sscan(line, &id, &dir, &child, &grandchild); scanErr != nil {
		t.Fatalf("the holder said %q: %v, %v", line, err, scanErr)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	Wait(t, 5*time.Second, "the child dies with its parent", func() error {
		if runs(child) {
			return fmt.Errorf("process %d runs", child)
		}
		return nil
	})
	if len(namespacesOf(t, id)) != 3 || !runs(grandchild) {
		t.Fatalf("the killed rig left too little to test: %v", namespacesOf(t, id))
	}
	if mounts, err := mountsBelow(dir); err != nil || len(mounts) != 2 {
		t.Fatalf("the killed rig left the mounts %v, %v; want its directory and a disk", mounts, err)
	}

	New(t, 0)

	if left := namespacesOf(t, id); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("left behind: %s", dir)
	}
	if mounts, err := mountsBelow(dir); err != nil || len(mounts) > 0 {
		t.Errorf("left behind: mounts %v, %v", mounts, err)
	}
	if loops := attached(t, dir); loops != "" {
		t.Errorf("left behind: %s", loops)
	}
	if runs(grandchild) {
		t.Errorf("process %d still runs", grandchild)
	}
	if len(namespacesOf(t, living.claim.id)) != 2 || keeper.Ended() {
		t.Error("a living rig was swept")
	}
}

// attached lists loop devices whose image is below dir.
func attached(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("losetup", "-n", "-l", "-O", "NAME,BACK-FILE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "; ")
}

// runs reports whether a process exists and is no zombie.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// A directory that a damaged claim names is not removed.
func TestRemoveLeavesForeignDirectoriesAlone(t *testing.T) {
	dir := t.TempDir()
	if err := remove("no-such-rig", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
