package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

// TestIsolatedSubsets starts robots for the first time on a LAN in pieces: in
// one piece a fleet is founded, in another two robots have only its file, in a
// third somebody founds another fleet of the same name, and two more are in
// `skein dev --lan` fleets, both named alike too. Only who was founded decides
// anything; when the LAN is whole, each robot is in the fleet whose file it has,
// each fleet has one log, no fleet shows a robot of another, and nothing that was
// acknowledged is lost.
func TestIsolatedSubsets(t *testing.T) {
	t.Parallel()
	lan, skein := rig.New(t, 10), rig.Skein(t)
	geese, waiting, others, devs := lan.Hosts[:3], lan.Hosts[3:5], lan.Hosts[5:7], lan.Hosts[7:9]
	parts := [][]*rig.Host{geese, waiting, others, devs[:1], devs[1:], lan.Hosts[9:]}
	for i, one := range parts {
		for _, other := range parts[i+1:] {
			lan.Split(one, other)
		}
	}
	var running []dev
	for _, h := range devs {
		running = append(running, startDev(t, h, skein))
	}
	one := trial.Found(t, skein, "geese", geese, 3)
	late := []*trial.Robot{one.Join(waiting[0], true), one.Join(waiting[1], true)}
	two := trial.Found(t, skein, "geese", others, 1)
	for _, d := range running {
		d.await(t, "robot-1", "robot-2")
	}
	one.Robots = one.Robots[:3] // the others cannot answer
	fleets, loads := []*trial.Fleet{one, two}, []*trial.Load{}
	work := func(name string) {
		for _, f := range fleets {
			load := f.StartLoadAbout(name, 2, f.Robots[len(loads)/len(fleets)]) // not the same again
			load.Await(20, settle)
			load.Stop()
			loads = append(loads, load)
		}
	}
	work("load-in-pieces")
	for _, r := range late {
		waits(t, r)
	}
	ids := []string{history(t, one.Robots[0]), history(t, two.Robots[0])}
	for _, d := range running {
		ids = append(ids, d.history(t))
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != 4 {
		t.Fatalf("four fleets were founded, their logs are %v", ids)
	}

	lan.Heal()
	one.Robots = append(one.Robots, late...)
	rest := func() {
		for i, f := range fleets {
			rig.Wait(t, settle, "exactly the robots of each fleet", func() error { return exactly(f) })
			for ; i < len(loads); i += len(fleets) {
				whole(t, f, f.Robots, loads[i])
			}
		}
		for _, d := range running {
			d.await(t, "robot-1", "robot-2")
		}
	}
	rest()
	apart(t, one, two)
	refusals(t, skein, one, two, lan.Hosts[9])
	work("load-when-whole")
	rest()
}

// waits: a robot that has only a fleet's file says that it waits, and has no log.
func waits(t *testing.T, r *trial.Robot) {
	t.Helper()
	if said := r.Process.Log(); r.Process.Ended() || !strings.Contains(said, "waiting to be admitted") || strings.Contains(said, "member of the fleet") {
		t.Errorf("%s does not wait for its fleet:\n%s", r.Name, said)
	}
	for _, name := range []string{"raft", "log", "membership.json"} {
		if _, err := os.Stat(filepath.Join(r.Data(), name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s waits for its fleet and has %s (%v)", r.Name, name, err)
		}
	}
}

func history(t testing.TB, r *trial.Robot) string {
	t.Helper()
	header, err := r.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	return header.AsOf.Cursor.History
}

// exactly: each robot of a fleet lists all its robots, online, and no other,
// in one log.
func exactly(f *trial.Fleet) error {
	var want []string
	for _, r := range f.Robots {
		want = append(want, r.Name)
	}
	slices.Sort(want)
	var fleet view.Fleet
	for i, r := range f.Robots {
		list, err := r.Robots()
		if err != nil {
			return err
		}
		var got []string
		for _, row := range list.Robots {
			if row.Status != view.Online {
				return fmt.Errorf("%s shows %s as %s", r.Name, row.Name, row.Status)
			}
			got = append(got, row.Name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("%s lists %v, want %v", r.Name, got, want)
		}
		header, err := r.Fleet()
		if err != nil {
			return err
		}
		if i == 0 {
			fleet = header
		}
		if header.FleetID != fleet.FleetID || header.AsOf.Cursor.History != fleet.AsOf.Cursor.History {
			return fmt.Errorf("%s is in fleet %s with log %s, %s in %s with %s", r.Name, header.FleetID, header.AsOf.Cursor.History, f.Robots[0].Name, fleet.FleetID, fleet.AsOf.Cursor.History)
		}
	}
	return nil
}

// apart: the second fleet of a name is not the first.
func apart(t *testing.T, one, two *trial.Fleet) {
	t.Helper()
	a, err := one.Robots[0].Fleet()
	if err != nil {
		t.Fatal(err)
	}
	b, err := two.Robots[0].Fleet()
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != b.Name || a.FleetID == b.FleetID || a.AsOf.Cursor.History == b.AsOf.Cursor.History {
		t.Errorf("two fleets of one name are %s (%s, log %s) and %s (%s, log %s)", a.Name, a.FleetID, a.AsOf.Cursor.History, b.Name, b.FleetID, b.AsOf.Cursor.History)
	}
}

// refusals are what somebody may try who wants one fleet of two, and each says
// what to do; stranger is in no fleet, and a token brings it into the one that
// made it.
func refusals(t *testing.T, skein string, one, two *trial.Fleet, stranger *rig.Host) {
	t.Helper()
	refused := func(what string, err error, words ...string) {
		t.Helper()
		for _, word := range append(words, "; ") {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v; want %q in it", what, err, word)
			}
		}
	}
	member := one.Robots[4]
	_, err := one.Robots[0].Run(skein, "fleet", "init", "geese", "--data", one.Robots[0].Data())
	refused("founding again where the founder runs", err, "in use")
	member.Process.Stop()
	_, err = member.Run(skein, "fleet", "init", "geese", "--data", member.Data())
	refused("founding on a member", err, "already in a fleet", "skein leave")
	own, err := os.ReadFile(filepath.Join(member.Dir, "fleet.json"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(two.Robots[0].Dir, "fleet.json"))
	if err != nil {
		t.Fatal(err)
	}
	member.WriteFile("fleet.json", string(foreign))
	member.Boot()
	ends(t, member.Process, 1, "is of another fleet", "skein leave")
	member.WriteFile("fleet.json", string(own))

	token := strings.Fields(two.Admin("token", "create"))[0]
	_, err = member.Run(skein, "join", token, "--data", member.Data())
	refused("joining another fleet as a member", err, "already in a fleet", "skein leave")
	member.Boot()
	if _, err := stranger.Run(skein, "join", token, "--data", filepath.Join(stranger.Dir, "data"), "--name", "geese-"+stranger.Name); err != nil {
		t.Errorf("joining with a token: %v", err)
	}
	joined := two.Join(stranger, false)
	rig.Wait(t, settle, "who has a token is in the fleet that made it", func() error {
		if now, err := joined.Fleet(); err != nil || now.AsOf.Cursor.History != history(t, two.Robots[0]) {
			return errors.Join(err, rig.ErrNotYet)
		}
		return nil
	})
}

// dev is a `skein dev --lan` fleet of two on one host.
type dev struct {
	host        *rig.Host
	skein, data string
}

func startDev(t testing.TB, h *rig.Host, skein string) dev {
	t.Helper()
	d := dev{h, skein, filepath.Join(h.Dir, "dev")}
	h.Start(skein, "dev", "--lan", "--robots", "2", "--voters", "1", "--http", "127.0.0.1:7780", "--data", d.data)
	return d
}

// ask is a command in the fleet's folder.
func (d dev) ask(into any, args ...string) error {
	out, err := d.host.Run(d.skein, append(args, "--json", "--http", "http://127.0.0.1:7780", "--identity", filepath.Join(d.data, "robot-1", "admin.json"))...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// await waits until the fleet lists exactly these robots, all online.
func (d dev) await(t testing.TB, want ...string) {
	t.Helper()
	rig.Wait(t, settle, fmt.Sprintf("the dev fleet on %s has %v", d.host.Name, want), func() error {
		var list view.Robots
		if err := d.ask(&list, "robots", "list"); err != nil {
			return err
		}
		var got []string
		for _, row := range list.Robots {
			got = append(got, row.Name)
			if row.Status != view.Online {
				return fmt.Errorf("%s is %s", row.Name, row.Status)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
}

func (d dev) history(t testing.TB) string {
	t.Helper()
	var header view.Fleet
	if err := d.ask(&header, "fleet", "show"); err != nil {
		t.Fatal(err)
	}
	return header.AsOf.Cursor.History
}
