package history

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"

	"skein/consensus/event"
)

// Hash is the chain's hash after an event.
type Hash [sha256.Size]byte

// String is the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Then is the hash after one more event, given in its canonical bytes.
func (h Hash) Then(canonical []byte) Hash {
	d := sha256.New()
	d.Write(h[:])
	d.Write(canonical)
	d.Sum(h[:0])
	return h
}

// Position is a place in the chain: after event Seq. The zero Position is
// before the first event.
type Position struct {
	Seq  uint64
	Hash Hash
}

// Bounds of one record.
const (
	// MaxRecord is the most bytes of an encoded record. It fits wire.MaxBatch.
	MaxRecord = 4 << 20
	// MaxRecordEvents is the most events of a record.
	MaxRecordEvents = event.MaxDrafts
)

// Errors about single records.
var (
	// ErrBadRecord: the bytes are no record.
	ErrBadRecord = errors.New("history record is damaged")
	// ErrDiverged: the record does not continue the chain at the position given.
	ErrDiverged = errors.New("record does not continue this log")
)

// Record is what one entry of the Raft log decided. It is immutable.
type Record struct {
	// Index and Term are those of the entry in the Raft log.
	Index, Term uint64
	// Events are 1 to MaxRecordEvents, with dense sequence numbers.
	Events []event.Event
	// Hash is the chain's after the last event.
	Hash Hash

	encoded []byte
	// framed is encoded with its frame before it, if this process made the record.
	framed []byte
}

// The encoded form: version, index, term, first sequence number, count, hash;
// then for each event its length and its canonical bytes. Big endian.
const (
	recordVersion  = 1
	recordHeader   = 1 + 8 + 8 + 8 + 4 + sha256.Size
	lengthBytes    = 4
	offsetIndex    = 1
	offsetTerm     = 9
	offsetFirst    = 17
	offsetCount    = 25
	offsetHash     = 29
	smallestEvent  = 2 // {}
	smallestRecord = recordHeader + lengthBytes + smallestEvent
)

// NewRecord encodes events, which follow after, and continues the chain.
func NewRecord(index, term uint64, events []event.Event, after Position) (Record, error) {
	return new(Encoder).Record(index, term, events, after)
}

// Encoder makes records one after the other in one buffer. The zero value is
// ready. It is for one goroutine.
type Encoder struct{ buf []byte }

// keptBuffer is the most that an Encoder or a Log keeps for the next record.
const keptBuffer = 1 << 20

// Record is NewRecord. The record, and events, must not be used after the next call.
func (c *Encoder) Record(index, term uint64, events []event.Event, after Position) (Record, error) {
	if len(events) == 0 || len(events) > MaxRecordEvents {
		return Record{}, fmt.Errorf("record of %d events: want 1 to %d", len(events), MaxRecordEvents)
	}
	if cap(c.buf) == 0 || cap(c.buf) > keptBuffer {
		c.buf = make([]byte, 0, frameHeader+recordHeader+len(events)*640)
	}
	c.buf = append(c.buf[:0], make([]byte, frameHeader+recordHeader)...)
	hash := after.Hash
	for i := range events {
		if want := after.Seq + 1 + uint64(i); events[i].Seq != want {
			return Record{}, fmt.Errorf("%w: event %d where %d is next", ErrDiverged, events[i].Seq, want)
		}
		at := len(c.buf) + lengthBytes
		c.buf = events[i].AppendJSON(append(c.buf, 0, 0, 0, 0))
		text := c.buf[at:]
		if len(text) > event.MaxEncoded {
			return Record{}, fmt.Errorf("event %d has %d bytes encoded, at most %d are allowed", events[i].Seq, len(text), event.MaxEncoded)
		}
		hash = hashBehind(c.buf, at, hash)
		binary.BigEndian.PutUint32(c.buf[at-lengthBytes:], uint32(len(text)))
	}
	b := c.buf[frameHeader:]
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("record of %d bytes: at most %d are allowed", len(b), MaxRecord)
	}
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[offsetIndex:], index)
	binary.BigEndian.PutUint64(b[offsetTerm:], term)
	binary.BigEndian.PutUint64(b[offsetFirst:], after.Seq+1)
	binary.BigEndian.PutUint32(b[offsetCount:], uint32(len(events)))
	copy(b[offsetHash:], hash[:])
	binary.BigEndian.PutUint32(c.buf, uint32(len(b)))
	binary.BigEndian.PutUint32(c.buf[4:], crc32.Checksum(b, castagnoli))
	return Record{index, term, events, hash, b, c.buf}, nil
}

