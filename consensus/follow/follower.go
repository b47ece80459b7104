package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"skein/consensus/history"
	"skein/consensus/replica"
	"skein/mesh/ident"
)

// part is what a node does in the tree.
type part int

const (
	// leading: it makes the marks. marking: it follows the leader's marks, or
	// anybody's while its Raft knows no leader, and Raft brings the records.
	// following: it follows a parent for both.
	leading part = iota
	marking
	following
)

// role is a part and, for marking, whom.
type role struct {
	part   part
	leader ident.NodeID
}

func (s *Service) role() role {
	st := s.cfg.Standing()
	switch {
	case st.Fed && st.Leader == s.cfg.Self:
		return role{leading, st.Leader}
	case st.Fed:
		return role{marking, st.Leader}
	default:
		return role{part: following}
	}
}

// errApply marks an error of the Sink that ends the node.
var errApply = errors.New("decided records cannot be applied")

// Run follows, or leads, until ctx ends (nil) or the Sink can no longer be
// filled (an error, upon which the node must end).
func (s *Service) Run(ctx context.Context) error {
	defer s.setParent("")
	for ctx.Err() == nil {
		if err := s.play(ctx, s.role()); err != nil {
			return err
		}
	}
	return nil
}

// play does what a role asks for as long as this node has it.
func (s *Service) play(ctx context.Context, r role) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer cancel()
		s.whileRole(ctx, r)
	}()
	defer func() { cancel(); <-watched }()
	if r.part == leading {
		s.originate(ctx)
		return nil
	}
	return s.followOn(ctx, r)
}

