package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"skein/consensus/event"
	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/keyring"
	"skein/node/config"
	"skein/node/datadir"
)

// self is what a node has before it meets anyone: its configuration and what
// is on its disk.
type self struct {
	cfg config.Config
	log *slog.Logger
	// version is that of the build, as people see it.
	version string
	dir     *datadir.Dir
	key     ident.Key
	boot    uint64
	ring    *keyring.Ring
	book    *discover.Book
	// now is this machine's wall clock, right or wrong.
	now func() time.Time
	// level is the newest level of event types that this build knows.
	level uint64
	// alone is raftAlone; tests have less time.
	alone time.Duration
	// member is nil until the node is admitted.
	member atomic.Pointer[ident.Membership]
}

// openSelf locks and reads the data directory. Nothing in it is changed when
// something in it is damaged.
func openSelf(cfg config.Config, version string, log *slog.Logger) (*self, error) {
	dir, err := datadir.Open(cfg.Data)
	if err != nil {
		return nil, err
	}
	s, err := readSelf(cfg, version, log, dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return s, nil
}

func readSelf(cfg config.Config, version string, log *slog.Logger, dir *datadir.Dir) (*self, error) {
	s := &self{cfg: cfg, version: version, log: log, dir: dir, now: machineClock, level: event.Level, alone: raftAlone}
	var err error
	if s.boot, err = nextBoot(dir.Boots()); err != nil {
		return nil, err
	}
	if s.key, err = loadKey(dir); err != nil {
		return nil, err
	}
	if s.ring, err = keyring.Open(dir.GossipKeys()); err != nil {
		return nil, err
	}
	if err := s.loadMembership(); err != nil {
		return nil, err
	}
	if s.book, err = discover.OpenBook(dir.Peers(), log); err != nil {
		return nil, err
	}
	return s, nil
}

// loadKey reads the node's key, and makes one for a node that is new. A member
// without its key is not new: another key would not fit to its membership, and
// would be in the way of the one that is put back.
func loadKey(dir *datadir.Dir) (ident.Key, error) {
	key, err := ident.LoadKey(dir.NodeKey())
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if _, statErr := os.Stat(dir.Membership()); statErr == nil {
		return ident.Key{}, fmt.Errorf("%s is missing; put back the key that %s was issued to, or move the whole directory away and join again as a new robot",
			dir.NodeKey(), dir.Membership())
	}
	return ident.LoadOrCreateKey(dir.NodeKey())
}

// loadMembership finds out whether the node is a member, and that its fleet
// file, if it still has one, is not of another fleet: who put it there wants
// the robot to be somewhere else than it is.
func (s *self) loadMembership() error {
	m, err := ident.LoadMembership(s.dir.Membership(), s.key.ID())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	path, _ := s.cfg.FleetFilePath()
	if f, err := ident.LoadFleetFile(path); err == nil && f.Fleet != m.Fleet() {
		return fmt.Errorf("%w: fleet file %s is of another fleet, %s (%s), and this robot is a member of %s (%s); remove the file to stay, or `skein leave` first to move",
			ErrMember, path, f.Name, f.Fleet, m.FleetName, m.Fleet())
	}
	s.member.Store(&m)
	return nil
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
