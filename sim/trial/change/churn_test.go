package change

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/node/gateway/view"
	"skein/sim/rig"
	"skein/sim/trial"
)

const (
	// crowd is how many robots there are at most, mayVote how many of them may vote.
	crowd, mayVote = 9, 7
	// checkEvery is after how many turns all is compared.
	checkEvery = 15
	// converge is how soon after the last turn all must agree on who is there:
	// gossip takes ten seconds or so to give up one that was killed.
	converge = time.Minute
	// breath is the longest time between two turns.
	breath = 200 * time.Millisecond
)

// TestChurn lets robots join, leave and die at random, and voters be approved and
// withdrawn, under load. At every check the fleet's inventory of voters is what
// Raft's configuration says, gossip's members are those who are alive, on each
// node that runs, all have the same log and state, and every voter has all that
// was acknowledged. 30 turns, 500 with SKEIN_SOAK=1; SKEIN_SEED=n draws again.
func TestChurn(t *testing.T) {
	t.Parallel()
	lan, skein := rig.New(t, crowd), rig.Skein(t)
	f := trial.Found(t, skein, "geese", lan.Hosts[:4], 3)
	for i, h := range lan.Hosts[4:] {
		f.Join(h, i+4 < mayVote)
	}
	c := &churn{t: t, skein: skein, f: f, draw: trial.Lots(t), done: map[string]int{}, member: map[*trial.Robot]bool{}, ids: map[*trial.Robot]ident.NodeID{}}
	for _, r := range f.Robots {
		c.member[r] = true
	}
	f.AwaitListing(f.Robots, settle)
	for _, r := range f.Robots {
		c.know(r)
	}
	c.load = f.StartLoadAbout("load", 3, f.Robots[0])
	turns := trial.Soak(30, 500)
	start := time.Now()
	for n := 1; n <= turns; n++ {
		c.turn(n)
		trial.Pass(t, time.Duration(c.draw.Int64N(int64(breath))))
		c.load.Await(1, settle)
		if n%checkEvery == 0 || n == turns {
			c.check(n)
		}
	}
	c.load.Stop()
	wholeButVoters(t, f, c.voters(), c.load)
	t.Logf("%d turns in %v: %v", turns, time.Since(start).Round(time.Second), c.done)
}

// churn is a fleet whose robots come and go. Its founder, the first, never leaves:
// the admin's key is there.
type churn struct {
	t     *testing.T
	skein string
	f     *trial.Fleet
	draw  *rand.Rand
	load  *trial.Load
	// member: has not left; ids are the nodes that robots are now, "" while that is
	// not known because one has joined anew.
	member map[*trial.Robot]bool
	ids    map[*trial.Robot]ident.NodeID
	done   map[string]int
	// checked is the event up to which acknowledged changes were compared.
	checked uint64
}

func alive(r *trial.Robot) bool { return !r.Process.Ended() }

// know learns which node a robot is, which takes until it is admitted.
func (c *churn) know(r *trial.Robot) ident.NodeID {
	c.t.Helper()
	if c.ids[r] == "" {
		rig.Wait(c.t, settle, r.Name+" is a member", func() error {
			if r.Process.Ended() {
				c.t.Fatalf("%s has ended:\n%s", r.Name, r.Process.Log())
			}
			_, err := r.Fleet()
			return err
		})
		c.ids[r] = ident.NodeID(trial.ID(c.t, r))
	}
	return c.ids[r]
}

// turn does one thing that can be done; every third is about who votes.
func (c *churn) turn(n int) {
	c.t.Helper()
	for {
		r := c.f.Robots[c.draw.IntN(len(c.f.Robots))]
		what := ""
		switch {
		case n%3 == 0:
			r, what = c.ballot()
		case !c.member[r]:
			r.Boot()
			c.member[r], what = true, "joined"
		case !alive(r):
			r.Boot()
			what = "came back"
		case c.draw.IntN(2) == 0 && c.spared(r, false):
			r.Kill()
			what = "died"
		case r != c.f.Robots[0] && c.spared(r, true):
			c.leave(r)
			what = "left"
		}
		if what != "" {
			c.done[what]++
			c.t.Logf("%s %s", r.Name, what)
			return
		}
		n++ // nothing that could be done: something else
	}
}

