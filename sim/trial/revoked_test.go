package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/sim/rig"
)

// TestRevokedVoterMintsNobody: who steals a voter's disk has a key that may
// issue certificates, the gossip keys and everybody's address. After the voter
// was revoked, a member that he makes with it is turned away by everybody and
// learns nothing; and the stolen robot itself, which was off when it was
// revoked, is told so when it comes back.
func TestRevokedVoterMintsNobody(t *testing.T) {
	lan := rig.New(t, 5)
	f := Found(t, rig.Skein(t), "geese", lan.Hosts[:4], 3)
	stolen, loyal := f.Robots[2], []*Robot{f.Robots[0], f.Robots[1], f.Robots[3]}
	rig.Wait(t, settle, "the robot that will be stolen has noted addresses", func() error {
		_, err := os.Stat(filepath.Join(stolen.Data(), "peers.json"))
		return err
	})
	stolen.Kill()
	f.Admin("node", "revoke", stolen.Name, "--yes", "--reason", "stolen")

	forger := f.add(lan.Hosts[4], false)
	f.Robots = f.Robots[:4]
	forged := forge(t, stolen.Data(), forger.Data())
	forger.WriteFile("fleet.json", "")
	for _, r := range []*Robot{stolen, forger} { // one after the other: a thief's robots would serve each other
		r.Boot()
		select {
		case <-r.Process.Done():
		case <-time.After(2 * settle):
			t.Fatalf("%s still runs; its log:\n%s", r.Name, r.Process.Log())
		}
		if code := r.Process.ExitCode(); code != 4 {
			t.Errorf("%s ended with code %d, want 4 (not allowed)", r.Name, code)
		}
		if !strings.Contains(r.Process.Log(), "revoked") {
			t.Errorf("%s does not say why it ended:\n%s", r.Name, r.Process.Log())
		}
	}
	copied, err := replica.Open(filepath.Join(forger.Data(), "log"), replica.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if seq := copied.Cursor().Seq; seq != 0 {
		t.Errorf("the forged member was given the log up to event %d", seq)
	}
	for _, r := range loyal {
		list, err := r.Robots()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range list.Robots {
			if string(row.ID) == forged {
				t.Errorf("%s lists the forged member as %s", r.Name, row.Status)
			}
		}
	}
}

// forge makes a membership for a new key with the certificate and key in from,
// and gives it what else a thief finds there: addresses and gossip keys.
func forge(t *testing.T, from, to string) (id string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	voter, err := ident.LoadKey(filepath.Join(from, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	membership, err := ident.LoadMembership(filepath.Join(from, "membership.json"), voter.ID())
	if err != nil {
		t.Fatal(err)
	}
	if !membership.Chain[0].MayIssue {
		t.Fatal("the stolen voter may not issue certificates: nothing is tested")
	}
	key, err := ident.LoadOrCreateKey(filepath.Join(to, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	chain := ident.NewChain(membership.Fleet(), key.Public(), true, time.Now(), voter, membership.Chain)
	if err := ident.NewMembership(membership.FleetName, membership.Root, chain).Save(filepath.Join(to, "membership.json")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"peers.json", "gossip-keys.json"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return string(key.ID())
}
