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

// Filled is the list with nothing null in it.
func (d Deployments) Filled() Deployments {
	d.AsOf = d.AsOf.Filled()
	if d.Deployments == nil {
		d.Deployments = []views.Deployment{}
	}
	return d
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

// Filled is the list with nothing null in it.
func (a Alerts) Filled() Alerts {
	a.AsOf = a.AsOf.Filled()
	if a.Alerts == nil {
		a.Alerts = []views.Alert{}
	}
	return a
}
