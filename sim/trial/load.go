package trial

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/client"
	"skein/node/gateway/view"
	"skein/sim/rig"
)

const (
	// tryTimeout bounds one try of one change.
	tryTimeout = 3 * time.Second
	// retryPause is how long a writer waits after a refusal before it asks elsewhere.
	retryPause = 10 * time.Millisecond
	// configEvery is how often a change has a change of configuration in it.
	configEvery = 4
)

// Load is several clients that keep changing the fleet, each change exactly
// once, at any robot, and remember what was acknowledged. A change is one batch
// over several streams. Its first draft expects a version of a stream that only
// its writer writes to, so a retry of what was decided is refused.
type Load struct {
	fleet *Fleet
	gate  sync.RWMutex // read-held during a change; Paused holds it
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	acks    []Ack
	retries int
	settled int // changes whose answer was lost and which a retry found decided
	strange map[string]int
	faults  []error
}

// Ack is one acknowledged change: which events it became, what they must say, and
// when the request that was acknowledged was sent.
type Ack struct {
	First, Last uint64
	Drafts      []view.Draft
	Sent        time.Time
}

// writer is one client of a Load.
type writer struct {
	load   *Load
	name   string
	robot  ident.NodeID // whose labels it changes
	owner  bool         // it alone changes the robot's configuration
	faces  []*client.Client
	at     int
	doubt  bool   // a try of the present change may have been decided
	number uint64 // of the present change, from 0; also the version its stream must have
}

// StartLoad lets n writers work until the test ends or Stop is called. The name
// tells several loads of one fleet apart. What they change is about the robots
// that run now; they ask all.
func (f *Fleet) StartLoad(name string, n int) *Load {
	f.t.Helper()
	var about []*Robot
	for _, r := range f.Robots {
		if !r.Process.Ended() {
			about = append(about, r)
		}
	}
	return f.StartLoadAbout(name, n, about...)
}

// StartLoadAbout is StartLoad with changes about these robots, which must run now
// and stay members.
func (f *Fleet) StartLoadAbout(name string, n int, about ...*Robot) *Load {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	l := &Load{fleet: f, stop: cancel, strange: map[string]int{}}
	var ids []ident.NodeID
	for _, r := range about {
		ids = append(ids, ident.NodeID(ID(f.t, r)))
	}
	for i := range n {
		w := &writer{load: l, name: fmt.Sprintf("%s-%d", name, i), robot: ids[i%len(ids)], owner: i < len(ids), at: i}
		for _, r := range f.Robots {
			w.faces = append(w.faces, f.Client(r))
		}
		l.wg.Go(func() { w.run(ctx) })
	}
	f.t.Cleanup(l.Stop)
	return l
}

// Stop ends the writers and waits for them.
func (l *Load) Stop() {
	l.stop()
	l.wg.Wait()
}

// Paused calls fn while no change is under way.
func (l *Load) Paused(fn func()) {
	l.gate.Lock()
	defer l.gate.Unlock() // also when fn ends the test: Stop waits for the writers
	fn()
}

// Acks are the changes acknowledged so far, in the order of their answers.
func (l *Load) Acks() []Ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.acks)
}

// Fault is what the writers saw that must never be.
func (l *Load) Fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.faults...)
}

// Strange are the refusals that nobody should have got, each with how often. The
// writers have tried again.
func (l *Load) Strange() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.strange)
}

// String says how it went.
func (l *Load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d changes acknowledged, %d tries repeated, %d lost answers settled by a retry", len(l.acks), l.retries, l.settled)
}

// Await waits until n more changes than now are acknowledged, or the writers
// have met a Fault.
func (l *Load) Await(n int, limit time.Duration) time.Duration {
	l.fleet.t.Helper()
	want := len(l.Acks()) + n
	return rig.Wait(l.fleet.t, limit, fmt.Sprintf("%d more changes are acknowledged", n), func() error {
		if have := len(l.Acks()); have < want && l.Fault() == nil {
			return fmt.Errorf("%d are missing", want-have)
		}
		return nil
	})
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.load.gate.RLock()
		err := w.change(ctx)
		w.load.gate.RUnlock()
		if err != nil && ctx.Err() == nil {
			w.load.mu.Lock()
			w.load.faults = append(w.load.faults, fmt.Errorf("%s, change %d: %w", w.name, w.number, err))
			w.load.mu.Unlock()
			return
		}
		w.number, w.doubt = w.number+1, false
	}
}

// drafts are the present change.
func (w *writer) drafts() []view.Draft {
	var own view.Draft
	switch {
	case w.number == 0:
		own = event.GroupCreated{Description: "of a trial"}.Draft(w.name)
	case w.number%2 == 1:
		own = event.GroupRobotAdded{Robot: w.robot}.Draft(w.name)
	default:
		own = event.GroupRobotRemoved{Robot: w.robot}.Draft(w.name)
	}
	out := []view.Draft{own.At(w.number), event.RobotLabelsChanged{Set: map[string]string{w.name: fmt.Sprint(w.number)}}.Draft(w.robot)}
	if w.owner && w.number%configEvery == 0 {
		kind := event.LeKiwi
		if w.number%(2*configEvery) == 0 {
			kind = event.XLeRobot
		}
		out = append(out, event.RobotConfigChanged{Type: kind}.Draft(w.robot))
	}
	return out
}

