package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"skein/consensus/event"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/node/gateway/view"
	"skein/sim/trial"
)

// autopsy says of a fleet that has failed which acknowledged events are lost:
// nodes that refuse to start show nothing, but their disks do. It ends the
// voters and reads copies of what they keep. An event is lost when no majority of
// the voters has it, neither in its copy of the log nor in its Raft log.
func (h *house) autopsy(load *trial.Load) {
	h.t.Helper()
	load.Stop()
	var held [][]view.Event
	for _, r := range h.voters {
		r.Kill()
		log, err := onDisk(h.t, r.Data())
		if err != nil {
			h.t.Logf("autopsy: the disk of %s: %v", r.Name, err)
		}
		h.t.Logf("autopsy: %s has %d events on its disk", r.Name, len(log))
		held = append(held, log)
	}
	acks := load.Acks()
	lost := lostByMost(acks, held)
	h.t.Logf("autopsy: of %d acknowledged changes %d are lost", len(acks), len(lost))
	for _, err := range lost[:min(len(lost), 3)] {
		h.t.Errorf("autopsy: lost by a majority: %v", err)
	}
}

// lostByMost names the acknowledged changes that fewer than a majority of logs
// have where they were acknowledged to be. Each log begins with event 1.
func lostByMost(acks []trial.Ack, logs [][]view.Event) (lost []error) {
	for _, a := range acks {
		var faults []error
		for _, log := range logs {
			if err := trial.Lost([]trial.Ack{a}, a.First-1, log[min(a.First-1, uint64(len(log))):min(a.Last, uint64(len(log)))]); err != nil {
				faults = append(faults, err)
			}
		}
		if len(faults) > len(logs)/2 {
			lost = append(lost, faults[0])
		}
	}
	return lost
}

// onDisk reads the events that a stopped voter has on its disk: its copy of the
// log and, behind that, all of its Raft log, committed or not. It works on copies
// of the files. What can be read comes also with an error.
func onDisk(t testing.TB, data string) (events []view.Event, err error) {
	scratch := t.TempDir()
	for _, dir := range []string{"log", "raft"} {
		if err := os.CopyFS(filepath.Join(scratch, dir), os.DirFS(filepath.Join(data, dir))); err != nil {
			return nil, err
		}
	}
	key, err := ident.LoadKey(filepath.Join(data, "node.key"))
	if err != nil {
		return nil, err
	}
	copied, err := replica.Open(filepath.Join(scratch, "log"), replica.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	index, term := copied.Applied()
	tailErr := raftlog.Entries(filepath.Join(scratch, "raft"), key.ID(), index, func(i, t uint64, data []byte) error {
		if t < term {
			return nil // the log went on without it
		}
		_, err := copied.ApplyEntry(i, t, data)
		return err
	})
	for since := uint64(0); ; since = events[len(events)-1].Seq {
		page, err := copied.Events(context.Background(), since, replica.Filter{}, 1000)
		if err != nil || len(page) == 0 {
			return events, errors.Join(tailErr, err)
		}
		for _, e := range page {
			if e.Seq != uint64(len(events))+1 {
				return events, errors.Join(tailErr, fmt.Errorf("event %d stands where %d should", e.Seq, len(events)+1))
			}
			events = append(events, view.Event{Seq: e.Seq, Stream: e.Stream, Type: e.Type, Data: e.Data})
		}
	}
}

// The judge of the dead: an event counts as lost when two of three have not got
// it, and as held when two have.
func TestAutopsyCountsMajorities(t *testing.T) {
	t.Parallel()
	draft := func(value string) view.Draft {
		return event.RobotLabelsChanged{Set: map[string]string{"load-0": value}}.Draft(ident.IDOf(nil))
	}
	log := func(values ...string) (events []view.Event) {
		for i, v := range values {
			d := draft(v)
			events = append(events, view.Event{Seq: uint64(i) + 1, Stream: d.Stream, Type: d.Type, Data: d.Data})
		}
		return events
	}
	acks := []trial.Ack{{First: 1, Last: 1, Drafts: []view.Draft{draft("a")}}, {First: 2, Last: 2, Drafts: []view.Draft{draft("b")}}}
	for _, c := range []struct {
		name string
		logs [][]view.Event
		lost int
	}{
		{"all have all", [][]view.Event{log("a", "b"), log("a", "b"), log("a", "b", "c")}, 0},
		{"one lacks all", [][]view.Event{nil, log("a", "b"), log("a", "b")}, 0},
		{"two lack one", [][]view.Event{log("a"), log("a", "b"), log("a")}, 1},
		{"two have another", [][]view.Event{log("a", "x"), log("a", "b"), log("a", "y")}, 1},
		{"all lack all", [][]view.Event{nil, nil, nil}, 2},
	} {
		if lost := lostByMost(acks, c.logs); len(lost) != c.lost {
			t.Errorf("%s: %v, want %d lost", c.name, lost, c.lost)
		}
	}
}
