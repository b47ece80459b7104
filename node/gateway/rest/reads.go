package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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

// Asked is how fresh an answer has to be. Every question has it. The framework
// looks into embedded structs only if they are exported.
type Asked struct {
	Read string `query:"read" enum:"local,leased,linearizable" default:"local" doc:"How fresh: local is what this node has, at once; leased and linearizable have all that was decided before the question"`
}

// AtIn is a question about the present or a past moment.
type AtIn struct {
	Asked
	At string `query:"at" maxLength:"64" doc:"A past moment: the number of its last event, or a time as of RFC 3339. The answer says with asOf.at that it is of the past"`
}

type whichIn struct {
	AtIn
	Which string `path:"which" maxLength:"256" doc:"Id, name, or the beginning of an id that fits one robot"`
}

type eventsIn struct {
	Asked
	Since  uint64 `query:"since" doc:"Sequence number after which to begin; 0 is the beginning"`
	Before uint64 `query:"before" doc:"Sequence number before which to end; 0 is no bound"`
	Stream string `query:"stream" maxLength:"128" doc:"Only events of this stream, e.g. robot/<id>, or of all that begin so, e.g. robot/"`
	Type   string `query:"type" maxLength:"64" doc:"Only events of this type, or of all that begin so, e.g. robot."`
	Actor  string `query:"actor" maxLength:"128" doc:"Only events that this person or node is responsible for"`
	From   string `query:"from" maxLength:"64" doc:"Only events from this time on (RFC 3339)"`
	Until  string `query:"until" maxLength:"64" doc:"Only events up to this time (RFC 3339)"`
	Newest bool   `query:"newest" doc:"The last events that fit instead of the first"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many"`
}

// query is the question in the words of the log.
func (in *eventsIn) query() (view.EventQuery, error) {
	q := view.EventQuery{
		EventFilter: view.EventFilter{Stream: in.Stream, Type: in.Type, Actor: in.Actor},
		After:       in.Since, Before: in.Before, Newest: in.Newest, Limit: in.Limit,
	}
	for _, text := range []struct{ name, value string }{{"stream", in.Stream}, {"type", in.Type}, {"actor", in.Actor}} {
		if !utf8.ValidString(text.value) {
			return q, unfit(text.name, "is no text: it is not UTF-8", "write it in UTF-8, with % escapes")
		}
	}
	var err error
	if q.From, err = moment("from", in.From); err == nil {
		q.Until, err = moment("until", in.Until)
	}
	return q, err
}

// moment reads a time of a query; "" is none.
func moment(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := view.ParseAt(text)
	if err != nil || at.Time.IsZero() {
		return time.Time{}, unfit(name, "is no time", "write it like 2026-07-07T14:00:00Z")
	}
	return at.Time, nil
}

func unfit(path, detail, next string) *view.Problem {
	return &view.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Path: path, Detail: detail, Next: next}
}

func (s *Server) reads() {
	add(s, getting("/fleet", "getFleet", "Who leads, in which term, and how many voters may fail"),
		func(ctx context.Context, in *AtIn) (*body[view.Fleet], error) {
			var f view.Fleet
			err := s.atMoment(ctx, in, func(at *view.At) (*view.AsOf, error) {
				var past view.Picture
				var err error
				if at == nil {
					f = s.cfg.Fleet.Header()
				} else if past, err = s.cfg.Past.PictureAt(ctx, *at); err == nil {
					f = past.Fleet
				}
				f = f.Filled()
				return &f.AsOf, err
			})
			return answer(f, err)
		})
	add(s, getting("/robots", "listRobots", "All robots, with telemetry as far as it is known here"),
		func(ctx context.Context, in *AtIn) (*body[told[view.Robots]], error) {
			robots, err := s.robots(ctx, in)
			if err != nil {
				return nil, err
			}
			return answer(tellRobots(&s.texts, robots), nil)
		})
	add(s, getting("/robots/{which}", "getRobot", "One robot"),
		func(ctx context.Context, in *whichIn) (*body[view.OneRobot], error) {
			var one view.OneRobot
			err := s.atMoment(ctx, &in.AtIn, func(at *view.At) (_ *view.AsOf, err error) {
				one, err = s.oneRobot(ctx, at, in.Which)
				return &one.AsOf, err
			})
			return answer(one, err)
		})
	add(s, getting("/nodes", "listNodes", "All admitted nodes, as this one's gossip sees them"),
		func(ctx context.Context, in *AtIn) (*body[view.Nodes], error) {
			var nodes view.Nodes
			err := s.atMoment(ctx, in, func(at *view.At) (asOf *view.AsOf, err error) {
				if at != nil {
					nodes, err = s.cfg.Past.NodesAt(ctx, *at)
				} else {
					nodes = s.cfg.Fleet.Nodes()
				}
				nodes = nodes.Filled()
				return &nodes.AsOf, err
			})
			return answer(nodes, err)
		})
	add(s, getting("/raft", "getRaft", "This node's part in consensus"),
		func(context.Context, *nothing) (*body[view.Raft], error) {
			return answer(s.cfg.Fleet.Raft().Filled(), nil)
		})
	add(s, getting("/events", "listEvents", "The log, oldest first"), s.events)
	add(s, getting("/events/types", "listEventTypes", "Which events there are, their fields, and who may propose them"),
		func(context.Context, *nothing) (*body[view.EventTypes], error) {
			return answer(view.EventTypes{Types: event.Types()}, nil)
		})
}

