package member

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"skein/mesh/ident"
)

// noRefusal welcomes everybody.
func noRefusal(ident.NodeID) error { return nil }

// say delivers a statement as memberlist would.
func say(tb *table, key ident.Key, st statement) error {
	n := &memberlist.Node{Name: nameOf(st.endpoint.ID), Meta: st.encode(key)}
	if err := tb.NotifyAlive(n); err != nil {
		return err
	}
	tb.take(n)
	return nil
}

func mustSay(t *testing.T, tb *table, key ident.Key, st statement) {
	t.Helper()
	if err := say(tb, key, st); err != nil {
		t.Fatal(err)
	}
}

func TestForgedMetadataKeepsANodeOut(t *testing.T) {
	me, _ := someone(t, "10.0.0.9")
	key, st := someone(t, "10.0.0.1")
	otherKey, other := someone(t, "10.0.0.2")
	tb := newTable(me.ID(), noRefusal)
	forged := st
	forged.endpoint.PublicKey = other.endpoint.PublicKey
	for name, n := range map[string]*memberlist.Node{
		"no metadata":              {Name: nameOf(st.endpoint.ID)},
		"signed by another key":    {Name: nameOf(st.endpoint.ID), Meta: forged.encode(otherKey)},
		"another's, whole, copied": {Name: nameOf(st.endpoint.ID), Meta: other.encode(otherKey)},
		"not a node's name":        {Name: "printer", Meta: st.encode(key)},
	} {
		if err := tb.NotifyAlive(n); !errors.Is(err, errBadMeta) {
			t.Errorf("%s: %v, want errBadMeta", name, err)
		}
	}
	if got := tb.members(); len(got) != 0 {
		t.Fatalf("listed %v", got)
	}
}

func TestOlderStatementOfTheSameBootIsRefused(t *testing.T) {
	me, _ := someone(t, "10.0.0.9")
	key, st := someone(t, "10.0.0.1")
	tb := newTable(me.ID(), noRefusal)
	newer, restarted := st, st
	newer.n++
	restarted.boot, restarted.n = st.boot+1, 1
	mustSay(t, tb, key, newer)
	if err := say(tb, key, st); !errors.Is(err, errStale) {
		t.Fatalf("replay: %v, want errStale", err)
	}
	mustSay(t, tb, key, newer)
	mustSay(t, tb, key, restarted)
	if got := tb.members(); len(got) != 1 || got[0].Boot != restarted.boot {
		t.Fatalf("listed %+v", got)
	}
}

func TestRefusedNodeIsGoneFromListAndRoutes(t *testing.T) {
	me, _ := someone(t, "10.0.0.9")
	key, st := someone(t, "10.0.0.1")
	refused := false
	tb := newTable(me.ID(), func(id ident.NodeID) error {
		if refused && id == st.endpoint.ID {
			return errRevoked
		}
		return nil
	})
	mustSay(t, tb, key, st)
	from := addrPort("10.0.0.1:2")
	if to, _, _ := tb.where(nameOf(st.endpoint.ID)); len(to) != 1 || !tb.hear(from) || !tb.admits(from.Addr()) || len(tb.members()) != 1 {
		t.Fatal("a welcome node is not served")
	}
	refused = true
	tb.refresh()
	if to, _, known := tb.where(nameOf(st.endpoint.ID)); len(to) != 0 || !known || tb.hear(from) || tb.admits(from.Addr()) || len(tb.members()) != 0 {
		t.Fatal("a refused node is still served")
	}
	if err := say(tb, key, st); !errors.Is(err, errRevoked) {
		t.Fatalf("refused node says it is alive: %v, want errRevoked", err)
	}
	// Another robot gets its address: at the latest after blockFor it is heard.
	now := time.Now()
	tb.now = func() time.Time { return now.Add(blockFor + time.Second) }
	if !tb.hear(from) || !tb.admits(from.Addr()) {
		t.Fatal("an address is blocked for ever")
	}
	tb.now = time.Now
	heirKey, heir := someone(t, "10.0.0.1")
	mustSay(t, tb, heirKey, heir)
	if !tb.hear(from) || !tb.admits(from.Addr()) {
		t.Fatal("a welcome node is blocked for who had its address before")
	}
}

func TestPacketFromADeadNodeIsAReasonToTalk(t *testing.T) {
	me, _ := someone(t, "10.0.0.9")
	key, st := someone(t, "10.0.0.1")
	tb := newTable(me.ID(), noRefusal)
	mustSay(t, tb, key, st)
	tb.NotifyLeave(&memberlist.Node{Name: nameOf(st.endpoint.ID)})
	tb.hear(addrPort("10.0.0.1:9")) // somebody else there
	select {
	case e := <-tb.behind:
		t.Fatalf("suggested %v", e)
	default:
	}
	if !tb.hear(addrPort("10.0.0.1:2")) {
		t.Fatal("a dead node's packet is dropped")
	}
	select {
	case e := <-tb.behind:
		if e.ID != st.endpoint.ID {
			t.Fatalf("suggested %v", e)
		}
	default:
		t.Fatal("nothing follows from it")
	}
}

func TestTableIsBounded(t *testing.T) {
	me, _ := someone(t, "10.0.0.9")
	tb := newTable(me.ID(), noRefusal)
	now := time.Now()
	tb.now = func() time.Time { return now }
	for i := range MaxGone + 5 {
		now = now.Add(time.Second)
		key, st := someone(t, "10.0.0.1")
		mustSay(t, tb, key, st)
		if i > 0 { // the first stays alive
			tb.NotifyLeave(&memberlist.Node{Name: nameOf(st.endpoint.ID)})
		}
	}
	if got := len(tb.members()); got != MaxGone+1 {
		t.Fatalf("%d are listed, want 1 alive and %d gone", got, MaxGone)
	}
	now = now.Add(RememberGone + time.Second)
	if got := tb.members(); len(got) != 1 || got[0].State != Alive {
		t.Fatalf("after a day %d are listed", len(got))
	}
	tb.rows = map[string]*row{}
	for i := range MaxNodes {
		tb.rows[string(rune(i))] = &row{listed: true, member: Member{State: Alive}}
	}
	key, st := someone(t, "10.0.0.1")
	if err := say(tb, key, st); !errors.Is(err, errFull) {
		t.Fatalf("one too many: %v, want errFull", err)
	}
}

func TestForeignBootWithOurKeyIsNoticed(t *testing.T) {
	key, st := someone(t, "10.0.0.1")
	tb := newTable(key.ID(), noRefusal)
	var heard []statement
	tb.foreign = func(st statement) { heard = append(heard, st) }
	mustSay(t, tb, key, st)
	clone := st
	clone.boot++
	n := &memberlist.Node{Name: nameOf(key.ID()), Meta: clone.encode(key)}
	if err := tb.NotifyAlive(n); err != nil { // memberlist must contradict it, so it passes
		t.Fatal(err)
	}
	if len(heard) != 1 || heard[0].boot != clone.boot {
		t.Fatalf("noticed %v", heard)
	}
}
