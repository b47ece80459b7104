package presence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"skein/mesh/ident"
	"skein/mesh/wire"
)

// Protocol is the id of the streams that are this package's edges.
const Protocol = "/skein/presence/1"

// Bounds of a message.
const (
	frameMax = wire.MaxControl
	// DataMax bounds Report.Data, in bytes.
	DataMax = 1 << 10
	// reportOverhead is more than what a report takes in a frame beside its data:
	// id, numbers and names.
	reportOverhead = 160
	// frameInterests bounds the interests of one frame; each takes under 128 bytes.
	frameInterests = 128
	frameReports   = 512
)

// ErrTooLarge: the data given to Publish is over DataMax or no JSON.
var ErrTooLarge = errors.New("report is too large or no JSON")

// errMalformed: a peer breaks the protocol; the edge is closed.
var errMalformed = errors.New("frame is malformed")

// Report is the newest that is known of a node.
type Report struct {
	Node ident.NodeID `json:"node"`
	// Boot counts the node's starts, N its reports since: the newer of two is
	// the one with the higher (Boot, N).
	Boot uint64 `json:"boot"`
	N    uint64 `json:"n"`
	// AgeMillis is how long ago the node said it, without the time on the wire.
	AgeMillis int64 `json:"ageMillis"`
	// Data is the node's own JSON, at most DataMax bytes.
	Data json.RawMessage `json:"data"`
}

// Age is AgeMillis as a duration.
func (r Report) Age() time.Duration { return time.Duration(r.AgeMillis) * time.Millisecond }

// inquiry is one origin's interest on the wire.
type inquiry struct {
	Origin    ident.NodeID `json:"origin"`
	Boot      uint64       `json:"boot"`
	N         uint64       `json:"n"`
	AgeMillis int64        `json:"ageMillis"`
}

// frame is the one message of the protocol, in either direction.
type frame struct {
	Interests []inquiry `json:"interests,omitempty"`
	Reports   []Report  `json:"reports,omitempty"`
}

// readFrame reads and checks one frame.
func readFrame(r io.Reader) (frame, error) {
	var f frame
	if err := wire.ReadJSON(r, &f, frameMax); err != nil {
		return frame{}, err
	}
	if len(f.Interests) > frameInterests || len(f.Reports) > frameReports {
		return frame{}, fmt.Errorf("%w: %d interests, %d reports", errMalformed, len(f.Interests), len(f.Reports))
	}
	for _, i := range f.Interests {
		if _, err := ident.ParseNodeID(string(i.Origin)); err != nil || i.AgeMillis < 0 {
			return frame{}, fmt.Errorf("%w: interest of %q, age %d ms", errMalformed, i.Origin, i.AgeMillis)
		}
	}
	for _, p := range f.Reports {
		if _, err := ident.ParseNodeID(string(p.Node)); err != nil || p.AgeMillis < 0 {
			return frame{}, fmt.Errorf("%w: report of %q, age %d ms", errMalformed, p.Node, p.AgeMillis)
		}
		if len(p.Data) == 0 || len(p.Data) > DataMax {
			return frame{}, fmt.Errorf("%w: report of %d bytes", errMalformed, len(p.Data))
		}
	}
	return f, nil
}

// writeFrame sends one frame. Unlike wire.WriteJSON it does not escape HTML,
// which could make a report six times as long.
func writeFrame(w io.Writer, f frame) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f); err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return wire.WriteFrame(w, b.Bytes(), frameMax)
}

// version orders what one node says.
type version struct{ boot, n uint64 }

func (v version) newerThan(o version) bool {
	return v.boot > o.boot || v.boot == o.boot && v.n > o.n
}
