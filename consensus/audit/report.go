package audit

import (
	"fmt"
	"time"

	"skein/mesh/ident"
)

// maxFindings bounds what is kept of what is wrong.
const maxFindings = 100

// Finding is one thing that is wrong.
type Finding struct {
	// File is the path, Offset the byte of it at which the trouble begins.
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	// Event is the first event that is not proved any more, 0 if none is
	// concerned.
	Event uint64 `json:"event,omitempty"`
	// Problem says what is wrong in words.
	Problem string `json:"problem"`
}

// String is the finding on one line.
func (f Finding) String() string {
	text := fmt.Sprintf("%s at byte %d: %s", f.File, f.Offset, f.Problem)
	if f.Event > 0 {
		text += fmt.Sprintf(" (event %d)", f.Event)
	}
	return text
}

// Counts says how much was looked at.
type Counts struct {
	Files       int    `json:"files"`
	Bytes       int64  `json:"bytes"`
	Events      uint64 `json:"events"`
	Checkpoints int    `json:"checkpoints"`
	// Seals counts those that were verified; SealsUnchecked those of which the
	// sealed event, or the voters of that time, are not here.
	Seals          int `json:"seals"`
	SealsUnchecked int `json:"sealsUnchecked"`
}

// Report is what an audit found.
type Report struct {
	// Source is what was audited.
	Source string `json:"source"`
	// FleetName and History are as the newest state says; Recoveries counts how
	// often the log was recovered or restored.
	FleetName  string `json:"fleetName"`
	History    string `json:"history"`
	Recoveries uint64 `json:"recoveries"`
	// First and Last are the events that are here, both 0 if none. Hash is the
	// chain's after Last, to be compared with another node's.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Hash  string `json:"hash"`
	// StateHash is that of the state after Last; "" when damage left none.
	StateHash string `json:"stateHash"`
	// SealedSeq is the newest event that a good seal covers, 0 if none does; By
	// and At are who sealed, and when.
	SealedSeq uint64       `json:"sealedSeq"`
	SealedBy  ident.NodeID `json:"sealedBy,omitempty"`
	SealedAt  time.Time    `json:"sealedAt,omitzero"`
	Counts    Counts       `json:"counts"`
	// Findings are what is wrong, at most 100 of Wrong.
	Findings []Finding `json:"findings"`
	Wrong    int       `json:"wrong"`
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return r.Wrong == 0 }

func (r *Report) add(f Finding) {
	r.Wrong++
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, f)
	}
}
