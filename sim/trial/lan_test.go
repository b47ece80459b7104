package trial

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/node/gateway/view"
	"skein/sim/rig"
)

// TestLAN is a day in the life of eight robots on one LAN: two fleets that must
// not mix, and for the larger one everything that goes wrong in a house.
func TestLAN(t *testing.T) {
	lan := rig.New(t, 8)
	skein := rig.Skein(t)
	geese := Found(t, skein, "geese", lan.Hosts[:5], 3)
	swans := Found(t, skein, "swans", lan.Hosts[5:], 1)
	geese.AwaitListing(geese.Robots, settle)
	swans.AwaitListing(swans.Robots, settle)

	d := &diary{fleet: geese, acked: map[uint64]string{}}
	d.write(t, geese.Robots[4], 20)
	history := d.history(t, geese.Robots[4])

	t.Run("the leader is killed", func(t *testing.T) {
		leader := geese.Leader()
		leader.Kill()
		d.write(t, geese.Robots[4], 10)
		if now := geese.Leader(); now == leader {
			t.Fatalf("%s is dead and still leads", leader.Name)
		}
		leader.Boot()
		geese.AwaitListing(geese.Robots, settle)
	})
	t.Run("a robot is cut off and comes back", func(t *testing.T) {
		cut := geese.Robots[3]
		cut.Block()
		others := slices.DeleteFunc(slices.Clone(geese.Robots), func(r *Robot) bool { return r == cut })
		awaitOffline(t, geese.Robots[0], cut)
		d.write(t, geese.Robots[4], 10)
		cut.Heal()
		geese.AwaitListing(geese.Robots, settle)
		d.check(t, cut)
		d.check(t, others[0])
	})
	t.Run("a robot gets a new address", func(t *testing.T) {
		moved := geese.Robots[4]
		before := d.id(t, moved)
		moved.Readdress(lan.Unused())
		geese.AwaitListing(geese.Robots, settle)
		rig.Wait(t, settle, "others know the new address", func() error {
			list, err := geese.Robots[1].Robots()
			if err != nil {
				return err
			}
			for _, r := range list.Robots {
				if r.Name == moved.Name && string(r.ID) == before && strings.Contains(r.HTTP, moved.Addr().String()) {
					return nil
				}
			}
			return fmt.Errorf("no robot %s with id %s at %s", moved.Name, before, moved.Addr())
		})
		d.write(t, moved, 5)
	})
	t.Run("the power fails in the whole house", func(t *testing.T) {
		d.write(t, geese.Robots[4], 20)
		for _, r := range geese.Robots {
			r.Kill()
		}
		for _, r := range geese.Robots {
			r.Boot()
		}
		geese.AwaitListing(geese.Robots, settle)
		geese.AwaitVoters(3)
		for _, r := range geese.Robots {
			d.check(t, r)
			if now := d.history(t, r); now != history {
				t.Errorf("%s is in history %s, the fleet was founded as %s", r.Name, now, history)
			}
		}
	})
	t.Run("a lone swan says that it can lose nobody", func(t *testing.T) {
		header, err := swans.Robots[2].Fleet()
		if err != nil {
			t.Fatal(err)
		}
		if header.CanLose != 0 || !strings.Contains(header.CanLoseReason, "one voter only") {
			t.Fatalf("can lose %d (%s), want 0 with the reason", header.CanLose, header.CanLoseReason)
		}
	})
	swans.AwaitListing(swans.Robots, settle)
}

// diary is what a fleet acknowledged: seq of each event and what it said.
type diary struct {
	fleet *Fleet
	acked map[uint64]string
	n     int
}

// write has n facts acknowledged, at one robot, retrying what was not.
func (d *diary) write(t *testing.T, at *Robot, n int) {
	t.Helper()
	c := d.fleet.Client(at)
	id := d.id(t, at)
	for range n {
		rig.Wait(t, settle, "a write is acknowledged", func() error {
			// A new value each time: the one before may have been decided after all.
			d.n++
			value := fmt.Sprintf("v%d", d.n)
			ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
			defer cancel()
			seq, err := Write(ctx, c, id, value)
			if err == nil {
				d.acked[seq] = value
			}
			return err
		})
	}
}

