package event

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"skein/mesh/ident"
)

func testKey(t testing.TB, i byte) ident.Key {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = i
	key, err := ident.KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

const testHash = "abcdefghijklmnopqrstuv23"

// samples has a valid draft of every type, some with every optional field.
func samples(t testing.TB) []Draft {
	key := testKey(t, 1)
	pub, id := key.Public(), key.ID()
	return []Draft{
		FleetCreated{Name: "home", Root: pub, History: "01J-a"}.Draft(),
		GossipKeyRotated{Epoch: 7}.Draft(),
		PersonAdded{PublicKey: pub, Scopes: []string{ScopeAdmin, ScopeViewer}}.Draft("Zoë B."),
		PersonRemoved{}.Draft("ada"),
		EnrolmentAdded{PublicKey: pub}.Draft(),
		EnrolmentRevoked{Reason: `it "leaked" \o/ <&>`}.Draft(id),
		TokenCreated{TTLSeconds: 600}.Draft(testHash),
		NodeAdmitted{PublicKey: pub, Name: "goose 1", By: ByToken, Ref: testHash}.Draft(),
		NodeAdmitted{PublicKey: pub, Name: "goose 1", By: ByGenesis}.Draft(),
		NodeRevoked{Reason: "lost"}.Draft(id),
		NodeLeft{}.Draft(id),
		VoterEligible{Eligible: true}.Draft(id),
		VoterApproved{}.Draft(id),
		VoterWithdrawn{}.Draft(id),
		VoterAdded{}.Draft(id),
		VoterRemoved{}.Draft(id),
		RobotRegistered{Name: "鹅", Type: XLeRobot, Version: "1.2.3-rc1+build.5", Arch: "arm64", OS: "linux"}.Draft(id),
		RobotOnline{}.Draft(id),
		RobotOffline{LastHeardSeconds: 31}.Draft(id),
		RobotConfigChanged{Name: "kiwi", Type: LeKiwi}.Draft(id),
		RobotConfigChanged{Name: "kiwi"}.Draft(id),
		RobotLabelsChanged{Set: map[string]string{"z": "1", "a/b": "grün"}, Remove: []string{"y"}}.Draft(id),
		GroupCreated{Description: "am Fenster"}.Draft("Küche"),
		GroupDeleted{}.Draft("Küche"),
		GroupRobotAdded{Robot: id}.Draft("Küche"),
		GroupRobotRemoved{Robot: id}.Draft("Küche"),
	}
}

func TestSamplesCoverTheCatalogue(t *testing.T) {
	have := map[string]bool{}
	for _, d := range samples(t) {
		have[d.Type] = true
	}
	for _, info := range Types() {
		if !have[info.Type] {
			t.Errorf("samples lack %s", info.Type)
		}
	}
}

func name(n int) string { return strings.Repeat("é", n) }
