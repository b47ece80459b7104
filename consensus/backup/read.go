package backup

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/mesh/ident"
)

// Summary says what a whole, verified backup holds.
type Summary struct {
	Header
	// Events and Records count what is in the file, Bytes is its size.
	Events  uint64 `json:"events"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"`
}

// Visitor is given the parts of a backup in the order of the file, before the
// signature at its end was seen. Nil functions are left out; an error ends Read.
type Visitor struct {
	Header func(Header) error
	// State gets the state before the first event, when the file does not begin
	// with the first event of the log. It must not change it.
	State func(*fleet.State, history.Position) error
	// Record gets each record, and the byte at which its frame begins. The record
	// may be kept.
	Record func(r history.Record, at int64) error
}

// Read reads a backup to its end and checks all of it. The error is ErrDamaged,
// ErrUntrusted, ErrUpgrade, what v said, or the reader's. Whether the fleet is
// the right one is for the caller to see in the header.
func Read(in io.Reader, v Visitor) (Summary, error) {
	r, err := openReader(in)
	if err != nil {
		return Summary{}, err
	}
	c := &checker{visitor: v, reader: r, state: fleet.New()}
	if err := c.header(); err != nil {
		return Summary{}, err
	}
	for {
		f, err := r.next()
		if err != nil {
			return Summary{}, err
		}
		switch f.kind {
		case kindState:
			err = c.stateChunk(f)
		case kindRecord:
			err = c.record(f)
		case kindTrailer:
			return c.trailer(f)
		default:
			err = damage(f.at, "a part of kind %q in the wrong place", f.kind)
		}
		if err != nil {
			return Summary{}, err
		}
	}
}

