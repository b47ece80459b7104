package rescue

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"skein/consensus/backup"
	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/history"
	"skein/consensus/raftgroup"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/keyring"
	"skein/node/config"
)

// RestoreOptions say how Restore goes about it.
type RestoreOptions struct {
	// File is the backup.
	File string
	// Data is the data directory, with the node's key and membership and without
	// a log.
	Data string
	// Mesh says how other nodes are found; Store how the Raft log is kept: "bolt",
	// "wal" or "" for the usual.
	Mesh  config.Mesh
	Store string
	// By is the admin who does it, nil if nobody says so. Why is what the log says
	// of the occasion.
	By  *Person
	Why string
	// RootKey is the file of the fleet's root key: with it the node gets a
	// membership, or one that may issue others. "" leaves it the one it has.
	RootKey string
	// LoseNewer goes on although a node that was reached has events which the
	// backup lacks. They are lost, and that node must be resynced.
	LoseNewer bool
	// Confirm is asked when everything is known and nothing was changed.
	Confirm func(RestorePlan) error
	Now     func() time.Time
	Log     *slog.Logger
}

// RestorePlan is what is about to be restored, for a person to agree to.
type RestorePlan struct {
	Plan
	Backup backup.Summary `json:"backup"`
}

// Restored says what became of it.
type Restored struct {
	Plan       RestorePlan  `json:"plan"`
	Cursor     event.Cursor `json:"cursor"`
	Recoveries uint64       `json:"recoveries"`
	MayIssue   bool         `json:"mayIssue"`
	Finished   bool         `json:"finished,omitempty"`
}

const (
	// stagingName is the folder in the data directory where a restore is made
	// ready; it holds wholeName when that is done and only renames are left.
	stagingName = "restoring"
	wholeName   = "whole"
	// bootsMargin is how many starts more than the backup knows of are supposed: a
	// node starts more often than it proposes.
	bootsMargin = 1000
	// bootRandomBits is how many bits of a boot number are no count: see node.
	bootRandomBits = 20
)

// Restore founds the fleet of a backup anew on this node: with the same members,
// robots and events, this node as the only voter, and a log with a new name. The
// backup is verified to its last byte before anything is asked or changed; the
// directory stays as it was until the log is ready beside it. What a crash
// interrupts, the same call finishes or begins anew.
func Restore(ctx context.Context, o RestoreOptions) (Restored, error) {
	s, err := openForRestore(o)
	if err != nil {
		return Restored{}, err
	}
	defer s.close()
	r := &restoring{stopped: s, o: o}
	if done, err := r.resume(); err != nil || done {
		return r.result, err
	}
	if err := r.consider(ctx); err != nil {
		return Restored{}, err
	}
	if err := r.build(ctx); err != nil {
		return Restored{}, errors.Join(err, os.RemoveAll(r.staging()))
	}
	if err := r.putInPlace(); err != nil {
		return Restored{}, fmt.Errorf("%w; run the same command again to finish", err)
	}
	return r.result, nil
}

// restoring is one restore.
type restoring struct {
	*stopped
	o      RestoreOptions
	root   *ident.Key
	result Restored
	// boots is the highest count of starts of this node that the backup knows of.
	boots uint64
	// epoch is the latest that anybody has heard of.
	epoch uint64
}

func (r *restoring) staging() string { return filepath.Join(r.dir.Path(), stagingName) }

// openForRestore opens a directory with a key and, unless the root key is given
// to make one, a membership.
func openForRestore(o RestoreOptions) (*stopped, error) {
	if _, err := os.Stat(o.File); err != nil {
		return nil, fmt.Errorf("open backup: %w", err)
	}
	s, err := openStopped(o.Data)
	if !errors.Is(err, ErrNoNode) || o.RootKey == "" {
		if errors.Is(err, ErrNoNode) {
			err = fmt.Errorf("%w; a backup has no keys: node.key and membership.json (or --root-key) of a member must be put back first", err)
		}
		return s, err
	}
	dir, key, keyErr := openKeyed(o.Data)
	if keyErr != nil {
		return nil, fmt.Errorf("%w; a backup has no keys: node.key of a member must be put back first", keyErr)
	}
	return &stopped{dir: dir, key: key}, nil
}

