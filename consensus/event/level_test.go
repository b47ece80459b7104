package event

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCheckCeiling(t *testing.T) {
	id := testKey(t, 1).ID()
	unknown := Draft{Stream: RobotStream(id), Type: "robot.danced", Data: json.RawMessage(`{}`)}
	newer := RobotOnline{}.Draft(id)
	newer.Schema = 9
	for _, c := range []struct {
		name    string
		draft   Draft
		ceiling uint64
		code    Code // "" for none
	}{
		{"level 1 at 1", RobotOnline{}.Draft(id), 1, ""},
		{"level 1 far above", RobotOnline{}.Draft(id), Level + 5, ""},
		{"level 2 at 1", RobotActivated{}.Draft(id), 1, CodeConflict},
		{"schema of level 2 at 1", RobotRegistered{Hostname: "h"}.Draft(id), 1, CodeConflict},
		{"schema of level 1 at 1", RobotRegistered{}.Draft(id), 1, ""},
		{"unknown type under the ceiling", unknown, Level, CodeConflict},
		{"unknown type above it", unknown, Level + 1, CodeUnknownType},
		{"unknown schema under the ceiling", newer, Level, CodeConflict},
		{"unknown schema above it", newer, Level + 1, CodeUnknownType},
	} {
		fault := Batch{Drafts: []Draft{RobotOffline{}.Draft(id), c.draft}}.CheckCeiling(c.ceiling)
		switch {
		case c.code == "" && fault != nil:
			t.Errorf("%s: %v", c.name, fault)
		case c.code != "" && fault == nil:
			t.Errorf("%s: accepted", c.name)
		case fault != nil && (fault.Code != c.code || !strings.HasPrefix(fault.Path, "drafts[1].") || fault.Next == ""):
			t.Errorf("%s: %+v, want %s", c.name, fault, c.code)
		case fault != nil && fault.Code == CodeConflict && fault.Reason != ReasonCeiling:
			t.Errorf("%s: the reason is %q", c.name, fault.Reason)
		}
	}
	if LevelOf("robot.danced", 1) != 0 || LevelOf(TypeRobotOnline, 0) != 1 || LevelOf(TypeRobotOnline, 2) != 0 {
		t.Error("LevelOf is wrong about types of level 1, or of none")
	}
}

// What a seal and a recovery sign and say is compared by people and by other
// programs: the bytes are fixed.
func TestSealMessage(t *testing.T) {
	if got, want := string(SealMessage("h1", 7, "ab")), "history h1\nseq 7\nhash ab\n"; got != want {
		t.Errorf("signed is %q, want %q", got, want)
	}
	key, other := testKey(t, 1), testKey(t, 2)
	seal := Seal(key, "h1", 7, strings.Repeat("0", 64))
	if !seal.Signed("h1", key.Public()) {
		t.Error("a good seal is refused")
	}
	later := seal
	later.Seq = 8
	if seal.Signed("h2", key.Public()) || seal.Signed("h1", other.Public()) || later.Signed("h1", key.Public()) {
		t.Error("a seal of another log, key or place is accepted")
	}
}

func TestRecoveryIsNeverProposed(t *testing.T) {
	id := testKey(t, 1).ID()
	b := Batch{Actor: Actor{Kind: KindRecovery, ID: string(id)},
		Drafts: []Draft{LogRecovered{History: "h2", Seq: 1, Hash: strings.Repeat("0", 64), Reason: "r"}.Draft()}}
	for name, err := range map[string]error{"validate": b.Validate(), "authorize": Authorize(b.Actor, b.Drafts[0])} {
		fault, ok := FaultOf(err)
		if !ok || fault.Code != CodeNotAllowed || fault.Next == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if fault := b.CheckEnvelope(); fault != nil {
		t.Errorf("the state is not even asked: %v", fault)
	}
}
