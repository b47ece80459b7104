package follow

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Protocol is the id of the streams from a child to its parent.
const Protocol = "/skein/follow/1"

const (
	// maxRequest bounds a child's only message, maxFrame each of the parent's.
	maxRequest = 4 << 10
	maxFrame   = wire.MaxBatch
	// maxPath bounds the hops of a mark, maxVoters the voters in one.
	maxPath   = 64
	maxVoters = 16
	// maxTry bounds the children that a refusal names.
	maxTry = 16
)

// Mark is the leader's word about the log, as it stands at one node.
type Mark struct {
	Leader ident.NodeID `json:"leader"`
	Term   uint64       `json:"term"`
	// Seq is the last event the leader had decided.
	Seq uint64 `json:"seq"`
	// Voters is the leader's Raft configuration.
	Voters []ident.NodeID `json:"voters"`
	// Path is how the mark came: the leader first, this node last.
	Path []ident.NodeID `json:"path"`
	// AgeMillis is how long ago the leader said it, without the time on the wire.
	AgeMillis int64 `json:"ageMillis"`
}

// Age is AgeMillis as a duration.
func (m Mark) Age() time.Duration { return time.Duration(m.AgeMillis) * time.Millisecond }

// news reports whether m says something else than old, age and seq aside.
func (m Mark) news(old Mark) bool {
	return m.Leader != old.Leader || m.Term != old.Term || !slices.Equal(m.Voters, old.Voters)
}

func (m Mark) check() error {
	if m.AgeMillis < 0 || len(m.Path) == 0 || len(m.Path) > maxPath || len(m.Voters) > maxVoters || m.Path[0] != m.Leader {
		return fmt.Errorf("%w: mark of %q", errMalformed, m.Leader)
	}
	return nil
}

// request is the child's first and only message.
type request struct {
	Cursor event.Cursor `json:"cursor"`
	// MarksOnly: Raft brings the log.
	MarksOnly bool `json:"marksOnly,omitempty"`
	// Whole asks for the whole state, because what the parent's log continues is
	// not what this node holds.
	Whole bool `json:"whole,omitempty"`
}

// refusal turns a child away.
type refusal struct {
	// Why is "full", "loop" or "behind".
	Why string `json:"why"`
	// Try names nodes that may have room.
	Try []ident.NodeID `json:"try,omitempty"`
}

// Error says it in a line.
func (r refusal) Error() string { return "parent refuses: " + r.Why }

// kind is the first byte of a parent's frame.
type kind byte

const (
	kindRefusal kind = 'x' // JSON refusal; the last frame
	kindMark    kind = 'm' // JSON mark
	kindRecords kind = 'r' // records, each with a 4-byte length
	kindState   kind = 's' // a piece of the whole state
	kindEnd     kind = 'e' // the whole state is complete
)

var errMalformed = errors.New("frame is malformed")

func writeFrame(w io.Writer, k kind, payload []byte) error {
	return wire.WriteFrame(w, append([]byte{byte(k)}, payload...), maxFrame)
}

func writeJSON(w io.Writer, k kind, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, k, payload)
}

func readFrame(r io.Reader) (kind, []byte, error) {
	frame, err := wire.ReadFrame(r, maxFrame)
	if err != nil {
		return 0, nil, err
	}
	if len(frame) == 0 {
		return 0, nil, fmt.Errorf("%w: empty", errMalformed)
	}
	return kind(frame[0]), frame[1:], nil
}

func encodeRecords(records []history.Record) []byte {
	var b []byte
	for _, r := range records {
		raw := r.Bytes()
		b = binary.BigEndian.AppendUint32(b, uint32(len(raw)))
		b = append(b, raw...)
	}
	return b
}

func decodeRecords(b []byte) ([]history.Record, error) {
	var records []history.Record
	for len(b) > 0 {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return nil, fmt.Errorf("%w: records are cut", errMalformed)
		}
		n := binary.BigEndian.Uint32(b)
		r, err := history.ParseRecord(b[4 : 4+n])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errMalformed, err)
		}
		records, b = append(records, r), b[4+n:]
	}
	return records, nil
}

func decodeMark(b []byte) (Mark, error) {
	var m Mark
	if err := json.Unmarshal(b, &m); err != nil {
		return Mark{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return m, m.check()
}

func decodeRefusal(b []byte) (refusal, error) {
	var r refusal
	if err := json.Unmarshal(b, &r); err != nil {
		return refusal{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	r.Try = r.Try[:min(len(r.Try), maxTry)]
	return r, nil
}
