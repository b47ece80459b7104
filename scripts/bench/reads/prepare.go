package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/datadir"
)

// perEntry is how many batches an entry of the log has.
const perEntry = 256

// prepare founds a fleet in data and decides events there.
func prepare(data string, events int) (*node, error) {
	n := &node{skein: os.Getenv("SKEIN_BIN"), data: data}
	if n.skein == "" {
		return nil, fmt.Errorf("SKEIN_BIN names no program; run `make bench`")
	}
	if out, err := exec.Command(n.skein, "fleet", "init", "bench", "--data", data, "--node-name", "dock").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("found a fleet: %w: %s", err, out)
	}
	key, err := ident.LoadKey(filepath.Join(data, "node.key"))
	if err != nil {
		return nil, err
	}
	dir, err := datadir.Open(data)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	store, err := replica.Open(dir.Log(), replica.Options{})
	if err != nil {
		return nil, err
	}
	l := &loader{store: store, leader: event.Actor{Kind: event.KindLeader, ID: string(key.ID())}, now: time.Now().Add(-30 * 24 * time.Hour).UTC()}
	l.index, l.term = store.Applied()
	began := time.Now()
	err = l.load(events)
	n.robots, n.robot, n.name, n.last = l.ids, string(l.ids[robots/2]), name(robots/2), store.Cursor().Seq
	n.from, n.until = l.now.Add(-48*time.Hour), l.now.Add(-47*time.Hour)
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "%d events of %d robots decided in %s\n", n.last, robots, time.Since(began).Round(time.Second))
	_, err = raftgroup.Recover(dir.Raft(), key.ID(), raftlog.Bolt, l.index, l.term)
	return n, err
}

// loader decides events on one replica, as its Raft log would.
type loader struct {
	store       *replica.Replica
	index, term uint64
	leader      event.Actor
	now         time.Time
	ids         []ident.NodeID
	waiting     []event.Batch
	err         error
}

// load makes the robots and then events about them, spread over four weeks.
func (l *loader) load(events int) error {
	l.people()
	step := 28 * 24 * time.Hour / time.Duration(events/perEntry+1)
	admin := event.Actor{Kind: event.KindPerson, ID: "admin", Scopes: []string{event.ScopeAdmin, event.ScopeOperator}}
	for i := 0; l.err == nil && l.store.Cursor().Seq+uint64(len(l.waiting)) < uint64(events); i++ {
		id := l.ids[(i*7919)%robots]
		round := i / robots
		switch {
		case round%20 == 13:
			l.propose(l.leader, event.RobotOffline{LastHeardSeconds: 40}.Draft(id))
		case round%20 == 14:
			l.propose(l.leader, event.RobotOnline{}.Draft(id))
		case round%5 == 1:
			l.propose(itself(id), event.RobotDeploymentStarted{Deployment: fmt.Sprint("d", round), Version: "1." + fmt.Sprint(round), Kind: event.DeployFull}.Draft(id))
		case round%5 == 2:
			l.propose(itself(id), event.RobotDeploymentCompleted{Deployment: fmt.Sprint("d", round-1), Version: "1." + fmt.Sprint(round-1)}.Draft(id))
		default:
			l.propose(admin, event.RobotLabelsChanged{Set: map[string]string{"task": fmt.Sprint("carry box ", i)}}.Draft(id))
		}
		if len(l.waiting) == perEntry {
			l.now = l.now.Add(step)
			l.decide()
		}
	}
	l.decide()
	return l.err
}

// people makes the robots, puts them into groups and makes them ready.
func (l *loader) people() {
	var ceiling uint64
	l.store.View(func(s *fleet.State) { ceiling = s.Ceiling() })
	if ceiling < event.Level {
		l.propose(l.leader, event.CeilingRaised{Level: event.Level}.Draft())
	}
	admin := event.Actor{Kind: event.KindPerson, ID: "admin", Scopes: []string{event.ScopeAdmin, event.ScopeOperator}}
	for i := range groups {
		l.propose(admin, event.GroupCreated{Description: "robots of a hall"}.Draft(fmt.Sprint("hall-", i)))
	}
	for i := range robots {
		seed := sha256.Sum256(fmt.Appendf(nil, "robot %d", i))
		key, err := ident.KeyFromSeed(seed[:])
		if err != nil {
			l.err = err
			return
		}
		id := key.ID()
		l.ids = append(l.ids, id)
		name := name(i)
		l.propose(l.leader, event.NodeAdmitted{PublicKey: key.Public(), Name: name, By: event.ByEnrolment, Ref: l.enrolment()}.Draft())
		l.propose(itself(id), event.RobotRegistered{Name: name, Type: event.LeKiwi, Version: "1.0", Arch: "arm64", OS: "linux"}.Draft(id))
		l.propose(l.leader, event.RobotOnline{}.Draft(id))
		l.propose(itself(id), event.RobotProvisioned{}.Draft(id))
		l.propose(itself(id), event.RobotProvisioned{Version: "1.0"}.Draft(id))
		l.propose(admin, event.GroupRobotAdded{Robot: id}.Draft(fmt.Sprint("hall-", i%groups)))
		if len(l.waiting) > perEntry/2 {
			l.decide()
		}
	}
	l.decide()
}

// name is the i-th robot's.
func name(i int) string { return fmt.Sprintf("kiwi-%04d", i) }

func itself(id ident.NodeID) event.Actor { return event.Actor{Kind: event.KindNode, ID: string(id)} }

// enrolment is the key that is said to have let the robots in.
func (l *loader) enrolment() (ref string) {
	l.store.View(func(s *fleet.State) {
		for _, e := range s.Enrolments() {
			ref = string(e.ID)
		}
	})
	return ref
}

func (l *loader) propose(by event.Actor, drafts ...event.Draft) {
	l.waiting = append(l.waiting, event.Batch{Actor: by, Drafts: drafts})
}

// decide applies what waits as one entry. Nothing of it may be refused.
func (l *loader) decide() {
	if l.err != nil || len(l.waiting) == 0 {
		return
	}
	data, err := replica.EncodeEntry(replica.Entry{TimeMillis: l.now.UnixMilli(), Batches: l.waiting})
	if err != nil {
		l.err = err
		return
	}
	l.index++
	outcomes, err := l.store.ApplyEntry(l.index, l.term, data)
	l.err = err
	for i, o := range outcomes {
		if l.err == nil && o.Err != nil {
			l.err = fmt.Errorf("event after %d, %s: %w", o.First, l.waiting[i].Drafts[0].Type, o.Err)
		}
	}
	l.waiting = l.waiting[:0]
}
