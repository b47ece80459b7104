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
	Deployments(ctx context.Context, at *view.At) (view.DeploymentList, error)
	Alerts(ctx context.Context, at *view.At) (view.AlertList, error)
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
		func(ctx context.Context, in *AtIn) (*body[told[view.Alerts]], error) {
			return listing[view.Alerts](ctx, s, in, "alerts", s.cfg.Past.Alerts)
		})
	add(s, getting("/deployments", "listDeployments", "The deployments that are some robot's newest, and how far they are"),
		func(ctx context.Context, in *AtIn) (*body[told[view.Deployments]], error) {
			return listing[view.Deployments](ctx, s, in, "deployments", s.cfg.Past.Deployments)
		})
	add(s, getting("/deployments/{id}", "getDeployment", "One deployment, and how far it is"),
		func(ctx context.Context, in *deploymentIn) (*body[view.OneDeployment], error) {
			all, err := listed(ctx, s, &in.AtIn, s.cfg.Past.Deployments)
			if err != nil {
				return nil, err
			}
			for _, d := range all.Rows {
				if d.ID == in.ID {
					return answer(view.OneDeployment{Deployment: d, AsOf: all.AsOf.Filled()}, nil)
				}
			}
			return nil, problem(http.StatusNotFound, "not_found", "no robot's newest deployment is "+clip(in.ID), "GET /api/v1/deployments lists them").Problem
		})
}

// listed is a list as it is, or was at a moment.
func listed[R any](ctx context.Context, s *Server, in *AtIn, look func(context.Context, *view.At) (view.List[R], error)) (list view.List[R], err error) {
	err = s.atMoment(ctx, in, func(at *view.At) (_ *view.AsOf, err error) {
		list, err = look(ctx, at)
		return &list.AsOf, err
	})
	return list, err
}

// listing answers with a list, in the form of a T that has it under a name.
func listing[T, R any](ctx context.Context, s *Server, in *AtIn, name string, look func(context.Context, *view.At) (view.List[R], error)) (*body[told[T]], error) {
	list, err := listed(ctx, s, in, look)
	if err != nil {
		return nil, err
	}
	return answer(tellList[T](&s.texts, name, list), nil)
}
