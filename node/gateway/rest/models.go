package rest

import (
	"context"
	"net/http"

	"skein/node/gateway/view"
)

// Models are what is kept up to date about the fleet as a whole, or was at a
// moment. They cost what the answer costs, except about the past.
type Models interface {
	Overview(ctx context.Context, at *view.At) (view.Overview, error)
	Deployments(ctx context.Context, at *view.At) (view.Deployments, error)
	Alerts(ctx context.Context, at *view.At) (view.Alerts, error)
}

type deploymentIn struct {
	AtIn
	ID string `path:"id" maxLength:"128" doc:"The deployment's id"`
}

// models are the questions about the fleet as a whole.
func (s *Server) models() {
	add(s, getting("/overview", "getOverview", "The fleet in figures: robots by stage, type and build, voters, alerts"),
		func(ctx context.Context, in *AtIn) (*body[view.Overview], error) {
			var o view.Overview
			err := s.atMoment(ctx, in, func(at *view.At) (_ *view.AsOf, err error) {
				o, err = s.cfg.Past.Overview(ctx, at)
				o = o.Filled()
				return &o.AsOf, err
			})
			return answer(o, err)
		})
	add(s, getting("/alerts", "listAlerts", "What is wrong now, by what the fleet decided; critical first"),
		func(ctx context.Context, in *AtIn) (*body[view.Alerts], error) {
			var a view.Alerts
			err := s.atMoment(ctx, in, func(at *view.At) (_ *view.AsOf, err error) {
				a, err = s.cfg.Past.Alerts(ctx, at)
				a = a.Filled()
				return &a.AsOf, err
			})
			return answer(a, err)
		})
	add(s, getting("/deployments", "listDeployments", "The deployments that are some robot's newest, and how far they are"),
		func(ctx context.Context, in *AtIn) (*body[view.Deployments], error) {
			d, err := s.deployments(ctx, in)
			return answer(d, err)
		})
	add(s, getting("/deployments/{id}", "getDeployment", "One deployment, and how far it is"),
		func(ctx context.Context, in *deploymentIn) (*body[view.OneDeployment], error) {
			all, err := s.deployments(ctx, &in.AtIn)
			if err != nil {
				return nil, err
			}
			for _, d := range all.Deployments {
				if d.ID == in.ID {
					return answer(view.OneDeployment{Deployment: d, AsOf: all.AsOf}, nil)
				}
			}
			return nil, problem(http.StatusNotFound, "not_found", "no robot's newest deployment is "+clip(in.ID), "GET /api/v1/deployments lists them").Problem
		})
}

func (s *Server) deployments(ctx context.Context, in *AtIn) (d view.Deployments, err error) {
	err = s.atMoment(ctx, in, func(at *view.At) (_ *view.AsOf, err error) {
		d, err = s.cfg.Past.Deployments(ctx, at)
		d = d.Filled()
		return &d.AsOf, err
	})
	return d, err
}