// ballot withdraws a robot that votes or approves one that may, whichever is drawn
// first and can be done, and says which.
func (c *churn) ballot() (r *trial.Robot, what string) {
	c.t.Helper()
	for _, withdraw := range [][]bool{{true, false}, {false, true}}[c.draw.IntN(2)] {
		for _, i := range c.draw.Perm(len(c.f.Robots)) {
			r := c.f.Robots[i]
			if !c.member[r] || !alive(r) {
				continue
			}
			id := c.know(r)
			raft, approved := c.standing()
			switch {
			case withdraw && slices.Contains(raft, id) && slices.Contains(approved, id) && c.spared(r, true) && c.vote(event.VoterWithdrawn{}.Draft(id)):
				return r, "was withdrawn"
			case !withdraw && !slices.Contains(approved, id) && c.vote(event.VoterApproved{}.Draft(id)):
				return r, "was approved"
			}
		}
	}
	return nil, ""
}

// spared reports whether the fleet goes on without a robot, dead or gone (out), as
// it is and as its leader will make it of those who are approved.
func (c *churn) spared(r *trial.Robot, out bool) bool {
	c.t.Helper()
	id := c.know(r)
	raft, approved := c.standing()
	if !slices.Contains(raft, id) && !(out && slices.Contains(approved, id)) {
		return true
	}
	dead, stay := 0, 0
	for _, v := range raft {
		if out && v == id {
			continue
		}
		if slices.Contains(approved, v) {
			stay++
		}
		if v == id || !c.serves(v, raft) {
			dead++
		}
	}
	rest := len(approved)
	if out {
		rest--
	}
	final := min(3, stay) // of those who stay, the leader keeps three or five
	if rest >= 5 {
		final = min(5, stay)
	}
	lost := dead
	if out && slices.Contains(raft, id) {
		lost++
	}
	return final > 0 && dead <= (final-1)/2 && len(raft)-lost > len(raft)/2
}

// serves reports whether a voter counts: it runs, and knows who votes. One that has
// just come back elects nobody whom it does not know as a voter.
func (c *churn) serves(id ident.NodeID, voters []ident.NodeID) bool {
	for r, own := range c.ids {
		if own != id || !alive(r) {
			continue
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), askTimeout)
		defer cancel()
		known, err := c.f.Face(r).Raft(ctx)
		return err == nil && len(known.Voters) == len(voters) &&
			!slices.ContainsFunc(voters, func(v ident.NodeID) bool { return !slices.Contains(known.Voters, v) })
	}
	return false
}

// standing is Raft's configuration by the leader's word, and who is approved.
func (c *churn) standing() (raft, approved []ident.NodeID) {
	c.t.Helper()
	rig.Wait(c.t, settle, "the leader says who votes", func() error {
		leader := c.f.Leader()
		ctx, cancel := context.WithTimeout(c.t.Context(), askTimeout)
		defer cancel()
		status, err := c.f.Face(leader).Raft(ctx)
		if err != nil || status.State != "leader" {
			return errors.Join(err, rig.ErrNotYet)
		}
		list, err := c.f.Face(leader).Robots(ctx)
		if err != nil {
			return err
		}
		raft, approved = status.Voters, nil
		for _, row := range list.Robots {
			if row.VoterApproved && row.VoterEligible && row.Status != view.Left && row.Status != view.Revoked {
				approved = append(approved, row.ID)
			}
		}
		return nil
	})
	return raft, approved
}

// leave makes a robot leave by its own command, however often it takes.
func (c *churn) leave(r *trial.Robot) {
	c.t.Helper()
	c.know(r)
	rig.Wait(c.t, settle, r.Name+" leaves", func() error {
		if r.Process.Ended() {
			return nil // the answer was lost
		}
		_, err := r.Run(c.skein, "leave", "--yes", "--data", r.Data())
		return err
	})
	ends(c.t, r.Process, 0, "left the fleet")
	c.member[r], c.ids[r] = false, ""
}

// vote has a decision about a voter decided, and reports whether it changed anything.
func (c *churn) vote(d view.Draft) bool {
	c.t.Helper()
	var at *trial.Robot
	for at == nil || !alive(at) || !c.member[at] {
		at = c.f.Robots[c.draw.IntN(len(c.f.Robots))]
	}
	c.know(at)
	return refusal(c.t, c.f.Face(at), d) == nil
}

