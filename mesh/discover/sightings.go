package discover

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"skein/mesh/ident"
)

const (
	// maxSightings bounds the nodes remembered; who was heard longest ago goes.
	maxSightings = 1024
	// tellAgain is the least time between two reports of an unchanged node.
	tellAgain = time.Second
	// knownFor is how long a node is listed as known when we ask, so that it
	// need not answer: half of what its records are good for (RFC 6762
	// section 7.1).
	knownFor = serviceTTLSeconds * time.Second / 2
)

// sighting is one node as it was heard last. On a network with several
// interfaces it is heard on each, with that one's addresses.
type sighting struct {
	node  ident.Endpoint
	addrs map[int][]netip.Addr // by interface index
	heard time.Time
	told  time.Time
}

// sightings are the nodes heard of this fleet.
type sightings map[ident.NodeID]*sighting

// note takes an announcement heard on an interface and returns all that is now
// known of the node, and whether to tell.
func (ss sightings) note(e ident.Endpoint, ifIndex int, now time.Time) (ident.Endpoint, bool) {
	s := ss[e.ID]
	if s == nil {
		ss.makeRoom()
		s = &sighting{addrs: make(map[int][]netip.Addr, 1)}
		ss[e.ID] = s
	}
	s.heard = now
	s.addrs[ifIndex] = e.Addrs
	e.Addrs = s.merged()
	changed := !e.Equal(s.node)
	s.node = e
	if !changed && now.Sub(s.told) < tellAgain {
		return e, false
	}
	s.told = now
	e.Addrs = slices.Clone(e.Addrs)
	return e, true
}

// merged lists the addresses of all interfaces, each once.
func (s *sighting) merged() []netip.Addr {
	var all []netip.Addr
	for _, index := range slices.Sorted(maps.Keys(s.addrs)) {
		for _, a := range s.addrs[index] {
			if !slices.Contains(all, a) && len(all) < ident.MaxAddrs {
				all = append(all, a)
			}
		}
	}
	return all
}

func (ss sightings) makeRoom() {
	if len(ss) < maxSightings {
		return
	}
	oldest := slices.MinFunc(slices.Collect(maps.Values(ss)), func(a, b *sighting) int { return a.heard.Compare(b.heard) })
	delete(ss, oldest.node.ID)
}

// dropInterface forgets what was heard on an interface that is gone.
func (ss sightings) dropInterface(index int) {
	for id, s := range ss {
		delete(s.addrs, index)
		if len(s.addrs) == 0 {
			delete(ss, id)
		}
	}
}

// known lists the nodes that need not answer a question on an interface, heard
// last first, as many as fit.
func (ss sightings) known(ifIndex int, now time.Time) []ident.NodeID {
	recent := slices.DeleteFunc(slices.Collect(maps.Values(ss)), func(s *sighting) bool {
		return now.Sub(s.heard) > knownFor || s.addrs[ifIndex] == nil
	})
	slices.SortFunc(recent, func(a, b *sighting) int {
		return cmp.Or(b.heard.Compare(a.heard), cmp.Compare(a.node.ID, b.node.ID))
	})
	ids := make([]ident.NodeID, 0, maxKnown)
	for _, s := range recent[:min(len(recent), maxKnown)] {
		ids = append(ids, s.node.ID)
	}
	return ids
}
