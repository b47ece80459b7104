package raftgroup

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skein/consensus/raftlog"
	"skein/mesh/ident"
)

// ErrStoreExists: Bootstrap found a log.
var ErrStoreExists = errors.New("there is a raft log already")

const (
	// keyCurrentTerm is raft's own name of the value.
	keyCurrentTerm = "CurrentTerm"
	// recoveredContent stands where a snapshot's content would be: the node holds
	// it already. The first leader takes a real one: see Group.lead.
	recoveredContent = "skein-raft recovered"
	// unknownTerms is added to a term when the old log cannot be read: it is far
	// above any that can be there.
	unknownTerms = 1 << 20
)

// alone is the configuration with id as the only voter.
func alone(id ident.NodeID) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}}
}

// Bootstrap makes the log of a new fleet in dir, with id as its only voter. It
// is called once in a fleet's life, on its founder; it refuses a directory that
// holds a log already (ErrStoreExists), and what New refuses.
func Bootstrap(dir string, id ident.NodeID, kind raftlog.Kind) (err error) {
	log, err := raftlog.Open(raftlog.Config{Dir: dir, ID: id, Kind: kind})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if !log.Empty() {
		return fmt.Errorf("%w in %s; run `skein fleet init` once, on the founder only: other nodes join", ErrStoreExists, dir)
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(id)
	conf.Logger = hclog.NewNullLogger()
	if err := raft.BootstrapCluster(conf, log, log, log.Snapshots(), nil, alone(id)); err != nil {
		return fmt.Errorf("make the fleet's raft log in %s: %w", dir, err)
	}
	return nil
}

// Recover makes the Raft log of a stopped node one that begins after entry index
// of term, which the node's copy of the log has reached, with id as its only
// voter. It is for a fleet that has lost its majority for good, and for a node
// that never voted. What dir held is not looked at, but for the term, and is
// moved beside it: moved is that place, see raftlog.Replace. It refuses a log that
// is another node's or in use. It may be interrupted and repeated.
func Recover(dir string, id ident.NodeID, kind raftlog.Kind, index, term uint64) (moved string, err error) {
	if index == 0 {
		return "", errors.New("raft log can only be recovered after an entry; this node holds none")
	}
	above, err := termAbove(dir, id, term)
	if err != nil {
		return "", err
	}
	next := dir + ".recovered"
	if err := os.RemoveAll(next); err != nil {
		return "", fmt.Errorf("recover raft log: %w", err)
	}
	if err := writeRecovered(raftlog.Config{Dir: next, ID: id, Kind: kind}, index, term, above); err != nil {
		return "", fmt.Errorf("recover raft log in %s: %w; nothing was changed", dir, err)
	}
	return raftlog.Replace(dir, next)
}

// termAbove is a term that the old log, if there is one, has not reached.
func termAbove(dir string, id ident.NodeID, term uint64) (uint64, error) {
	kind, err := raftlog.KindOf(dir)
	if err != nil {
		return term + unknownTerms, nil
	}
	if kind == "" {
		return term + 1, nil
	}
	old, err := raftlog.Open(raftlog.Config{Dir: dir, ID: id, Kind: kind})
	if errors.Is(err, raftlog.ErrBusy) || errors.Is(err, raftlog.ErrForeign) {
		return 0, err
	}
	if err != nil {
		return term + unknownTerms, nil
	}
	current, err := old.GetUint64([]byte(keyCurrentTerm))
	if err = errors.Join(err, old.Close()); err != nil {
		return term + unknownTerms, nil
	}
	return max(term, current) + 1, nil
}

// writeRecovered makes the log: a snapshot that says where it begins, and one
// entry with the configuration.
func writeRecovered(disk raftlog.Config, index, term, above uint64) (err error) {
	log, err := raftlog.Open(disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	only := alone(disk.ID)
	_, trans := raft.NewInmemTransport(raft.ServerAddress(disk.ID)) // it only spells addresses
	sink, err := log.Snapshots().Create(raft.SnapshotVersionMax, index, term, only, index, trans)
	if err != nil {
		return err
	}
	if _, err := sink.Write([]byte(recoveredContent)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	if err := log.SetUint64([]byte(keyCurrentTerm), above); err != nil {
		return err // of the write itself StoreLog tells: see SetUint64
	}
	return log.StoreLog(&raft.Log{Index: index + 1, Term: above, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(only)})
}

// unfinished reports whether the newest snapshot is the one of Recover, which
// holds nothing.
func unfinished(snapshots raft.SnapshotStore) bool {
	all, err := snapshots.List()
	return err == nil && len(all) > 0 && all[0].Size == int64(len(recoveredContent))
}
