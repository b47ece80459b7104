package skeinlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/consensus/follow"
	"skein/consensus/propose"
	"skein/consensus/raftgroup"
	"skein/consensus/raftlog"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/scripts/bench/log/proc"
)

// voter is the inside of a voter's process.
type voter struct {
	host     *link.Host
	replica  *replica.Replica
	group    *raftgroup.Group
	follow   *follow.Service
	proposer *propose.Proposer

	stop  context.CancelFunc
	ended chan error
}

// Tuned, after the store in a variant, asks for the timings that etcd's
// documentation suggests for a local network (heartbeat 50 ms, election 250 ms)
// instead of those that Skein ships with.
const Tuned = " tuned"

// StartVoter starts the voter of a spec, whose variant is the store.
func StartVoter(_ context.Context, s proc.Spec) (proc.Member, error) {
	name, tuned := strings.CutSuffix(s.Variant, Tuned)
	store := raftlog.Kind(name)
	var timings raftgroup.Timings
	if tuned {
		timings = raftgroup.Timings{Election: 250 * time.Millisecond, Lease: 240 * time.Millisecond, Beat: 50 * time.Millisecond}
	}
	raftDir := filepath.Join(s.Own(), "raft")
	if s.Index == 0 && !s.Again {
		if err := raftgroup.Bootstrap(raftDir, id(0), store); err != nil {
			return nil, err
		}
	}
	v := &voter{ended: make(chan error, 2)}
	var err error
	if v.host, err = host(s.Index, s.Ports[s.Index][0]); err != nil {
		return nil, err
	}
	for i := range Voters {
		v.host.Know(endpoint(i, s.Ports[i][0]))
	}
	if v.replica, err = replica.Open(filepath.Join(s.Own(), "log"), replica.Options{}); err != nil {
		return nil, errors.Join(err, v.host.Close())
	}
	v.group, err = raftgroup.New(raftgroup.Config{
		ID: id(s.Index), Dir: raftDir, Store: store, Link: streams{v.host, raftProtocol}, Machine: v.replica,
		Joining: !s.Again, Timings: timings, Log: silent(),
	})
	if err != nil {
		return nil, errors.Join(err, v.replica.Close(), v.host.Close())
	}
	v.assemble(s.Index)
	ctx, stop := context.WithCancel(context.Background())
	v.stop = stop
	go func() { v.ended <- v.group.Run(ctx) }()
	go func() { v.ended <- v.follow.Run(ctx) }()
	return v, nil
}

// assemble makes the parts that need the group, and answers on the link.
func (v *voter) assemble(index int) {
	v.follow = follow.New(follow.Config{
		Self: id(index), Link: streams{v.host, follow.Protocol}, Source: v.replica, Sink: v.replica,
		Standing: v.standing, StandingChanged: v.group.Changed, Log: silent(),
		Candidates: func() (all []follow.Candidate) {
			for i := range Voters {
				all = append(all, follow.Candidate{ID: id(i), Voter: true})
			}
			return all
		},
	})
	v.proposer = propose.New(propose.Config{
		Self: id(index), Boot: uint64(time.Now().UnixNano()), Group: v, Replica: v.replica, Verify: verify, Log: silent(),
		Open: streams{v.host, propose.Protocol}.Open,
	})
	for protocol, answer := range map[link.Protocol]func(context.Context, net.Conn, ident.NodeID){
		raftProtocol: v.group.Handle, follow.Protocol: v.follow.Handle, propose.Protocol: v.proposer.Handle,
	} {
		v.host.Handle(protocol, func(ctx context.Context, s *link.Stream) { answer(ctx, s, s.Remote()) })
	}
}

var scopes = []string{event.ScopeAdmin, event.ScopeOperator}

// verify knows one person's token. A node checks a signature here, and remembers
// the person.
func verify(t string) (event.Actor, error) {
	if t != token {
		return event.Actor{}, errors.New("not the token of this benchmark")
	}
	return event.Actor{Kind: event.KindPerson, ID: operator, Scopes: scopes}, nil
}

// Offer implements propose.Group.
func (v *voter) Offer(b event.Batch, done func(replica.Outcome, error)) error {
	return v.group.Offer(b, done)
}

// Leader implements propose.Group.
func (v *voter) Leader() (ident.NodeID, bool) {
	leader := v.group.Status().Leader
	return leader, leader != ""
}

// Accepts implements propose.Group.
func (v *voter) Accepts() error { return v.group.Accepts() }

func (v *voter) standing() follow.Standing {
	s := v.group.Status()
	out := follow.Standing{Fed: true, Leader: s.Leader, Term: s.Term, Index: s.Commit, Voters: s.Voters}
	if s.State == raftgroup.Leader && !s.Ready {
		out.Leader = ""
	}
	return out
}

// Obey implements proc.Member. "form" makes the fleet, on the founder;
// "leading" and "applied" tell.
func (v *voter) Obey(ctx context.Context, order string, _ json.RawMessage) (any, error) {
	select {
	case err := <-v.ended:
		return nil, fmt.Errorf("the voter has ended: %w", err)
	default:
	}
	switch order {
	case "form":
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return nil, v.form(ctx)
	case "leading":
		_, leading := v.group.Leading()
		return leading, nil
	case "applied":
		return v.replica.Cursor().Seq, nil
	}
	return nil, fmt.Errorf("voters know no order %q", order)
}

// form records the genesis and makes the other two vote.
func (v *voter) form(ctx context.Context) error {
	for {
		changed := v.group.Changed()
		if _, leading := v.group.Leading(); leading {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.New("the founder does not lead")
		}
	}
	for _, b := range genesis() {
		out, err := v.group.Submit(ctx, b)
		if err = errors.Join(err, out.Err); err != nil {
			return fmt.Errorf("found the fleet: %w", err)
		}
	}
	for i := 1; i < Voters; i++ {
		if err := v.group.AddVoter(ctx, id(i)); err != nil {
			return fmt.Errorf("add voter %d: %w", i, err)
		}
	}
	return nil
}

// Close implements proc.Member.
func (v *voter) Close() error {
	v.proposer.Close()
	v.stop()
	return errors.Join(<-v.ended, <-v.ended, v.replica.Close(), v.host.Close())
}
