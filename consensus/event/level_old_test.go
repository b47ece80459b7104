//go:build skein_oldevents

package event

import (
	"testing"
	"time"
)

// A build of level 1 knows nothing of level 2, whoever made the draft.
func TestOlderBuild(t *testing.T) {
	key := testKey(t, 1)
	for _, d := range samplesLevel2(key) {
		if Known(d.Type, d.Schema) || LevelOf(d.Type, d.Schema) != 0 {
			t.Errorf("%s/%d is known", d.Type, d.Schema)
		}
		if fault, ok := FaultOf(Validate(d)); !ok || fault.Code != CodeUnknownType {
			t.Errorf("%s/%d: %v", d.Type, d.Schema, fault)
		}
		e := Event{Seq: 1, Time: time.UnixMilli(1), Version: 1, Stream: d.Stream, Type: d.Type, Schema: d.Schema, Actor: Actor{Kind: KindLeader, ID: string(key.ID())}, Data: d.Data}
		if carried, err := Parse(e.AppendJSON(nil)); err != nil || carried.Type != d.Type {
			t.Errorf("%s/%d cannot be carried: %v", d.Type, d.Schema, err)
		}
		_, err := e.Decode()
		if fault, ok := FaultOf(err); !ok || fault.Code != CodeUnknownType {
			t.Errorf("event %s/%d: %v", d.Type, d.Schema, err)
		}
		fault := d.CheckCeiling(1)
		free := d.Type == TypeCeilingRaised || d.Type == TypeLogRecovered
		if fault == nil || free != (fault.Code == CodeUnknownType) || !free && fault.Reason != ReasonCeiling {
			t.Errorf("%s/%d at ceiling 1: %+v", d.Type, d.Schema, fault)
		}
	}
	for _, info := range Types() {
		if info.Level != 1 {
			t.Errorf("the catalogue has %s/%d of level %d", info.Type, info.Schema, info.Level)
		}
	}
}
