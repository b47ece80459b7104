package rescue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"skein/consensus/event"
	"skein/consensus/raftlog"
	"skein/mesh/ident"
	"skein/node/config"
	"skein/node/datadir"
)

// ResyncOptions say how Resync goes about it.
type ResyncOptions struct {
	// Data is the data directory of a stopped node.
	Data string
	Mesh config.Mesh
	// Alone does it although no other node answers, from which the node could
	// fetch the log, and its own Raft log cannot give the copy back.
	Alone bool
	Now   func() time.Time
	Log   *slog.Logger
}

// Resynced says what was moved.
type Resynced struct {
	Node ident.NodeID `json:"node"`
	// Moved are the folders, Attic where they are now. Nothing is deleted.
	Moved []string `json:"moved"`
	Attic string   `json:"attic"`
	// From are the nodes that answered: the log can be fetched from them.
	From []Peer `json:"from"`
	// Kept is what the Raft log, which stayed where it was, gives back; nil if it
	// was moved too, or there was none.
	Kept *RaftCopy `json:"kept,omitempty"`
}

// Next says what to do now, in sentences for a person.
func (r Resynced) Next() string {
	switch {
	case r.Kept != nil:
		return "Start the node: " + r.Kept.String() + " Delete that folder when it has."
	case len(r.From) == 0:
		return "No other node answered. If there is one with the log, start it and this one. If there is none, `skein restore` a backup here: " +
			"what was decided since the backup is then lost, and only that folder still has it."
	}
	return fmt.Sprintf("Start the node: it fetches the log from the others (%d of them answer). Delete that folder when it has.", len(r.From))
}

// Resync moves a stopped node's copy of the log, and its Raft log, aside, so
// that it fetches both anew. It refuses (ErrRefused) a node that still counts as
// a voter for the others that answer, because one that has forgotten its votes
// could elect a leader that lacks events.
//
// When nobody answers, its copy might be the last. If that is damaged and the
// voter's Raft log can give it back, only the copy is moved: the votes stay, and
// nothing is lost. Else it refuses, unless o.Alone.
func Resync(ctx context.Context, o ResyncOptions) (Resynced, error) {
	s, err := openStopped(o.Data)
	if err != nil {
		return Resynced{}, err
	}
	defer s.close()
	r := Resynced{Node: s.key.ID(), Moved: []string{}, From: []Peer{}}
	var folders []string
	for _, path := range []string{s.dir.Log(), s.dir.Raft()} {
		held, err := present(path)
		if err != nil {
			return r, err
		}
		if held {
			folders = append(folders, path)
		}
	}
	if len(folders) == 0 {
		return r, refusal("%s has no copy of the log; just start the node, it fetches one", s.dir.Path())
	}
	if r.From, err = s.whoHasIt(ctx, o); err != nil {
		return r, err
	}
	if len(r.From) > 0 {
		err = s.checkDismissed(r.From)
	} else {
		folders, r.Kept, err = s.whatToMove(ctx, folders, o.Alone)
	}
	if err != nil {
		return r, err
	}
	return r, s.moveAside(&r, folders, o.Now())
}

// whoHasIt asks every node that an address is known of. The log, which names the
// members, may be damaged.
func (s *stopped) whoHasIt(ctx context.Context, o ResyncOptions) ([]Peer, error) {
	a, err := s.newAsker(o.Mesh, o.Log)
	if err != nil {
		return nil, err
	}
	defer a.close()
	known, err := a.find(ctx)
	if err != nil {
		return nil, err
	}
	var peers []Peer
	for _, id := range known {
		if id != s.key.ID() {
			peers = append(peers, Peer{ID: id})
		}
	}
	a.askAll(ctx, peers, event.Cursor{})
	answered := slices.DeleteFunc(peers, func(p Peer) bool { return p.Standing == nil || p.Standing.Cursor.Seq == 0 })
	return append([]Peer{}, answered...), ctx.Err()
}

// checkDismissed refuses a node that still counts as a voter for its peers.
func (s *stopped) checkDismissed(peers []Peer) error {
	// Who was recovered most often, and then who is furthest, knows best.
	best := slices.MaxFunc(peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(a.Standing.Recoveries, b.Standing.Recoveries), cmp.Compare(a.Standing.Cursor.Seq, b.Standing.Cursor.Seq))
	})
	if !best.Standing.YouVote {
		return nil
	}
	id := s.key.ID()
	return refusal("the fleet still counts this node as a voter; have an admin run `skein node withdraw %s`, wait until `skein node list` shows it is none, then try again", id.Short())
}

// moveAside puts folders into the attic. The Raft log goes first: a node with a
// Raft log and no copy of the log would take the one for the other.
func (s *stopped) moveAside(r *Resynced, folders []string, now time.Time) error {
	var err error
	if r.Attic, err = datadir.Attic(s.dir.Path(), "damaged", now.Unix()); err != nil {
		return err
	}
	slices.Reverse(folders)
	for _, from := range folders {
		if err := os.Rename(from, filepath.Join(r.Attic, filepath.Base(from))); err != nil {
			return fmt.Errorf("move %s aside: %w; run the command again", from, err)
		}
		r.Moved = append(r.Moved, from)
	}
	// The note of a recovery under way is of the copy that is gone. What was heard
	// of recoveries stays, unless it cannot be read.
	aside := []string{begunName}
	if _, err := s.heard(); err != nil {
		aside = append(aside, epochsName)
	}
	for _, name := range aside {
		err := os.Rename(filepath.Join(s.dir.Path(), name), filepath.Join(r.Attic, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(syncDir(r.Attic), syncDir(s.dir.Path()))
}

// Converted says what became of a Raft log.
type Converted struct {
	Node ident.NodeID `json:"node"`
	From raftlog.Kind `json:"from"`
	To   raftlog.Kind `json:"to"`
}

// Convert moves a stopped voter's Raft log into another kind of store, "bolt" or
// "wal", and changes nothing else. A crash leaves the old log or the new one.
func Convert(data, store string) (Converted, error) {
	to := raftlog.Kind(store)
	if to != raftlog.Bolt && to != raftlog.WAL {
		return Converted{}, fmt.Errorf("%w: there is no store %q; it is %q or %q", ErrBadOption, store, raftlog.Bolt, raftlog.WAL)
	}
	s, err := openStopped(data)
	if err != nil {
		return Converted{}, err
	}
	defer s.close()
	c := Converted{Node: s.key.ID(), To: to}
	if c.From, err = raftlog.KindOf(s.dir.Raft()); err != nil {
		return c, err
	}
	if c.From == "" {
		return c, refusal("%s has no Raft log: this node is no voter, and nothing needs to be converted; set `[raft] store` in its configuration", s.dir.Path())
	}
	return c, raftlog.Convert(s.dir.Raft(), s.key.ID(), to)
}

// storeOf is the kind of store that a setting means.
func storeOf(setting string) raftlog.Kind {
	if setting == "" {
		return raftlog.Bolt
	}
	return raftlog.Kind(setting)
}
