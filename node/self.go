package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/keyring"
	"skein/node/config"
	"skein/node/datadir"
)

// self is what a node has before it meets anyone: its configuration and what
// is on its disk.
type self struct {
	cfg  config.Config
	log  *slog.Logger
	dir  *datadir.Dir
	key  ident.Key
	boot uint64
	ring *keyring.Ring
	book *discover.Book
	// member is nil until the node is admitted.
	member atomic.Pointer[ident.Membership]
}

// openSelf locks and reads the data directory. Nothing in it is changed when
// something in it is damaged.
func openSelf(cfg config.Config, log *slog.Logger) (*self, error) {
	dir, err := datadir.Open(cfg.Data)
	if err != nil {
		return nil, err
	}
	s, err := readSelf(cfg, log, dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return s, nil
}

func readSelf(cfg config.Config, log *slog.Logger, dir *datadir.Dir) (*self, error) {
	s := &self{cfg: cfg, log: log, dir: dir}
	var err error
	if s.boot, err = nextBoot(dir.Boots()); err != nil {
		return nil, err
	}
	if s.key, err = ident.LoadOrCreateKey(dir.NodeKey()); err != nil {
		return nil, err
	}
	if s.ring, err = keyring.Open(dir.GossipKeys()); err != nil {
		return nil, err
	}
	m, err := ident.LoadMembership(dir.Membership(), s.key.ID())
	switch {
	case err == nil:
		s.member.Store(&m)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if s.book, err = discover.OpenBook(dir.Peers(), log); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *self) close() error { return errors.Join(s.book.Close(), s.dir.Close()) }

// chain is the node's certificate chain, nil before admission.
func (s *self) chain() ident.Chain {
	if m := s.member.Load(); m != nil {
		return m.Chain
	}
	return nil
}

// accept makes chain this node's own, durably.
func (s *self) accept(fleetName string, root []byte, chain ident.Chain) error {
	m := ident.NewMembership(fleetName, root, chain)
	if err := m.Check(s.key.ID()); err != nil {
		return fmt.Errorf("accept certificate: %w", err)
	}
	if err := m.Save(s.dir.Membership()); err != nil {
		return err
	}
	s.member.Store(&m)
	return nil
}
