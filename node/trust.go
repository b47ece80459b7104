package node

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skein/consensus/fleet"
	"skein/consensus/follow"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
)

const (
	// strangerGrace is how long a node with a good certificate is welcome that a
	// fresh log does not know: its admission may still be on the way here.
	strangerGrace = 5 * time.Second
	// freshLog is how old the leader's last word may be for the log to be the
	// judge of who is unknown.
	freshLog = 15 * time.Second
	// turnedAwayFor is how long others must turn this node away before it gives
	// up: their logs may be behind for a moment.
	turnedAwayFor = 20 * time.Second
	// maxStrangers bounds what is remembered of unknown nodes.
	maxStrangers = 1024
)

// trust decides who is welcome. The log is the judge of every node it knows. A
// certificate covers one it does not know yet, but only for a moment on a log
// that is fresh, and only if nobody who issued it was expelled: else a voter
// that was revoked could go on making members that no log names.
type trust struct {
	store atomic.Pointer[replica.Replica] // nil before admission: welcomes all
	// marks are what the leaders said last. Nil until judgeBy: no log is fresh.
	marks atomic.Pointer[marks]
	// leaving: this node asked to leave, and no answer came.
	leaving atomic.Bool
	// epochs is nil before admission.
	epochs atomic.Pointer[epochs]

	mu        sync.Mutex
	strangers map[ident.NodeID]time.Time // when each was asked about first
	turned    map[ident.NodeID]time.Time // who turns this node away, since when
}

// marks tells how old the log is: follow.Service.
type marks interface {
	Mark() (follow.Mark, time.Duration, bool)
}

func newTrust() *trust {
	return &trust{strangers: map[ident.NodeID]time.Time{}, turned: map[ident.NodeID]time.Time{}}
}

// tell is what hello says about this node, whose build knows event types up to
// level.
func (t *trust) tell(level uint64) link.Told {
	told := link.Told{Level: level}
	if store := t.store.Load(); store != nil {
		store.View(func(s *fleet.State) { told.Epoch = s.Recoveries() })
	}
	return told
}

// heard is what hello of another node said.
func (t *trust) heard(id ident.NodeID, told link.Told) {
	if e := t.epochs.Load(); e != nil {
		e.hear(id, told.Epoch)
	}
}

// judgeBy lets the log judge as soon as marks call it fresh. The host is asking
// already while the parts of a member are made: hence a part that is complete, and
// no function of the body.
func (t *trust) judgeBy(m marks) { t.marks.Store(&m) }

// fresh reports whether the log is recent enough to judge.
func (t *trust) fresh() bool {
	m := t.marks.Load()
	if m == nil {
		return false
	}
	_, age, ok := (*m).Mark()
	return ok && age >= 0 && age < freshLog
}

// node is what the log says of a node.
func (t *trust) node(id ident.NodeID) (n fleet.Node, known bool) {
	if store := t.store.Load(); store != nil {
		store.View(func(s *fleet.State) { n, known = s.Node(id) })
	}
	return n, known
}

// member reports whether the log knows the node as a member.
func (t *trust) member(id ident.NodeID) bool {
	n, known := t.node(id)
	return known && n.Member()
}

// hasLeft is what a node that left is told, and understands.
const hasLeft = "has left the fleet"

// refused is why a node is not welcome, nil if it is.
func (t *trust) refused(id ident.NodeID) error {
	n, known := t.node(id)
	switch {
	case known && n.Revoked:
		return fmt.Errorf("%w: %s", ErrRevoked, id.Short())
	case known && n.Left:
		return fmt.Errorf("%s %s", id.Short(), hasLeft)
	case known || !t.fresh():
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	first, seen := t.strangers[id]
	if !seen {
		if len(t.strangers) >= maxStrangers {
			clear(t.strangers)
		}
		t.strangers[id] = time.Now()
		return nil
	}
	if time.Since(first) < strangerGrace {
		return nil
	}
	return fmt.Errorf("the fleet's log does not know %s", id.Short())
}

// vouched is why a certificate of a node that the log does not know is not
// trusted, nil if it is.
func (t *trust) vouched(chain ident.Chain) error {
	if _, known := t.node(chain[0].Node()); known {
		return t.refused(chain[0].Node())
	}
	fresh := t.fresh()
	for _, issuer := range chain[1:] {
		n, known := t.node(issuer.Node())
		if known && (!n.Member() || fresh && !n.Voter) {
			return fmt.Errorf("its certificate was issued by %s, who may not admit anybody", n.ID.Short())
		}
	}
	return nil
}

// met notes how a member answered when this node came to follow it. It returns
// an error when so many turn this node away for so long that it is no member
// any more, although its own log has not heard of that.
func (t *trust) met(id ident.NodeID, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		clear(t.turned)
		return nil
	}
	if t.leaving.Load() && errors.Is(err, link.ErrTurnedAway) && strings.Contains(err.Error(), hasLeft) {
		return errLeft // it was decided, and the answer was lost
	}
	if !errors.Is(err, link.ErrTurnedAway) || len(t.turned) >= maxStrangers {
		return nil
	}
	if _, again := t.turned[id]; !again {
		t.turned[id] = time.Now()
	}
	others := 0
	if store := t.store.Load(); store != nil {
		store.View(func(s *fleet.State) {
			for _, n := range s.Nodes() {
				if n.Member() {
					others++
				}
			}
		})
	}
	if len(t.turned) < min(2, others-1) || time.Since(t.turned[id]) < turnedAwayFor {
		return nil
	}
	return fmt.Errorf("%w or has left its fleet, other robots say: %v", ErrRevoked, err)
}
