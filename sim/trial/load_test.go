package trial

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// The judge of all trials with a load: it must see every kind of loss.
func TestLostSeesEveryKindOfLoss(t *testing.T) {
	robot := ident.IDOf(nil)
	label := func(value string) view.Draft {
		return event.RobotLabelsChanged{Set: map[string]string{"load-0": value}}.Draft(robot)
	}
	foreign := view.Event{Stream: "fleet", Type: "fleet.created", Data: json.RawMessage(`{}`)}
	asEvent := func(d view.Draft) view.Event { return view.Event{Stream: d.Stream, Type: d.Type, Data: d.Data} }
	one, two := []view.Draft{event.GroupCreated{}.Draft("load-0"), label("0")}, []view.Draft{label("1")}
	good := []view.Event{foreign, asEvent(one[0]), asEvent(one[1]), foreign, asEvent(two[0])}
	acks := []Ack{{First: 12, Last: 13, Drafts: one}, {First: 15, Last: 15, Drafts: two}}
	for _, c := range []struct {
		name string
		log  []view.Event
		says string
	}{
		{"all there", good, ""},
		{"more than was acknowledged", append(slices.Clone(good), asEvent(label("2"))), ""},
		{"the end is missing", good[:4], "the log ends at 14"},
		{"another event in its place", []view.Event{foreign, good[1], good[2], good[4], foreign}, "event 15 was acknowledged as"},
		{"other data", []view.Event{foreign, good[1], asEvent(label("7")), foreign, good[4]}, "event 13 was acknowledged as"},
		{"one that happened twice", append(slices.Clone(good), good[4]), "are the same change"},
		{"nothing at all", nil, "the log ends at 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := slices.Clone(c.log)
			for i := range log {
				log[i].Seq = 11 + uint64(i)
			}
			err := Lost(acks, 10, log)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %v, want %q", err, c.says)
			}
		})
	}
	hole := slices.Clone(good)
	for i := range hole {
		hole[i].Seq = 11 + uint64(i)
	}
	if err := Lost(acks, 10, slices.Delete(hole, 3, 4)); err == nil || !strings.Contains(err.Error(), "stands where") {
		t.Errorf("a hole in the numbers: %v", err)
	}
	if err := Lost([]Ack{{First: 12, Last: 12, Drafts: one}}, 10, good); err == nil {
		t.Error("a receipt that names fewer events than were proposed was believed")
	}
}
