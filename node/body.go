package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"skein/consensus/admission"
	"skein/consensus/backfill"
	"skein/consensus/backup"
	"skein/consensus/control"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/follow"
	"skein/consensus/propose"
	"skein/consensus/replica"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/mesh/link"
	"skein/mesh/member"
	"skein/node/gateway/auth"
	"skein/node/gateway/view"
	"skein/node/rescue"
	"skein/node/survey"
)

const (
	followProtocol    link.Protocol = follow.Protocol
	pastProtocol      link.Protocol = backfill.Protocol
	chainProtocol     link.Protocol = rescue.ChainProtocol
	proposeProtocol   link.Protocol = propose.Protocol
	admissionProtocol link.Protocol = "/skein/admit/1"
)

// body is the parts of a node that is a member.
type body struct {
	self     *self
	host     *link.Host
	trust    *trust
	store    *replica.Replica
	seat     *seat
	past     *backfill.Service
	follower *follow.Service
	proposer *propose.Proposer
	answers  answers
	lead     leading
	mesh     *mesh
	auth     *auth.Service
	face     *face
	shown    *showing
	// end stops the node for a reason of its own: it was revoked, or left.
	end context.CancelCauseFunc
}

// leading is what matters above all on the leader.
type leading struct {
	office  *admission.Office
	control *control.Controller
}

// assemble makes the parts, each with the few functions it needs of others.
// What listens, listens when it returns; nothing else runs yet.
func (b *body) assemble(models *views.Views) error {
	b.shown = &showing{}
	b.seat = newSeat(b.self, b.store, b.host, b.trust.epochs.Load())
	b.seat.others.met, b.seat.others.fresh = b.met, b.trust.fresh
	b.auth = auth.New(auth.Config{
		Key: b.self.key, Fleet: b.self.member.Load().Fleet(), Directory: directory{b.store, b.leader},
		Forwarder: loginForwarder{b.host}, Ready: func() bool { return b.standing().Age >= 0 }, Now: b.seat.clock.now, Log: b.self.log,
	})
	b.proposer = propose.New(propose.Config{
		Self: b.self.key.ID(), Boot: b.self.boot, Group: decider{b}, Replica: b.store, Verify: verify(b.auth), Log: b.self.log,
		Open: b.opener(proposeProtocol),
	})
	b.follower = follow.New(follow.Config{
		Self: b.self.key.ID(), Link: followLink{b}, Source: b.store, Sink: b.store,
		Standing: b.seat.standing, StandingChanged: b.seat.Changed, Candidates: b.candidates, Log: b.self.log,
	})
	b.trust.judgeBy(b.follower)
	b.seat.others.word, b.seat.others.known = b.follower.Latest, b.knownMembers
	b.answers = newAnswers(b)
	b.past = backfill.New(backfill.Config{
		Self: b.self.key.ID(), Link: pastLink{b.host}, Source: b.store, Sink: b.store, Peers: b.havePast, Log: b.self.log,
	})
	b.lead.office = admission.New(admission.Config{
		Key: b.self.key, Chain: b.self.chain, GossipKeys: b.gossipKeys, Fleet: registry{b}, Link: admissionLink{b.host},
		Now: b.seat.clock.now, Log: b.self.log,
	})
	look := survey.New(survey.Sources{
		Self: b.self.key.ID(), View: b.viewAt, Past: b.store, Models: models, Standing: b.standing,
		Members: func() []member.Member { return b.mesh.gossip.Members() },
		Reports: func() map[ident.NodeID]presenceReport { return b.mesh.presence.Reports() },
		Skew:    b.host.Skew, Now: time.Now,
	})
	var err error
	if b.face, err = b.newFace(&window{b, look}); err != nil {
		return err
	}
	if b.mesh, err = newMesh(b.self, b.host, b.trust, b.store, b.face.port()); err != nil {
		return errors.Join(err, b.face.gateway.Close())
	}
	b.lead.control = control.New(control.Config{
		Key: b.self.key, Level: b.self.level, View: b.viewAt, Subscribe: b.store.Subscribe, Raft: b.seat, Learners: b.learners, Record: b.seat.Record, Mesh: b.mesh,
		Offset: b.seat.clock.offset, ReplaceAfter: b.self.cfg.Raft.ReplaceAfter, Now: time.Now, Wall: b.seat.clock.now, Log: b.self.log,
	})
	b.serve()
	return nil
}

