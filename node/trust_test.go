package node

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/follow"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
)

// court is a trust over a real log with a founder and a second voter.
type court struct {
	*trust
	t     *testing.T
	store *replica.Replica
	index uint64
	age   time.Duration
}

func newCourt(t *testing.T) *court {
	store, err := replica.Open(t.TempDir(), replica.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c := &court{trust: newTrust(), t: t, store: store}
	c.trust.store.Store(store)
	c.trust.judgeBy(c)
	c.decide(fleettest.Genesis())
	voter := fleettest.Node(1)
	c.decide(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{
		event.NodeAdmitted{PublicKey: fleettest.Key(1).Public(), Name: "r", By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft()}})
	c.decide(event.Batch{Actor: fleettest.Itself(voter), Drafts: []event.Draft{event.VoterEligible{Eligible: true}.Draft(voter)}})
	c.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.VoterApproved{}.Draft(voter)}})
	c.decide(event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.VoterAdded{}.Draft(voter)}})
	return c
}

// Mark implements marks.
func (c *court) Mark() (follow.Mark, time.Duration, bool) { return follow.Mark{}, c.age, true }

func (c *court) decide(b event.Batch) {
	c.t.Helper()
	c.index++
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: 1_700_000_000_000, Batches: []event.Batch{b}})
	if err != nil {
		c.t.Fatal(err)
	}
	outcomes, err := c.store.ApplyEntry(c.index, 1, data)
	if err != nil || outcomes[0].Err != nil {
		c.t.Fatal(err, outcomes)
	}
}

func (c *court) revoke(id ident.NodeID) {
	c.t.Helper()
	c.decide(event.Batch{Actor: fleettest.Admin("ada"), Drafts: []event.Draft{event.NodeRevoked{Reason: "stolen"}.Draft(id)}})
}

// chain is a certificate of somebody the log does not know, issued by key i.
func chain(i int) ident.Chain {
	return ident.Chain{{PublicKey: fleettest.Key(50).Public()}, {PublicKey: fleettest.Key(i).Public(), MayIssue: true}}
}

// TestARevokedVoterCannotMakeMembers: the certificates that it issues from then
// on are worth nothing, and who has one is told apart from who was admitted.
func TestARevokedVoterCannotMakeMembers(t *testing.T) {
	c := newCourt(t)
	if err := c.vouched(chain(1)); err != nil {
		t.Fatalf("issued by a voter: %v", err)
	}
	c.revoke(fleettest.Node(1))
	if err := c.vouched(chain(1)); err == nil {
		t.Fatal("a certificate of a revoked voter is trusted")
	}
	if err := c.vouched(chain(0)); err != nil {
		t.Fatalf("issued by the founder: %v", err)
	}
	if err := c.refused(fleettest.Node(1)); !errors.Is(err, ErrRevoked) {
		t.Fatalf("the revoked voter itself: %v", err)
	}
}

func TestAnUnknownNodeIsWelcomeForAMomentOnly(t *testing.T) {
	c := newCourt(t)
	stranger := fleettest.Node(50)
	if c.member(stranger) {
		t.Fatal("a stranger passes for a member")
	}
	if err := c.refused(stranger); err != nil {
		t.Fatalf("at first: %v", err)
	}
	c.strangers[stranger] = time.Now().Add(-strangerGrace)
	if err := c.refused(stranger); err == nil {
		t.Fatal("after the grace a stranger is still welcome")
	}
	c.age = freshLog
	if err := c.refused(stranger); err != nil {
		t.Fatalf("a log that is behind cannot judge: %v", err)
	}
}

func TestARobotThatAllTurnAwayGivesUpOnlyAfterAWhile(t *testing.T) {
	c := newCourt(t)
	away := fmt.Errorf("%w: it was revoked", link.ErrTurnedAway)
	founder := fleettest.Node(0)
	if err := c.met(founder, away); err != nil {
		t.Fatalf("at once: %v", err)
	}
	c.turned[founder] = time.Now().Add(-turnedAwayFor)
	if err := c.met(founder, away); !errors.Is(err, ErrRevoked) {
		t.Fatalf("after %s: %v, want ErrRevoked", turnedAwayFor, err)
	}
	if err := c.met(founder, nil); err != nil || len(c.turned) != 0 {
		t.Fatalf("somebody is glad to see it: %v, %d turn it away", err, len(c.turned))
	}
}

// TestWhoAskedToLeaveIsToldSo: by whoever turns it away for that, and at once.
func TestWhoAskedToLeaveIsToldSo(t *testing.T) {
	c := newCourt(t)
	left := fmt.Errorf("%w: refused: me %s", link.ErrTurnedAway, hasLeft)
	founder := fleettest.Node(0)
	if err := c.met(founder, left); err != nil {
		t.Fatalf("it did not ask to: %v", err)
	}
	c.leaving.Store(true)
	if err := c.met(founder, fmt.Errorf("%w: something else", link.ErrTurnedAway)); err != nil {
		t.Fatalf("turned away for something else: %v", err)
	}
	if err := c.met(founder, left); !errors.Is(err, errLeft) {
		t.Fatalf("got %v", err)
	}
}
