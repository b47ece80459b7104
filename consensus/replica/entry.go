package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"skein/consensus/event"
	"skein/mesh/ident"
)

// MaxEntryBytes is the most bytes of an encoded entry. What it decides fits a
// history record.
const MaxEntryBytes = 2 << 20

// ErrBadEntry: the bytes are no entry of this build's format.
var ErrBadEntry = errors.New("log entry is not readable")

// smallestBatch is the fewest bytes of an encoded batch.
const smallestBatch = 7

// entryVersion is the first byte of an encoded entry.
const entryVersion = 1

// Entry is the content of one entry of the Raft log.
type Entry struct {
	// TimeMillis is the leader's wall clock in milliseconds since 1970, at most
	// event.MaxTimeMillis.
	TimeMillis int64
	// Batches are decided one after the other, each on its own. Together they
	// have at most event.MaxDrafts drafts.
	Batches []event.Batch
}

// EncodeEntry refuses what no replica of this build could apply: a size or a
// number out of bounds, or an event type it does not know. So such a thing
// cannot get into the log and stop every node. It does not validate further: see
// event.Batch.Validate.
func EncodeEntry(e Entry) ([]byte, error) {
	if e.TimeMillis < 0 || e.TimeMillis > event.MaxTimeMillis {
		return nil, fmt.Errorf("encode entry: the clock says %d ms since 1970; set it", e.TimeMillis)
	}
	size, drafts := 16, 0
	for _, b := range e.Batches {
		size += b.Size() + 64 + 32*len(b.Drafts)
		drafts += len(b.Drafts)
	}
	if drafts == 0 || drafts > event.MaxDrafts || len(e.Batches) > event.MaxDrafts {
		return nil, fmt.Errorf("encode entry: %d drafts in %d batches, want 1 to %d", drafts, len(e.Batches), event.MaxDrafts)
	}
	b := append(make([]byte, 0, min(size, MaxEntryBytes)), entryVersion)
	b = binary.AppendUvarint(b, uint64(e.TimeMillis))
	b = binary.AppendUvarint(b, uint64(len(e.Batches)))
	for _, batch := range e.Batches {
		var err error
		if b, err = appendBatch(b, batch); err != nil {
			return nil, err
		}
	}
	if len(b) > MaxEntryBytes {
		return nil, fmt.Errorf("encode entry: %d bytes, at most %d are allowed; put fewer batches into it", len(b), MaxEntryBytes)
	}
	return b, nil
}

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBatch(b []byte, batch event.Batch) ([]byte, error) {
	b = appendText(b, batch.Producer.Node)
	b = binary.AppendUvarint(b, batch.Producer.Boot)
	b = binary.AppendUvarint(b, batch.Producer.N)
	b = appendText(b, batch.Actor.Kind)
	b = appendText(b, batch.Actor.ID)
	b = binary.AppendUvarint(b, uint64(len(batch.Actor.Scopes)))
	for _, scope := range batch.Actor.Scopes {
		b = appendText(b, scope)
	}
	b = binary.AppendUvarint(b, uint64(len(batch.Drafts)))
	for _, d := range batch.Drafts {
		if !event.Known(d.Type, d.Schema) {
			return nil, fmt.Errorf("encode entry: %w", event.Validate(d))
		}
		b = appendText(b, d.Stream)
		b = appendText(b, d.Type)
		b = binary.AppendUvarint(b, d.Schema)
		b = appendText(b, d.Cause)
		b = appendText(b, d.Data)
		if d.Expect == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(append(b, 1), *d.Expect)
	}
	return b, nil
}

// DecodeEntry reads what EncodeEntry wrote. The error is ErrBadEntry. The
// entry's data keeps b.
func DecodeEntry(b []byte) (Entry, error) { return new(decoder).entry(b) }

// decoder takes entries apart. It keeps what comes again in every entry.
type decoder struct {
	reader
	// texts are strings that were met before, and last the ones that were met last
	// at each place.
	texts map[string]string
	last  [places]string
	// scopes were those of the last batch that had some.
	scopes []string
	// drafts is room for those of one entry.
	drafts []event.Draft
}

