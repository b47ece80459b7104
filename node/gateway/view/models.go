package view

import "skein/consensus/views"

// Overview is the answer of GET /api/v1/overview.
type Overview struct {
	views.Overview
	AsOf AsOf `json:"asOf"`
}

// Filled is the overview with nothing null in it.
func (o Overview) Filled() Overview {
	o.AsOf = o.AsOf.Filled()
	return o
}

// Deployments is the answer of GET /api/v1/deployments, sorted by id.
type Deployments struct {
	Deployments []views.Deployment `json:"deployments"`
	AsOf        AsOf               `json:"asOf"`
}

// OneDeployment is the answer of GET /api/v1/deployments/{id}.
type OneDeployment struct {
	views.Deployment
	AsOf AsOf `json:"asOf"`
}

// Alerts is the answer of GET /api/v1/alerts: critical ones first.
type Alerts struct {
	Alerts []views.Alert `json:"alerts"`
	AsOf   AsOf          `json:"asOf"`
}

// Asked is what a node was asked since it started, for its metrics.
type Asked struct {
	// Views are about the present, and answered from what is kept.
	Views []AskedView
	// Past counts questions about a past moment, which read the log.
	Past uint64
	// Log counts questions for events; Scanned those of them that read a part of
	// the log through, because its index was missing or damaged.
	Log, Scanned uint64
}

// AskedView counts the questions that one view answered.
type AskedView struct {
	View    string
	Queries uint64
	// Kept: the view is a list that is kept from one answer to the next, and
	// Rebuilds counts the questions for which it had to be made anew.
	Kept     bool
	Rebuilds uint64
}