// VerifyFile reads and checks the backup in a file.
func VerifyFile(path string) (Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("open backup: %w", err)
	}
	defer f.Close()
	s, err := Read(f, Visitor{})
	if err != nil {
		return Summary{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// checker is one reading of a backup.
type checker struct {
	visitor Visitor
	reader  *reader
	head    Header
	// encoded gathers the state before the first event; nil when that is begun.
	encoded []byte
	started bool
	state   *fleet.State
	tx      *fleet.Tx
	at      history.Position
	events  uint64
	records uint64
}

func (c *checker) header() error {
	f, err := c.reader.next()
	if err != nil {
		return err
	}
	if f.kind != kindHeader {
		return damage(f.at, "it has no header")
	}
	if err := strictJSON(f.content, &c.head); err != nil {
		// A newer build may say more than this one knows.
		var newer struct {
			Level uint64 `json:"level"`
		}
		if json.Unmarshal(f.content, &newer) == nil && newer.Level > event.Level {
			return fmt.Errorf("%w: it has events of level %d, this build knows %d", ErrUpgrade, newer.Level, event.Level)
		}
		return damage(f.at, "its header: %v", err)
	}
	if err := c.head.check(); err != nil {
		return err
	}
	if c.visitor.Header != nil {
		return c.visitor.Header(c.head)
	}
	return nil
}

func strictJSON(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func (c *checker) stateChunk(f frame) error {
	if c.started || c.head.Base.Seq == 0 {
		return damage(f.at, "a state in the wrong place")
	}
	if len(c.encoded)+len(f.content) > MaxStateBytes {
		return damage(f.at, "a state of more than %d bytes", MaxStateBytes)
	}
	c.encoded = append(c.encoded, f.content...)
	return nil
}

// start is called before the first record: the state before it is whole now.
func (c *checker) start(f frame) error {
	c.started = true
	if c.head.Base.Seq > 0 {
		state, err := fleet.Unmarshal(c.encoded)
		if errors.Is(err, fleet.ErrUpgrade) {
			return fmt.Errorf("%w: %w", ErrUpgrade, err)
		}
		if err != nil {
			return damage(f.at, "the state before it: %v", err)
		}
		c.state, c.encoded = state, nil
	}
	at, err := positionOf(c.head.Base)
	if err != nil || c.state.Seq() != at.Seq || at.Seq == 0 && at != (history.Position{}) {
		return damage(f.at, "the state before it is at event %d, the header says %d", c.state.Seq(), c.head.Base.Seq)
	}
	c.at, c.tx = at, c.state.Begin()
	if c.visitor.State != nil && at.Seq > 0 {
		return c.visitor.State(c.state, at)
	}
	return nil
}

func (c *checker) record(f frame) error {
	if !c.started {
		if err := c.start(f); err != nil {
			return err
		}
	}
	r, err := history.ParseRecord(bytes.Clone(f.content))
	if err == nil {
		err = r.Follows(c.at)
	}
	if err != nil {
		return damage(f.at, "after event %d: %v", c.at.Seq, err)
	}
	c.tx.Discard()
	for _, e := range r.Events {
		err := c.tx.Apply(e)
		if fault, ok := event.FaultOf(err); ok && fault.Code == event.CodeUnknownType {
			return fmt.Errorf("%w: %w", ErrUpgrade, err)
		}
		if err != nil {
			return damage(f.at, "%v", err)
		}
	}
	c.tx.Commit()
	c.at = r.End()
	c.records++
	c.events += uint64(len(r.Events))
	if c.visitor.Record != nil {
		return c.visitor.Record(r, f.at)
	}
	return nil
}

// trailer checks what the records come to, and who says so.
func (c *checker) trailer(f frame) (Summary, error) {
	if !c.started { // no event after the state
		if err := c.start(f); err != nil {
			return Summary{}, err
		}
	}
	var t trailer
	if err := strictJSON(f.content, &t); err != nil {
		return Summary{}, damage(f.at, "its end: %v", err)
	}
	sum := c.reader.sum.Sum(nil)
	switch end := placeOf(c.at); {
	case end != c.head.End || t.Records != c.records:
		return Summary{}, damage(f.at, "it ends with event %d, the header says %d", end.Seq, c.head.End.Seq)
	case !bytes.Equal(t.Sum, sum):
		return Summary{}, damage(f.at, "its SHA-256 is another")
	case !ident.Verify(c.head.Made.Chain[0].PublicKey, domain, sum, t.Signature):
		return Summary{}, fmt.Errorf("%w: the signature is not that of node %s; somebody changed it, use another backup", ErrUntrusted, c.head.Made.Node.Short())
	}
	if err := c.reader.end(); err != nil {
		return Summary{}, err
	}
	if err := c.facts(f); err != nil {
		return Summary{}, err
	}
	return Summary{Header: c.head, Events: c.events, Records: c.records, Bytes: c.reader.at}, nil
}

// facts compares the header with what the log itself says.
func (c *checker) facts(f frame) error {
	fl, ok := c.state.Fleet()
	h := c.head
	switch {
	case !ok || !bytes.Equal(fl.Root, h.Root) || fl.Name != h.FleetName || c.state.History() != h.History || c.state.Recoveries() != h.Recoveries:
		return fmt.Errorf("%w: its header names another fleet or log than its events", ErrUntrusted)
	case stateFormat(c.state) == h.State.Format && c.state.Hash() != h.State.Hash:
		return damage(f.at, "the state that its events add up to is not the one that node %s had", h.Made.Node.Short())
	}
	if n, known := c.state.Node(h.Made.Node); !known || !n.Member() {
		return fmt.Errorf("%w: it was made by node %s, which this log does not know as a member", ErrUntrusted, h.Made.Node)
	}
	return nil
}

// stateFormat is the version of a state's encoding: its first byte.
func stateFormat(s *fleet.State) int { return int(s.Marshal()[0]) }

func positionOf(p Place) (history.Position, error) {
	at := history.Position{Seq: p.Seq}
	b, err := hex.DecodeString(p.Hash)
	if err != nil || len(b) != len(at.Hash) {
		return at, errors.New("a hash is not 64 digits of hex")
	}
	copy(at.Hash[:], b)
	return at, nil
}
