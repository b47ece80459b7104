package rest

import (
	"context"
	"net/http"
	"strings"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

type (
	// RobotIn is a request about one robot.
	RobotIn struct {
		Which string `path:"which" maxLength:"256" doc:"Id, name, or the beginning of an id that fits one robot"`
	}
	whyIn struct {
		RobotIn
		Body *view.Why
	}
	provisionIn struct {
		RobotIn
		Body view.Provision
	}
	failIn struct {
		RobotIn
		Body view.Fail
	}
)

// lives are the requests that lead a robot through its life. Whether it can go
// there from where it is, and whether the person may ask for it, the log decides.
func (s *Server) lives() {
	post := func(path, id, summary string) route {
		return deciding(http.MethodPost, "/robots/{which}/"+path, id, summary)
	}
	why := func(path, id, summary string, draft func(reason string, id ident.NodeID) view.Draft) {
		add(s, post(path, id, summary), func(ctx context.Context, in *whyIn) (*body[view.Done], error) {
			reason := ""
			if in.Body != nil {
				reason = in.Body.Reason
			}
			return s.aboutRobot(ctx, in.Which, func(id ident.NodeID) view.Draft { return draft(reason, id) })
		})
	}
	why("activate", "activateRobot", "Put a ready robot to work", func(reason string, id ident.NodeID) view.Draft {
		return event.RobotActivated{Reason: reason}.Draft(id)
	})
	why("deactivate", "deactivateRobot", "End the work of an active robot", func(reason string, id ident.NodeID) view.Draft {
		return event.RobotDeactivated{Reason: reason}.Draft(id)
	})
	why("maintenance", "startMaintenance", "Take a robot into maintenance", func(reason string, id ident.NodeID) view.Draft {
		return event.RobotMaintenanceStarted{Reason: reason}.Draft(id)
	})
	why("maintenance/end", "endMaintenance", "Give a robot back from maintenance", func(_ string, id ident.NodeID) view.Draft {
		return event.RobotMaintenanceEnded{}.Draft(id)
	})
	why("recover", "recoverRobot", "End a robot's failure", func(reason string, id ident.NodeID) view.Draft {
		return event.RobotRecovered{Reason: reason}.Draft(id)
	})
	why("retire", "retireRobot", "Take a robot out of service until it registers anew", func(reason string, id ident.NodeID) view.Draft {
		return event.RobotRetired{Reason: reason}.Draft(id)
	})
	add(s, post("provision", "provisionRobot", "Say what a robot was provided with: once to begin, and with the version that it runs when it is ready"),
		func(ctx context.Context, in *provisionIn) (*body[view.Done], error) {
			p := event.RobotProvisioned{Firmware: in.Body.Firmware, Version: in.Body.Version, Capabilities: in.Body.Capabilities}
			return s.aboutRobot(ctx, in.Which, p.Draft)
		})
	add(s, post("fail", "failRobot", "Say that a robot cannot do its work"),
		func(ctx context.Context, in *failIn) (*body[view.Done], error) {
			p := event.RobotFailed{Message: in.Body.Message, Code: in.Body.Code, Kind: event.FailureKind(in.Body.Kind)}
			return s.aboutRobot(ctx, in.Which, p.Draft)
		})
}

// deciding is a request of a person that the fleet decides.
func deciding(method, path, id, summary string) route {
	return route{method: method, path: "/api/v1" + path, id: id, summary: summary, may: persons, timeout: decideTimeout}
}

// aboutRobot gets one event about the robot decided that a person means.
func (s *Server) aboutRobot(ctx context.Context, which string, draft func(ident.NodeID) view.Draft) (*body[view.Done], error) {
	r, err := s.robot(which)
	if err != nil {
		return nil, err
	}
	receipt, err := s.decide(ctx, draft(r.ID))
	return answer(view.Done{Robot: &view.NodeRef{ID: r.ID, Name: r.Name}, Receipt: receipt}, err)
}

// decide gets one draft decided for who asks. The path of a refusal is in what
// the caller sent, not in the draft that was made of it.
func (s *Server) decide(ctx context.Context, draft view.Draft) (view.Receipt, error) {
	receipt, err := s.cfg.Proposer.Propose(ctx, callerOf(ctx).token, []view.Draft{draft})
	if fault, is := event.FaultOf(err); is {
		own := *fault
		field, inData := strings.CutPrefix(own.Path, event.DraftPath(0)+".data.")
		if own.Path = ""; inData {
			own.Path = field
		}
		err = &own
	}
	return receipt, err
}