// voters are the robots that vote, all awake: the dead are started.
func (c *churn) voters() (voters []*trial.Robot) {
	c.t.Helper()
	raft, _ := c.standing()
	for _, r := range c.f.Robots {
		if c.member[r] && slices.Contains(raft, c.know(r)) {
			if !alive(r) {
				r.Boot()
			}
			voters = append(voters, r)
		}
	}
	return voters
}

// check waits until every node that runs shows exactly who is there and who
// votes, and compares logs and states.
func (c *churn) check(turn int) {
	c.t.Helper()
	var awake []*trial.Robot
	want := members{}
	for _, r := range c.f.Robots {
		if c.member[r] && alive(r) {
			awake = append(awake, r)
			want.alive = append(want.alive, c.know(r))
		}
	}
	slices.Sort(want.alive)
	took := rig.Wait(c.t, converge, fmt.Sprintf("after turn %d all agree on who is there", turn), func() error {
		want.voters = nil
		for _, r := range awake {
			got, err := c.ask(r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
			if want.voters == nil {
				want.voters = got.voters
			}
			if !slices.Equal(got.alive, want.alive) || !slices.Equal(got.voters, want.voters) {
				return fmt.Errorf("%s shows %s, want %s", r.Name, got, want)
			}
		}
		return nil
	})
	c.load.Paused(func() {
		agreed := c.f.AwaitAgreement(awake, settle).Seq
		var voting []*trial.Robot
		for _, r := range awake {
			if slices.Contains(want.voters, c.ids[r]) {
				voting = append(voting, r)
			}
		}
		c.f.AwaitHeld(voting, c.load.Acks(), c.checked, settle)
		c.checked = agreed
	})
	c.t.Logf("turn %d: %d of %d alive, %d vote, all agree after %v; event %d", turn, len(awake), len(c.f.Robots), len(want.voters), took.Round(10*time.Millisecond), c.checked)
}

// members are who is there by a node's word, sorted.
type members struct{ alive, voters []ident.NodeID }

func (m members) String() string {
	short := func(ids []ident.NodeID) string {
		var out []string
		for _, id := range ids {
			out = append(out, id.Short())
		}
		return strings.Join(out, " ")
	}
	return fmt.Sprintf("alive %s; voters %s", short(m.alive), short(m.voters))
}

// ask asks a node for its members. It is an error if it shows other voters in the
// fleet's inventory than in Raft's configuration, or one who was not approved.
func (c *churn) ask(r *trial.Robot) (m members, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), askTimeout)
	defer cancel()
	face := c.f.Face(r)
	raft, err := face.Raft(ctx)
	if err != nil {
		return m, err
	}
	header, err := face.Fleet(ctx)
	if err != nil {
		return m, err
	}
	nodes, err := face.Nodes(ctx)
	if err != nil {
		return m, err
	}
	list, err := face.Robots(ctx)
	if err != nil {
		return m, err
	}
	for _, n := range nodes.Nodes {
		if n.State == view.Alive {
			m.alive = append(m.alive, n.ID)
		}
	}
	// The header says what Raft does; the inventory is what the log says of nodes.
	text, err := face.Get(ctx, "/api/v1/nodes", url.Values{"at": {fmt.Sprint(header.AsOf.Cursor.Seq)}})
	if err != nil {
		return m, err
	}
	var decided view.Nodes
	if err := json.Unmarshal(text, &decided); err != nil {
		return m, err
	}
	for _, n := range decided.Nodes {
		if n.Role == view.VoterNow {
			m.voters = append(m.voters, n.ID)
		}
	}
	configured := slices.Clone(raft.Voters)
	slices.Sort(configured)
	slices.Sort(m.voters)
	slices.Sort(m.alive)
	if !slices.Equal(configured, m.voters) || len(raft.Nonvoters) > 0 {
		return m, fmt.Errorf("Raft's configuration is %v and %v, the inventory %v", configured, raft.Nonvoters, m.voters)
	}
	for _, row := range list.Robots {
		if slices.Contains(m.voters, row.ID) && (!row.VoterApproved || row.Status == view.Left) {
			return m, fmt.Errorf("%s votes, is %s and approved: %v", row.Name, row.Status, row.VoterApproved)
		}
	}
	return m, nil
}
