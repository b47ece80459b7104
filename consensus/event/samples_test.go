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

// samples has a valid draft of every schema of every type this build knows, some
// with every optional field.
func samples(t testing.TB) []Draft {
	key := testKey(t, 1)
	drafts := samplesLevel1(key)
	if Level >= 2 {
		drafts = append(drafts, samplesLevel2(key)...)
	}
	return drafts
}

func samplesLevel2(key ident.Key) []Draft {
	id, hash := key.ID(), strings.Repeat("0af9", 16)
	return []Draft{
		CeilingRaised{Level: 2}.Draft(),
		Seal(key, "01J-a", 1000, hash).Draft(),
		LogRecovered{History: "01J-b", Seq: 1000, Hash: hash, Reason: "two of three burnt; ada"}.Draft(),
		RobotRegistered{Name: "鹅", Type: XLeRobot, Version: "1.2.3", Arch: "arm64", OS: "linux", Hostname: "pi-4.local"}.Draft(id),
		RobotProvisioned{Firmware: "f7", Version: "2.0", Capabilities: []string{"arm", "camera.front"}}.Draft(id),
		RobotProvisioned{}.Draft(id),
		RobotActivated{Reason: "the shift begins"}.Draft(id),
		RobotDeactivated{}.Draft(id),
		RobotFailed{Message: "motor 3 is hot", Code: "E-17", Kind: FailedHardware}.Draft(id),
		RobotRecovered{Reason: "cooled down"}.Draft(id),
		RobotMaintenanceStarted{Reason: "new gripper"}.Draft(id),
		RobotMaintenanceEnded{}.Draft(id),
		RobotRetired{Reason: "sold"}.Draft(id),
		RobotDeploymentStarted{Deployment: "d-1", Version: "2.1", Kind: DeployDelta, Source: "release 2.1"}.Draft(id),
		RobotDeploymentCompleted{Deployment: "d-1", Version: "2.1", DurationSeconds: 41, Files: 7}.Draft(id),
		RobotDeploymentFailed{Deployment: "d-1", Version: "2.1", Message: "disk full"}.Draft(id),
	}
}

func samplesLevel1(key ident.Key) []Draft {
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
	type form struct {
		typ    string
		schema uint64
	}
	have := map[form]bool{}
	for _, d := range samples(t) {
		have[form{d.Type, d.Schema}] = true
	}
	for _, info := range Types() {
		if !have[form{info.Type, info.Schema}] {
			t.Errorf("samples lack %s/%d", info.Type, info.Schema)
		}
	}
}

func name(n int) string { return strings.Repeat("é", n) }
