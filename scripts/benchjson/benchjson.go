// Package benchjson is the form in which benchmarks report: one JSON object a
// line on standard output, so that `make bench` can be kept, compared and
// plotted. What is for people goes to standard error.
//
// Benchmark programs and tests import it; it imports nothing of Skein.
package benchjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// Result is one figure, alone or beside that of a peer measured in the same run
// under the same conditions, or beside a goal.
type Result struct {
	// Bench names what was measured, with its conditions: "discovery/20 nodes/median".
	Bench string
	// Unit is the unit of both figures: "s", "ms", "B/s", "MB", "%", "1/s".
	Unit string
	// Ours is Skein's figure.
	Ours float64
	// Peer names what Ours is held against: "etcd 3.7", or "goal". Empty: nothing.
	Peer string
	// Theirs is the peer's figure; it means nothing without Peer.
	Theirs float64
}

// line is the form on the wire. Ratio is ours divided by theirs; both are null
// without a peer, and ratio is null when theirs is 0.
type line struct {
	Bench  string   `json:"bench"`
	Unit   string   `json:"unit"`
	Ours   float64  `json:"ours"`
	Peer   string   `json:"peer"`
	Theirs *float64 `json:"theirs"`
	Ratio  *float64 `json:"ratio"`
}

// Print writes r as one line. A result without a name or a unit, or with a
// figure that is not finite, is refused: it would be read as a measurement.
func Print(w io.Writer, r Result) error {
	if r.Bench == "" || r.Unit == "" {
		return errors.New("bench result has no name or no unit")
	}
	for _, figure := range []float64{r.Ours, r.Theirs} {
		if math.IsNaN(figure) || math.IsInf(figure, 0) {
			return fmt.Errorf("bench result %q is %v %s", r.Bench, figure, r.Unit)
		}
	}
	out := line{Bench: r.Bench, Unit: r.Unit, Ours: rounded(r.Ours), Peer: r.Peer}
	if r.Peer != "" {
		theirs := rounded(r.Theirs)
		out.Theirs = &theirs
		if r.Theirs != 0 {
			ratio := rounded(r.Ours / r.Theirs)
			out.Ratio = &ratio
		}
	}
	text, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("bench result %q: %w", r.Bench, err)
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// rounded keeps four significant digits; no benchmark here knows more.
func rounded(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	if math.IsInf(scale, 0) || scale == 0 {
		return v
	}
	return math.Round(v*scale) / scale
}

// Percentile is the p-th percentile (0 to 100) of samples by the nearest rank,
// so it is always one that was measured: 50 is the median, 100 the worst. It is
// NaN, which Print refuses, without samples.
func Percentile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}
