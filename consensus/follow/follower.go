package follow

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/ident"
)

const (
	// markEvery is how often the leader makes a mark, and how often a parent
	// speaks at least.
	markEvery = 5 * time.Second
	// silence is how long a child waits for its parent to speak, and how old the
	// leader's word may be before the child looks for a better parent.
	silence = 12 * time.Second
	// DefaultChildren is how many children a node takes unless told otherwise.
	DefaultChildren = 8
)

// Source is this node's copy of the log. *replica.Replica is one.
type Source interface {
	Cursor() event.Cursor
	// Held reports whether a cursor is a place in this log, still held.
	Held(event.Cursor) bool
	Records(seq uint64, maxBytes int) (records []history.Record, ok bool)
	Subscribe() (changed <-chan struct{}, release func())
	// Snapshot writes the whole state.
	Snapshot(w io.Writer) error
}

// Sink is where followed records go. *replica.Replica is one.
type Sink interface {
	// ApplyRecord refuses with ErrDiverged what does not continue the log.
	ApplyRecord(history.Record) error
	Restore(r io.Reader) error
}

// Group is this node's seat among the voters.
type Group interface {
	// Leading gives the term and the voters while this node leads.
	Leading() (term uint64, voters []ident.NodeID, leading bool)
	// Leader is who leads as far as Raft here knows; false on a node without a
	// seat, or that has not heard its leader for a while.
	Leader() (ident.NodeID, bool)
	// Changed is closed at the next change of any of this.
	Changed() <-chan struct{}
}

// Config is what a Follower works with. All fields but Children are required.
type Config struct {
	Self   ident.NodeID
	Source Source
	Sink   Sink
	Group  Group
	// Candidates lists members to follow, those to be preferred first.
	Candidates func() []ident.NodeID
	// Open opens a stream of Protocol to a member.
	Open func(ctx context.Context, id ident.NodeID) (net.Conn, error)
	// Children bounds the children that get the log; 0 is DefaultChildren.
	Children int
	Log      *slog.Logger
}

// Follower is one node's place in the tree: child of one, parent of some. Safe
// for concurrent use.
type Follower struct {
	cfg Config

	mu       sync.Mutex
	mark     Mark
	markAt   time.Time // when mark came, for its age; zero when none ever came
	parent   ident.NodeID
	children map[ident.NodeID]*child
	changed  chan struct{} // closed when mark says something new, or the parent changed
	renewed  chan struct{} // closed at every mark
}

// New returns a Follower; it does nothing before Run.
func New(cfg Config) *Follower {
	if cfg.Children == 0 {
		cfg.Children = DefaultChildren
	}
	return &Follower{cfg: cfg, children: map[ident.NodeID]*child{}, changed: make(chan struct{}), renewed: make(chan struct{})}
}

// Run makes marks while this node leads, and follows while it does not, until
// ctx ends (nil) or the log cannot be written (the error; the node must end).
func (f *Follower) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		var err error
		if _, _, leading := f.cfg.Group.Leading(); leading {
			f.lead(ctx)
		} else {
			err = f.followSomeone(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// lead makes marks for as long as this node leads.
func (f *Follower) lead(ctx context.Context) {
	f.setParent("")
	ticker := time.NewTicker(markEvery)
	defer ticker.Stop()
	for {
		changed := f.cfg.Group.Changed()
		term, voters, leading := f.cfg.Group.Leading()
		if !leading {
			return
		}
		f.take(Mark{Leader: f.cfg.Self, Term: term, Seq: f.cfg.Source.Cursor().Seq, Voters: voters, Path: []ident.NodeID{f.cfg.Self}})
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-changed:
		}
	}
}

// take makes m, which ends its path here, the present mark. An older term's
// mark is never taken: it comes from a part of the tree that has not heard yet.
func (f *Follower) take(m Mark) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.Term < f.mark.Term {
		return
	}
	news := m.news(f.mark)
	// A mark that is older than what is known, over another parent, is news
	// only if it says something new.
	if !news && !f.markAt.IsZero() && m.Age() > f.mark.Age()+time.Since(f.markAt) {
		return
	}
	f.mark, f.markAt = m, time.Now()
	close(f.renewed)
	f.renewed = make(chan struct{})
	if news {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// Mark is the newest mark with its age now; false before the first.
func (f *Follower) Mark() (Mark, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.markNow()
}

// markNow is Mark for those who hold mu.
func (f *Follower) markNow() (Mark, bool) {
	if f.markAt.IsZero() {
		return Mark{}, false
	}
	m := f.mark
	m.AgeMillis += time.Since(f.markAt).Milliseconds()
	m.Path, m.Voters = slices.Clone(m.Path), slices.Clone(m.Voters)
	return m, true
}

// Parent is whom this node follows; "" for nobody.
func (f *Follower) Parent() ident.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parent
}

// Changed is closed when the mark next says something new or the parent changes.
func (f *Follower) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *Follower) setParent(id ident.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parent != id {
		f.parent = id
		close(f.changed)
		f.changed = make(chan struct{})
	}
}
