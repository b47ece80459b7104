package rest

import (
	"context"
	"net/http"

	"skein/consensus/event"
	"skein/node/gateway/view"
)

type (
	newGroupIn struct{ Body view.NewGroup }
	// GroupIn is a request about one group.
	GroupIn struct {
		Name string `path:"name" maxLength:"256" doc:"The group"`
	}
	groupAddIn struct {
		GroupIn
		Body view.GroupRobot
	}
	groupRobotIn struct {
		GroupIn
		RobotIn
	}
)

// groups are the requests that change groups of robots.
func (s *Server) groups() {
	add(s, deciding(http.MethodPost, "/groups", "createGroup", "Make a group"),
		func(ctx context.Context, in *newGroupIn) (*body[view.Done], error) {
			return s.aboutGroup(ctx, in.Body.Name, event.GroupCreated{Description: in.Body.Description}.Draft(in.Body.Name))
		})
	add(s, deciding(http.MethodDelete, "/groups/{name}", "deleteGroup", "Delete a group; its robots stay"),
		func(ctx context.Context, in *GroupIn) (*body[view.Done], error) {
			return s.aboutGroup(ctx, in.Name, event.GroupDeleted{}.Draft(in.Name))
		})
	add(s, deciding(http.MethodPost, "/groups/{name}/robots", "addToGroup", "Put a robot into a group"),
		func(ctx context.Context, in *groupAddIn) (*body[view.Done], error) {
			r, err := s.robot(in.Body.Robot)
			if err != nil {
				return nil, err
			}
			return s.aboutGroup(ctx, in.Name, event.GroupRobotAdded{Robot: r.ID}.Draft(in.Name))
		})
	add(s, deciding(http.MethodDelete, "/groups/{name}/robots/{which}", "removeFromGroup", "Take a robot out of a group"),
		func(ctx context.Context, in *groupRobotIn) (*body[view.Done], error) {
			r, err := s.robot(in.Which)
			if err != nil {
				return nil, err
			}
			return s.aboutGroup(ctx, in.Name, event.GroupRobotRemoved{Robot: r.ID}.Draft(in.Name))
		})
}

func (s *Server) aboutGroup(ctx context.Context, name string, draft view.Draft) (*body[view.Done], error) {
	receipt, err := s.decide(ctx, draft)
	return answer(view.Done{Group: name, Receipt: receipt}, err)
}
