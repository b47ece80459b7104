package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Link opens streams to other nodes.
type Link interface {
	// Open gives a stream to the node id on which its Service.Handle answers.
	Open(ctx context.Context, id ident.NodeID) (net.Conn, error)
}

// Source is this node's copy of the log, to serve from. *replica.Replica is one.
type Source interface {
	Cursor() event.Cursor
	// Held reports whether a cursor is a place in this log.
	Held(event.Cursor) bool
	// RecordsBefore gives whole records that end with event end, and the place
	// before them; not ok when end is not held here.
	RecordsBefore(end uint64, maxBytes int) (after history.Position, records []history.Record, ok bool)
}

// Sink is this node's copy of the log, to be filled. *replica.Replica is one.
type Sink interface {
	// Gap is the place up to which events are wanted; not ok when none are.
	Gap() (history.Position, bool)
	// Backfill puts records before those that are held. history.ErrDiverged says
	// that they do not fit and history.ErrNoSpace that the disk is full; any other
	// error ends the node.
	Backfill(after history.Position, records []history.Record) error
	// Subscribe gives a channel with a value after every change.
	Subscribe() (changed <-chan struct{}, release func())
}

// Config is what a Service works with. All fields are required.
type Config struct {
	Self   ident.NodeID
	Link   Link
	Source Source
	Sink   Sink
	// Peers are the nodes to ask, the best first. It may list this node.
	Peers func() []ident.NodeID
	Log   *slog.Logger
}

// bounds are fixed in production and smaller in tests.
type bounds struct {
	// open bounds the opening of a stream.
	open time.Duration
	// retryLow and retryHigh bound the pause after nobody had anything.
	retryLow, retryHigh time.Duration
	// look is how often a gap is looked for without a sign of one.
	look time.Duration
	// bytesPerSecond is how fast a node serves, pieceBytes about how much it sends
	// for one question.
	bytesPerSecond int64
	pieceBytes     int
}

var shipped = bounds{
	open: 5 * time.Second, retryLow: time.Second, retryHigh: time.Minute, look: time.Minute, bytesPerSecond: 4 << 20, pieceBytes: pieceBytes,
}

// Service fills this node's gap and those of others.
type Service struct {
	cfg    Config
	bounds bounds
	// serving holds a token while somebody is served.
	serving chan struct{}
}

// New returns a Service; it asks nobody before Run, and serves at once.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, bounds: shipped, serving: make(chan struct{}, 1)}
}

