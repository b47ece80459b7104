package member

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"skein/mesh/ident"
)

const (
	// rejoinsPerRound bounds the work of one round, and joinsAtOnce that of a
	// Join: a contact is a TCP connection and both sides' whole list.
	rejoinsPerRound = 3
	joinsAtOnce     = 3
	// rejoinLook is how often a node that misses nobody looks at Known again.
	rejoinLook = 5 * time.Second
	// catchUpEvery bounds exchanges made because packets show that lists differ.
	catchUpEvery = 2 * time.Second
	// strayExchanges is how many others a node asks that has moved. The address of
	// one may be that of this node now, if the two have changed places.
	strayExchanges = 3
	// rejoinFleet is the fleet size up to which RejoinMax holds. Above it waits
	// grow in proportion, so that a whole fleet looking for one robot that is
	// switched off stays at about one attempt each 1.5 s in all: a split heals
	// with the first contact that anyone makes.
	rejoinFleet = 20
)

// Join contacts nodes and exchanges lists with each that answers. It returns how
// many of them are members afterwards or answered; an error if none. Nodes that
// are alive members already count without being contacted, so calling it for
// every discovered node is cheap.
func (s *Service) Join(ctx context.Context, nodes []ident.Endpoint) (int, error) {
	var ok atomic.Int32
	var g errgroup.Group
	g.SetLimit(joinsAtOnce)
	failures := make([]error, len(nodes))
	for i, e := range nodes {
		if nameOf(e.ID) == s.table.self || e.GossipPort == 0 || s.cfg.Refused(e.ID) != nil {
			continue
		}
		g.Go(func() error {
			if s.table.alive(e.ID) {
				ok.Add(1)
			} else if failures[i] = s.contact(ctx, e); failures[i] == nil {
				ok.Add(1)
			}
			return nil
		})
	}
	g.Wait()
	n := int(ok.Load())
	if n > 0 || len(nodes) == 0 {
		return n, nil
	}
	for i, err := range failures {
		if err != nil {
			return 0, fmt.Errorf("none of %d known nodes answered; the first, %s: %w", len(nodes), nodes[i].ID.Short(), err)
		}
	}
	return 0, fmt.Errorf("none of %d known nodes can be asked: each is this node, refused, or without a gossip port", len(nodes))
}

// contact tries a node's addresses in turn until one answers.
func (s *Service) contact(ctx context.Context, e ident.Endpoint) error {
	err := fmt.Errorf("%w for %s", errNowhere, e.ID.Short())
	for _, a := range nearFirst(e.Addrs, *s.net.home.Load()) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err = s.list.Join([]string{netip.AddrPortFrom(a, e.GossipPort).String()}); err == nil {
			return nil
		}
	}
	return err
}

// rejoin looks for ever for known nodes that are not in the list, so that a
// fleet that was split grows together again without help.
func (s *Service) rejoin(ctx context.Context) {
	failed := 0
	for {
		missing := s.missing()
		wait := rejoinLook
		if len(missing) > 0 {
			rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
			s.Join(ctx, missing[:min(len(missing), rejoinsPerRound)])
			wait = backOff(failed, len(s.table.others()), s.cfg.Timings, rand.Float64())
			failed++
		} else {
			failed = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.table.lost:
			failed = 0
		case <-s.wake:
			failed = 0
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// catchUp exchanges lists when packets show that somebody's is wrong: a node
// that we do not know expects an answer from us, or one that we take for dead
// speaks. Gossip misses a node now and then, and after a split two nodes may see
// each other differently; the regular exchange of lists, which would mend both,
// is rare because it is the dearest part of the traffic. A node that has moved
// has missed what was sent to its old address: when two change places, what each
// says of that reaches only itself.
func (s *Service) catchUp(ctx context.Context) {
	for {
		with := make([]ident.Endpoint, 1)
		select {
		case with[0] = <-s.table.behind:
		case <-s.stray:
			with = make([]ident.Endpoint, strayExchanges)
		case <-ctx.Done():
			return
		}
		others := s.table.others()
		rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		for i, e := range with {
			if e.ID == "" && i < len(others) {
				e = others[i]
			}
			if e.ID == "" || s.cfg.Refused(e.ID) != nil {
				continue
			}
			if err := s.contact(ctx, e); err != nil {
				s.log.Debug("cannot exchange lists", "with", e.ID, "error", err)
			}
		}
		if !pass(ctx, nil, catchUpEvery) {
			return
		}
	}
}

// missing are the known nodes that are welcome and not alive members.
func (s *Service) missing() []ident.Endpoint {
	return slices.DeleteFunc(slices.Clone(s.cfg.Known()), func(e ident.Endpoint) bool {
		return nameOf(e.ID) == s.table.self || e.GossipPort == 0 || s.table.alive(e.ID) || s.cfg.Refused(e.ID) != nil
	})
}

// backOff is how long to wait after the given number of rounds without success
// in a row: RejoinMin, doubling up to RejoinMax (more in large fleets, see
// rejoinFleet), each shortened by up to half by jitter in [0,1).
func backOff(failed, alive int, t Timings, jitter float64) time.Duration {
	longest := t.RejoinMax * time.Duration(max(alive, rejoinFleet)) / rejoinFleet
	wait := longest
	if failed < 16 {
		wait = min(t.RejoinMin<<failed, longest)
	}
	return wait - time.Duration(jitter*float64(wait)/2)
}
