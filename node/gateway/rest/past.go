package rest

import (
	"context"

	"skein/node/gateway/view"
)

// diffIn is a question about two moments.
type diffIn struct {
	Asked
	A string `query:"a" required:"true" maxLength:"64" doc:"The one moment: the number of its last event, or a time as of RFC 3339"`
	B string `query:"b" required:"true" maxLength:"64" doc:"The other moment"`
}

// pasts are the questions that exist because there is a past.
func (s *Server) pasts() {
	add(s, getting("/state", "getState", "What the fleet has decided, in figures that two nodes can compare; now or at a moment"),
		func(ctx context.Context, in *AtIn) (*body[view.Decided], error) {
			var d view.Decided
			err := s.atMoment(ctx, in, func(at *view.At) (_ *view.AsOf, err error) {
				d, err = s.cfg.Past.Decided(ctx, at)
				d = d.Filled()
				return &d.AsOf, err
			})
			return answer(d, err)
		})
	add(s, getting("/groups", "listGroups", "The groups of robots, now or at a moment"),
		func(ctx context.Context, in *AtIn) (*body[told[view.Groups]], error) {
			return listing[view.Groups](ctx, s, in, "groups", s.cfg.Past.Groups)
		})
	add(s, getting("/events/diff", "diffEvents", "What is otherwise at one moment than at another"),
		func(ctx context.Context, in *diffIn) (*body[view.Diff], error) {
			a, err := view.ParseAt(in.A)
			if err != nil {
				return nil, unfit("a", err.Error(), "see /openapi.json")
			}
			b, err := view.ParseAt(in.B)
			if err != nil {
				return nil, unfit("b", err.Error(), "see /openapi.json")
			}
			label, err := s.await(ctx, in.Asked)
			if err != nil {
				return nil, err
			}
			d, err := s.cfg.Past.Diff(ctx, a, b)
			if err != nil {
				return nil, err
			}
			d = d.Filled()
			label(&d.AsOf)
			return answer(d, nil)
		})
}