// hashBehind is before.Then(b[at:]), faster: the bytes before at, of which there
// are enough, make room for the hash, so that one block is hashed.
func hashBehind(b []byte, at int, before Hash) Hash {
	room := b[at-len(before):]
	saved := Hash(room)
	copy(room, before[:])
	after := Hash(sha256.Sum256(room))
	copy(room, saved[:])
	return after
}

// Bytes is the encoded record, for the disk and for followers. Do not change it.
func (r Record) Bytes() []byte { return r.encoded }

// First and Last are the sequence numbers of the record's events.
func (r Record) First() uint64 { return r.Events[0].Seq }

// Last is the sequence number of the last event.
func (r Record) Last() uint64 { return r.Events[len(r.Events)-1].Seq }

// End is the position after the record.
func (r Record) End() Position { return Position{r.Last(), r.Hash} }

// Follows checks that the record continues the chain at p, hash included. The
// error is ErrDiverged.
func (r Record) Follows(p Position) error {
	if r.First() != p.Seq+1 {
		return fmt.Errorf("%w: it starts at event %d and %d is next", ErrDiverged, r.First(), p.Seq+1)
	}
	hash := p.Hash
	err := eachEvent(r.encoded, func(text []byte) error {
		hash = hash.Then(text)
		return nil
	})
	if err != nil {
		return err
	}
	if hash != r.Hash {
		return fmt.Errorf("%w: the chain's hash after event %d is another", ErrDiverged, r.Last())
	}
	return nil
}

// ParseRecord reads what Bytes gave. The error is ErrBadRecord. It keeps b.
func ParseRecord(b []byte) (Record, error) {
	h, err := parseHeader(b)
	if err != nil {
		return Record{}, err
	}
	r := Record{Index: h.index, Term: h.term, Hash: h.hash, Events: make([]event.Event, 0, h.count), encoded: b}
	err = eachEvent(b, func(text []byte) error {
		e, err := event.Parse(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBadRecord, err)
		}
		if want := h.first + uint64(len(r.Events)); e.Seq != want {
			return fmt.Errorf("%w: event %d where %d is next", ErrBadRecord, e.Seq, want)
		}
		r.Events = append(r.Events, e)
		return nil
	})
	if err == nil && len(r.Events) != h.count {
		err = fmt.Errorf("%w: %d events, the header says %d", ErrBadRecord, len(r.Events), h.count)
	}
	if err != nil {
		return Record{}, err
	}
	return r, nil
}

// header is what can be known of a record without looking at its events.
type header struct {
	index, term, first uint64
	count              int
	hash               Hash
}

func (h header) last() uint64 { return h.first + uint64(h.count) - 1 }

func parseHeader(b []byte) (header, error) {
	if len(b) < smallestRecord || len(b) > MaxRecord {
		return header{}, fmt.Errorf("%w: %d bytes", ErrBadRecord, len(b))
	}
	if b[0] != recordVersion {
		return header{}, fmt.Errorf("%w: format %d, this build reads %d; upgrade skein", ErrBadRecord, b[0], recordVersion)
	}
	h := header{
		index: binary.BigEndian.Uint64(b[offsetIndex:]),
		term:  binary.BigEndian.Uint64(b[offsetTerm:]),
		first: binary.BigEndian.Uint64(b[offsetFirst:]),
		hash:  Hash(b[offsetHash:recordHeader]),
	}
	count := binary.BigEndian.Uint32(b[offsetCount:])
	if count == 0 || count > MaxRecordEvents || h.first == 0 || h.first > 1<<53 {
		return header{}, fmt.Errorf("%w: %d events from %d", ErrBadRecord, count, h.first)
	}
	h.count = int(count)
	return h, nil
}

// eachEvent calls f with the canonical bytes of every event of an encoded record.
func eachEvent(b []byte, f func(text []byte) error) error {
	for b = b[recordHeader:]; len(b) > 0; {
		if len(b) < lengthBytes {
			return fmt.Errorf("%w: it ends inside a length", ErrBadRecord)
		}
		n := uint64(binary.BigEndian.Uint32(b))
		b = b[lengthBytes:]
		if n > uint64(len(b)) {
			return fmt.Errorf("%w: it ends inside an event", ErrBadRecord)
		}
		if err := f(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
