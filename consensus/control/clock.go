package control

import (
	"slices"
	"time"

	"skein/mesh/ident"
)

const (
	// clockFar is how far a leader's clock may be from what the voters' clocks say
	// together before another leads.
	clockFar = 5 * time.Second
	// handOverAgain is the least time between two attempts to hand over.
	handOverAgain = 10 * time.Second
)

// Correction is how far a clock is behind what the voters' clocks say together,
// given each known voter's clock minus this one; a voter's own is 0 among them.
// It is the median. Of an even number, of two voters above all, it is the one of
// the middle two that is nearer to 0: as long as no majority says that this clock
// is wrong, it counts as right. Without any it is 0.
func Correction(offsets []time.Duration) time.Duration {
	n := len(offsets)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(offsets))
	low, high := sorted[(n-1)/2], sorted[n/2]
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	}
	if n%2 == 1 {
		return low
	}
	return 0
}

// handOver finds a voter to lead in place of this node, whose clock is far off.
// Until then entries are stamped by the corrected clock, so nothing is urgent.
func (p *planner) handOver(w world) (to ident.NodeID, due bool) {
	offsets := map[ident.NodeID]time.Duration{w.self: 0}
	for _, id := range w.raftVoters {
		if d, ok := w.offsets[id]; ok && id != w.self {
			offsets[id] = d
		}
	}
	var all []time.Duration
	for _, d := range offsets {
		all = append(all, d)
	}
	right := Correction(all)
	if right.Abs() <= clockFar || w.now.Sub(p.handedOver) < handOverAgain && !p.handedOver.IsZero() {
		return "", false
	}
	for _, id := range w.raftVoters {
		d, known := offsets[id]
		if id == w.self || !known || (d-right).Abs() > clockFar || !w.alive(id) {
			continue
		}
		if to == "" || (d-right).Abs() < (offsets[to]-right).Abs() {
			to = id
		}
	}
	if to != "" {
		p.handedOver = w.now
	}
	return to, to != ""
}