// serve answers the protocols that the parts speak.
func (b *body) serve() {
	handle := func(p link.Protocol, fn func(ctx context.Context, conn net.Conn, remote ident.NodeID)) {
		b.host.Handle(p, func(ctx context.Context, st *link.Stream) { fn(ctx, st, st.Remote()) })
	}
	handle(followProtocol, b.follower.Handle)
	handle(proposeProtocol, b.proposer.Handle)
	handle(readProtocol, b.answers.reads.Handle)
	handle(pastProtocol, b.past.Handle)
	handle(chainProtocol, b.serveChain)
	handle(admissionProtocol, b.lead.office.Handle)
	handle(loginProtocol, func(ctx context.Context, conn net.Conn, remote ident.NodeID) { b.auth.Serve(ctx, remote, conn) })
	b.host.HandleOpen(join.Protocol, join.Serve(b.lead.office, join.ServerConfig{Chain: b.self.chain, Now: b.seat.clock.now, Log: b.self.log}))
}

// parts are what runs, in the order of start.
func (b *body) parts() []part {
	parts := []part{
		{"gossip", b.mesh.gossip.Run},
		{"following", b.follower.Run},
		{"seat", b.seat.run},
		{"leader's duties", b.lead.control.Run},
		{"clocks", b.compareClocks},
		{"epoch", b.tellEpoch},
		{"the log's past", b.past.Run},
		{"retention", b.keepHistory},
		{"gossip keys", b.mesh.keepKeys},
		{"presence", b.mesh.presence.Run},
		{"telemetry", b.mesh.runSampler},
		{"neighbours", b.keepNeighbours},
		{"standing", b.keepStanding},
		{"registration", b.keepRegistered},
		{"HTTP", b.face.gateway.Run},
	}
	if b.mesh.finder != nil {
		parts = slices.Insert(parts, 1, part{"mDNS", b.mesh.finder.Run})
	}
	if c := b.self.cfg.Backup; c.Dir != "" {
		parts = append(parts, part{"backups", backup.Schedule{
			Maker: b.answers.backups, Dir: c.Dir, Every: c.Every, Keep: c.Keep, Log: b.self.log,
		}.Run})
	}
	return parts
}

// opener opens streams of one protocol to members.
func (b *body) opener(p link.Protocol) func(context.Context, ident.NodeID) (net.Conn, error) {
	return func(ctx context.Context, id ident.NodeID) (net.Conn, error) { return b.host.Open(ctx, id, p) }
}

// viewAt gives the state and the cursor that belongs to it.
func (b *body) viewAt(f func(*fleet.State, event.Cursor)) { b.store.ViewAt(f) }

// leader is who leads as far as this node knows: by Raft where it votes, else by
// the newest mark.
func (b *body) leader() (ident.NodeID, bool) {
	if id, ok := b.seat.Leader(); ok {
		return id, true
	}
	m, _, ok := b.follower.Latest()
	return m.Leader, ok
}

// standing is what this node knows of the Raft group. Its age is that of the
// newest mark which this node's copy of the log has reached.
func (b *body) standing() survey.Standing {
	latest, _, heard := b.follower.Latest()
	s := survey.Standing{Leader: latest.Leader, Term: latest.Term, Voters: latest.Voters, Age: -1}
	if reached, age, ok := b.follower.Mark(); ok {
		s.Age, s.Path = age, slices.Clone(reached.Path)
	}
	// A voter knows of an election before the new leader's first mark arrives.
	if status, seated := b.seat.status(); seated && (!heard || status.Term > s.Term) {
		s.Leader, s.Term, s.Voters = status.Leader, status.Term, status.Voters
	}
	return s
}

