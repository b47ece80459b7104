package follow

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Protocol is the id of streams from a child to its parent.
const Protocol = "/skein/follow/1"

// Bounds of messages.
const (
	// maxPath is the deepest tree.
	maxPath = 16
	// maxVoters bounds what a mark may list.
	maxVoters = 64
	// chunkBytes is how much of a snapshot one frame carries, and how much of
	// the log a parent reads at once.
	chunkBytes = 256 << 10
	// maxFrame has room for the largest record.
	maxFrame = history.MaxRecord + 1024
)

// Mark is what the leader says about the log, and how long ago.
type Mark struct {
	Leader ident.NodeID `json:"leader"`
	// Epoch counts how often the fleet was recovered. The first builds neither give
	// nor read it; terms compare within one epoch only.
	Epoch uint64 `json:"epoch,omitempty"`
	Term  uint64 `json:"term"`
	// Seq is the last event that the leader had applied, Index the last entry of
	// the Raft log that was committed.
	Seq    uint64         `json:"seq"`
	Index  uint64         `json:"index"`
	Voters []ident.NodeID `json:"voters"`
	// Path are the nodes that the mark passed, from the leader to the one that
	// gives it, inclusive.
	Path []ident.NodeID `json:"path"`
	// AgeMillis is how long the nodes on the path held it, together.
	AgeMillis int64 `json:"ageMillis"`
}

// check refuses a mark that no honest parent sends.
func (m Mark) check() error {
	switch {
	case m.Leader == "" || len(m.Path) == 0 || m.Path[0] != m.Leader:
		return errors.New("mark does not come from its leader")
	case len(m.Path) > maxPath:
		return fmt.Errorf("mark passed %d nodes, at most %d are allowed", len(m.Path), maxPath)
	case len(m.Voters) > maxVoters:
		return fmt.Errorf("mark lists %d voters, at most %d are allowed", len(m.Voters), maxVoters)
	case m.AgeMillis < 0:
		return errors.New("mark is from the future")
	}
	return nil
}

// sameFacts reports whether only the progress differs, which a tick can carry.
func (m Mark) sameFacts(o Mark) bool {
	return m.Leader == o.Leader && m.Epoch == o.Epoch && m.Term == o.Term && slices.Equal(m.Voters, o.Voters) && slices.Equal(m.Path, o.Path)
}

// older reports whether the mark is of an earlier leadership than o.
func (m Mark) older(o Mark) bool { return m.Epoch < o.Epoch || m.Epoch == o.Epoch && m.Term < o.Term }

// request is the only message of a child but for keep-alives.
type request struct {
	Cursor event.Cursor `json:"cursor"`
	// MarksOnly: records come by other means.
	MarksOnly bool `json:"marksOnly,omitempty"`
	// Snapshot: the child's log did not fit the parent's; it wants the state.
	Snapshot bool `json:"snapshot,omitempty"`
}

// reason is why a parent refuses a child.
type reason string

const (
	reasonFull    reason = "full"
	reasonLoop    reason = "loop"
	reasonDeep    reason = "deep"
	reasonHistory reason = "history"
)

// refusal is the last message to a child that is not taken.
type refusal struct {
	Reason reason `json:"reason"`
	// Try are nodes that may have room.
	Try []ident.NodeID `json:"try,omitempty"`
}

func (r *refusal) Error() string {
	switch r.Reason {
	case reasonFull:
		return "it has as many children as it may"
	case reasonLoop:
		return "it follows this node, directly or not"
	case reasonDeep:
		return "it is too far from the leader to be followed"
	case reasonHistory:
		return "its log is another, or this node's is not part of it"
	}
	return "it refused: " + string(r.Reason)
}

// kind is the first byte of a frame.
type kind byte

const (
	kindRequest   kind = 'Q' // child to parent, JSON
	kindKeepAlive kind = 'K' // child to parent, empty
	kindRefusal   kind = 'N' // JSON
	kindMark      kind = 'M' // JSON
	kindTick      kind = 'T' // seq, index, age in milliseconds: the last mark, but newer
	kindNoMark    kind = 'P' // empty: alive, but never heard a leader
	kindRecords   kind = 'R' // length and bytes of each record
	kindChunk     kind = 'C' // a piece of a snapshot
	kindEnd       kind = 'E' // empty: the snapshot is whole
)

var errBadFrame = errors.New("frame is not of follow/1")

// frame is one message, taken apart as far as its kind says.
type frame struct {
	kind    kind
	request request
	refusal refusal
	// mark has only Seq, Index and AgeMillis in a tick.
	mark    Mark
	records [][]byte
	chunk   []byte
}

func parseFrame(b []byte) (frame, error) {
	if len(b) == 0 {
		return frame{}, fmt.Errorf("%w: it is empty", errBadFrame)
	}
	f, body := frame{kind: kind(b[0])}, b[1:]
	var err error
	switch f.kind {
	case kindRequest:
		err = json.Unmarshal(body, &f.request)
	case kindRefusal:
		err = json.Unmarshal(body, &f.refusal)
	case kindMark:
		if err = json.Unmarshal(body, &f.mark); err == nil {
			err = f.mark.check()
		}
	case kindTick:
		f.mark, err = parseTick(body)
	case kindRecords:
		f.records, err = splitRecords(body)
	case kindChunk:
		f.chunk = body
	case kindKeepAlive, kindNoMark, kindEnd:
		if len(body) > 0 {
			err = errors.New("it should be empty")
		}
	default:
		err = fmt.Errorf("unknown kind %q", b[0])
	}
	if err != nil {
		return frame{}, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	return f, nil
}

func jsonFrame(k kind, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	return append([]byte{byte(k)}, body...), err
}

const tickBytes = 3 * 8

func tickFrame(m Mark) []byte {
	b := binary.BigEndian.AppendUint64([]byte{byte(kindTick)}, m.Seq)
	b = binary.BigEndian.AppendUint64(b, m.Index)
	return binary.BigEndian.AppendUint64(b, uint64(m.AgeMillis))
}

func parseTick(b []byte) (Mark, error) {
	if len(b) != tickBytes {
		return Mark{}, fmt.Errorf("tick of %d bytes, want %d", len(b), tickBytes)
	}
	m := Mark{Seq: binary.BigEndian.Uint64(b), Index: binary.BigEndian.Uint64(b[8:]), AgeMillis: int64(binary.BigEndian.Uint64(b[16:]))}
	if m.AgeMillis < 0 {
		return Mark{}, errors.New("tick is from the future")
	}
	return m, nil
}

// recordFrames packs records into as few frames as their sizes allow.
func recordFrames(records []history.Record) (frames [][]byte) {
	b := []byte{byte(kindRecords)}
	for _, r := range records {
		if len(b) > 1 && len(b)+4+len(r.Bytes()) > maxFrame {
			frames = append(frames, b)
			b = []byte{byte(kindRecords)}
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.Bytes())))
		b = append(b, r.Bytes()...)
	}
	return append(frames, b)
}

func splitRecords(b []byte) (records [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errors.New("it ends inside a length")
		}
		n := uint64(binary.BigEndian.Uint32(b))
		if b = b[4:]; n > uint64(len(b)) {
			return nil, errors.New("it ends inside a record")
		}
		records = append(records, b[:n:n])
		b = b[n:]
	}
	return records, nil
}

// readFrame reads and takes apart one frame.
func readFrame(r *wireReader, limit int) (frame, error) {
	b, err := wire.ReadFrame(r, limit)
	if err != nil {
		return frame{}, err
	}
	return parseFrame(b)
}
