package skeinlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"skein/consensus/event"
	"skein/consensus/propose"
	"skein/consensus/replica"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/scripts/bench/log/load"
)

// MaxClients is how many client nodes the fleet knows.
const MaxClients = 16

// Client is a node that does not vote and keeps no copy of the log: it takes
// proposals to the leader over a link of its own.
type Client struct {
	host     *link.Host
	proposer *propose.Proposer
	drafts   []event.Draft
	n        atomic.Uint64
	voters   [Voters]ident.NodeID
	// leads is the index of the voter that is taken for the leader.
	leads atomic.Int64
	// fixed: the leader is known and does not change.
	fixed bool
}

// NewClient starts client i of a fleet whose voters listen at ports. leader is
// the index of the voter that leads; -1 lets the client look for it.
func NewClient(i int, ports [][2]int, leader int) (*Client, error) {
	if i >= MaxClients {
		return nil, fmt.Errorf("client %d is one too many", i)
	}
	h, err := host(firstClient+i, 0)
	if err != nil {
		return nil, err
	}
	c := &Client{host: h, fixed: leader >= 0, drafts: drafts(fmt.Sprintf("client %d", i))}
	for v := range Voters {
		h.Know(endpoint(v, ports[v][0]))
		c.voters[v] = id(v)
	}
	c.n.Store(uint64(time.Now().UnixMicro())) // drafts differ from those of an earlier client too
	c.leads.Store(int64(max(leader, 0)))
	c.proposer = propose.New(propose.Config{
		Self: id(firstClient + i), Boot: uint64(time.Now().UnixNano()), Group: c, Replica: noCopy{}, Log: silent(),
		Verify: func(string) (event.Actor, error) { return event.Actor{}, errors.New("this node never leads") },
		Open:   streams{h, propose.Protocol}.Open,
	})
	return c, nil
}

// Append implements load.Appender: one proposal of one event.
func (c *Client) Append(ctx context.Context) error {
	_, err := c.AppendAt(ctx)
	return err
}

// AppendAt is Append that says which event it became.
func (c *Client) AppendAt(ctx context.Context) (uint64, error) {
	r, err := c.proposer.Propose(ctx, c.draft(), propose.Authority{Token: token})
	return r.First, err
}

// draft is the next event to propose.
func (c *Client) draft() []event.Draft {
	n := c.n.Add(1)
	return []event.Draft{number(c.drafts[n%Robots], n)}
}

// Pipeline implements load.Pipeliner. Answers are waited for in the order of
// proposals, which is that of the leader.
func (c *Client) Pipeline(ctx context.Context, window int, done func(int, time.Duration, error)) {
	type sent struct {
		proposal *propose.Pending
		at       time.Time
	}
	all := context.WithoutCancel(ctx)
	underWay := make(chan sent, window-1) // one more is being waited for
	go func() {
		defer close(underWay)
		for ctx.Err() == nil {
			at := time.Now()
			proposal, err := c.proposer.Start(all, c.draft(), propose.Authority{Token: token})
			if err != nil {
				done(1, time.Since(at), err)
				load.Pause(ctx)
				continue
			}
			underWay <- sent{proposal, at}
		}
	}()
	for s := range underWay {
		_, err := s.proposal.Wait(all)
		done(1, time.Since(s.at), err)
	}
}

// Close ends the client.
func (c *Client) Close() error {
	c.proposer.Close()
	return c.host.Close()
}

// Offer implements propose.Group.
func (c *Client) Offer(event.Batch, func(replica.Outcome, error)) error {
	return noVoter()
}

func noVoter() *event.Fault {
	return event.Refuse(event.CodeNoLeader, "", "ask a voter", "this node is no voter")
}

// Leader implements propose.Group. A client that looks for the leader asks one
// voter after another; who does not lead says who does.
func (c *Client) Leader() (ident.NodeID, bool) {
	at := c.leads.Load()
	if !c.fixed {
		at = c.leads.Add(1)
	}
	return c.voters[at%Voters], true
}

// Accepts implements propose.Group.
func (c *Client) Accepts() error { return noVoter() }

// noCopy is the copy of the log of a node that keeps none. It is always far
// enough, so that nothing waits for it.
type noCopy struct{}

// Wait implements propose.Replica.
func (noCopy) Wait(context.Context, uint64) error { return nil }

// Cursor implements propose.Replica.
func (noCopy) Cursor() event.Cursor { return event.Cursor{Seq: math.MaxUint64} }
