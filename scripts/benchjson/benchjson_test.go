package benchjson

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	for _, tc := range []struct {
		result Result
		want   string
	}{
		{Result{Bench: "failover/p50", Unit: "s", Ours: 0.5},
			`{"bench":"failover/p50","unit":"s","ours":0.5,"peer":"","theirs":null,"ratio":null}`},
		{Result{Bench: "append/64 clients", Unit: "1/s", Ours: 13155, Peer: "etcd 3.7", Theirs: 5274},
			`{"bench":"append/64 clients","unit":"1/s","ours":13160,"peer":"etcd 3.7","theirs":5274,"ratio":2.494}`},
		{Result{Bench: "lost", Unit: "events", Ours: 0, Peer: "goal", Theirs: 0},
			`{"bench":"lost","unit":"events","ours":0,"peer":"goal","theirs":0,"ratio":null}`},
		{Result{Bench: "small", Unit: "s", Ours: 1.23456e-7},
			`{"bench":"small","unit":"s","ours":1.235e-7,"peer":"","theirs":null,"ratio":null}`},
		{Result{Bench: "drift", Unit: "ms", Ours: -12.3456},
			`{"bench":"drift","unit":"ms","ours":-12.35,"peer":"","theirs":null,"ratio":null}`},
	} {
		var b strings.Builder
		if err := Print(&b, tc.result); err != nil {
			t.Errorf("%s: %v", tc.result.Bench, err)
		}
		if b.String() != tc.want+"\n" {
			t.Errorf("got  %swant %s", b.String(), tc.want)
		}
	}
}

func TestPrintRefusesWhatIsNoMeasurement(t *testing.T) {
	for _, bad := range []Result{
		{Unit: "s", Ours: 1},
		{Bench: "x", Ours: 1},
		{Bench: "x", Unit: "s", Ours: math.NaN()},
		{Bench: "x", Unit: "s", Ours: 1, Peer: "goal", Theirs: math.Inf(1)},
		{Bench: "x", Unit: "s", Ours: Percentile(nil, 50)},
	} {
		var b strings.Builder
		if err := Print(&b, bad); err == nil || b.Len() > 0 {
			t.Errorf("%+v: error %v, wrote %q", bad, err, b.String())
		}
	}
	if err := Print(broken{}, Result{Bench: "x", Unit: "s"}); err == nil {
		t.Error("a writer's error is swallowed")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestPercentile(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3, 10, 9, 8, 7, 6}
	for p, want := range map[float64]float64{0: 1, 10: 1, 11: 2, 50: 5, 99: 10, 100: 10} {
		if got := Percentile(samples, p); got != want {
			t.Errorf("p%v is %v, want %v", p, got, want)
		}
	}
	if samples[0] != 5 {
		t.Error("the samples were sorted in place")
	}
	if got := Percentile([]float64{7}, 1); got != 7 {
		t.Errorf("of one sample: %v", got)
	}
}
