package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/keyring"
	"skein/node/client"
	"skein/node/config"
	"skein/node/datadir"
)

// ErrMember: the data directory already belongs to a fleet.
var ErrMember = errors.New("this robot is already in a fleet")

// FirstAdmin is the name of the person whose key InitFleet makes.
const FirstAdmin = "admin"

// genesisTimeout bounds the first decisions of a fleet: one voter, one disk.
const genesisTimeout = 15 * time.Second

// InitOptions say what InitFleet makes.
type InitOptions struct {
	// Data is the founder's data directory; it must belong to no fleet.
	Data string
	// Name is the fleet's, NodeName the founding robot's ("" means host name).
	Name, NodeName string
	// FleetFileOut is where to write the fleet file; "" means into Data.
	FleetFileOut string
	// Store is the kind of the founder's Raft log, as in its configuration; ""
	// means bolt.
	Store string
}

// InitResult says where the files are that a founder must know.
type InitResult struct {
	FleetID                           ident.FleetID
	FleetFile, AdminFile, RootKeyFile string
}

// founding is the keys of a fleet that is being made.
type founding struct {
	root, enrolment, admin, node ident.Key
	nodeName, history            string
	store                        raftlog.Kind
	level                        uint64
}

// InitFleet founds a fleet: its root, enrolment and first admin's keys, its
// fleet file, and a log whose first batch says so, with this node as the only
// voter. It is the only place besides `skein dev` that makes a new log. The
// membership file is written last: whatever fails before leaves a directory
// that belongs to no fleet, and InitFleet can be called again.
func InitFleet(ctx context.Context, o InitOptions) (InitResult, error) {
	return initFleet(ctx, o, event.Level)
}

// initFleet founds a fleet that uses event types up to a level from the start.
func initFleet(ctx context.Context, o InitOptions, level uint64) (InitResult, error) {
	dir, err := datadir.Open(o.Data)
	if err != nil {
		return InitResult{}, err
	}
	defer dir.Close()
	if err := checkUnfounded(dir); err != nil {
		return InitResult{}, err
	}
	f, err := newFounding(dir, o, level)
	if err != nil {
		return InitResult{}, err
	}
	result, err := f.writeFiles(dir, o)
	if err != nil {
		return InitResult{}, err
	}
	if err := f.writeLog(ctx, dir, o.Name); err != nil {
		return InitResult{}, err
	}
	chain := ident.NewChain(result.FleetID, f.node.Public(), true, time.Now(), f.root, nil)
	return result, ident.NewMembership(o.Name, f.root.Public(), chain).Save(dir.Membership())
}

// checkUnfounded refuses a directory with a fleet in it, and clears what an
// interrupted InitFleet left. A log without membership but with other files
// of a node is not ours to delete.
func checkUnfounded(dir *datadir.Dir) error {
	if _, err := os.Stat(dir.Membership()); err == nil {
		return fmt.Errorf("%w: %s is of a member; use another --data, or run `skein leave` first", ErrMember, dir.Path())
	}
	leftovers := []string{dir.RootKey(), dir.AdminKey(), dir.AdminIdentity(), dir.FleetFile(), dir.GossipKeys(), dir.Log(), dir.Raft()}
	if _, err := os.Stat(dir.RootKey()); err != nil {
		for _, path := range []string{dir.Log(), dir.Raft()} {
			if _, err := os.Stat(path); err == nil {
				return fmt.Errorf("%s holds a log but no membership; move it away, or use another --data", dir.Path())
			}
		}
	}
	for _, path := range leftovers {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("clear what an interrupted `skein fleet init` left: %w", err)
		}
	}
	return nil
}

func newFounding(dir *datadir.Dir, o InitOptions, level uint64) (f founding, err error) {
	f.level = level
	f.nodeName, f.history, f.store = o.NodeName, newHistory(), raftlog.Kind(o.Store)
	if f.store == "" {
		f.store = raftlog.Bolt
	}
	if f.nodeName == "" {
		f.nodeName = config.Default().NodeName()
	}
	if f.node, err = ident.LoadOrCreateKey(dir.NodeKey()); err != nil {
		return f, err
	}
	for _, key := range []*ident.Key{&f.root, &f.enrolment, &f.admin} {
		if *key, err = ident.NewKey(); err != nil {
			return f, err
		}
	}
	return f, f.genesis(o.Name).Validate()
}

