package backup

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/ident"
)

// A backup is: magic, version, and frames. A frame is: kind, length of the
// content, CRC-32C of kind, length and content, content. Big endian. The order of
// kinds: one header, states, records, one trailer, the end of the file.
const (
	magic       = "SKNBACK"
	version     = 1
	frameHeader = 1 + 4 + 4
	// headerAt is where the header's frame begins.
	headerAt = int64(len(magic) + 1)

	kindHeader  = 'h'
	kindState   = 's'
	kindRecord  = 'r'
	kindTrailer = 't'
)

// Bounds of frames.
const (
	// maxText is the most bytes of a header or trailer.
	maxText = 64 << 10
	// chunkBytes is how much of a state one frame carries.
	chunkBytes = 256 << 10
	// MaxStateBytes is the most bytes of an encoded state.
	MaxStateBytes = 256 << 20
)

// formatName is in the header too, for people who look into the file.
const formatName = "skein-backup/1"

// domain separates the signature from all others of the same key.
const domain = "backup/1"

// Errors of reading that callers tell apart. Their texts say what to do.
var (
	// ErrDamaged: bytes of the file are missing or changed.
	ErrDamaged = errors.New("backup is damaged")
	// ErrUntrusted: the file is whole, and not proved to be of its fleet.
	ErrUntrusted = errors.New("backup cannot be trusted")
	// ErrUpgrade: a newer build made the file.
	ErrUpgrade = errors.New("backup is of a newer build; upgrade skein")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Place is a position in the chain.
type Place struct {
	Seq uint64 `json:"seq"`
	// Hash is the chain's hash after Seq, in hex.
	Hash string `json:"hash"`
}

func placeOf(p history.Position) Place { return Place{p.Seq, p.Hash.String()} }

// Signer is the node that made a backup, and its proof of being of the fleet.
type Signer struct {
	Node ident.NodeID `json:"node"`
	Name string       `json:"name"`
	// Chain leads from the node's key to the fleet's root.
	Chain ident.Chain `json:"chain"`
}

// StateProof lets a reader of the same build compare what it has rebuilt.
type StateProof struct {
	// Format is the version of the state's encoding that Hash is of.
	Format int `json:"format"`
	// Hash is fleet.State.Hash at the end.
	Hash string `json:"hash"`
}

// Header says what a backup holds.
type Header struct {
	Format    string            `json:"format"`
	FleetName string            `json:"fleetName"`
	Fleet     ident.FleetID     `json:"fleet"`
	Root      ed25519.PublicKey `json:"root"`
	// History names the log at the end, Recoveries counts how often it was
	// recovered or restored.
	History    string `json:"history"`
	Recoveries uint64 `json:"recoveries"`
	// Base is before the first event in the file, End after the last.
	Base  Place      `json:"base"`
	End   Place      `json:"end"`
	State StateProof `json:"state"`
	Made  Signer     `json:"made"`
	// At is the maker's wall clock, for people. Build is its version, Level the
	// newest event level it knows.
	At    time.Time `json:"at"`
	Build string    `json:"build"`
	Level uint64    `json:"level"`
}

// check refuses a header that no maker writes.
func (h Header) check() error {
	switch {
	case h.Format != formatName:
		return damage(headerAt, "its header says it is %.40q, want %q", h.Format, formatName)
	case h.Level > event.Level:
		return fmt.Errorf("%w: it has events of level %d, this build knows %d", ErrUpgrade, h.Level, event.Level)
	case h.End.Seq == 0 || h.Base.Seq > h.End.Seq:
		return damage(headerAt, "its header says that it goes from event %d to %d", h.Base.Seq, h.End.Seq)
	case len(h.Root) != ed25519.PublicKeySize || ident.FleetIDOf(h.Root) != h.Fleet:
		return fmt.Errorf("%w: its root key is not that of fleet %.24q", ErrUntrusted, h.Fleet)
	}
	leaf, err := h.Made.Chain.Verify(h.Root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if leaf.Node() != h.Made.Node {
		return fmt.Errorf("%w: the certificate is of %s, the header names %.24q", ErrUntrusted, leaf.Node(), h.Made.Node)
	}
	return nil
}

// trailer ends a backup.
type trailer struct {
	Records uint64 `json:"records"`
	// Sum is the SHA-256 of every byte before the trailer's frame.
	Sum []byte `json:"sum"`
	// Signature is of Sum, by the node that made the backup.
	Signature []byte `json:"signature"`
}

// writer frames and sums what it is given.
type writer struct {
	out   io.Writer
	sum   hash.Hash
	bytes int64
	frame []byte
}

func newWriter(out io.Writer) (*writer, error) {
	w := &writer{out: out, sum: sha256.New()}
	return w, w.write(append([]byte(magic), version))
}

func (w *writer) write(b []byte) error {
	w.sum.Write(b)
	n, err := w.out.Write(b)
	w.bytes += int64(n)
	return err
}

func (w *writer) put(kind byte, content []byte) error {
	w.frame = appendFrame(w.frame[:0], kind, content)
	return w.write(w.frame)
}

func appendFrame(b []byte, kind byte, content []byte) []byte {
	at := len(b)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	sum := crc32.Update(crc32.Checksum(b[at:], castagnoli), castagnoli, content)
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(b, content...)
}

// frame is one frame as it was read. Its content is valid until the next.
type frame struct {
	kind    byte
	content []byte
	// at is where it begins in the file.
	at int64
}

// reader takes frames apart and sums them.
type reader struct {
	in  *bufio.Reader
	sum hash.Hash
	// at is how much was read.
	at  int64
	buf []byte
}

// openReader reads the start of a backup.
func openReader(in io.Reader) (*reader, error) {
	r := &reader{in: bufio.NewReaderSize(in, 256<<10), sum: sha256.New()}
	var start [len(magic) + 1]byte
	_, err := io.ReadFull(r.in, start[:])
	if err != nil && !ended(err) {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	switch {
	case err != nil || string(start[:len(magic)]) != magic:
		return nil, damage(0, "it does not start like a backup; is it the right file?")
	case start[len(magic)] != version:
		return nil, fmt.Errorf("%w: format %d, this build reads %d", ErrUpgrade, start[len(magic)], version)
	}
	r.sum.Write(start[:])
	r.at = int64(len(start))
	return r, nil
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// bound is the most bytes of a frame of a kind; 0 for a kind that there is not.
func bound(kind byte) uint32 {
	switch kind {
	case kindHeader, kindTrailer:
		return maxText
	case kindState:
		return chunkBytes
	case kindRecord:
		return history.MaxRecord
	}
	return 0
}

// Damage says where a backup is broken. It is an ErrDamaged.
type Damage struct {
	// Offset is the byte of the file at which it was noticed: the start of the
	// broken part, or where the file ends early.
	Offset int64
	Why    string
}

// Error implements error.
func (d *Damage) Error() string {
	return fmt.Sprintf("%v: at byte %d: %s; use another backup, or make a new one", ErrDamaged, d.Offset, d.Why)
}

// Is makes a Damage an ErrDamaged.
func (d *Damage) Is(target error) bool { return target == ErrDamaged }

func damage(at int64, format string, args ...any) error {
	return &Damage{at, fmt.Sprintf(format, args...)}
}

// next reads a frame. Every backup ends with its trailer, so the end of the
// file is damage too.
func (r *reader) next() (frame, error) {
	at := r.at
	var head [frameHeader]byte
	if err := r.read(head[:], at); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if most := bound(head[0]); n > most {
		return frame{}, damage(at, "a part of kind %q with %d bytes", head[0], n)
	}
	r.buf = slices.Grow(r.buf[:0], int(n))[:n]
	if err := r.read(r.buf, at); err != nil {
		return frame{}, err
	}
	if crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, r.buf) != binary.BigEndian.Uint32(head[5:]) {
		return frame{}, damage(at, "a checksum is wrong")
	}
	if head[0] != kindTrailer {
		r.sum.Write(head[:])
		r.sum.Write(r.buf)
	}
	return frame{head[0], r.buf, at}, nil
}

func (r *reader) read(b []byte, frameAt int64) error {
	n, err := io.ReadFull(r.in, b)
	r.at += int64(n)
	if ended(err) {
		return damage(r.at, "it ends early, inside the part that begins at byte %d", frameAt)
	}
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	return nil
}

// end checks that nothing follows.
func (r *reader) end() error {
	if _, err := r.in.ReadByte(); err == nil {
		return damage(r.at, "something follows the end")
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read backup: %w", err)
	}
	return nil
}
