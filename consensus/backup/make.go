package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/mesh/ident"
)

// readBytes is how much of the log is read at once.
const readBytes = 1 << 20

// ErrBusy: this node is writing a backup already.
var ErrBusy = errors.New("this node is making a backup already; wait until it is done, or ask another node")

// Source is the copy of the log that is backed up. *replica.Replica is one.
type Source interface {
	// ViewAt calls f with the state and its cursor, under a lock: be quick.
	ViewAt(f func(*fleet.State, event.Cursor))
	// StateAt gives the state at a past event. The error is history.ErrCompacted
	// for all events before some place, when that is not known any more.
	StateAt(ctx context.Context, seq uint64) (*fleet.State, event.Cursor, error)
	// First is the first event that is held.
	First() uint64
	// Records gives whole records from the one with event seq on; not ok means
	// that it is no longer held.
	Records(seq uint64, maxBytes int) (records []history.Record, ok bool)
}

// Config is what a Maker works with.
type Config struct {
	Source Source
	// Key signs, Chain proves that it is of the fleet.
	Key   ident.Key
	Chain func() ident.Chain
	// Build is this build's version, for people.
	Build string
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Maker makes backups of one node's copy. It is safe for concurrent use.
type Maker struct {
	cfg Config
	// working holds a token while a backup is written.
	working chan struct{}
}

// New returns a Maker.
func New(cfg Config) *Maker {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Maker{cfg: cfg, working: make(chan struct{}, 1)}
}

// Write writes a backup of what is decided at the time of the call. What it has
// written is a backup only when it returns nil. The error is ErrBusy, ctx's,
// w's, or why this node cannot make one.
func (m *Maker) Write(ctx context.Context, w io.Writer) (Summary, error) {
	select {
	case m.working <- struct{}{}:
		defer func() { <-m.working }()
	default:
		return Summary{}, ErrBusy
	}
	head, base, err := m.header(ctx)
	if err != nil {
		return Summary{}, fmt.Errorf("make backup: %w", err)
	}
	out, err := newWriter(w)
	if err == nil {
		err = putJSON(out, kindHeader, head)
	}
	if err == nil && base != nil {
		err = putState(out, base)
	}
	if err != nil {
		return Summary{}, fmt.Errorf("write backup: %w", err)
	}
	s := Summary{Header: head}
	if err := m.records(ctx, out, &s); err != nil {
		return Summary{}, err
	}
	sum := out.sum.Sum(nil)
	if err := putJSON(out, kindTrailer, trailer{s.Records, sum, m.cfg.Key.Sign(domain, sum)}); err != nil {
		return Summary{}, fmt.Errorf("write backup: %w", err)
	}
	s.Bytes = out.bytes
	return s, nil
}

// header says what will be in the backup, and gives the state before its first
// event: nil when that is the first of the log.
func (m *Maker) header(ctx context.Context) (Header, *fleet.State, error) {
	h := Header{
		Format: formatName, Made: Signer{Node: m.cfg.Key.ID(), Chain: m.cfg.Chain()},
		At: m.cfg.Now().UTC().Truncate(time.Millisecond), Build: m.cfg.Build, Level: event.Level,
	}
	h.Base = placeOf(history.Position{})
	var base *fleet.State
	if first := m.cfg.Source.First(); first > 1 {
		state, at, err := m.earliest(ctx, first-1)
		if err != nil {
			return h, nil, fmt.Errorf("the state before event %d: %w", first, err)
		}
		base, h.Base = state, Place{at.Seq, at.Hash}
	}
	var end *fleet.State
	m.cfg.Source.ViewAt(func(s *fleet.State, at event.Cursor) {
		end, h.End, h.History = s.Clone(), Place{at.Seq, at.Hash}, at.History
	})
	f, ok := end.Fleet()
	me, known := end.Node(h.Made.Node)
	if !ok || !known {
		return h, nil, errors.New("this node has no copy of the fleet's log yet; ask another node")
	}
	h.FleetName, h.Fleet, h.Root, h.Made.Name = f.Name, ident.FleetIDOf(f.Root), f.Root, me.Name
	h.Recoveries = end.Recoveries()
	h.State = StateProof{Format: stateFormat(end), Hash: end.Hash()}
	return h, base, h.check()
}

// earliest gives the state at the earliest event, from seq on, at which it is
// known: a node that keeps a tail, or fills a gap, may hold older events than its
// oldest checkpoint.
func (m *Maker) earliest(ctx context.Context, seq uint64) (state *fleet.State, at event.Cursor, err error) {
	state, at, err = m.cfg.Source.StateAt(ctx, seq)
	if !errors.Is(err, history.ErrCompacted) {
		return state, at, err
	}
	var end uint64
	m.cfg.Source.ViewAt(func(_ *fleet.State, now event.Cursor) { end = now.Seq })
	for low, high := seq+1, end; low <= high; {
		middle := low + (high-low)/2
		s, c, failed := m.cfg.Source.StateAt(ctx, middle)
		switch {
		case failed == nil:
			state, at, err, high = s, c, nil, middle-1
		case errors.Is(failed, history.ErrCompacted):
			low = middle + 1
		default:
			return nil, at, failed
		}
	}
	return state, at, err
}

// records writes the records up to the end that the header names.
func (m *Maker) records(ctx context.Context, out *writer, s *Summary) error {
	for at := s.Base.Seq; at < s.End.Seq; {
		records, ok := m.cfg.Source.Records(at+1, readBytes)
		if !ok || len(records) == 0 {
			return fmt.Errorf("make backup: event %d was dropped by retention meanwhile, or the disk is damaged; try again, or ask another node", at+1)
		}
		for _, r := range records {
			if r.First() > s.End.Seq {
				break
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("make backup: %w", err)
			}
			if err := out.put(kindRecord, r.Bytes()); err != nil {
				return fmt.Errorf("write backup: %w", err)
			}
			at = r.Last()
			s.Records++
			s.Events += uint64(len(r.Events))
		}
	}
	return nil
}

func putJSON(out *writer, kind byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxText {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxText)
	}
	return out.put(kind, text)
}

func putState(out *writer, s *fleet.State) error {
	encoded := s.Marshal()
	if len(encoded) > MaxStateBytes {
		return fmt.Errorf("the state has %d bytes, at most %d are allowed", len(encoded), MaxStateBytes)
	}
	for piece := range slices.Chunk(encoded, chunkBytes) {
		if err := out.put(kindState, piece); err != nil {
			return err
		}
	}
	return nil
}