// candidates is whom to follow: the voters and everybody who is alive. To whom all
// are dead, everybody whose address is known: gossip hears nobody when its keys were
// renewed while this node was away, and a node with an empty log knows only
// addresses.
func (b *body) candidates() (out []follow.Candidate) {
	var voters []ident.NodeID
	b.store.View(func(s *fleet.State) { voters = slices.Clone(s.Voters()) })
	add := func(id ident.NodeID) {
		if len(out) < maxCandidates && !slices.ContainsFunc(out, func(c follow.Candidate) bool { return c.ID == id }) {
			out = append(out, follow.Candidate{ID: id, Voter: slices.Contains(voters, id)})
		}
	}
	dead, company := map[ident.NodeID]bool{}, false
	for _, m := range b.mesh.gossip.Members() {
		if m.State == member.Alive {
			add(m.ID)
			company = company || m.ID != b.self.key.ID()
		} else {
			dead[m.ID] = true
		}
	}
	for _, id := range voters {
		if !dead[id] || !company {
			add(id)
		}
	}
	if !company {
		for _, e := range b.self.book.All() {
			add(e.ID)
		}
	}
	return out
}

// maxCandidates bounds whom to consider following.
const maxCandidates = 256

// keepNeighbours keeps what depends on who is there: addresses, presence's
// edges, and streams to those who are not welcome any more.
func (b *body) keepNeighbours(ctx context.Context) error {
	changed, release := b.store.Subscribe()
	defer release()
	refusedSince := map[ident.NodeID]time.Time{}
	for {
		b.mesh.note()
		b.mesh.presence.SetUplinks(b.uplinks())
		var again <-chan time.Time
		if b.cutRefused(refusedSince) {
			again = time.After(farewell)
		}
		b.shown.signal()
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-changed:
		case <-b.mesh.moved:
		case <-b.follower.Changed():
		case <-b.mesh.presence.Changed():
		}
	}
}

// uplinks are presence's edges: the parent in the follow tree and, between
// voters, the other voters; of two voters the one with the lower id opens.
func (b *body) uplinks() (ids []ident.NodeID) {
	me := b.self.key.ID()
	var voters []ident.NodeID
	b.store.View(func(s *fleet.State) { voters = slices.Clone(s.Voters()) })
	if !slices.Contains(voters, me) {
		if parent, ok := b.follower.Parent(); ok {
			ids = append(ids, parent)
		}
		return ids
	}
	for _, id := range voters {
		if me < id {
			ids = append(ids, id)
		}
	}
	return ids
}

// farewell is how long a stream outlives the decision that its node is not
// welcome: enough for a robot that was revoked to hear of it and say so.
const farewell = time.Second

// cutRefused ends streams with nodes that the log does not welcome any more,
// and this node itself if it is the one. It reports whether some wait for their
// farewell to be over; since remembers them.
func (b *body) cutRefused(since map[ident.NodeID]time.Time) (waiting bool) {
	connected := b.host.Connected()
	maps.DeleteFunc(since, func(id ident.NodeID, _ time.Time) bool { return !slices.Contains(connected, id) })
	for _, id := range connected {
		if b.trust.refused(id) == nil {
			continue
		}
		first, known := since[id]
		switch {
		case !known:
			since[id] = time.Now()
			waiting = true
		case time.Since(first) < farewell:
			waiting = true
		default:
			b.self.log.Info("streams of a node that is not welcome any more are cut", "node", id)
			b.host.Drop(id)
		}
	}
	b.mesh.gossip.Refresh()
	if me, known := b.trust.node(b.self.key.ID()); known && me.Left {
		b.end(errLeft) // it asked to and the answer was lost, or an admin did
	}
	if err := b.trust.refused(b.self.key.ID()); errors.Is(err, ErrRevoked) {
		b.end(fmt.Errorf("%w; to use it again, move its data directory away and have an admin admit it anew", ErrRevoked))
	}
	return waiting
}

