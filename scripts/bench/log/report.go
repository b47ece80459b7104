package main

import (
	"errors"
	"os"

	"skein/scripts/benchjson"
)

// report prints figures and remembers the first that could not be printed.
type report struct{ err error }

// alone prints a figure with nothing beside it.
func (r *report) alone(name, unit string, ours float64) { r.beside(name, unit, ours, "", 0) }

// beside prints a figure with that of a peer, or a goal.
func (r *report) beside(name, unit string, ours float64, peer string, theirs float64) {
	r.err = errors.Join(r.err, benchjson.Print(os.Stdout, benchjson.Result{Bench: name, Unit: unit, Ours: ours, Peer: peer, Theirs: theirs}))
}

func median(samples []float64) float64 { return benchjson.Percentile(samples, 50) }
