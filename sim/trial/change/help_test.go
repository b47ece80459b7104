package change

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// settle bounds every wait for a fleet to come to rest.
	settle = 40 * time.Second
	// askTimeout bounds one question.
	askTimeout = 5 * time.Second
	// lookEvery is how often a sentry looks.
	lookEvery = 50 * time.Millisecond
)

// named is who is who when all is well.
func named(t testing.TB, f *trial.Fleet) map[string]ident.NodeID {
	t.Helper()
	ids := map[string]ident.NodeID{}
	for _, r := range f.Robots {
		ids[r.Name] = ident.NodeID(trial.ID(t, r))
	}
	return ids
}

// whole checks a fleet under load: every acknowledged change is on each of
// robots, all are in the same state, and nobody was refused for a strange reason.
func whole(t testing.TB, f *trial.Fleet, robots []*trial.Robot, load *trial.Load) {
	t.Helper()
	held(t, f, robots, load)
	for what, n := range load.Strange() {
		t.Errorf("%d times: %s", n, what)
	}
}

// wholeButVoters is whole for a fleet whose voters have changed: the tokens of one
// that votes no more are good no more, so people who had one were told to log in
// again.
func wholeButVoters(t testing.TB, f *trial.Fleet, robots []*trial.Robot, load *trial.Load) {
	t.Helper()
	held(t, f, robots, load)
	for what, n := range load.Strange() {
		if !strings.Contains(what, "no voter any more") {
			t.Errorf("%d times: %s", n, what)
		}
	}
}

func held(t testing.TB, f *trial.Fleet, robots []*trial.Robot, load *trial.Load) {
	t.Helper()
	load.Paused(func() {
		f.AwaitHeld(robots, load.Acks(), 0, settle)
		f.AwaitAgreement(robots, settle)
	})
	if err := load.Fault(); err != nil {
		t.Error(err)
	}
	t.Log(load)
}

// onesOwn checks the whole log of a robot: whoever spoke about a node as itself
// was that node, it gave the name that it always had, and only the nodes of ids
// were ever admitted.
func onesOwn(t testing.TB, f *trial.Fleet, at *trial.Robot, ids map[string]ident.NodeID) {
	t.Helper()
	log, err := trial.Log(t.Context(), f.Face(at), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(log) == 0 {
		t.Fatalf("%s has no log", at.Name)
	}
	names := map[ident.NodeID]string{}
	for name, id := range ids {
		names[id] = name
	}
	for _, e := range log {
		_, about, _ := strings.Cut(e.Stream, "/")
		if e.Actor.Kind == event.KindNode && e.Actor.ID != about {
			t.Errorf("event %d (%s) about %s is by the node %s", e.Seq, e.Type, about, e.Actor.ID)
		}
		if e.Type != event.TypeRobotRegistered && e.Type != event.TypeNodeAdmitted {
			continue
		}
		if name := names[ident.NodeID(about)]; name == "" || !strings.Contains(string(e.Data), fmt.Sprintf(`"name":%q`, name)) {
			t.Errorf("event %d: %s was never called that: %s", e.Seq, about, e.Data)
		}
	}
}

// sentry notes who leads in which term, by the leaders' own words.
type sentry struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	leaders map[uint64]ident.NodeID
	faults  []error
	newest  uint64
}

// watchLeaders looks at every robot until the test ends.
func watchLeaders(t testing.TB, f *trial.Fleet) *sentry {
	ctx, cancel := context.WithCancel(t.Context())
	s := &sentry{stop: cancel, leaders: map[uint64]ident.NodeID{}}
	for _, r := range f.Robots {
		c := f.Client(r)
		s.wg.Go(func() {
			for ctx.Err() == nil {
				s.look(ctx, c)
				select {
				case <-ctx.Done():
				case <-time.After(lookEvery):
				}
			}
		})
	}
	t.Cleanup(s.end)
	return s
}

func (s *sentry) look(ctx context.Context, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	raft, err := c.Raft(ctx)
	if err != nil {
		return // it is down, or on its way
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = max(s.newest, raft.Term)
	if raft.State != "leader" {
		return
	}
	if other, known := s.leaders[raft.Term]; known && other != raft.Node {
		s.faults = append(s.faults, fmt.Errorf("%s and %s both lead in term %d", other, raft.Node, raft.Term))
	}
	s.leaders[raft.Term] = raft.Node
}

func (s *sentry) end() {
	s.stop()
	s.wg.Wait()
}

// term is the newest term that anybody spoke of.
func (s *sentry) term() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// fault is what it saw that must never be; it must have seen a leader.
func (s *sentry) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leaders) == 0 {
		return errors.New("nobody was seen to lead")
	}
	return errors.Join(s.faults...)
}

// lead makes a voter the leader.
func lead(t testing.TB, f *trial.Fleet, ids map[string]ident.NodeID, r *trial.Robot) {
	t.Helper()
	rig.Wait(t, settle, r.Name+" leads", func() error {
		leader := f.Leader()
		if leader == r {
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), settle)
		defer cancel()
		_, err := f.Face(leader).TransferLeader(ctx, ids[r.Name])
		if err == nil {
			err = rig.ErrNotYet
		}
		return err
	})
}

// refusal is what a robot answers to a change, nil if it was decided.
func refusal(t testing.TB, c *client.Client, drafts ...view.Draft) (problem *view.Problem) {
	t.Helper()
	rig.Wait(t, settle, "an answer", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
		defer cancel()
		_, err := c.Propose(ctx, drafts...)
		var answered bool
		if problem, answered = errors.AsType[*view.Problem](err); err != nil && (!answered || problem.Code == "no_leader" || problem.Code == "busy" || problem.Code == "timeout") {
			return err
		}
		return nil
	})
	return problem
}

// ends waits until a process has ended, with a code and words in its log.
func ends(t testing.TB, p *rig.Process, code int, words ...string) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(settle):
		t.Fatalf("it still runs; its log:\n%s", p.Log())
	}
	if got := p.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	for _, word := range words {
		if !strings.Contains(p.Log(), word) {
			t.Errorf("it does not say %q:\n%s", word, p.Log())
		}
	}
}
