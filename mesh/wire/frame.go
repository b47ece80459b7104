// Package wire puts messages on streams: a 4-byte big-endian length, then that
// many bytes. Every read names its cap; a peer that announces more is refused
// before a byte of it is read, and memory is taken as bytes arrive, so a length
// prefix alone makes a node allocate 64 KiB at most. It imports nothing of Skein
// and may be imported by every shell.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge: a message is over the cap its reader or writer set.
var ErrTooLarge = errors.New("message is too large")

// Caps of common messages, in bytes.
const (
	// MaxControl bounds requests and answers of the small protocols.
	MaxControl = 64 << 10
	// MaxBatch bounds a batch of events on its way to or from the log.
	MaxBatch = 4 << 20
)

const (
	headerBytes = 4
	// firstBytes is what is taken for a message before its content arrives.
	firstBytes = 64 << 10
)

// WriteFrame writes one message in one Write call. It refuses payloads over limit.
func WriteFrame(w io.Writer, payload []byte, limit int) error {
	if len(payload) > limit {
		return fmt.Errorf("%w: %d bytes to send, cap %d", ErrTooLarge, len(payload), limit)
	}
	frame := make([]byte, headerBytes, headerBytes+len(payload))
	binary.BigEndian.PutUint32(frame, uint32(len(payload)))
	_, err := w.Write(append(frame, payload...))
	return err
}

// ReadFrame reads one message of at most limit bytes. A stream that ends
// between messages gives io.EOF, one that ends inside gives io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("%w: peer announces %d bytes, cap %d", ErrTooLarge, n, limit)
	}
	return readPayload(r, int(n))
}

// readPayload reads n bytes. It doubles its buffer as they come.
func readPayload(r io.Reader, n int) ([]byte, error) {
	payload := make([]byte, 0, min(n, firstBytes))
	for len(payload) < n {
		if len(payload) == cap(payload) {
			payload = append(make([]byte, 0, min(n, 2*cap(payload))), payload...)
		}
		got, err := io.ReadFull(r, payload[len(payload):cap(payload)])
		payload = payload[:len(payload)+got]
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return payload, nil
}

// WriteJSON writes v as one message.
func WriteJSON(w io.Writer, v any, limit int) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	return WriteFrame(w, payload, limit)
}

// ReadJSON reads one message into v.
func ReadJSON(r io.Reader, v any, limit int) error {
	payload, err := ReadFrame(r, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}