// check compares the list of acknowledged events with what a robot holds.
func (d *diary) check(t *testing.T, at *Robot) {
	t.Helper()
	c := d.fleet.Client(at)
	rig.Wait(t, settle, at.Name+" holds every acknowledged event", func() error {
		held := map[uint64]string{}
		for since := uint64(0); ; {
			page, err := c.Events(t.Context(), since, view.EventFilter{Type: "robot.labels_changed"}, 500)
			if err != nil {
				return err
			}
			for _, e := range page.Events {
				held[e.Seq] = string(e.Data)
				since = e.Seq
			}
			if !page.More || len(page.Events) == 0 {
				break
			}
		}
		for seq, value := range d.acked {
			if !strings.Contains(held[seq], `"`+value+`"`) {
				return fmt.Errorf("event %d was acknowledged as %s and is %q here", seq, value, held[seq])
			}
		}
		return nil
	})
}

func (d *diary) id(t *testing.T, r *Robot) string {
	t.Helper()
	list, err := r.Robots()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range list.Robots {
		if row.Name == r.Name {
			return string(row.ID)
		}
	}
	t.Fatalf("%s does not list itself", r.Name)
	return ""
}

func (d *diary) history(t *testing.T, r *Robot) string {
	t.Helper()
	header, err := r.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	return header.AsOf.Cursor.History
}

// awaitOffline waits until one robot shows another as offline.
func awaitOffline(t *testing.T, at, gone *Robot) {
	t.Helper()
	rig.Wait(t, settle, at.Name+" shows "+gone.Name+" as offline", func() error {
		list, err := at.Robots()
		if err != nil {
			return err
		}
		for _, r := range list.Robots {
			if r.Name == gone.Name && r.Status == view.Offline {
				return nil
			}
		}
		return rig.ErrNotYet
	})
}

// TestRevokedRobotIsCutEverywhere: the robot is gone from every peer within
// 30 s, and stays out when it comes back with a new key but the old fleet file.
func TestRevokedRobotIsCutEverywhere(t *testing.T) {
	lan := rig.New(t, 5)
	skein := rig.Skein(t)
	f := Found(t, skein, "geese", lan.Hosts, 3)
	thief := f.Robots[4]
	loyal := f.Robots[:4]

	list, err := thief.Robots()
	if err != nil || len(list.Robots) != 5 {
		t.Fatalf("before the revocation the robot lists %d, err %v", len(list.Robots), err)
	}
	f.Admin("node", "revoke", thief.Name, "--yes", "--reason", "stolen")
	took := rig.Wait(t, 30*time.Second, "every peer has cut the revoked robot", func() error {
		for _, r := range loyal {
			if err := hasCut(r, thief); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
		}
		return nil
	})
	t.Logf("cut at every peer after %s", took)

	var enrolment struct {
		Enrolments []struct {
			ID string `json:"id"`
		} `json:"enrolments"`
	}
	decode(t, f.Admin("fleet", "enrolment", "list", "--json"), &enrolment)
	for _, e := range enrolment.Enrolments {
		f.Admin("fleet", "enrolment", "revoke", e.ID)
	}
	if !strings.Contains(thief.Process.Log(), "this robot was revoked") {
		t.Errorf("the revoked robot does not say so:\n%s", thief.Process.Log())
	}
	thief.Kill()
	if _, err := thief.Run("rm", "-rf", filepath.Join(thief.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	thief.Boot()
	select {
	case <-thief.Process.Done():
	case <-time.After(settle):
		t.Fatalf("the robot with a new key is still trying; its log:\n%s", thief.Process.Log())
	}
	if code := thief.Process.ExitCode(); code != 4 {
		t.Errorf("exit code %d, want 4 (not allowed)", code)
	}
	if !strings.Contains(thief.Process.Log(), "enrolment key is not valid any more") {
		t.Errorf("the robot does not say why it was refused:\n%s", thief.Process.Log())
	}
	f.AwaitListing(loyal, settle)
}

// hasCut: no gossip state, no open stream to the revoked robot.
func hasCut(r, revoked *Robot) error {
	list, err := r.Robots()
	if err != nil {
		return err
	}
	for _, row := range list.Robots {
		if row.Name == revoked.Name && row.Status != view.Revoked {
			return fmt.Errorf("shows it as %s", row.Status)
		}
	}
	sockets, err := r.Run("ss", "-Htn", "state", "established", "dst", revoked.Addr().String())
	if err != nil {
		return err
	}
	if sockets = strings.TrimSpace(sockets); sockets != "" {
		return fmt.Errorf("still has connections:\n%s", sockets)
	}
	return nil
}
