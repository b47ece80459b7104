package presence

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"skein/mesh/ident"
)

const (
	uplinksMax  = 16
	openTimeout = 10 * time.Second
	// retryMin doubles up to retryMax while a neighbour cannot be reached. An
	// attempt costs about 2 KB, hence no more often than that at rest.
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
	// steadyAfter is how long an edge must have lived for the next attempt to be
	// quick again.
	steadyAfter = 10 * time.Second
)

// keepUplinks has one goroutine for each wanted uplink, until ctx ends.
func (s *Service) keepUplinks(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	stops := make(map[ident.NodeID]context.CancelFunc)
	for {
		s.mu.Lock()
		wanted := s.wanted
		s.mu.Unlock()
		for id, stop := range stops {
			if !slices.Contains(wanted, id) {
				stop()
				delete(stops, id)
			}
		}
		for _, id := range wanted {
			if stops[id] != nil {
				continue
			}
			linkCtx, stop := context.WithCancel(ctx)
			stops[id] = stop
			running.Go(func() { s.keepUplink(linkCtx, id) })
		}
		select {
		case <-s.relink:
		case <-ctx.Done():
			for _, stop := range stops {
				stop()
			}
			return
		}
	}
}

// keepUplink keeps one edge open until ctx ends.
func (s *Service) keepUplink(ctx context.Context, id ident.NodeID) {
	wait := retryMin
	for ctx.Err() == nil {
		lived, err := s.uplink(ctx, id)
		if lived >= steadyAfter {
			wait = retryMin
		}
		s.cfg.Log.Debug("presence uplink ended", "peer", id, "retryAfter", wait, "err", err)
		if !pause(ctx, wait/2+rand.N(wait/2+1)) {
			return
		}
		wait = min(2*wait, retryMax)
	}
}

// uplink opens an edge and runs it; lived is how long it was open.
func (s *Service) uplink(ctx context.Context, id ident.NodeID) (lived time.Duration, err error) {
	openCtx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	st, err := s.cfg.Open(openCtx, id)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = s.serve(ctx, st, false)
	return time.Since(began), err
}