// whileRole returns when ctx ends or this node's role is another.
func (s *Service) whileRole(ctx context.Context, r role) {
	ticker := time.NewTicker(time.Second) // Fed changes with time alone
	defer ticker.Stop()
	for {
		changed := s.cfg.StandingChanged()
		if s.role() != r {
			return
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// originate makes marks, as the leader.
func (s *Service) originate(ctx context.Context) {
	ticker := time.NewTicker(s.times.mark)
	defer ticker.Stop()
	for {
		changed := s.cfg.StandingChanged()
		st := s.cfg.Standing()
		if st.Leader != s.cfg.Self {
			return
		}
		s.board.put(Mark{Leader: s.cfg.Self, Epoch: st.Epoch, Term: st.Term, Seq: s.cfg.Source.Cursor().Seq, Index: st.Index,
			Voters: st.Voters, Path: []ident.NodeID{s.cfg.Self}}, time.Now())
		select {
		case <-ticker.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// followOn keeps this node below a parent until ctx ends.
func (s *Service) followOn(ctx context.Context, r role) error {
	pause := s.times.retryLow
	for ctx.Err() == nil {
		followed, err := s.round(ctx, r)
		if errors.Is(err, errApply) {
			return err
		}
		if followed {
			pause = s.times.retryLow
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, s.times.retryHigh)
	}
	return nil
}

// round tries candidates until it followed one, and reports whether it did. A
// node whose marks are old first looks for a parent whose are not.
func (s *Service) round(ctx context.Context, r role) (followed bool, err error) {
	switch {
	case r.part == marking && r.leader != "":
		return s.session(ctx, r.leader, attempt{marksOnly: true})
	case r.part == marking && !s.staleMarks():
		return false, nil // an election, most likely
	case r.part == marking:
		return s.tryAll(ctx, attempt{marksOnly: true, freshOnly: true}, maxPicky)
	}
	if s.staleMarks() {
		if followed, err := s.tryAll(ctx, attempt{freshOnly: true}, maxPicky); followed || err != nil {
			return followed, err
		}
	}
	return s.tryAll(ctx, attempt{}, maxTries)
}

const (
	// maxTries bounds how many nodes are asked in a round, maxPicky how many when
	// only a fresher one will do: in a part of the fleet without a leader, every
	// node asks.
	maxTries = 64
	maxPicky = 8
)

func (s *Service) staleMarks() bool {
	_, age, ok := s.Latest()
	return !ok || age > s.times.stale
}

func (s *Service) tryAll(ctx context.Context, a attempt, most int) (followed bool, err error) {
	queue := s.candidates()
	asked := map[ident.NodeID]bool{s.cfg.Self: true}
	for len(queue) > 0 && len(asked) <= most && ctx.Err() == nil {
		id := queue[0]
		queue = queue[1:]
		if asked[id] {
			continue
		}
		asked[id] = true
		followed, err := s.session(ctx, id, a)
		if followed || errors.Is(err, errApply) {
			return followed, err
		}
		s.cfg.Log.Debug("not followed", "node", id, "error", err)
		if no, ok := errors.AsType[*refusal](err); ok {
			queue = append(queue, no.Try...) // sorted to the end: voters come first
			s.refused(id, no.Reason)
		}
	}
	return false, nil
}

// refused says once what an operator has to know.
func (s *Service) refused(id ident.NodeID, why reason) {
	if why != reasonHistory || s.strange {
		return
	}
	s.strange = true
	s.cfg.Log.Warn("this node's log and another's are not of one piece; if the fleet was recovered or restored without this node, stop it and run `skein resync`",
		"other", id, "history", s.cfg.Source.Cursor().History)
}

// candidates are whom to ask, in order: voters, the leader last among them,
// then others; equals in random order, which spreads the load.
func (s *Service) candidates() (ids []ident.NodeID) {
	all := s.cfg.Candidates()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	latest, _, _ := s.Latest()
	rank := func(c Candidate) int {
		switch {
		case c.Voter && c.ID != latest.Leader:
			return 0
		case c.Voter:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b Candidate) int { return rank(a) - rank(b) })
	for _, c := range all {
		ids = append(ids, c.ID)
	}
	return ids
}

// attempt says what is wanted of a parent.
type attempt struct {
	marksOnly bool
	// freshOnly: no parent whose marks are old.
	freshOnly bool
	// snapshot: the state, because records did not fit.
	snapshot bool
}

// Reasons to leave a parent.
var (
	errLoop     = errors.New("parent's marks have passed this node")
	errNotFresh = errors.New("parent's marks are old")
	errNoHelp   = errors.New("parent's snapshot is not ahead of this node's copy, which does not fit its log")
)

// session follows one parent until something ends it. followed reports whether
// it was a parent at all: it took this node and sent something of use.
func (s *Service) session(ctx context.Context, id ident.NodeID, a attempt) (followed bool, err error) {
	followed, err = s.attach(ctx, id, a)
	if errors.Is(err, history.ErrDiverged) && !a.snapshot && ctx.Err() == nil {
		s.cfg.Log.Warn("this node's log does not fit its parent's, asking for the state", "parent", id, "error", err)
		a.snapshot = true
		again, err := s.attach(ctx, id, a)
		return followed || again, err
	}
	return followed, err
}

// attach is one stream to a parent.
func (s *Service) attach(ctx context.Context, id ident.NodeID, a attempt) (followed bool, err error) {
	openCtx, cancelOpen := context.WithTimeout(ctx, s.times.open)
	conn, err := s.cfg.Link.Open(openCtx, id)
	cancelOpen()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	up := &uplink{service: s, id: id, attempt: a, began: time.Now(), in: &wireReader{conn, s.times.silence},
		out: &child{conn: conn, times: s.times}}
	q, err := jsonFrame(kindRequest, request{Cursor: s.cfg.Source.Cursor(), MarksOnly: a.marksOnly, Snapshot: a.snapshot})
	if err == nil {
		err = up.out.send(q)
	}
	if err != nil {
		return false, err
	}
	kept := make(chan struct{})
	go func() { defer close(kept); up.keepAlive(ctx) }()
	err = up.receive()
	cancel()
	<-kept
	if up.taken {
		s.setParent("")
		s.cfg.Log.Debug("parent left", "parent", id, "error", err)
	}
	return up.taken, err
}

// uplink is this node as a child.
type uplink struct {
	service *Service
	id      ident.NodeID
	attempt attempt
	began   time.Time
	in      *wireReader
	out     *child
	// taken: the parent sent something of use.
	taken bool
	// told is the last mark in full, which ticks bring up to date.
	told Mark
}

func (u *uplink) keepAlive(ctx context.Context) {
	ticker := time.NewTicker(u.service.times.keepAlive)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if u.out.send([]byte{byte(kindKeepAlive)}) != nil {
				return // receive sees it too
			}
		}
	}
}

// receive takes what the parent sends, until that ends.
func (u *uplink) receive() error {
	for {
		f, err := readFrame(u.in, maxFrame)
		if err != nil {
			return fmt.Errorf("parent is silent: %w", err)
		}
		switch f.kind {
		case kindRefusal:
			return &f.refusal
		case kindMark, kindTick, kindNoMark:
			err = u.mark(f)
		case kindRecords:
			err = u.records(f.records)
		case kindChunk:
			err = u.snapshot(f.chunk)
		default:
			err = fmt.Errorf("%w: kind %q from a parent", errBadFrame, f.kind)
		}
		if err != nil {
			return err
		}
	}
}

// useful notes that the parent took this node.
func (u *uplink) useful() {
	if !u.taken {
		u.taken, u.service.strange = true, false
		u.service.setParent(u.id)
	}
}

// mark takes a mark in any of its forms.
func (u *uplink) mark(f frame) error {
	s := u.service
	m := f.mark
	switch {
	case f.kind == kindTick && u.told.Leader == "":
		return fmt.Errorf("%w: tick before a mark", errBadFrame)
	case f.kind == kindTick:
		m = u.told
		m.Seq, m.Index, m.AgeMillis = f.mark.Seq, f.mark.Index, f.mark.AgeMillis
	case slices.Contains(m.Path, s.cfg.Self):
		return errLoop
	}
	old := f.kind == kindNoMark || time.Duration(m.AgeMillis)*time.Millisecond > s.times.stale
	if old && u.attempt.freshOnly && !u.taken {
		return errNotFresh
	}
	u.useful()
	if f.kind != kindNoMark {
		u.told = m
		s.board.put(m, time.Now())
	}
	if old && !u.attempt.marksOnly && time.Since(u.began) > s.times.search {
		return errNotFresh
	}
	return nil
}

// records applies what comes next in the log.
func (u *uplink) records(encoded [][]byte) error {
	u.useful()
	for _, b := range encoded {
		r, err := history.ParseRecord(b)
		if err != nil {
			return err
		}
		if err := u.service.cfg.Sink.ApplyRecord(r); errors.Is(err, history.ErrDiverged) {
			return err
		} else if err != nil {
			return fmt.Errorf("%w: from event %d: %w", errApply, r.First(), err)
		}
	}
	return nil
}

// snapshot takes over the parent's state, whose first piece has come.
func (u *uplink) snapshot(first []byte) error {
	u.useful()
	s := u.service
	before := s.cfg.Source.Cursor()
	in := &pieces{in: u.in, piece: first}
	err := s.cfg.Sink.Restore(in)
	switch {
	case errors.Is(err, history.ErrDiverged), errors.Is(err, replica.ErrBadSnapshot):
		return err
	case err != nil:
		return fmt.Errorf("%w: a snapshot: %w", errApply, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if after := s.cfg.Source.Cursor(); u.attempt.snapshot && after == before {
		return errNoHelp
	}
	return nil
}

// pieces reads a snapshot from the frames that carry it.
type pieces struct {
	in    *wireReader
	piece []byte
	ended bool
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	for len(p.piece) == 0 {
		if p.ended {
			return 0, io.EOF
		}
		f, err := readFrame(p.in, maxFrame)
		switch {
		case err != nil:
			return 0, fmt.Errorf("snapshot is cut short: %w", err)
		case f.kind == kindEnd:
			p.ended = true
		case f.kind != kindChunk:
			return 0, fmt.Errorf("%w: kind %q inside a snapshot", errBadFrame, f.kind)
		}
		p.piece = f.chunk
	}
	n := copy(b, p.piece)
	p.piece = p.piece[n:]
	return n, nil
}
