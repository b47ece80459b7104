package skeinlog

import (
	"testing"
	"time"

	"skein/consensus/event"
	"skein/scripts/bench/log/load"
)

// What is proposed has the size it is said to have, differs, and is valid.
func TestDrafts(t *testing.T) {
	actor, err := verify(token)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	all := drafts("client 15")
	for n := range uint64(1000) {
		d := number(all[n%Robots], 1_700_000_000_000_000+n)
		if len(d.Data) != load.PayloadBytes {
			t.Fatalf("%d bytes: %s", len(d.Data), d.Data)
		}
		if seen[string(d.Data)] {
			t.Fatalf("twice: %s", d.Data)
		}
		seen[string(d.Data)] = true
		b := event.Batch{Producer: event.Producer{Node: id(firstClient), Boot: 1, N: n + 1}, Actor: actor, Drafts: []event.Draft{d}}
		if err := b.Validate(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h, other histogram
	for n := 1; n <= 1000; n++ {
		h.add(time.Duration(n) * time.Microsecond)
	}
	other.add(time.Hour)
	other.add(0)
	h.merge(&other)
	if h.count != 1002 {
		t.Fatalf("%d counted", h.count)
	}
	for q, want := range map[float64]float64{0.5: 500e3, 0.99: 990e3} {
		if got := h.quantile(q); got < want*0.98 || got > want*1.09 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	if got := h.quantile(0.9999); got < 3600e9 || got > 3600e9*1.07 {
		t.Errorf("the highest is %v", got)
	}
	for n := uint64(1); n < 1<<40; n += 1 + n/7 {
		if up := upper(bucket(n)); up < float64(n) || up > float64(n)*1.07+1 {
			t.Fatalf("%d is in a bucket up to %v", n, up)
		}
	}
}
