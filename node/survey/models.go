package survey

import (
	"context"

	"skein/consensus/fleet"
	"skein/consensus/views"
	"skein/node/gateway/view"
)

// Overview is the fleet in figures, as it is or was at a moment.
func (s *Surveyor) Overview(ctx context.Context, at *view.At) (out view.Overview, err error) {
	err = s.model(ctx, at, func(v *views.Views, asOf view.AsOf) { out = view.Overview{Overview: v.Overview(), AsOf: asOf} })
	return out, err
}

// Deployments are how far deployments are, or were at a moment.
func (s *Surveyor) Deployments(ctx context.Context, at *view.At) (out view.Deployments, err error) {
	err = s.model(ctx, at, func(v *views.Views, asOf view.AsOf) {
		out = view.Deployments{Deployments: v.Deployments(), AsOf: asOf}
	})
	return out, err
}

// Alerts are what is wrong, or was at a moment, by what the fleet had decided.
func (s *Surveyor) Alerts(ctx context.Context, at *view.At) (out view.Alerts, err error) {
	err = s.model(ctx, at, func(v *views.Views, asOf view.AsOf) { out = view.Alerts{Alerts: v.Alerts(), AsOf: asOf} })
	return out, err
}

// model gives the read models of the present, which are kept up to date, or of a
// moment, which are built from its state.
func (s *Surveyor) model(ctx context.Context, at *view.At, f func(*views.Views, view.AsOf)) error {
	return s.read(ctx, at, func(state *fleet.State, asOf view.AsOf) {
		kept := s.src.Models
		if at != nil {
			kept = views.New()
			kept.Reset(state)
		}
		f(kept, asOf)
	})
}