const (
	// maxTexts and maxText bound what a decoder remembers: 256 KiB.
	maxTexts = 2048
	maxText  = 128
)

// entry decodes one. It keeps b, and is valid until the next call.
func (r *decoder) entry(b []byte) (Entry, error) {
	if len(b) == 0 || len(b) > MaxEntryBytes {
		return Entry{}, fmt.Errorf("%w: %d bytes", ErrBadEntry, len(b))
	}
	if b[0] != entryVersion {
		return Entry{}, fmt.Errorf("%w: format %d, this build reads %d; upgrade skein", ErrBadEntry, b[0], entryVersion)
	}
	r.reader = reader{rest: b[1:]}
	r.drafts = r.drafts[:0]
	e := Entry{TimeMillis: int64(r.number(event.MaxTimeMillis))}
	count := r.number(event.MaxDrafts)
	e.Batches = make([]event.Batch, 0, min(count, uint64(len(b)/smallestBatch)))
	left := uint64(event.MaxDrafts)
	for range count {
		batch := r.batch(left)
		left -= uint64(len(batch.Drafts))
		e.Batches = append(e.Batches, batch)
		if r.bad {
			break
		}
	}
	if r.bad || len(r.rest) > 0 {
		return Entry{}, fmt.Errorf("%w: it is damaged", ErrBadEntry)
	}
	return e, nil
}

// The places of an entry at which there are strings, most often the same as the
// last time. The scopes are behind them.
const (
	placeNode = iota
	placeKind
	placeActor
	placeStream
	placeType
	placeCause
	placeScopes
	places = placeScopes + maxScopes
)

// text reads a string, of which there is only one copy if it comes often.
func (r *decoder) text(place int) string {
	b := r.bytes()
	if string(b) == r.last[place] {
		return r.last[place]
	}
	s, ok := r.texts[string(b)]
	if !ok {
		s = string(b)
		if len(s) > maxText {
			return s
		}
		if r.texts == nil || len(r.texts) == maxTexts {
			r.texts = map[string]string{}
		}
		r.texts[s] = s
	}
	r.last[place] = s
	return s
}

// reader takes bytes apart. Once bad, it gives zero values.
type reader struct {
	rest []byte
	bad  bool
}

// number reads one that is at most high.
func (r *reader) number(high uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > high {
		r.bad = true
	}
	if r.bad {
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.number(uint64(len(r.rest)))
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

// maxScopes bounds what is allocated; event checks the number that is allowed.
const maxScopes = 8

func (r *decoder) batch(most uint64) event.Batch {
	const any = 1<<64 - 1
	var b event.Batch
	b.Producer = event.Producer{Node: ident.NodeID(r.text(placeNode)), Boot: r.number(any), N: r.number(any)}
	b.Actor = event.Actor{Kind: event.Kind(r.text(placeKind)), ID: r.text(placeActor), Scopes: r.readScopes()}
	first := len(r.drafts)
	for range r.number(most) {
		d := event.Draft{Stream: r.text(placeStream), Type: r.text(placeType), Schema: r.number(any), Cause: r.text(placeCause), Data: r.bytes()}
		if r.number(1) == 1 {
			expect := r.number(any)
			d.Expect = &expect
		}
		if r.bad {
			return event.Batch{}
		}
		r.drafts = append(r.drafts, d)
	}
	if n := len(r.drafts); n > first { // an earlier batch keeps the array it was made in
		b.Drafts = r.drafts[first:n:n]
	}
	return b
}

// readScopes gives the slice of the batch before if it is the same.
func (r *decoder) readScopes() []string {
	var read [maxScopes]string
	n := r.number(maxScopes)
	for i := range n {
		read[i] = r.text(placeScopes + int(i))
	}
	if !slices.Equal(read[:n], r.scopes) {
		r.scopes = slices.Clone(read[:n])
	}
	if n == 0 {
		return nil
	}
	return r.scopes
}
