package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

const (
	// openTimeout bounds the opening of a stream to a parent.
	openTimeout = 3 * time.Second
	// firstPause and lastPause bound the wait after all candidates failed.
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
	// sitting is how long a parent must have served for the next wait to be short.
	sitting = 10 * time.Second
)

// Ends of following one parent that are no failure of this node.
var (
	errStale    = errors.New("the parent's news from the leader is old")
	errPromoted = errors.New("this node's place among the voters has changed")
)

// fatal marks an error after which the node's own log cannot go on.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

// followSomeone goes through candidates until this node leads or ctx ends.
func (f *Follower) followSomeone(ctx context.Context) error {
	defer f.setParent("")
	pause := firstPause
	whole := false
	for ctx.Err() == nil {
		if _, _, leading := f.cfg.Group.Leading(); leading {
			return nil
		}
		candidates := f.candidates()
		for i := 0; i < len(candidates) && i < maxPath; i++ {
			began := time.Now()
			try, err := f.followOne(ctx, candidates[i], whole)
			if broken, ok := errors.AsType[fatal](err); ok {
				return broken.error
			}
			whole = errors.Is(err, history.ErrDiverged)
			f.cfg.Log.Debug("parent left", "parent", candidates[i], "err", err)
			if time.Since(began) >= sitting {
				pause = firstPause
			}
			if ctx.Err() != nil || errors.Is(err, errPromoted) {
				return nil
			}
			if whole || time.Since(began) >= sitting {
				break // begin again with the best
			}
			for _, id := range try {
				if id != f.cfg.Self && !slices.Contains(candidates, id) {
					candidates = append(candidates, id)
				}
			}
		}
		f.rest(ctx, pause)
		pause = min(2*pause, lastPause)
	}
	return nil
}

// candidates is whom to try, best first: on a voter only the leader.
func (f *Follower) candidates() []ident.NodeID {
	if leader, ok := f.cfg.Group.Leader(); ok {
		return []ident.NodeID{leader}
	}
	return slices.DeleteFunc(f.cfg.Candidates(), func(id ident.NodeID) bool { return id == f.cfg.Self })
}

// rest waits, a quarter more or less, but not over a change of the group.
func (f *Follower) rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause + time.Duration(rand.Int64N(int64(pause)/2)) - pause/4)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-f.cfg.Group.Changed():
	}
}

// followOne follows one parent to its end, and says whom else it named.
func (f *Follower) followOne(ctx context.Context, parent ident.NodeID, whole bool) (try []ident.NodeID, err error) {
	leader, fed := f.cfg.Group.Leader()
	openCtx, cancel := context.WithTimeout(ctx, openTimeout)
	conn, err := f.cfg.Open(openCtx, parent)
	cancel()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go f.watchSeat(ctx, leader, fed, end)
	q := request{Cursor: f.cfg.Source.Cursor(), MarksOnly: fed, Whole: whole && !fed}
	if err := conn.SetDeadline(time.Now().Add(silence)); err != nil {
		return nil, err
	}
	if err := wire.WriteJSON(conn, q, maxRequest); err != nil {
		return nil, err
	}
	err = f.receive(conn, parent)
	if turned, ok := errors.AsType[refusal](err); ok {
		return turned.Try, err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return nil, err
}

// watchSeat ends the following when this node's place among the voters is no
// longer what it was when it began.
func (f *Follower) watchSeat(ctx context.Context, leader ident.NodeID, fed bool, end context.CancelCauseFunc) {
	for {
		changed := f.cfg.Group.Changed()
		now, isFed := f.cfg.Group.Leader()
		if _, _, leading := f.cfg.Group.Leading(); leading || isFed != fed || now != leader {
			end(errPromoted)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// receive takes frames until the stream ends or the parent is not worth it.
func (f *Follower) receive(conn net.Conn, parent ident.NodeID) error {
	goodUntil := time.Now().Add(silence)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		k, payload, err := readFrame(conn)
		if err != nil {
			return err
		}
		switch k {
		case kindRefusal:
			r, err := decodeRefusal(payload)
			return errors.Join(err, r)
		case kindMark:
			err = f.takeMark(payload)
		case kindRecords:
			err = f.takeRecords(payload)
		case kindState:
			err = f.takeState(conn, payload)
		default:
			err = fmt.Errorf("%w: unknown kind %q", errMalformed, byte(k))
		}
		if err != nil {
			return err
		}
		f.setParent(parent)
		if m, ok := f.Mark(); ok && m.Age() < silence {
			goodUntil = time.Now().Add(silence)
		} else if time.Now().After(goodUntil) {
			return errStale
		}
	}
}

func (f *Follower) takeMark(payload []byte) error {
	m, err := decodeMark(payload)
	if err != nil {
		return err
	}
	if slices.Contains(m.Path, f.cfg.Self) {
		return refusal{Why: "loop"}
	}
	m.Path = append(m.Path, f.cfg.Self)
	f.take(m)
	return nil
}

func (f *Follower) takeRecords(payload []byte) error {
	records, err := decodeRecords(payload)
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := f.cfg.Sink.ApplyRecord(r); err != nil {
			if errors.Is(err, history.ErrDiverged) {
				return err
			}
			return fatal{err}
		}
	}
	return nil
}

// takeState installs a whole state, whose first piece has come.
func (f *Follower) takeState(conn net.Conn, first []byte) error {
	pieces := &stateReader{conn: conn, piece: bytes.NewReader(first)}
	if err := f.cfg.Sink.Restore(pieces); err != nil {
		// A state that is cut or damaged changes nothing: another parent may
		// have a good one. It is not told apart from a failing disk here; that
		// comes back with the next record.
		return fmt.Errorf("install state: %w", err)
	}
	_, err := io.Copy(io.Discard, pieces)
	return err
}

// stateReader reads the pieces of a state as one.
type stateReader struct {
	conn  net.Conn
	piece *bytes.Reader
	ended bool
}

// Read implements io.Reader.
func (s *stateReader) Read(p []byte) (int, error) {
	for s.piece.Len() == 0 {
		if s.ended {
			return 0, io.EOF
		}
		if err := s.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return 0, err
		}
		k, payload, err := readFrame(s.conn)
		switch {
		case err != nil:
			return 0, err
		case k == kindEnd:
			s.ended = true
		case k == kindState:
			s.piece.Reset(payload)
		default:
			return 0, fmt.Errorf("%w: kind %q inside a state", errMalformed, byte(k))
		}
	}
	return s.piece.Read(p)
}
