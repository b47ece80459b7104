package discover

import (
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"skein/mesh/ident"
)

// play runs act of an announcer or an asker for a while on a made-up clock and
// returns when it sent.
func play(from time.Time, length time.Duration, act func(now time.Time, send func()) time.Duration) []time.Duration {
	var sent []time.Duration
	for now := from; now.Sub(from) < length; {
		wait := act(now, func() { sent = append(sent, now.Sub(from)) })
		now = now.Add(max(wait, time.Millisecond))
	}
	return sent
}

func TestAnnouncementsBecomeQuiet(t *testing.T) {
	var a announcer
	start := time.Unix(1000, 0)
	a.start(start)
	sent := play(start, time.Hour, a.act)
	if want := []time.Duration{0, time.Second, 3 * time.Second}; len(sent) != 3 || sent[0] != want[0] || sent[1] != want[1] || sent[2] != want[2] {
		t.Fatalf("announced at %v, want %v", sent, want)
	}
}

func TestAnswersAreQuickButNotMoreThanFiveASecond(t *testing.T) {
	var a announcer
	start := time.Unix(1000, 0)
	sent := play(start, time.Second, func(now time.Time, send func()) time.Duration {
		a.answer(now, true) // somebody asks all the time
		return min(a.act(now, send), time.Millisecond)
	})
	if len(sent) == 0 || sent[0] > answerMax || len(sent) > 5 {
		t.Fatalf("answered at %v", sent)
	}
	for i, at := range sent[1:] {
		if at-sent[i] < answerGap {
			t.Fatalf("answered at %v", sent)
		}
	}
}

func TestQuestionsBecomeRare(t *testing.T) {
	var k asker
	start := time.Unix(1000, 0)
	k.start(start)
	sent := play(start, time.Hour, k.act)
	if len(sent) < 3 || sent[0] > askSpread || sent[1] > 2*time.Second {
		t.Fatalf("asked at %v", sent)
	}
	if len(sent) > 60 {
		t.Fatalf("asked %d times in an hour", len(sent))
	}
}

func TestAnotherNodesQuestionStandsForOurs(t *testing.T) {
	start := time.Unix(1000, 0)
	self, friend, stranger := someone(t, 1), someone(t, 2), someone(t, 3)
	seen := sightings{}
	seen.note(friend, 1, start)
	asks := func(known ...ident.NodeID) message {
		return message{query: true, questions: []question{{serviceName, dnsmessage.TypePTR}}, known: known}
	}
	quiet := func() asker { return asker{gap: askLast, due: start.Add(time.Second)} }
	for _, c := range []struct {
		name     string
		asker    asker
		msg      message
		postpone bool
	}{
		{"knows no more than we", quiet(), asks(friend.ID, self.ID), true},
		{"knows somebody we do not", quiet(), asks(friend.ID, stranger.ID), false},
		{"early days", asker{gap: askFirst, due: start.Add(time.Second)}, asks(), false},
		{"asks something else", quiet(), message{query: true, questions: []question{{"x.local.", dnsmessage.TypeA}}}, false},
	} {
		due := c.asker.due
		c.asker.heard(c.msg, seen, self.ID, start)
		if postponed := c.asker.due != due; postponed != c.postpone {
			t.Errorf("%s: postponed %v, want %v", c.name, postponed, c.postpone)
		}
	}
}

func TestSightings(t *testing.T) {
	now := time.Unix(1000, 0)
	ss := sightings{}
	e := someone(t, 1)
	if _, tell := ss.note(e, 1, now); !tell {
		t.Fatal("a new node is not told")
	}
	if _, tell := ss.note(e, 1, now.Add(tellAgain/2)); tell {
		t.Fatal("the same is told at once again")
	}
	if _, tell := ss.note(e, 1, now.Add(2*tellAgain)); !tell {
		t.Fatal("a node that announces itself again is not told")
	}
	moved := e
	moved.LinkPort++
	if got, tell := ss.note(moved, 1, now.Add(2*tellAgain)); !tell || got.LinkPort != moved.LinkPort {
		t.Fatal("a change is not told")
	}
	if got := ss.known(1, now); len(got) != 1 || len(ss.known(2, now)) != 0 || len(ss.known(1, now.Add(2*knownFor))) != 0 {
		t.Fatalf("known are %v", got)
	}
	for i := range maxSightings + 10 {
		ss.note(someone(t, 1), 2, now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(ss) > maxSightings {
		t.Fatalf("%d nodes are remembered", len(ss))
	}
	ss.dropInterface(2)
	if len(ss) > 1 {
		t.Fatalf("%d nodes are left of an interface that is gone", len(ss))
	}
}

func TestANodeOnTwoInterfacesIsOneNode(t *testing.T) {
	now := time.Unix(1000, 0)
	ss := sightings{}
	wifi, cable := someone(t, 1), ident.Endpoint{}
	cable = wifi
	wifi.Addrs = addrs("10.1.0.1", "10.3.0.1")
	cable.Addrs = addrs("10.2.0.1", "10.3.0.1")
	ss.note(wifi, 3, now)
	got, tell := ss.note(cable, 2, now)
	if !tell || len(got.Addrs) != 3 {
		t.Fatalf("told %v with %v", tell, got.Addrs)
	}
	if _, tell = ss.note(wifi, 3, now); tell {
		t.Fatal("two interfaces look like a node that keeps moving")
	}
}
