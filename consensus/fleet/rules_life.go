package fleet

import (
	"slices"
	"strings"
	"time"

	"skein/consensus/event"
)

// When a robot that fails while it is at work, or while it is expected back, has
// failed for good: at so many failures in a row.
const (
	failuresAtWork  = 3
	failuresOffline = 5
)

// transition is an event type that moves a robot on in its life.
type transition struct {
	typ string
	// from are the stages in which it may happen.
	from []Stage
}

// transitions is every way on. Where each leads is in Lifecycle.after.
func transitions() [8]transition {
	return [...]transition{
		{event.TypeRobotProvisioned, []Stage{Discovered, Provisioning}},
		{event.TypeRobotActivated, []Stage{Ready}},
		{event.TypeRobotDeactivated, []Stage{Active}},
		{event.TypeRobotMaintenanceStarted, []Stage{Ready, Active}},
		{event.TypeRobotMaintenanceEnded, []Stage{Maintenance}},
		{event.TypeRobotFailed, []Stage{Discovered, Provisioning, Ready, Active, Maintenance, Offline, Failed}},
		{event.TypeRobotRecovered, []Stage{Offline, Failed}},
		{event.TypeRobotRetired, []Stage{Discovered, Provisioning, Ready, Active, Maintenance, Offline, Failed}},
	}
}

// possible are the event types that may move a robot on from a stage.
func possible(stage Stage) []string {
	var types []string
	for _, t := range transitions() {
		for _, from := range t.from {
			if from == stage {
				types = append(types, t.typ)
			}
		}
	}
	return types
}

// after is where the event leads, whether or not it may happen.
func (l Lifecycle) after(payload event.Payload, now time.Time) Lifecycle {
	to := l
	switch p := payload.(type) {
	case *event.RobotProvisioned:
		to.State = Provisioning
		if l.State == Provisioning && p.Version != "" {
			to.State = Ready
		}
	case *event.RobotActivated:
		to.State = Active
	case *event.RobotDeactivated, *event.RobotMaintenanceEnded:
		to.State, to.Failures = Ready, 0
	case *event.RobotMaintenanceStarted:
		to.State = Maintenance
	case *event.RobotFailed:
		to.Failures++
		to.LastFailure = Failure{Message: p.Message, Code: p.Code, Kind: p.Kind, At: now}
		to.State = Failed
		if l.State == Active && to.Failures < failuresAtWork || l.State == Offline && to.Failures < failuresOffline {
			to.State = Offline
		}
	case *event.RobotRecovered:
		to.State = Ready
		if l.State == Failed {
			to.State, to.Failures = Provisioning, 0
		}
	case *event.RobotRetired:
		to.State = Retired
	}
	if to.State != l.State {
		to.Since = now
	}
	return to
}

func (tx *Tx) mayLive(e *event.Event, payload event.Payload) *event.Fault {
	r, fault := tx.robot(nodeOf(e))
	if fault != nil {
		return fault
	}
	if e.Type != event.TypeRobotRetired { // what is gone can still be retired
		if _, fault := tx.member(e); fault != nil {
			return fault
		}
	}
	if p, ok := payload.(*event.RobotProvisioned); ok && r.Lifecycle.State == Provisioning && p.Version == "" {
		return event.Refuse(event.CodeConflict, event.ReasonTransition, "name the version that the robot runs now",
			"robot %s is provisioning already; it is ready once it has a version", r.ID)
	}
	may := possible(r.Lifecycle.State)
	if slices.Contains(may, e.Type) {
		return nil
	}
	next := "it has to register anew; restart skein on the robot"
	if len(may) > 0 {
		next = "possible now: " + strings.Join(may, ", ")
	}
	return event.Refuse(event.CodeConflict, event.ReasonTransition, next, "robot %s is %s, where %s cannot happen", r.ID, r.Lifecycle.State, e.Type)
}

func (tx *Tx) live(e *event.Event, payload event.Payload) *event.Fault {
	return edit(&tx.robots, nodeOf(e), func(r *robot) {
		r.settle(func(s *steady) { s.Lifecycle = s.Lifecycle.after(payload, e.Time) })
	})
}

// mayDeploy: a robot takes a new version when it is deployable, and goes back to
// the old one whenever it has to.
func (tx *Tx) mayDeploy(e *event.Event, p *event.RobotDeploymentStarted) *event.Fault {
	if _, fault := tx.member(e); fault != nil {
		return fault
	}
	r, fault := tx.robot(nodeOf(e))
	switch {
	case fault != nil:
		return fault
	case r.Lifecycle.State == Retired, p.Kind != event.DeployRollback && !r.Lifecycle.Deployable():
		return event.Refuse(event.CodeConflict, event.ReasonTransition, "a robot takes a version while it is ready or active",
			"robot %s is %s", r.ID, r.Lifecycle.State)
	case r.Deployed.Deployment == p.Deployment && r.Deployed.Version == p.Version && r.Deployed.Status == DeploymentRunning:
		return noChange("deployment %s runs on robot %s already", p.Deployment, r.ID)
	}
	return nil
}

// mayEndDeployment: only the deployment that runs can end.
func (tx *Tx) mayEndDeployment(e *event.Event, deployment, version string) *event.Fault {
	if _, fault := tx.member(e); fault != nil {
		return fault
	}
	r, fault := tx.robot(nodeOf(e))
	if fault != nil {
		return fault
	}
	if d := r.Deployed; d.Deployment != deployment || d.Version != version || d.Status != DeploymentRunning {
		return event.Refuse(event.CodeConflict, event.ReasonTransition, "say that it started first",
			"deployment %s of version %s does not run on robot %s", deployment, version, r.ID)
	}
	return nil
}

func (tx *Tx) deploy(e *event.Event, deployment, version string, status DeploymentStatus) *event.Fault {
	return edit(&tx.robots, nodeOf(e), func(r *robot) {
		r.settle(func(s *steady) {
			s.Deployed = Deployed{Deployment: deployment, Version: version, Status: status, Since: e.Time}
		})
	})
}