// change gets one change decided, however often it takes. Its error is a fault
// of the fleet, or the end of the context.
func (w *writer) change(ctx context.Context) error {
	drafts := w.drafts()
	for {
		sent := time.Now()
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		receipt, err := w.faces[w.at%len(w.faces)].Propose(try, drafts...)
		cancel()
		if err == nil {
			w.load.mu.Lock()
			w.load.acks = append(w.load.acks, Ack{receipt.First, receipt.Last, drafts, sent})
			w.load.mu.Unlock()
			w.at++
			return nil
		}
		problem, answered := errors.AsType[*view.Problem](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !answered:
			w.doubt = w.doubt || !errors.Is(err, client.ErrUnreachable) || errors.Is(err, client.ErrMaybeDone)
		case problem.Code == string(event.CodeConflict) && w.doubt:
			w.load.mu.Lock()
			w.load.settled++
			w.load.mu.Unlock()
			return nil
		case retriable(problem):
			w.doubt = w.doubt || problem.Code == string(event.CodeUnknownOutcome) || problem.Code == "timeout"
		case problem.Code == string(event.CodeConflict):
			return fmt.Errorf("what the change builds on, decided before, is not there: %w", err)
		default:
			w.load.mu.Lock()
			w.load.strange[problem.Code+": "+problem.Error()]++
			w.load.mu.Unlock()
		}
		w.load.mu.Lock()
		w.load.retries++
		w.load.mu.Unlock()
		w.at++
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

func retriable(p *view.Problem) bool {
	return slices.Contains([]string{"busy", "no_leader", "not_ready", "unknown_outcome", "timeout", "unreachable", "rate_limited"}, p.Code)
}

// Log reads all events after since that a robot holds.
func Log(ctx context.Context, c *client.Client, since uint64) ([]view.Event, error) {
	var all []view.Event
	for {
		page, err := c.Events(ctx, since, view.EventFilter{}, 1000)
		if err != nil {
			return nil, err
		}
		if page.Compacted {
			return nil, fmt.Errorf("events after %d are not held any more", since)
		}
		all = append(all, page.Events...)
		if !page.More || len(page.Events) == 0 {
			return all, nil
		}
		since = page.Events[len(page.Events)-1].Seq
	}
}

// Lost compares acknowledged changes with the events that a robot holds after
// since, all of them; changes at or before since are not looked at. It names the
// first that is missing, is another, or happened twice.
func Lost(acks []Ack, since uint64, log []view.Event) error {
	for i, e := range log {
		if e.Seq != since+uint64(i)+1 {
			return fmt.Errorf("event %d stands where %d should", e.Seq, since+uint64(i)+1)
		}
	}
	end := since + uint64(len(log))
	for _, a := range acks {
		if a.First <= since {
			continue
		}
		if a.Last != a.First+uint64(len(a.Drafts))-1 || a.Last > end {
			return fmt.Errorf("events %d to %d were acknowledged as %s; the log ends at %d", a.First, a.Last, a.Drafts[0].Stream, end)
		}
		for i, d := range a.Drafts {
			e := log[a.First-since-1+uint64(i)]
			if e.Stream != d.Stream || e.Type != d.Type || string(e.Data) != string(d.Data) {
				return fmt.Errorf("event %d was acknowledged as %s %s %s and is %s %s %s", e.Seq, d.Stream, d.Type, d.Data, e.Stream, e.Type, e.Data)
			}
		}
	}
	return twice(log)
}

// twice finds a change of a Load that happened more than once. Labels tell: no
// writer gives the same value twice.
func twice(log []view.Event) error {
	seen := map[string]uint64{}
	for _, e := range log {
		if e.Type != event.TypeRobotLabelsChanged || !strings.Contains(string(e.Data), "load") {
			continue
		}
		if first, again := seen[string(e.Data)]; again {
			return fmt.Errorf("events %d and %d are the same change: %s", first, e.Seq, e.Data)
		}
		seen[string(e.Data)] = e.Seq
	}
	return nil
}

// AwaitHeld waits until each robot holds every acknowledged change after since.
func (f *Fleet) AwaitHeld(robots []*Robot, acks []Ack, since uint64, limit time.Duration) {
	f.t.Helper()
	for _, r := range robots {
		rig.Wait(f.t, limit, r.Name+" holds every acknowledged event", func() error {
			log, err := Log(f.t.Context(), f.Face(r), since)
			if err != nil {
				return err
			}
			return Lost(acks, since, log)
		})
	}
}

// AwaitAgreement waits until all robots are at the same event with the same hash
// of chain and state, and returns that cursor. Nothing may be proposed meanwhile.
func (f *Fleet) AwaitAgreement(robots []*Robot, limit time.Duration) view.Cursor {
	f.t.Helper()
	var agreed view.Cursor
	rig.Wait(f.t, limit, "all robots are in the same state", func() error {
		var state string
		for i, r := range robots {
			at, hash, err := stateOf(f.t.Context(), f.Face(r))
			if err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
			if i > 0 && (at != agreed || hash != state) {
				return fmt.Errorf("%s is at %v with state %s, %s at %v with %s", r.Name, at, hash, robots[0].Name, agreed, state)
			}
			agreed, state = at, hash
		}
		return nil
	})
	return agreed
}

// stateOf is a robot's cursor and the hash of its state at that cursor.
func stateOf(ctx context.Context, c *client.Client) (view.Cursor, string, error) {
	before, err := c.Fleet(ctx)
	if err != nil {
		return view.Cursor{}, "", err
	}
	raft, err := c.Raft(ctx)
	if err != nil {
		return view.Cursor{}, "", err
	}
	after, err := c.Fleet(ctx)
	if err == nil && before.AsOf.Cursor != after.AsOf.Cursor {
		err = errors.New("its state is changing")
	}
	return after.AsOf.Cursor, raft.StateHash, err
}
