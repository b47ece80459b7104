package ws

import (
	"strings"
	"testing"

	"github.com/coder/websocket"

	"skein/node/gateway/view"
)

// Beside what is live, a page may look at any moment, again and again.
func TestAPageLooksAtThePast(t *testing.T) {
	r := newStock()
	r.decide(20, 0)
	p := newNode(t, r, quickTiming()).open()
	p.watch(nil, 0)
	p.until("snapshot")
	for _, seq := range []uint64{3, 0, 20} {
		at := view.At{Seq: seq}.String()
		p.say(`{"type":"at","at":"` + at + `"}`)
		m := p.until("past")
		if m.At != at || m.Problem != nil || m.Fleet.AsOf.At == nil || m.Fleet.AsOf.At.Seq != seq || len(m.Robots) != int(seq) {
			t.Fatalf("at %d: %+v", seq, m)
		}
	}
	p.say(`{"type":"at","at":"21"}`)
	if m := p.until("past"); m.Problem == nil || m.Problem.Code != "not_found" || m.Fleet != nil {
		t.Fatalf("what has not happened: %+v", m)
	}
	r.decide(1, 0)
	if m := p.until("events"); len(m.Events) != 1 {
		t.Fatalf("live events %+v", m)
	}
	p.say(`{"type":"at","at":"21"}`)
	if m := p.until("past"); len(m.Robots) != 21 {
		t.Fatalf("%+v", m)
	}
}

// What this node cannot look at is said without its insides.
func TestAPastThatCannotBeRead(t *testing.T) {
	r := newStock()
	p := newNode(t, r, quickTiming()).open()
	p.watch(nil, 0)
	p.until("snapshot")
	r.change(func() { r.readErr = errDisk })
	p.say(`{"type":"at","at":"0"}`)
	if m := p.until("past"); m.Problem == nil || m.Problem.Status != 500 || m.Problem.Detail == errDisk.Error() {
		t.Fatalf("%+v", m)
	}
}

// A page with a slip of the pen goes on.
func TestAMomentThatIsNone(t *testing.T) {
	p := newNode(t, newStock(), quickTiming()).open()
	p.watch(nil, 0)
	p.until("snapshot")
	for _, at := range []string{"", "-1", "1e3", "18446744073709551615", "now", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z"} {
		p.say(`{"type":"at","at":"` + at + `"}`)
		if m := p.until("past"); m.At != at || m.Problem == nil || m.Problem.Code != "invalid" || m.Problem.Next == "" || m.Fleet != nil {
			t.Fatalf("at %q: %+v", at, m)
		}
	}
	p.say(`{"type":"at","at":"` + strings.Repeat("9", maxMoment+1) + `"}`)
	p.closed(websocket.StatusPolicyViolation, "invalid")
}
