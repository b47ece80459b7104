package rescue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skein/consensus/backup"
	"skein/consensus/event"
	"skein/node"
	"skein/node/client"
	"skein/node/config"
	"skein/node/gateway/view"
	"skein/node/rescue"
)

// The whole way, with whole nodes: their sockets, disks and keys.

// settle bounds every wait; the machine may be busy and -race is slow.
const settle = 90 * time.Second

// robot is a node of a real fleet, and its configuration while it is down.
type robot struct {
	t      *testing.T
	config config.Config
	kill   context.CancelCauseFunc
	ended  chan error
}

func newRobot(t *testing.T, name, fleetFile string, voter bool) *robot {
	t.Helper()
	c := config.Default()
	c.Data, c.Name, c.FleetFile, c.HTTP, c.Voter = filepath.Join(t.TempDir(), name), name, fleetFile, "127.0.0.1:0", voter
	c.Mesh.LinkPort, c.Mesh.GossipPort, c.Mesh.Loopback = 0, 0, true
	return &robot{t: t, config: c}
}

// start boots the robot; it is stopped when the test ends.
func (r *robot) start() {
	r.t.Helper()
	n, err := node.New(r.config, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, kill := context.WithCancelCause(context.WithoutCancel(r.t.Context()))
	r.kill, r.ended = kill, make(chan error, 1)
	go func() { r.ended <- n.Run(ctx) }()
	r.t.Cleanup(func() {
		if r.kill != nil {
			r.end(nil)
		}
	})
}

// end stops the robot; a cause kills it as a power cut would.
func (r *robot) end(cause error) {
	r.t.Helper()
	r.kill(cause)
	r.kill = nil
	if err := <-r.ended; err != nil && cause == nil {
		r.t.Errorf("%s ended with %v", r.config.Name, err)
	}
}

func (r *robot) path(name string) string { return filepath.Join(r.config.Data, name) }

// ask gives a client of the robot's control socket, as the admin of founder.
func (r *robot) ask(founder *robot) *client.Client {
	r.t.Helper()
	who, err := client.LoadIdentity(founder.path("admin.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := client.New(client.Options{Addresses: []string{"unix:" + r.path("control.sock")}, Identity: who, Timeout: 10 * time.Second, Now: time.Now})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// eventually polls until ok returns nil.
func eventually(t *testing.T, what string, ok func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(30 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// found founds a fleet and starts its first robot, which votes.
func found(t *testing.T) *robot {
	t.Helper()
	r := newRobot(t, "gander", "", true)
	if _, err := node.InitFleet(t.Context(), node.InitOptions{Data: r.config.Data, Name: "geese", NodeName: "gander"}); err != nil {
		t.Fatal(err)
	}
	r.config.FleetFile = r.path("fleet.json")
	r.start()
	return r
}

// joins starts another robot and waits until it is at least as far as founder is.
func joins(t *testing.T, founder *robot, name string, voter bool) *robot {
	t.Helper()
	r := newRobot(t, name, founder.config.FleetFile, voter)
	r.start()
	r.reaches(founder)
	return r
}

// reaches waits until r has what other has now.
func (r *robot) reaches(other *robot) {
	r.t.Helper()
	eventually(r.t, r.config.Name+" has what "+other.config.Name+" has", func(ctx context.Context) error {
		want, err := other.ask(other.admin()).Fleet(ctx)
		if err != nil {
			return err
		}
		got, err := r.ask(other.admin()).Fleet(ctx)
		if err == nil && (got.AsOf.Cursor.Seq < want.AsOf.Cursor.Seq || got.AsOf.Cursor.History != want.AsOf.Cursor.History) {
			err = fmt.Errorf("%+v, wanted %+v", got.AsOf.Cursor, want.AsOf.Cursor)
		}
		return err
	})
}

// admin is the robot with the admin's identity: the one with the fleet file.
func (r *robot) admin() *robot {
	return &robot{t: r.t, config: config.Config{Data: filepath.Dir(r.config.FleetFile)}}
}

// writer decides groups until it is stopped, and remembers those acknowledged.
type writer struct {
	mu    sync.Mutex
	acked map[string]uint64 // by the group's name: its event
	stop  func()
}

func writes(t *testing.T, r *robot) *writer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &writer{acked: map[string]uint64{}}
	c, done := r.ask(r.admin()), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil && i < 900; i++ {
			name := fmt.Sprintf("%s-%d", t.Name()[4:min(len(t.Name()), 20)], i)
			receipt, err := c.Propose(ctx, event.GroupCreated{}.Draft(name))
			if err == nil {
				w.mu.Lock()
				w.acked[name] = receipt.Last
				w.mu.Unlock()
			}
		}
	}()
	w.stop = func() { cancel(); <-done }
	t.Cleanup(w.stop)
	return w
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

// has fails unless r has every event up to seq that was acknowledged.
func (w *writer) has(t *testing.T, r *robot, seq uint64) {
	t.Helper()
	have := map[string]uint64{}
	c := r.ask(r.admin())
	for since := uint64(0); ; {
		page, err := c.Events(t.Context(), since, view.EventFilter{Type: event.TypeGroupCreated}, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			have[event.Subject(e.Stream)], since = e.Seq, e.Seq
		}
		if !page.More || len(page.Events) == 0 {
			break
		}
	}
	checked := 0
	for name, at := range w.acked {
		if at > seq {
			continue
		}
		checked++
		if have[name] != at {
			t.Errorf("%s was acknowledged as event %d; %s has it as %d", name, at, r.config.Name, have[name])
		}
	}
	if checked == 0 {
		t.Error("nothing was acknowledged")
	}
}

// fetchBackup streams a backup from a robot that runs, as `skein backup` does.
func fetchBackup(t *testing.T, r *robot, path string) backup.Summary {
	t.Helper()
	h := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.path("control.sock"))
	}}}
	defer h.CloseIdleConnections()
	s, err := backup.Save(path, func(w io.Writer) error {
		answer, err := h.Get("http://skein/api/v1/backup")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		_, err = io.Copy(w, answer.Body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keepOnly removes everything of a robot's directory but what is named.
func keepOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range entries(t, dir) {
		if !slices.Contains(names, name) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Found a fleet, write events, back up while writing, destroy everything but
// keys, restore: the fleet decides, and others follow, one that lost its log and
// one with an old copy of it.
func TestTheWholeWayOfABackup(t *testing.T) {
	gander := found(t)
	goose := joins(t, gander, "goose", false)
	old := joins(t, gander, "old-goose", false)
	old.end(nil)
	w := writes(t, gander)
	eventually(t, "some events", func(context.Context) error {
		if w.count() < 20 {
			return errors.New("few")
		}
		return nil
	})
	file := filepath.Join(t.TempDir(), "geese.skein-backup")
	sum := fetchBackup(t, goose, file)
	w.stop()
	if sum.Made.Name != "goose" || sum.FleetName != "geese" {
		t.Errorf("%+v", sum)
	}
	goose.end(nil)
	gander.end(nil)
	keepOnly(t, gander.config.Data, "node.key", "membership.json", "fleet.json", "admin.json", "admin.key")
	keepOnly(t, goose.config.Data, "node.key", "membership.json", "gossip-keys.json")

	r, err := rescue.Restore(t.Context(), rescue.RestoreOptions{File: file, Data: gander.config.Data, Mesh: gander.config.Mesh,
		Confirm: func(rescue.RestorePlan) error { return nil }, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Cursor.Seq != sum.End.Seq+1 || !r.MayIssue {
		t.Errorf("%+v", r)
	}
	gander.start()
	goose.start()
	old.start()
	eventually(t, "the fleet decides again", func(ctx context.Context) error {
		_, err := gander.ask(gander).Propose(ctx, event.GroupCreated{}.Draft("after"))
		return err
	})
	for _, other := range []*robot{goose, old} {
		other.reaches(gander)
		w.has(t, other, sum.End.Seq)
		sameState(t, gander, other)
	}
	if got := joins(t, gander, "gosling", false); got == nil {
		t.Error("nobody new gets in")
	}
}

// sameState waits until both have one state at one event.
func sameState(t *testing.T, a, b *robot) {
	t.Helper()
	eventually(t, "equal states", func(ctx context.Context) error {
		x, err := a.ask(a.admin()).Raft(ctx)
		if err != nil {
			return err
		}
		y, err := b.ask(a.admin()).Raft(ctx)
		if err == nil && x.StateHash != y.StateHash {
			err = errors.New("the state hashes differ")
		}
		return err
	})
}

// Case 17: two of three voters are lost, the third is recovered by force. The
// old two come back: they decide nothing, give up their seats, and follow.
func TestRecoverQuorumThenOldMembersReturn(t *testing.T) {
	gander := found(t)
	second, third := joins(t, gander, "second", true), joins(t, gander, "third", true)
	admin := gander.ask(gander)
	for _, r := range []*robot{second, third} {
		eventually(t, r.config.Name+" votes", func(ctx context.Context) error { return makeVoter(ctx, admin, r.config.Name) })
	}
	w := writes(t, gander)
	eventually(t, "some events", func(context.Context) error {
		if w.count() < 20 {
			return errors.New("few")
		}
		return nil
	})
	w.stop()
	killed := fmt.Errorf("%w by the test", node.ErrKilled)
	for _, r := range []*robot{gander, second, third} {
		r.end(killed)
	}
	who, err := client.LoadIdentity(gander.path("admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	done, err := rescue.RecoverQuorum(t.Context(), rescue.RecoverOptions{Data: third.config.Data, Mesh: third.config.Mesh,
		By: rescue.Person{Name: who.Person, Key: who.Key}, Why: "a test", Confirm: func(rescue.Plan) error { return nil },
		Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	third.start()
	eventually(t, "the survivor decides", func(ctx context.Context) error {
		_, err := third.ask(gander).Propose(ctx, event.GroupCreated{}.Draft("alone"))
		return err
	})
	w.has(t, third, 1<<62) // every acknowledged event is there
	gander.start()
	second.start()
	for _, old := range []*robot{gander, second} {
		old.reaches(third)
		sameState(t, third, old)
	}
	eventually(t, "one voter", func(ctx context.Context) error {
		for _, r := range []*robot{gander, second, third} {
			f, err := r.ask(gander).Fleet(ctx)
			if err != nil {
				return err
			}
			if len(f.Voters) != 1 || f.Voters[0].Name != "third" || f.Leader == nil || f.Leader.Name != "third" {
				return fmt.Errorf("%s: voters %+v, leader %+v", r.config.Name, f.Voters, f.Leader)
			}
			if f.AsOf.Cursor.History != done.Cursor.History {
				return fmt.Errorf("%s is in log %s", r.config.Name, f.AsOf.Cursor.History)
			}
		}
		return nil
	})
	if _, err := os.Stat(gander.path("raft")); err == nil {
		names := strings.Join(entries(t, gander.config.Data), " ")
		eventually(t, "the old voter gives up its Raft log ("+names+")", func(context.Context) error {
			if _, err := os.Stat(gander.path("raft")); err == nil {
				return errors.New("it is still there")
			}
			return nil
		})
	}
	// An admin may make the old ones voters again.
	eventually(t, "it votes again", func(ctx context.Context) error { return makeVoter(ctx, third.ask(gander), "second") })
}

// makeVoter approves a robot and is nil when it votes.
func makeVoter(ctx context.Context, c *client.Client, name string) error {
	list, err := c.Robots(ctx)
	if err != nil {
		return err
	}
	r, err := client.FindRobot(list.Robots, name)
	if err != nil {
		return err
	}
	if r.VoterEligible && !r.VoterApproved {
		if _, err := c.Propose(ctx, event.VoterApproved{}.Draft(r.ID)); err != nil {
			return err
		}
	}
	if r.Role != view.VoterNow && r.Role != view.Leader {
		return fmt.Errorf("%s is a %s, eligible %v, approved %v", name, r.Role, r.VoterEligible, r.VoterApproved)
	}
	return nil
}

// The survivor was behind, and what only the others had was given up. One of
// them comes back with more than the fleet has now: it decides nothing, says what
// to do, and is a follower again after that.
func TestAMemberThatIsAheadReturns(t *testing.T) {
	gander := found(t)
	second, third := joins(t, gander, "second", true), joins(t, gander, "third", true)
	admin := gander.ask(gander)
	for _, r := range []*robot{second, third} {
		eventually(t, r.config.Name+" votes", func(ctx context.Context) error { return makeVoter(ctx, admin, r.config.Name) })
	}
	third.reaches(gander)
	killed := fmt.Errorf("%w by the test", node.ErrKilled)
	third.end(killed)
	w := writes(t, gander)
	eventually(t, "events that the third lacks", func(context.Context) error {
		if w.count() < 10 {
			return errors.New("few")
		}
		return nil
	})
	w.stop()
	gander.end(killed)
	second.end(killed)
	who, err := client.LoadIdentity(gander.path("admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	done, err := rescue.RecoverQuorum(t.Context(), rescue.RecoverOptions{Data: third.config.Data, Mesh: third.config.Mesh,
		By: rescue.Person{Name: who.Person, Key: who.Key}, Confirm: func(rescue.Plan) error { return nil },
		Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	third.start()
	eventually(t, "the survivor decides", func(ctx context.Context) error {
		_, err := third.ask(gander).Propose(ctx, event.GroupCreated{}.Draft("alone"))
		return err
	})
	gander.start()
	second.start()
	// The two would be a majority of the old fleet. They must not decide.
	eventually(t, "they have heard of the new fleet", func(ctx context.Context) error {
		for _, old := range []*robot{gander, second} {
			raft, err := old.ask(gander).Raft(ctx)
			if err != nil {
				return err
			}
			if raft.State == "leader" || raft.State == "candidate" {
				return fmt.Errorf("%s is %s", old.config.Name, raft.State)
			}
			if heard, err := os.ReadFile(old.path("epochs.json")); err != nil || !strings.Contains(string(heard), `"latest":1`) {
				return fmt.Errorf("%s has heard of %s, %w", old.config.Name, heard, err)
			}
			if raft.Leader != "" && raft.Leader != done.Plan.Node {
				return fmt.Errorf("%s takes %q for the leader", old.config.Name, raft.Leader)
			}
		}
		return nil
	})
	for _, old := range []*robot{gander, second} {
		old.end(nil)
		moved, err := rescue.Resync(t.Context(), rescue.ResyncOptions{Data: old.config.Data, Mesh: old.config.Mesh, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if len(moved.Moved) == 0 || len(moved.From) == 0 {
			t.Errorf("%+v", moved)
		}
		old.start()
		old.reaches(third)
		sameState(t, third, old)
	}
}

// The leader seals the log, and the audit of the node while it runs takes the
// seal for good.
func TestTheLeadersSeals(t *testing.T) {
	g := found(t)
	c := g.ask(g)
	decided := 0
	eventually(t, "many events", func(ctx context.Context) error {
		list, err := c.Robots(ctx)
		if err != nil || len(list.Robots) == 0 {
			return fmt.Errorf("the robot is not registered yet, %w", err)
		}
		for ; decided < 60; decided++ {
			var drafts []event.Draft
			for i := range 25 {
				drafts = append(drafts, event.RobotLabelsChanged{Set: map[string]string{"x": fmt.Sprint(decided, "-", i)}}.Draft(list.Robots[0].ID))
			}
			if _, err := c.Propose(ctx, drafts...); err != nil {
				return err
			}
		}
		return nil
	})
	eventually(t, "a seal", func(ctx context.Context) error {
		r, err := rescue.Audit(ctx, g.config.Data)
		if err != nil {
			return err
		}
		if !r.OK() {
			t.Fatalf("%+v", r)
		}
		if r.Counts.Seals == 0 || r.SealedSeq < 1000 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}
