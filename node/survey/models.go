package survey

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"skein/consensus/fleet"
	"skein/consensus/views"
	"skein/node/gateway/view"
)

// lists are those that are kept from one answer to the next: while a list's turn
// is the same, so is the list. One of each.
type lists struct {
	mu          sync.Mutex
	alerts      kept[views.Alert]
	deployments kept[views.Deployment]
	groups      kept[view.Group]
}

// kept is a list as of a turn of the models.
type kept[T any] struct {
	turn uint64
	list *view.Kept[T]
}

// list gives a list of the present, made anew if it is of another turn than the
// one that is kept, or of a moment.
func list[T any](s *Surveyor, at *view.At, k *kept[T], which int, turn uint64, build func() []T) *view.Kept[T] {
	if at != nil {
		return view.NewKept(build())
	}
	tally := &s.asked.views[which]
	tally.queries.Add(1)
	s.lists.mu.Lock()
	defer s.lists.mu.Unlock()
	if k.list == nil || k.turn != turn {
		tally.rebuilds.Add(1)
		k.turn, k.list = turn, view.NewKept(build())
	}
	return k.list
}

// The views that questions are counted of.
const (
	overviewView = iota
	alertsView
	deploymentsView
	groupsView
	robotsView
	robotView
	countedViews
)

// asked counts questions.
type asked struct {
	views [countedViews]tally
	past  atomic.Uint64
}

type tally struct{ queries, rebuilds atomic.Uint64 }

// Asked says what was asked since the start. A question about the present is
// answered from what is kept, one about the past from the log.
func (s *Surveyor) Asked() view.Asked {
	out := view.Asked{Past: s.asked.past.Load()}
	for i, name := range [countedViews]string{"overview", "alerts", "deployments", "groups", "robots", "robot"} {
		t, kept := &s.asked.views[i], i == alertsView || i == deploymentsView || i == groupsView
		out.Views = append(out.Views, view.AskedView{View: name, Queries: t.queries.Load(), Kept: kept, Rebuilds: t.rebuilds.Load()})
	}
	return out
}

// Overview is the fleet in figures, as it is or was at a moment.
func (s *Surveyor) Overview(ctx context.Context, at *view.At) (out view.Overview, err error) {
	if at == nil {
		s.asked.views[overviewView].queries.Add(1)
	}
	err = s.model(ctx, at, func(v *views.Views, asOf view.AsOf) {
		out = view.Overview{Overview: v.Overview(), AsOf: asOf}
	})
	return out, err
}

// Deployments are how far deployments are, or were at a moment.
func (s *Surveyor) Deployments(ctx context.Context, at *view.At) (out view.List[views.Deployment], err error) {
	err = s.model(ctx, at, func(v *views.Views, asOf view.AsOf) {
		out = view.List[views.Deployment]{Kept: list(s, at, &s.lists.deployments, deploymentsView, v.DeploymentsTurn(), v.Deployments), AsOf: asOf}
	})
	return out, err
}

// Alerts are what is wrong, or was at a moment, by what the fleet had decided.
func (s *Surveyor) Alerts(ctx context.Context, at *view.At) (out view.List[views.Alert], err error) {
	err = s.model(ctx, at, func(v *views.Views, asOf view.AsOf) {
		out = view.List[views.Alert]{Kept: list(s, at, &s.lists.alerts, alertsView, v.AlertsTurn(), v.Alerts), AsOf: asOf}
	})
	return out, err
}

// Groups are the groups as they are, or were at a moment.
func (s *Surveyor) Groups(ctx context.Context, at *view.At) (out view.List[view.Group], err error) {
	err = s.read(ctx, at, func(state *fleet.State, asOf view.AsOf) {
		build := func() []view.Group { return groups(state) }
		out = view.List[view.Group]{Kept: list(s, at, &s.lists.groups, groupsView, s.src.Models.GroupsTurn(), build), AsOf: asOf}
	})
	return out, err
}

// groups are the groups of a state, with the names of their robots.
func groups(state *fleet.State) (out []view.Group) {
	for _, g := range state.Groups() {
		group := view.Group{Name: g.Name, Description: g.Description, CreatedAt: g.CreatedAt, Robots: []view.NodeRef{}}
		for _, id := range g.Robots {
			group.Robots = append(group.Robots, view.NodeRef{ID: id, Name: nameOf(state, id)})
		}
		slices.SortFunc(group.Robots, func(a, b view.NodeRef) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
		out = append(out, group)
	}
	return out
}

// model gives the read models of the present, which are kept up to date, or of a
// moment, which are built from its state.
func (s *Surveyor) model(ctx context.Context, at *view.At, f func(*views.Views, view.AsOf)) error {
	return s.read(ctx, at, func(state *fleet.State, asOf view.AsOf) {
		models := s.src.Models
		if at != nil {
			models = views.New()
			models.Reset(state)
		}
		f(models, asOf)
	})
}
