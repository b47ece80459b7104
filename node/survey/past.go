package survey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// Past gives states of the past: a node's replica.
type Past interface {
	// Cursor is where the log is now.
	Cursor() event.Cursor
	// StateAt is what was decided up to event seq. It may be kept.
	StateAt(ctx context.Context, seq uint64) (*fleet.State, event.Cursor, error)
	// SeqAt is the last event that was decided until t, 0 if none was.
	SeqAt(ctx context.Context, t time.Time) (uint64, error)
	Events(ctx context.Context, since uint64, f replica.Filter, limit int) ([]event.Event, error)
}

// ahead is how far a time may be ahead of this node's clock before it is called
// the future: clocks differ.
const ahead = time.Minute

// was is a state of the past.
type was struct {
	*fleet.State
	asOf view.AsOf
}

// at finds the state of a moment. Its errors are *view.Problem where the moment
// is to blame.
func (s *Surveyor) at(ctx context.Context, at view.At) (was, error) {
	s.asked.past.Add(1)
	seq := at.Seq
	if !at.Time.IsZero() {
		if now := s.src.Now(); at.Time.After(now.Add(ahead)) {
			return was{}, problem(http.StatusUnprocessableEntity, "invalid", "that moment is in the future: this node's clock says "+now.UTC().Format(time.RFC3339), "ask for a time that has been")
		}
		var err error
		if seq, err = s.src.Past.SeqAt(ctx, at.Time); err != nil {
			return was{}, notHeld(err, at)
		}
	}
	if now := s.src.Past.Cursor(); seq > now.Seq {
		return was{}, problem(http.StatusNotFound, "not_found", fmt.Sprintf("event %d has not happened as far as this node knows, it is at event %d", seq, now.Seq), "ask for one that has, or with a linearizable read")
	}
	state, cursor, err := s.src.Past.StateAt(ctx, seq)
	if err != nil {
		return was{}, notHeld(err, at)
	}
	w := was{state, s.look().asOf(cursor)}
	w.asOf.At = &view.Moment{Seq: seq}
	if seq == 0 {
		return w, nil
	}
	// The state is there also where its last event is not held any more.
	events, err := s.src.Past.Events(ctx, seq-1, replica.Filter{}, 1)
	switch {
	case err == nil && len(events) == 1:
		decided := events[0].Time
		w.asOf.At.Time = &decided
	case err != nil && !errors.Is(err, replica.ErrCompacted):
		return was{}, err
	}
	return w, nil
}

func notHeld(err error, at view.At) error {
	if !errors.Is(err, replica.ErrCompacted) {
		return err
	}
	return problem(http.StatusGone, "not_held", "this node does not hold the log back to "+at.String(), "ask a voter: `skein status` names them")
}

func problem(status int, code, detail, next string) *view.Problem {
	return &view.Problem{Status: status, Code: code, Detail: detail, Next: next}
}

// PictureAt is what was decided about the fleet and its robots up to a moment:
// without a leader, addresses and telemetry, which are never decided.
func (s *Surveyor) PictureAt(ctx context.Context, at view.At) (view.Picture, error) {
	w, err := s.at(ctx, at)
	if err != nil {
		return view.Picture{}, err
	}
	p := view.Picture{Fleet: view.Fleet{AsOf: w.asOf, CanLoseReason: "this is the past: nobody knows any more who could be reached"}}
	if decided, ok := w.Fleet(); ok {
		p.Fleet.Name, p.Fleet.FleetID = decided.Name, ident.FleetIDOf(decided.Root)
	}
	for _, id := range w.Voters() {
		p.Fleet.Voters = append(p.Fleet.Voters, view.Voter{ID: id, Name: nameOf(w.State, id)})
	}
	counts := count(w.State)
	p.Fleet.Members, p.Fleet.Robots = counts.Members, counts.Robots
	for _, r := range w.Robots() {
		if n, ok := w.Node(r.ID); ok {
			p.Robots = append(p.Robots, pastRobot(r, n))
		}
	}
	sortRobots(p.Robots)
	return p, nil
}

func sortRobots(robots []view.Robot) {
	slices.SortFunc(robots, func(a, b view.Robot) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
}

func pastRobot(r fleet.Robot, n fleet.Node) view.Robot {
	row := view.Robot{
		ID: r.ID, Name: r.Name, Machine: machine(r), Life: life(r), Labels: r.Labels, Groups: r.Groups, StatusSince: r.StatusSince,
		Vote:   view.Vote{Role: pastRole(n), VoterEligible: n.VoterEligible, VoterApproved: n.VoterApproved},
		Status: view.Offline,
	}
	switch {
	case n.Revoked:
		row.Status = view.Revoked
	case n.Left:
		row.Status = view.Left
	case r.Online:
		row.Status = view.Online
	}
	return row
}

func pastRole(n fleet.Node) view.Role {
	if n.Voter {
		return view.VoterNow
	}
	return view.Follower
}

// NodesAt is who had been admitted up to a moment; gossip has no past.
func (s *Surveyor) NodesAt(ctx context.Context, at view.At) (view.Nodes, error) {
	w, err := s.at(ctx, at)
	if err != nil {
		return view.Nodes{}, err
	}
	out := view.Nodes{AsOf: w.asOf}
	for _, n := range w.Nodes() {
		r, _ := w.Robot(n.ID)
		out.Nodes = append(out.Nodes, view.Node{
			ID: n.ID, Name: nameOf(w.State, n.ID), Role: pastRole(n), State: view.Unknown, Version: r.Version,
			AdmittedAt: n.AdmittedAt, By: string(n.By), Revoked: n.Revoked,
		})
	}
	return out, nil
}

// Decided is the whole state in figures, as it is or was at a moment.
func (s *Surveyor) Decided(ctx context.Context, at *view.At) (out view.Decided, err error) {
	err = s.read(ctx, at, func(state *fleet.State, asOf view.AsOf) {
		out = view.Decided{StateHash: state.Hash(), Counts: count(state), Ceiling: state.Ceiling(), Recoveries: state.Recoveries(), AsOf: asOf}
		if decided, ok := state.Fleet(); ok {
			out.Name, out.FleetID = decided.Name, ident.FleetIDOf(decided.Root)
		}
	})
	return out, err
}

// read gives the state of the present or of a moment.
func (s *Surveyor) read(ctx context.Context, at *view.At, f func(*fleet.State, view.AsOf)) error {
	if at == nil {
		l := s.look()
		s.src.View(func(state *fleet.State, cursor event.Cursor) { f(state, l.asOf(cursor)) })
		return nil
	}
	w, err := s.at(ctx, *at)
	if err == nil {
		f(w.State, w.asOf)
	}
	return err
}

func count(s *fleet.State) view.Counts {
	c := view.Counts{
		Voters: len(s.Voters()), Robots: len(s.Robots()), Groups: len(s.Groups()), Persons: len(s.Persons()), Enrolments: len(s.Enrolments()),
	}
	for _, n := range s.Nodes() {
		c.Nodes++
		if n.Member() {
			c.Members++
		}
	}
	return c
}
