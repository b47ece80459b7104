package backfill

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"skein/consensus/history"
	"skein/mesh/wire"
)

// Protocol is the id of streams to who has the past.
const Protocol = "/skein/backfill/1"

const (
	// pieceBytes is about how much is asked for at once.
	pieceBytes = 8 << 20
	// maxPiece bounds what a piece may have: the last record may be over the limit.
	maxPiece = pieceBytes + history.MaxRecord
	// maxRecords bounds the number of records in it.
	maxRecords = maxPiece / 64
	// frameTimeout bounds the writing, or the waiting for, one message.
	frameTimeout = 20 * time.Second
)

// question asks for the records that end with event Before. Several may follow
// each other on a stream.
type question struct {
	Before uint64 `json:"before"`
	// Hash is the chain's after Before, in hex.
	Hash string `json:"hash"`
}

// reason is why there is no piece.
type reason string

const (
	// reasonNone: the peer does not hold the event either.
	reasonNone reason = "none"
	// reasonOther: the peer's log has another hash there.
	reasonOther reason = "other_log"
	// reasonBusy: the peer serves another node.
	reasonBusy reason = "busy"
)

// piece announces records, which follow it one by one.
type piece struct {
	// After and Hash are the place before the first record.
	After   uint64 `json:"after"`
	Hash    string `json:"hash,omitempty"`
	Records int    `json:"records"`
	// Reason is set when there are none.
	Reason reason `json:"reason,omitempty"`
}

// refusal is a piece without records, as an error.
type refusal reason

// Error implements error.
func (r refusal) Error() string {
	switch reason(r) {
	case reasonNone:
		return "it does not hold these events either"
	case reasonOther:
		return "its log has another past"
	case reasonBusy:
		return "it serves another node"
	}
	return fmt.Sprintf("it gives none: %.32q", string(r))
}

var errBadPiece = errors.New("answer is not of backfill/1")

// position reads the place before the first record.
func (p piece) position() (history.Position, error) {
	at := history.Position{Seq: p.After}
	hash, err := hex.DecodeString(p.Hash)
	if err != nil || len(hash) != len(at.Hash) || p.Records < 1 || p.Records > maxRecords {
		return at, fmt.Errorf("%w: %d records after event %d", errBadPiece, p.Records, p.After)
	}
	copy(at.Hash[:], hash)
	return at, nil
}

// readPiece reads an answer and its records.
func readPiece(conn net.Conn) (after history.Position, records []history.Record, err error) {
	var p piece
	if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return after, nil, err
	}
	if err := wire.ReadJSON(conn, &p, wire.MaxControl); err != nil {
		return after, nil, err
	}
	if p.Reason != "" {
		return after, nil, refusal(p.Reason)
	}
	if after, err = p.position(); err != nil {
		return after, nil, err
	}
	size := 0
	for range p.Records {
		if err := conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
			return after, nil, err
		}
		b, err := wire.ReadFrame(conn, history.MaxRecord)
		if err != nil {
			return after, nil, err
		}
		if size += len(b); size > maxPiece {
			return after, nil, fmt.Errorf("%w: more than %d bytes", errBadPiece, maxPiece)
		}
		r, err := history.ParseRecord(b)
		if err != nil {
			return after, nil, err
		}
		records = append(records, r)
	}
	return after, records, nil
}
