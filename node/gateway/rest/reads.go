package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"skein/consensus/event"
	"skein/node/gateway/view"
)

// maxPageBytes bounds the data of one page of events.
const maxPageBytes = 4 << 20

type nothing struct{}

type healthIn struct {
	Origin string `header:"Origin"`
}

type healthOut struct {
	// CORS lets a page that another robot served find out that this one lives.
	CORS string `header:"Access-Control-Allow-Origin"`
	Vary string `header:"Vary"`
	Body view.Health
}

type readyOut struct {
	Status int
	Body   view.Ready
}

func (s *Server) health() {
	add(s, route{method: http.MethodGet, path: "/healthz", id: "healthz", summary: "The process answers"},
		func(_ context.Context, in *healthIn) (*healthOut, error) {
			out := &healthOut{Vary: "Origin", Body: view.Health{Status: "ok"}}
			if in.Origin != "" && s.cfg.AllowOrigin(in.Origin) {
				out.CORS = in.Origin
			}
			return out, nil
		})
	add(s, route{method: http.MethodGet, path: "/readyz", id: "readyz", summary: "The node is a member and has the log: 200, else 503 and why not"},
		func(context.Context, *nothing) (*readyOut, error) {
			if reason := s.cfg.Node.Ready(); reason != "" {
				return &readyOut{http.StatusServiceUnavailable, view.Ready{Reason: reason}}, nil
			}
			return &readyOut{http.StatusOK, view.Ready{Ready: true}}, nil
		})
}

type whichIn struct {
	Which string `path:"which" maxLength:"256" doc:"Id, name, or the beginning of an id that fits one robot"`
}

type eventsIn struct {
	Since  uint64 `query:"since" doc:"Sequence number after which to begin; 0 is the beginning"`
	Stream string `query:"stream" maxLength:"128" doc:"Only events of this stream, e.g. robot/<id>"`
	Type   string `query:"type" maxLength:"64" doc:"Only events of this type, or of all that begin so, e.g. robot."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
}

func (s *Server) reads() {
	get := func(path, id, summary string) route {
		return route{method: http.MethodGet, path: "/api/v1" + path, id: id, summary: summary, may: readers}
	}
	add(s, get("/fleet", "getFleet", "Who leads, in which term, and how many voters may fail"),
		func(context.Context, *nothing) (*body[view.Fleet], error) {
			return answer(s.cfg.Fleet.Look().Filled().Fleet, nil)
		})
	add(s, get("/robots", "listRobots", "All robots, with telemetry as far as it is known here"),
		func(ctx context.Context, _ *nothing) (*body[view.Robots], error) {
			p := s.looker.look(ctx).Filled()
			return answer(view.Robots{Robots: p.Robots, AsOf: p.Fleet.AsOf}, nil)
		})
	add(s, get("/robots/{which}", "getRobot", "One robot"),
		func(ctx context.Context, in *whichIn) (*body[view.Robot], error) {
			return answer(find(s.looker.look(ctx).Filled().Robots, in.Which))
		})
	add(s, get("/nodes", "listNodes", "All admitted nodes, as this one's gossip sees them"),
		func(context.Context, *nothing) (*body[view.Nodes], error) {
			return answer(s.cfg.Fleet.Nodes().Filled(), nil)
		})
	add(s, get("/raft", "getRaft", "This node's part in consensus"),
		func(context.Context, *nothing) (*body[view.Raft], error) {
			return answer(s.cfg.Fleet.Raft().Filled(), nil)
		})
	add(s, get("/events", "listEvents", "The log, oldest first"), s.events)
	add(s, get("/events/types", "listEventTypes", "Which events there are, their fields, and who may propose them"),
		func(context.Context, *nothing) (*body[view.EventTypes], error) {
			return answer(view.EventTypes{Types: event.Types()}, nil)
		})
}

func (s *Server) events(ctx context.Context, in *eventsIn) (*body[view.Events], error) {
	events, compacted, err := s.cfg.Events.Events(ctx, in.Since, view.EventFilter{Stream: in.Stream, Type: in.Type}, in.Limit)
	if err != nil {
		return nil, err
	}
	page := view.Events{Events: events, Compacted: compacted, More: len(events) >= in.Limit}
	bytes := 0
	for i, e := range events {
		if bytes += len(e.Data); bytes > maxPageBytes && i > 0 {
			page.Events, page.More = events[:i], true
			break
		}
	}
	if page.Events == nil {
		page.Events = []view.Event{}
	}
	// Looked at last, so that its cursor is at or after every event above.
	page.AsOf = s.cfg.Fleet.Look().Filled().Fleet.AsOf
	return answer(page, nil)
}

// find picks the robot that a person means: the exact id, else the name, else
// the id that begins so. Of several, those that left or were revoked give way to
// a member: a robot that was wiped and joined again keeps its name.
func find(robots []view.Robot, which string) (view.Robot, error) {
	var named, begun []view.Robot
	for _, r := range robots {
		switch {
		case string(r.ID) == which:
			return r, nil
		case r.Name == which:
			named = append(named, r)
		case strings.HasPrefix(string(r.ID), which):
			begun = append(begun, r)
		}
	}
	fits := named
	if len(fits) == 0 {
		fits = begun
	}
	if present := present(fits); len(present) > 0 {
		fits = present
	}
	switch len(fits) {
	case 1:
		return fits[0], nil
	case 0:
		return view.Robot{}, problem(http.StatusNotFound, "not_found", fmt.Sprintf("no robot is called %q, and no id begins so", clip(which)), "GET /api/v1/robots lists them").Problem
	}
	return view.Robot{}, problem(http.StatusConflict, "ambiguous", fmt.Sprintf("%d robots fit %q: %s", len(fits), clip(which), names(fits)), "use the id, or more of it").Problem
}

func present(robots []view.Robot) []view.Robot {
	var members []view.Robot
	for _, r := range robots {
		if r.Status != view.Revoked && r.Status != view.Left {
			members = append(members, r)
		}
	}
	return members
}

func names(robots []view.Robot) string {
	const most = 8
	var texts []string
	for i, r := range robots {
		if i == most {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, fmt.Sprintf("%s (%s)", r.ID, r.Name))
	}
	return strings.Join(texts, ", ")
}
