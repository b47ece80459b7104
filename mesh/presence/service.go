package presence

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"skein/mesh/ident"
)

// Config is what a Service needs.
type Config struct {
	Self ident.NodeID
	// Boot must be higher at each start of the node: older reports of it lose.
	Boot uint64
	// Open opens an edge to a neighbour. It is called again and again, with
	// back-off, while the neighbour is an uplink.
	Open func(ctx context.Context, id ident.NodeID) (Stream, error)
	Log  *slog.Logger
}

// Service is one node's part in presence.
type Service struct {
	cfg Config
	// interestChanged and changed have room for one.
	interestChanged, changed chan struct{}
	// retime wakes Run: the next tick may be earlier. relink: uplinks changed.
	retime, relink chan struct{}

	mu      sync.Mutex
	state   *state
	wanted  []ident.NodeID // uplinks
	ended   bool
	looking bool // what the last sign on interestChanged said
}

// New makes a service; nothing runs before Run.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	sign := func() chan struct{} { return make(chan struct{}, 1) }
	return &Service{
		cfg: cfg, state: newState(cfg.Self, cfg.Boot),
		interestChanged: sign(), changed: sign(), retime: sign(), relink: sign(),
	}
}

func raise(sign chan struct{}) {
	select {
	case sign <- struct{}{}:
	default:
	}
}

// Run keeps uplinks, renewals and expiry going until ctx ends; it then ends all
// edges. It returns nil. Run it once.
func (s *Service) Run(ctx context.Context) error {
	var links sync.WaitGroup
	defer links.Wait()
	defer s.end()
	links.Go(func() { s.keepUplinks(ctx) })
	for {
		if next := s.tick(); !s.wait(ctx, next) {
			return nil
		}
	}
}

// wait returns true at next (never, if zero) or when something changed, false
// when ctx has ended.
func (s *Service) wait(ctx context.Context, next time.Time) bool {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
	case <-s.retime:
	case <-ctx.Done():
		return false
	}
	return true
}

func (s *Service) tick() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.state.tick(time.Now())
	s.noteInterest()
	return next
}

func (s *Service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for e := range s.state.edges {
		e.cancel()
	}
}

// noteInterest signs when "anybody looks" has changed. The caller holds mu.
func (s *Service) noteInterest() {
	if now := s.state.interested(time.Now()); now != s.looking {
		s.looking = now
		raise(s.interestChanged)
	}
}

// hear takes a frame from an edge.
func (s *Service) hear(e *edge, f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.state.edges[e]; !is {
		return
	}
	now := time.Now()
	for _, q := range f.Interests {
		s.state.hearInterest(e, q, now)
	}
	news := false
	for _, p := range f.Reports {
		news = s.state.hearReport(e, p, now) || news
	}
	s.noteInterest()
	raise(s.retime)
	if news {
		raise(s.changed)
	}
}

// Publish sets this node's own report, at most DataMax bytes of JSON, and sends
// it where somebody looks. Errors are ErrTooLarge. data must not be changed
// afterwards.
func (s *Service) Publish(data json.RawMessage) error {
	if len(data) > DataMax || !json.Valid(data) {
		return fmt.Errorf("publish %d bytes: %w: at most %d bytes of JSON", len(data), ErrTooLarge, DataMax)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.say(data, time.Now())
	raise(s.changed)
	return nil
}

// Watch says that somebody looks at this node. Reports of the whole fleet flow
// here until release is called; they stop within 30 s after the last one.
func (s *Service) Watch() (release func()) {
	s.watch(+1)
	return sync.OnceFunc(func() { s.watch(-1) })
}

func (s *Service) watch(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.state.watchers == 0
	s.state.watchers += by
	if first {
		s.state.renew(time.Now())
	}
	s.noteInterest()
	raise(s.retime)
}

// Interested reports whether anybody looks, here or at any other node.
func (s *Service) Interested() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.interested(time.Now())
}

// InterestChanged signs after Interested has changed; several changes may give
// one sign. For one reader.
func (s *Service) InterestChanged() <-chan struct{} { return s.interestChanged }

// Changed signs after Reports has changed; several changes may give one sign.
// For one reader.
func (s *Service) Changed() <-chan struct{} { return s.changed }

// Reports is the newest known of each node, the own one included, with its age
// now. Of nodes that are not between here and a viewer it may be old or missing
// unless this node watches. Data is shared: do not change it.
func (s *Service) Reports() map[ident.NodeID]Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	out := make(map[ident.NodeID]Report, len(s.state.reports))
	for node, r := range s.state.reports {
		if now.Sub(r.saidAt) < reportTTL || node == s.cfg.Self {
			out[node] = r.report(node, now)
		}
	}
	return out
}

// SetUplinks says to which neighbours this node keeps an edge: its parent in the
// follow tree, and for voters the other voters (one of two voters is enough).
// Edges that are not named any more end. At most 16; itself is left out.
func (s *Service) SetUplinks(ids []ident.NodeID) {
	wanted := make([]ident.NodeID, 0, min(len(ids), uplinksMax))
	for _, id := range ids {
		if id != s.cfg.Self && !slices.Contains(wanted, id) && len(wanted) < uplinksMax {
			wanted = append(wanted, id)
		}
	}
	s.mu.Lock()
	s.wanted = wanted
	s.mu.Unlock()
	raise(s.relink)
}
