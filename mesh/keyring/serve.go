package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"skein/mesh/wire"
)

// Protocol is the id under which Serve is reached. Members only.
const Protocol = "/skein/keys/1"

const (
	maxMessageBytes = 4 << 10
	exchangeTimeout = 5 * time.Second
)

// ErrNoKeys: the peer has no keys itself. Ask another.
var ErrNoKeys = errors.New("peer has no gossip keys yet")

// Stream is what the protocol needs of an authenticated stream.
type Stream interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// request has no fields yet; it exists so that a later version can ask for less.
type request struct{}

// Serve answers one request for the current keys. The caller has checked that
// the other side is an admitted, unrevoked node, and closes the stream.
func (r *Ring) Serve(ctx context.Context, s Stream) error {
	defer limit(ctx, s)()
	var asked request
	if err := wire.ReadJSON(s, &asked, maxMessageBytes); err != nil {
		return fmt.Errorf("read request for gossip keys: %w", err)
	}
	if err := wire.WriteJSON(s, r.Current(), maxMessageBytes); err != nil {
		return fmt.Errorf("send gossip keys: %w", err)
	}
	return nil
}

// Fetch asks the peer at the other end of s for its current keys and checks
// their form. The caller closes the stream and gives the keys to Set. Errors:
// ErrNoKeys, ErrInvalid, or what the stream says.
func Fetch(ctx context.Context, s Stream) (Keys, error) {
	defer limit(ctx, s)()
	if err := wire.WriteJSON(s, request{}, maxMessageBytes); err != nil {
		return Keys{}, fmt.Errorf("ask for gossip keys: %w", err)
	}
	var k Keys
	if err := wire.ReadJSON(s, &k, maxMessageBytes); err != nil {
		return Keys{}, fmt.Errorf("read gossip keys: %w", err)
	}
	if k.Epoch == 0 {
		return Keys{}, ErrNoKeys
	}
	return k, k.Check()
}

// limit ends the exchange after exchangeTimeout, or when ctx ends. The function
// it returns lifts the limit.
func limit(ctx context.Context, s Stream) func() {
	s.SetDeadline(time.Now().Add(exchangeTimeout))
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			s.SetDeadline(time.Time{})
		}
	}
}