// keepStanding keeps what depends on this node's own place in the fleet: that
// it offers itself as a voter as configured, and that a voter may issue
// certificates.
func (b *body) keepStanding(ctx context.Context) error {
	return b.keep(ctx, func(ctx context.Context) error {
		me := b.seat.me()
		if me.ID == "" || !me.Member() {
			return nil
		}
		if me.VoterEligible != b.self.cfg.Voter && !me.Voter {
			draft := event.VoterEligible{Eligible: b.self.cfg.Voter}.Draft(me.ID)
			if _, err := b.proposer.Propose(ctx, []event.Draft{draft}, propose.Authority{}); err != nil {
				return fmt.Errorf("tell the fleet whether this node may vote: %w", err)
			}
		}
		if chain := b.self.chain(); me.Voter && !chain[0].MayIssue {
			return b.obtainIssuing(ctx)
		}
		return nil
	})
}

// obtainIssuing asks the voters for a certificate that may issue.
func (b *body) obtainIssuing(ctx context.Context) error {
	err := errors.New("there is no other voter")
	for _, id := range (directory{b.store, b.leader}).Voters() {
		if id == b.self.key.ID() {
			continue
		}
		var chain ident.Chain
		if chain, err = b.lead.office.RequestIssuing(ctx, id); err == nil {
			m := b.self.member.Load()
			return b.self.accept(m.FleetName, m.Root, chain)
		}
	}
	return fmt.Errorf("obtain the right to issue certificates: %w", err)
}

const (
	keepTimeout = 5 * time.Second
	keepAgain   = time.Second
)

// keep makes something so after every change of the log, and tries again what
// did not work.
func (b *body) keep(ctx context.Context, makeSo func(ctx context.Context) error) error {
	changed, release := b.store.Subscribe()
	defer release()
	complained := ""
	for {
		var again <-chan time.Time
		tryCtx, cancel := context.WithTimeout(ctx, keepTimeout)
		err := makeSo(tryCtx)
		cancel()
		if err != nil && ctx.Err() == nil {
			again = time.After(keepAgain)
			if complained != err.Error() {
				complained = err.Error()
				b.self.log.Warn("will be tried again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}

// leave tells the fleet that this node goes, and stops it. Its files are put
// aside when it has stopped.
func (b *body) leave(ctx context.Context) error {
	_, err := b.proposer.Propose(ctx, []event.Draft{event.NodeLeft{}.Draft(b.self.key.ID())}, propose.Authority{})
	if err != nil {
		if fault, is := event.FaultOf(err); !is || fault.Code == event.CodeUnknownOutcome {
			b.trust.leaving.Store(true)
		}
		return err
	}
	// The answer to who asked goes out first.
	time.AfterFunc(leaveAfter, func() { b.end(errLeft) })
	return nil
}

// leaveAfter lets the answer to `skein leave` reach the command.
const leaveAfter = 200 * time.Millisecond

var errLeft = errors.New("this robot has left its fleet")

// learners are those that Raft sends the log to without a vote, as far as this
// node knows.
func (b *body) learners() []ident.NodeID {
	s, _ := b.seat.status()
	return s.Nonvoters
}

// raftStatus is this node's part in consensus.
func (b *body) raftStatus() view.Raft {
	index, _ := b.store.Applied()
	out := view.Raft{Node: b.self.key.ID(), State: "follows", AppliedIndex: index, LastContactMillis: -1}
	b.store.View(func(s *fleet.State) { out.StateHash = s.Hash() })
	if m, age, ok := b.follower.Latest(); ok {
		out.Leader, out.Term, out.Voters = m.Leader, m.Term, m.Voters
		if parent, follows := b.follower.Parent(); follows {
			out.Follow = &view.Follow{Parent: parent, Path: m.Path, MarkAgeMillis: age.Milliseconds()}
		}
	}
	// The group of a spare knows nobody, that of one who was taken out what was before.
	if s, ok := b.seat.status(); ok && s.Member(b.self.key.ID()) {
		out.State, out.Leader, out.Term = string(s.State), s.Leader, s.Term
		out.NoSpace = s.NoSpace
		out.LastIndex, out.CommitIndex, out.Voters, out.Nonvoters = s.LastIndex, s.Commit, s.Voters, s.Nonvoters
		if s.LastContact >= 0 {
			out.LastContactMillis = s.LastContact.Milliseconds()
		}
	}
	return out
}