// writeFiles saves keys, fleet file and gossip keys.
func (f founding) writeFiles(dir *datadir.Dir, o InitOptions) (InitResult, error) {
	fleetFile := ident.NewFleetFile(o.Name, f.root.Public(), f.enrolment)
	path := o.FleetFileOut
	if path == "" {
		path = dir.FleetFile()
	}
	if _, err := os.Lstat(path); err == nil {
		return InitResult{}, fmt.Errorf("%s exists and may be of another fleet; move it away, or choose another --fleet-file", path)
	}
	ring, err := keyring.Open(dir.GossipKeys())
	if err != nil {
		return InitResult{}, err
	}
	err = errors.Join(
		f.root.Save(dir.RootKey()),
		f.admin.Save(dir.AdminKey()),
		client.IdentityFile{Person: FirstAdmin, Key: filepath.Base(dir.AdminKey())}.Save(dir.AdminIdentity()),
		fleetFile.Save(path),
		ring.Set(ring.NewEpoch(1)),
	)
	return InitResult{FleetID: fleetFile.Fleet, FleetFile: path, AdminFile: dir.AdminIdentity(), RootKeyFile: dir.RootKey()}, err
}

// genesis is the first batch of a fleet's log.
func (f founding) genesis(name string) event.Batch {
	id := f.node.ID()
	b := event.Batch{
		Actor: event.Actor{Kind: event.KindGenesis, ID: string(id)},
		Drafts: []event.Draft{
			event.FleetCreated{Name: name, Root: f.root.Public(), History: f.history}.Draft(),
			event.PersonAdded{PublicKey: f.admin.Public(), Scopes: []string{event.ScopeAdmin, event.ScopeOperator, event.ScopeViewer}}.Draft(FirstAdmin),
			event.EnrolmentAdded{PublicKey: f.enrolment.Public()}.Draft(),
			event.NodeAdmitted{PublicKey: f.node.Public(), Name: f.nodeName, By: event.ByGenesis}.Draft(),
			event.VoterEligible{Eligible: true}.Draft(id),
			event.VoterApproved{}.Draft(id),
			event.VoterAdded{}.Draft(id),
		},
	}
	if f.level > 1 { // 1 is where every fleet begins
		b.Drafts = append(b.Drafts, event.CeilingRaised{Level: f.level}.Draft())
	}
	return b
}

// alone is the link of a group with one voter: there is nobody to open to.
type alone struct{}

func (alone) Open(context.Context, ident.NodeID) (net.Conn, error) {
	return nil, errors.New("a fleet that is being founded has one voter")
}

// writeLog makes the log with a real one-voter group, so that founding takes
// the same path as every later decision.
func (f founding) writeLog(ctx context.Context, dir *datadir.Dir, name string) error {
	ctx, cancel := context.WithTimeout(ctx, genesisTimeout)
	defer cancel()
	if err := raftgroup.Bootstrap(dir.Raft(), f.node.ID(), f.store); err != nil {
		return err
	}
	store, err := replica.Open(dir.Log(), replica.Options{})
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	group, err := raftgroup.New(raftgroup.Config{ID: f.node.ID(), Dir: dir.Raft(), Store: f.store, Link: alone{}, Machine: store, Log: quiet})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- group.Run(runCtx) }()
	err = submitWhenLeading(ctx, group, f.genesis(name))
	stop()
	return errors.Join(err, <-ended, store.Close())
}

// submitWhenLeading waits for the group's only voter to lead.
func submitWhenLeading(ctx context.Context, group *raftgroup.Group, b event.Batch) error {
	for {
		changed := group.Changed()
		if _, leading := group.Leading(); leading {
			outcome, err := group.Submit(ctx, b)
			return errors.Join(err, outcome.Err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("found the fleet: the first voter did not become leader: %w", ctx.Err())
		}
	}
}

// newHistory names a new log: unlike any other, so that a cursor into one never
// passes for one into another.
func newHistory() string { return "h-" + strings.ToLower(rand.Text()[:20]) }
