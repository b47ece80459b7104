package member

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skein/mesh/ident"
)

func sysCounter(t *testing.T, col int) float64 {
	b, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if fields[0] == "lo:" {
			v, _ := strconv.ParseFloat(fields[col], 64)
			return v
		}
	}
	return 0
}

func TestMeasure(t *testing.T) {
	if os.Getenv("MEASURE") == "" {
		t.Skip()
	}
	n, _ := strconv.Atoi(os.Getenv("MEASURE"))
	f := newFleet(t, n, nil)
	formed(t, f)
	joins, kills := 5, 14
	if os.Getenv("ONLYJOIN") != "" {
		joins = 60
		kills = 0
	}
	var conv []time.Duration
	for range joins {
		start := time.Now()
		x := f.add(nil)
		if _, err := x.Join(t.Context(), []ident.Endpoint{f.nodes[0].endpoint()}); err != nil {
			t.Fatal(err)
		}
		whole(t, 10*time.Second, f.nodes)
		conv = append(conv, time.Since(start))
		f.nodes = f.nodes[:n]
		x.stop()
		whole(t, 10*time.Second, f.nodes)
	}
	fmt.Println("join convergence", conv)
	if os.Getenv("ONLYJOIN") != "" {
		return
	}
	time.Sleep(5 * time.Second)
	secs := 60.0
	if os.Getenv("ONLYKILL") != "" {
		secs, kills = 1, 60
	}
	b0, p0 := sysCounter(t, 9), sysCounter(t, 10)
	time.Sleep(time.Duration(secs) * time.Second)
	b1, p1 := sysCounter(t, 9), sysCounter(t, 10)
	fmt.Printf("idle %.1f B/s per node IP level, %.2f packets/s\n", ((b1-b0)-14*(p1-p0))/secs/float64(n), (p1-p0)/secs/float64(n))
	var all []time.Duration
	for range kills {
		victim := f.nodes[len(f.nodes)-1]
		rest := f.nodes[:len(f.nodes)-1]
		victim.kill()
		start := time.Now()
		fmt.Println("kill", victim.key.ID(), start.Format("05.000"))
		seen := map[*testNode]bool{}
		until(t, 20*time.Second, "dead", func() bool {
			for _, x := range rest {
				if !seen[x] && x.sees(victim.key.ID()) == Dead {
					seen[x] = true
					all = append(all, time.Since(start))
				}
			}
			return len(seen) == len(rest)
		})
		f.nodes = rest
		f.add(nil)
		formed(t, f)
	}
	slices.Sort(all)
	fmt.Println("kill detection median", all[len(all)/2], "min", all[0], "p90", all[len(all)*9/10], "max", all[len(all)-1])
}

func TestMeasureLoss(t *testing.T) {
	if os.Getenv("MEASURE") == "" {
		t.Skip()
	}
	n, _ := strconv.Atoi(os.Getenv("MEASURE"))
	loss, _ := strconv.ParseFloat(os.Getenv("LOSS"), 64)
	f := newFleet(t, n, nil)
	formed(t, f)
	var on atomic.Bool
	for _, x := range f.nodes {
		x.net.lose.Store(&on)
	}
	_ = loss
	var deaths atomic.Int64
	stop := time.Now().Add(60 * time.Second)
	lossRate.Store(int64(loss * 1000))
	last := map[[2]ident.NodeID]State{}
	for time.Now().Before(stop) {
		for _, x := range f.nodes {
			for _, m := range x.Members() {
				k := [2]ident.NodeID{x.key.ID(), m.ID}
				if m.State != Alive && last[k] == Alive {
					deaths.Add(1)
				}
				last[k] = m.State
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println("false deaths seen (observer,victim) in 60 s", deaths.Load())
	lossRate.Store(0)
}