// Run fills the gap, now and whenever there is one, until ctx ends (nil) or the
// Sink can no longer be filled (an error, upon which the node must end).
func (s *Service) Run(ctx context.Context) error {
	changed, release := s.cfg.Sink.Subscribe()
	defer release()
	pause := s.bounds.retryLow
	for {
		wait := s.bounds.look
		if _, lacking := s.cfg.Sink.Gap(); lacking {
			progress, err := s.round(ctx)
			if errors.Is(err, errSink) {
				return err
			}
			if progress {
				pause = s.bounds.retryLow
			}
			wait = pause
			pause = min(2*pause, s.bounds.retryHigh)
			if err := sleep(ctx, wait); err != nil {
				return nil
			}
			continue
		}
		pause = s.bounds.retryLow
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errSink marks an error of the Sink that ends the node.
var errSink = errors.New("the log's past cannot be stored")

// round asks peers until the gap is filled or everybody was asked, and reports
// whether anybody helped.
func (s *Service) round(ctx context.Context) (progress bool, err error) {
	for _, id := range s.cfg.Peers() {
		gap, lacking := s.cfg.Sink.Gap()
		if !lacking || ctx.Err() != nil {
			return progress, nil
		}
		if id == s.cfg.Self {
			continue
		}
		helped, err := s.fetch(ctx, id)
		progress = progress || helped
		switch {
		case errors.Is(err, errSink), errors.Is(err, history.ErrNoSpace):
			return progress, err
		case errors.Is(err, history.ErrDiverged):
			s.cfg.Log.Warn("a peer's past does not fit this node's log, asking another", "peer", id, "error", err)
		case err != nil && ctx.Err() == nil:
			s.cfg.Log.Debug("no past from peer", "peer", id, "before", gap.Seq, "error", err)
		}
	}
	return progress, nil
}

// fetch takes from one peer all that it has.
func (s *Service) fetch(ctx context.Context, id ident.NodeID) (helped bool, err error) {
	openCtx, cancel := context.WithTimeout(ctx, s.bounds.open)
	conn, err := s.cfg.Link.Open(openCtx, id)
	cancel()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		gap, lacking := s.cfg.Sink.Gap()
		if !lacking {
			s.cfg.Log.Info("the log's past is complete", "peer", id)
			return helped, nil
		}
		if err := conn.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil {
			return helped, err
		}
		if err := wire.WriteJSON(conn, question{gap.Seq, gap.Hash.String()}, wire.MaxControl); err != nil {
			return helped, err
		}
		after, records, err := readPiece(conn)
		if err != nil {
			return helped, err
		}
		err = s.cfg.Sink.Backfill(after, records)
		switch {
		case errors.Is(err, history.ErrDiverged):
			return helped, err
		case errors.Is(err, history.ErrNoSpace):
			s.cfg.Log.Warn("no room for the log's past, it will be fetched when there is; free space on the disk", "before", gap.Seq)
			return helped, err
		case err != nil:
			return helped, fmt.Errorf("%w: events up to %d: %w", errSink, gap.Seq, err)
		}
		helped = true
		s.cfg.Log.Debug("part of the log's past fetched", "peer", id, "from", after.Seq+1, "to", gap.Seq)
	}
}

// Handle serves the stream of a node with a gap, until it ends, and closes it.
// remote is authenticated by the link.
func (s *Service) Handle(ctx context.Context, conn net.Conn, remote ident.NodeID) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	refuse := reason("")
	select {
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	default:
		refuse = reasonBusy
	}
	for {
		if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return
		}
		var q question
		if err := wire.ReadJSON(conn, &q, wire.MaxControl); err != nil {
			return // it has what it wanted, or is gone
		}
		more, err := s.answer(ctx, conn, q, refuse)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Debug("the log's past was not delivered", "remote", remote, "error", err)
		}
		if err != nil || !more {
			return
		}
	}
}

// answer sends what belongs before a place; more: another question may follow.
func (s *Service) answer(ctx context.Context, conn net.Conn, q question, refuse reason) (more bool, err error) {
	own := s.cfg.Source.Cursor()
	if refuse == "" && !s.cfg.Source.Held(event.Cursor{History: own.History, Seq: q.Before, Hash: q.Hash}) {
		// Who lacks the event cannot tell whether the other's log is another.
		refuse = reasonNone
		if _, _, ok := s.cfg.Source.RecordsBefore(q.Before, 1); ok {
			refuse = reasonOther
		}
	}
	var after history.Position
	var records []history.Record
	if refuse == "" {
		var ok bool
		if after, records, ok = s.cfg.Source.RecordsBefore(q.Before, s.bounds.pieceBytes); !ok || len(records) == 0 || len(records) > maxRecords {
			refuse = reasonNone
		}
	}
	if err := conn.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil {
		return false, err
	}
	if refuse != "" {
		return false, wire.WriteJSON(conn, piece{Reason: refuse}, wire.MaxControl)
	}
	if err := wire.WriteJSON(conn, piece{After: after.Seq, Hash: after.Hash.String(), Records: len(records)}, wire.MaxControl); err != nil {
		return false, err
	}
	return true, s.send(ctx, conn, records)
}

// send writes records no faster than a node may serve.
func (s *Service) send(ctx context.Context, conn net.Conn, records []history.Record) error {
	debt := time.Duration(0)
	for _, r := range records {
		if err := conn.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil {
			return err
		}
		began := time.Now()
		if err := wire.WriteFrame(conn, r.Bytes(), history.MaxRecord); err != nil {
			return err
		}
		debt += time.Duration(int64(len(r.Bytes()))*int64(time.Second)/s.bounds.bytesPerSecond) - time.Since(began)
		if debt = max(debt, 0); debt < time.Millisecond {
			continue
		}
		slept := time.Now()
		if err := sleep(ctx, debt); err != nil {
			return err
		}
		debt -= time.Since(slept)
	}
	return nil
}