func getting(path, id, summary string) route {
	return route{method: http.MethodGet, path: "/api/v1" + path, id: id, summary: summary, may: readers}
}

// atMoment answers a question about the present (nil) or a moment: look gives
// the answer's asOf, which gets the label of the read.
func (s *Server) atMoment(ctx context.Context, in *AtIn, look func(at *view.At) (*view.AsOf, error)) error {
	var at *view.At
	if in.At != "" {
		parsed, err := view.ParseAt(in.At)
		if err != nil {
			return unfit("at", err.Error(), "see /openapi.json")
		}
		at = &parsed
	}
	label, err := s.await(ctx, in.Asked)
	if err != nil {
		return err
	}
	asOf, err := look(at)
	if err != nil {
		return err
	}
	label(asOf)
	return nil
}

// robots are all robots as they are, with telemetry as far as it comes in time,
// or were.
func (s *Server) robots(ctx context.Context, in *AtIn) (out view.RobotRows, err error) {
	err = s.atMoment(ctx, in, func(at *view.At) (*view.AsOf, error) {
		if at == nil {
			s.looker.look(ctx, func() (heard bool) {
				out = s.cfg.Fleet.Robots()
				return !slices.ContainsFunc(out.Rows, func(r view.HeardRow) bool { return silent(&r.Robot) })
			})
			return &out.AsOf, nil
		}
		past, err := s.cfg.Past.PictureAt(ctx, *at)
		out = past.Rows()
		return &out.AsOf, err
	})
	return out, err
}

// oneRobot is the robot that a person means, as it is, with telemetry if it
// comes in time, or was.
func (s *Server) oneRobot(ctx context.Context, at *view.At, which string) (one view.OneRobot, err error) {
	if at == nil {
		s.looker.look(ctx, func() (heard bool) {
			one, err = s.robot(which)
			return err != nil || !silent(&one.Robot)
		})
		return one, err
	}
	past, err := s.cfg.Past.PictureAt(ctx, *at)
	if err == nil {
		past = past.Filled()
		one.AsOf = past.Fleet.AsOf
		one.Robot, err = find(past.Robots, which)
	}
	return one, err
}

// robot is the robot that a person means, as it is now.
func (s *Server) robot(which string) (view.OneRobot, error) {
	one, ok := s.cfg.Fleet.Robot(which)
	if !ok {
		p := s.cfg.Fleet.Look()
		r, err := find(p.Robots, which)
		if err != nil {
			return view.OneRobot{}, err
		}
		one = view.OneRobot{Robot: r, AsOf: p.Fleet.AsOf}
	}
	one.Robot, one.AsOf = one.Robot.Filled(), one.AsOf.Filled()
	return one, nil
}

// silent: the robot is online and has said nothing that was heard here.
func silent(r *view.Robot) bool { return r.Status == view.Online && r.Telemetry == nil }

// awaitTimeout leaves time to answer within readTimeout.
const awaitTimeout = 4 * time.Second

// await brings this node's copy up to the read that was asked for. The label it
// gives is for the answer, which has to be looked at after it.
func (s *Server) await(ctx context.Context, in Asked) (label func(*view.AsOf), err error) {
	read := view.Read(in.Read)
	if read == view.Local || read == "" {
		return func(*view.AsOf) {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	fresh, err := s.cfg.Reads.Await(ctx, read)
	if err != nil {
		return nil, err
	}
	return func(a *view.AsOf) {
		a.Read = read
		if fresh.Age >= 0 {
			a.AgeMillis, a.Stale = fresh.Age.Milliseconds(), false
		}
	}, nil
}

func (s *Server) events(ctx context.Context, in *eventsIn) (*body[told[view.Events]], error) {
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	label, err := s.await(ctx, in.Asked)
	if err != nil {
		return nil, err
	}
	found, err := s.cfg.Events.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	page := view.Events{Events: found.Events, Compacted: found.Compacted, More: found.More}
	bytes := 0
	for i, e := range page.Events {
		if bytes += len(e.Data); bytes > maxPageBytes && i > 0 {
			page.Events, page.More = page.Events[:i], true
			break
		}
	}
	if q.Newest {
		slices.Reverse(page.Events)
	}
	// Looked at last, so that its cursor is at or after every event above.
	page.AsOf = s.cfg.Fleet.AsOf()
	label(&page.AsOf)
	return answer(tellEvents(&s.texts, page), nil)
}

// find picks the robot that a person means: the exact id, else the name, else
// the id that begins so. Of several, those that left or were revoked give way to
// a member: a robot that was wiped and joined again keeps its name.
func find(robots []view.Robot, which string) (view.Robot, error) {
	var named, begun []view.Robot
	for _, r := range robots {
		switch {
		case which == "": // it begins every id
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