// resume finishes a restore that was interrupted between its renames, or clears
// one that was interrupted before.
func (r *restoring) resume() (done bool, err error) {
	if _, err := os.Stat(r.staging()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if _, err := os.Stat(filepath.Join(r.staging(), wholeName)); err != nil {
		return false, os.RemoveAll(r.staging())
	}
	if err := r.putInPlace(); err != nil {
		return false, err
	}
	r.result.Finished = true
	return true, r.describe()
}

// describe reads what was restored from where it is.
func (r *restoring) describe() error {
	store, err := replica.Open(r.dir.Log(), replica.Options{Log: r.o.Log})
	if err != nil {
		return err
	}
	defer store.Close()
	p := &r.result.Plan
	p.Node = r.key.ID()
	store.ViewAt(func(s *fleet.State, at event.Cursor) {
		err = p.lookUp(s)
		r.result.Cursor, r.result.Recoveries = at, s.Recoveries()
	})
	if len(r.member.Chain) > 0 {
		r.result.MayIssue = r.member.Chain[0].MayIssue
	}
	return err
}

// consider verifies the backup, asks everybody, and asks the person.
func (r *restoring) consider(ctx context.Context) error {
	if err := checkReason(r.reason()); err != nil {
		return err
	}
	for _, path := range []string{r.dir.Log(), r.dir.Raft()} {
		held, err := present(path)
		if err != nil {
			return err
		}
		if held {
			return refusal("%s holds a log already; a node that starts with it needs no backup. If it does not start, run `skein resync` first: it says whether anything can be kept, and `skein resync --alone` moves aside what cannot; or use another --data", path)
		}
	}
	sum, state, err := r.readBackup()
	if err != nil {
		return err
	}
	p := &r.result.Plan
	p.Backup, p.Node = sum, r.key.ID()
	if err := r.trust(sum); err != nil {
		return err
	}
	if err := p.lookUp(state); err != nil {
		return err
	}
	if r.o.By != nil {
		if err := r.o.By.may(state); err != nil {
			return err
		}
	}
	a, err := r.newAsker(r.o.Mesh, r.o.Log)
	if err != nil {
		return err
	}
	defer a.close()
	end := event.Cursor{History: sum.History, Seq: sum.End.Seq, Hash: sum.End.Hash}
	if err := p.survey(ctx, a, state, end); err != nil {
		return err
	}
	if err := p.checkAlive(state.Recoveries()); err != nil {
		return err
	}
	if err := p.checkNewer(state.Recoveries(), r.o.LoseNewer); err != nil {
		return err
	}
	if r.epoch, err = r.heard(); err != nil {
		return err
	}
	for _, peer := range p.Reached {
		r.epoch = max(r.epoch, peer.Standing.Recoveries)
	}
	return r.o.Confirm(*p)
}

func (r *restoring) reason() string { return reason("restore from a backup", r.o.By, r.o.Why) }

// trust checks that the backup is of the fleet that this node belongs to, or is
// to belong to.
func (r *restoring) trust(sum backup.Summary) error {
	if r.o.RootKey != "" {
		key, err := loadRoot(r.o.RootKey, sum.Root)
		if err != nil {
			return err
		}
		r.root = &key
	}
	if len(r.member.Chain) == 0 { // there is no membership: the root key makes one
		chain := ident.NewChain(sum.Fleet, r.key.Public(), true, r.o.Now(), *r.root, nil)
		r.member = ident.NewMembership(sum.FleetName, sum.Root, chain)
		return nil
	}
	if !ed25519.PublicKey(r.member.Root).Equal(sum.Root) {
		return refusal("the backup is of fleet %s (%s), this node belongs to %s (%s); use the right file, or the right --data",
			sum.FleetName, sum.Fleet, r.member.FleetName, r.member.Fleet())
	}
	return nil
}

// readBackup verifies the whole file and gives the state at its end. It notes how
// often this node had started.
func (r *restoring) readBackup() (backup.Summary, *fleet.State, error) {
	f, err := os.Open(r.o.File)
	if err != nil {
		return backup.Summary{}, nil, fmt.Errorf("open backup: %w", err)
	}
	defer f.Close()
	state := fleet.New()
	sum, err := backup.Read(f, backup.Visitor{
		State: func(s *fleet.State, _ history.Position) error { state = s.Clone(); return nil },
		Record: func(rec history.Record, _ int64) error {
			for _, e := range rec.Events {
				if e.Producer.Node == r.key.ID() {
					r.boots = max(r.boots, e.Producer.Boot>>bootRandomBits)
				}
				if err := state.Apply(e); err != nil {
					return err
				}
			}
			return nil
		},
	})
	if err != nil {
		return sum, nil, fmt.Errorf("%s: %w", r.o.File, err)
	}
	return sum, state, nil
}

// checkNewer refuses to give up events that somebody there still has.
func (p *Plan) checkNewer(recoveries uint64, lose bool) error {
	for _, peer := range p.Reached {
		s := peer.Standing
		switch {
		case lose:
		case s.Recoveries > recoveries, s.Recoveries == recoveries && s.Cursor.History != "" && s.Cursor.History != p.Cursor.History:
			return refusal("%s is of a fleet that was recovered since the backup was made, and has event %d of log %s: stop it and run `skein recover-quorum` there, which loses nothing; or use --lose-newer, and `skein resync` on it afterwards",
				peer.label(), s.Cursor.Seq, s.Cursor.History)
		case s.Recoveries == recoveries && s.Cursor.Seq > p.Cursor.Seq:
			return refusal("%s has event %d and the backup ends with %d: stop it and run `skein recover-quorum` there, which loses nothing; or use --lose-newer, and `skein resync` on it afterwards",
				peer.label(), s.Cursor.Seq, p.Cursor.Seq)
		}
	}
	return nil
}

// build makes the log and the Raft log ready in the staging folder.
func (r *restoring) build(ctx context.Context) error {
	if err := os.Mkdir(r.staging(), 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	logDir, raftDir := filepath.Join(r.staging(), "log"), filepath.Join(r.staging(), "raft")
	store, err := replica.Open(logDir, replica.Options{Log: r.o.Log})
	if err != nil {
		return err
	}
	err = r.fill(ctx, store)
	index, term := store.Applied()
	store.View(func(s *fleet.State) { r.result.Recoveries = s.Recoveries() })
	r.result.Cursor = store.Cursor()
	if err = errors.Join(err, store.Close()); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if _, err := raftgroup.Recover(raftDir, r.key.ID(), storeOf(r.o.Store), index, term); err != nil {
		return err
	}
	if r.result.MayIssue, err = r.certify(r.root, r.o.Now()); err != nil {
		return err
	}
	if err := r.member.Save(r.dir.Membership()); err != nil {
		return err
	}
	if err := r.keepBoots(); err != nil {
		return err
	}
	if err := r.makeGossipKeys(); err != nil {
		return err
	}
	return errors.Join(ident.ReplaceDurably(filepath.Join(r.staging(), wholeName), nil), syncDir(r.dir.Path()))
}

// fill applies the backup to an empty replica and ends its log.
func (r *restoring) fill(ctx context.Context, store *replica.Replica) error {
	f, err := os.Open(r.o.File)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, err := backup.Read(f, backup.Visitor{
		State: func(s *fleet.State, at history.Position) error {
			// Which entry of a Raft log it was is not known, and does not matter: the
			// records that follow are all behind it.
			encoded, err := replica.EncodeSnapshot(s, at, 1, 1)
			if err != nil {
				return err
			}
			return store.Restore(strings.NewReader(string(encoded)))
		},
		Record: func(rec history.Record, _ int64) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return store.ApplyRecord(rec)
		},
	})
	if err != nil {
		return err
	}
	if sum.End != r.result.Plan.Backup.End {
		return errors.New("the backup is not the file any more that was verified")
	}
	return r.outrank(store)
}

// outrank ends the log under a new name, as often as it takes to be of a later
// epoch than any that was heard of: nodes follow the latest.
func (r *restoring) outrank(store *replica.Replica) error {
	for range maxEpochs {
		name := "h-" + strings.ToLower(rand.Text()[:20])
		if _, err := store.Recover(recovery(r.key.ID(), name, store.Cursor(), r.reason()), r.o.Now()); err != nil {
			return err
		}
		recoveries := uint64(0)
		store.View(func(s *fleet.State) { recoveries = s.Recoveries() })
		if recoveries > r.epoch {
			return nil
		}
	}
	return fmt.Errorf("the fleet was recovered %d times, more than %d after the backup; use a newer backup", r.epoch, maxEpochs)
}

// maxEpochs bounds by how many recoveries a backup may be older than its fleet.
const maxEpochs = 64

// keepBoots makes the next start of this node a later one than any that the
// fleet has heard of: proposals of an earlier one would be taken for repeated.
func (r *restoring) keepBoots() error {
	text, err := os.ReadFile(r.dir.Boots())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if count, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && count > r.boots {
		return nil
	}
	return ident.ReplaceDurably(r.dir.Boots(), []byte(strconv.FormatUint(r.boots+bootsMargin, 10)+"\n"))
}

// makeGossipKeys makes keys where there are none, for without any the node does
// not start. They are of the first epoch, so whatever the others have is newer;
// the leader makes new ones for all after a recovery.
func (r *restoring) makeGossipKeys() error {
	ring, err := keyring.Open(r.dir.GossipKeys())
	if err != nil || ring.Current().Epoch > 0 {
		return err
	}
	return ring.Set(ring.NewEpoch(1))
}

// putInPlace moves what is ready to where the node looks for it. The log goes
// first: a node with that and no Raft log refuses to start, one with a Raft log
// alone would believe that it lost its copy.
func (r *restoring) putInPlace() error {
	for _, to := range []string{r.dir.Log(), r.dir.Raft()} {
		from := filepath.Join(r.staging(), filepath.Base(to))
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue // it is there already
		}
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty folder at most
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		if err := syncDir(r.dir.Path()); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(r.staging()); err != nil {
		return err
	}
	return syncDir(r.dir.Path())
}
