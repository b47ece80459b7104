package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"skein/mesh/keyring"
)

// ErrNoKeys: the ring is empty, so this node has not been admitted yet.
var ErrNoKeys = errors.New("there are no gossip keys yet; join the fleet first")

// newKeyring gives memberlist the ring's keys: the primary encrypts, all decrypt.
func newKeyring(k keyring.Keys) (*memberlist.Keyring, error) {
	if k.Epoch == 0 {
		return nil, ErrNoKeys
	}
	kr, err := memberlist.NewKeyring(slices.Clone(k.Previous), k.Primary)
	if err != nil {
		return nil, fmt.Errorf("use gossip keys: %w", err)
	}
	return kr, nil
}

// followKeys applies changes of the ring to the running gossip in three steps,
// so that at no moment two nodes that are a little apart in time fail to
// understand each other: accept the new key at once, use it after KeyUse (by
// when every reachable node has fetched it), drop the older ones KeyRetire
// later.
func (s *Service) followKeys(ctx context.Context) {
	for ctx.Err() == nil {
		changed := s.cfg.Ring.Changed()
		k := s.cfg.Ring.Current()
		if err := s.accept(k); err != nil {
			s.log.Error("cannot use the gossip keys", "error", err)
		} else if pass(ctx, changed, s.cfg.Timings.KeyUse) && s.use(k) && pass(ctx, changed, s.cfg.Timings.KeyRetire) {
			s.retire(k.Epoch)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// accept installs keys for decryption. If those in use are none of them any
// more (two rotations at once), the new primary is used without delay.
func (s *Service) accept(k keyring.Keys) error {
	all := append([][]byte{k.Primary}, k.Previous...)
	for _, key := range all {
		if err := s.keys.AddKey(key); err != nil {
			return fmt.Errorf("accept a gossip key: %w", err)
		}
	}
	using := s.keys.GetPrimaryKey()
	if !slices.ContainsFunc(all, func(key []byte) bool { return bytes.Equal(key, using) }) {
		return s.keys.UseKey(k.Primary)
	}
	return nil
}

func (s *Service) use(k keyring.Keys) bool {
	if err := s.keys.UseKey(k.Primary); err != nil {
		s.log.Error("cannot use the new gossip key", "epoch", k.Epoch, "error", err)
		return false
	}
	return true
}

// retire drops every key but the one in use. Always the last: memberlist reads
// the slice of keys without its lock, and only removing the last element leaves
// that slice's content in place.
func (s *Service) retire(epoch uint64) {
	for keys := s.keys.GetKeys(); len(keys) > 1; keys = s.keys.GetKeys() {
		if err := s.keys.RemoveKey(keys[len(keys)-1]); err != nil {
			s.log.Error("cannot drop an old gossip key", "error", err)
			return
		}
	}
	if err := s.cfg.Ring.Retire(epoch); err != nil {
		s.log.Error("cannot forget old gossip keys on disk", "error", err)
	}
}

// pass waits, and reports whether the time passed before anything changed.
func pass(ctx context.Context, changed <-chan struct{}, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
	case <-ctx.Done():
	}
	return false
}
