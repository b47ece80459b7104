package telemetry

import (
	"testing"

	"pgregory.net/rapid"
)

func calm() Sample {
	return Sample{
		CPUPercent: 10, MemUsedBytes: 2_000, MemTotalBytes: 10_000, DiskUsedBytes: 50_000, DiskTotalBytes: 100_000,
		TemperatureC: new(45.0), BatteryPercent: new(80.0), NetRxBytesPerSec: 5_000, NetTxBytesPerSec: 100_000,
		UptimeSeconds: 1000, Load1: 0.3,
	}
}

func TestSignificantAtTheBound(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Sample)
		want   bool
	}{
		"nothing":                   {func(*Sample) {}, false},
		"uptime grows":              {func(s *Sample) { s.UptimeSeconds += 1e6 }, false},
		"rebooted":                  {func(s *Sample) { s.UptimeSeconds = 3 }, true},
		"cpu just under":            {func(s *Sample) { s.CPUPercent += 4.99 }, false},
		"cpu at bound":              {func(s *Sample) { s.CPUPercent += 5 }, true},
		"cpu falls":                 {func(s *Sample) { s.CPUPercent -= 5 }, true},
		"memory just under":         {func(s *Sample) { s.MemUsedBytes += 199 }, false},
		"memory at bound":           {func(s *Sample) { s.MemUsedBytes += 200 }, true},
		"memory is built in":        {func(s *Sample) { s.MemTotalBytes++ }, true},
		"disk just under":           {func(s *Sample) { s.DiskUsedBytes += 999 }, false},
		"disk is emptied":           {func(s *Sample) { s.DiskUsedBytes -= 1000 }, true},
		"temperature just under":    {func(s *Sample) { s.TemperatureC = new(45.99) }, false},
		"temperature at bound":      {func(s *Sample) { s.TemperatureC = new(46.0) }, true},
		"sensor lost":               {func(s *Sample) { s.TemperatureC = nil }, true},
		"battery a point":           {func(s *Sample) { s.BatteryPercent = new(79.0) }, true},
		"battery half a point":      {func(s *Sample) { s.BatteryPercent = new(79.5) }, false},
		"chatter on a quiet link":   {func(s *Sample) { s.NetRxBytesPerSec = 14_999 }, false},
		"quiet link at floor":       {func(s *Sample) { s.NetRxBytesPerSec = 15_000 }, true},
		"busy link, under a fourth": {func(s *Sample) { s.NetTxBytesPerSec = 133_000 }, false},
		"busy link, a fourth":       {func(s *Sample) { s.NetTxBytesPerSec = 134_000 }, true},
		"load just under":           {func(s *Sample) { s.Load1 += 0.49 }, false},
		"load at bound":             {func(s *Sample) { s.Load1 += 0.5 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			next := calm()
			c.change(&next)
			if got := Significant(calm(), next); got != c.want {
				t.Fatalf("significant is %v, want %v", got, c.want)
			}
		})
	}
}

func TestNoSensorsIsNoNews(t *testing.T) {
	var s Sample // nothing known at all, not even totals
	if Significant(s, s) {
		t.Fatal("the same empty sample twice is news")
	}
}

// Whatever the figures, a sample is never news compared with itself, and but
// for uptime the rule has no direction.
func TestSignificantProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) Sample {
			f := rapid.Float64Range(0, 1e9)
			opt := func(n string) *float64 {
				if rapid.Bool().Draw(t, name+n+"?") {
					return new(rapid.Float64Range(-50, 150).Draw(t, name+n))
				}
				return nil
			}
			return Sample{
				CPUPercent: f.Draw(t, name+"cpu"), MemUsedBytes: rapid.Uint64().Draw(t, name+"mem"), MemTotalBytes: 1 << 33,
				DiskUsedBytes: rapid.Uint64().Draw(t, name+"disk"), DiskTotalBytes: 1 << 40,
				TemperatureC: opt("temp"), BatteryPercent: opt("battery"),
				NetRxBytesPerSec: f.Draw(t, name+"rx"), NetTxBytesPerSec: f.Draw(t, name+"tx"), Load1: f.Draw(t, name+"load"),
			}
		}
		a, b := draw("a"), draw("b")
		if Significant(a, a) {
			t.Fatal("a sample is news compared with itself")
		}
		if Significant(a, b) != Significant(b, a) {
			t.Fatal("news in one direction only")
		}
	})
}
