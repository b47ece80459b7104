package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/join"
	"skein/mesh/keyring"
	"skein/mesh/link"
	"skein/node/config"
)

// ErrNoFleet: the node belongs to no fleet and has nothing to join one with.
var ErrNoFleet = errors.New("this robot belongs to no fleet")

const (
	// askAgain is the wait between rounds of asking all members that were found.
	askAgain = 500 * time.Millisecond
	// sayAgain is how often the log says why the node is still outside.
	sayAgain = 15 * time.Second
	// maxFound bounds the members that a joining node remembers to ask.
	maxFound = 64
)

// credential is the right to join that this node has on its disk.
func (s *self) credential() (join.Credential, error) {
	path, required := s.cfg.FleetFilePath()
	file, err := ident.LoadFleetFile(path)
	switch {
	case err == nil:
		return join.Credential{FleetFile: &file}, nil
	case errors.Is(err, fs.ErrNotExist) && required:
		return join.Credential{}, fmt.Errorf("%w; copy it from the robot where `skein fleet init` ran, or correct `fleet_file`", err)
	case errors.Is(err, fs.ErrNotExist):
		return join.Credential{}, fmt.Errorf("%w: put a fleet file at %s, run `skein join TOKEN`, or found a fleet with `skein fleet init NAME`", ErrNoFleet, path)
	}
	return join.Credential{}, err
}

// joinFleet finds members and asks them until one grants admission. Refusals
// that cannot change end it. A patient node (one that runs as a service) asks
// again when its clock is off, because that may be set meanwhile.
func (s *self) joinFleet(ctx context.Context, host *link.Host, c join.Credential, patient bool) error {
	found := make(chan ident.Endpoint, maxFound)
	if !s.cfg.Mesh.MDNS {
		return s.askAll(ctx, host, c, patient, found)
	}
	finder, err := discover.New(s.discovery(ident.FleetIDOf(c.Root()), func() ident.Endpoint { return ident.Endpoint{} }, func(e ident.Endpoint) {
		select {
		case found <- e:
		default: // as many as anyone needs are waiting
		}
	}))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- finder.Run(ctx) }()
	err = s.askAll(ctx, host, c, patient, found)
	stop()
	return errors.Join(err, <-ended)
}

// askAll asks each member that is found, again and again.
func (s *self) askAll(ctx context.Context, host *link.Host, c join.Credential, patient bool, found <-chan ident.Endpoint) error {
	members := map[ident.NodeID]ident.Endpoint{}
	for _, e := range s.book.All() {
		members[e.ID] = e
	}
	applicant := join.Applicant{Credential: c, Key: s.key, Name: s.cfg.NodeName(), Now: s.now}
	why := errors.New("no robot of the fleet was found on the network yet; if there are some, check that the fleet file is of the fleet they are in")
	say := time.NewTicker(sayAgain)
	defer say.Stop()
	for {
		var again <-chan time.Time
		for _, e := range s.identifyPeers(ctx, host, members) {
			members[e.ID] = e
		}
		if len(s.cfg.Mesh.Peers) > 0 {
			again = time.After(askAgain)
		}
		for _, e := range members {
			grant, err := join.Ask(ctx, host, e, applicant)
			if err == nil {
				return s.admitted(grant, c)
			}
			why = err
			if final(err, patient) {
				return err
			}
			again = time.After(askAgain)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not admitted: %w", why)
		case <-say.C:
			s.log.Warn("still waiting to be admitted to the fleet", "fleet", ident.FleetIDOf(c.Root()), "reason", why)
		case e := <-found:
			if len(members) < maxFound {
				members[e.ID] = e
			}
		case <-again:
		}
	}
}

// identifyPeers asks who listens at the configured addresses, except where one
// of members does.
func (s *self) identifyPeers(ctx context.Context, host *link.Host, members map[ident.NodeID]ident.Endpoint) (found []ident.Endpoint) {
	known := map[netip.AddrPort]bool{}
	for _, e := range members {
		for _, a := range e.Addrs {
			known[netip.AddrPortFrom(a, e.LinkPort)] = true
		}
	}
	for _, peer := range s.cfg.Mesh.Peers {
		tcp, err := net.ResolveTCPAddr("tcp", peer)
		if err != nil {
			s.log.Warn("configured peer cannot be resolved, will be tried again", "peer", peer, "err", err)
			continue
		}
		at := netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
		if known[at] {
			continue
		}
		e, err := host.Identify(ctx, at)
		if err != nil {
			s.log.Debug("configured peer does not answer", "peer", peer, "err", err)
			continue
		}
		found = append(found, e)
	}
	return found
}

// final: asking again, or somebody else, cannot help.
func final(err error, patient bool) bool {
	refusal, ok := errors.AsType[*join.Refusal](err)
	switch {
	case !ok || refusal.Retry() || refusal.Code == join.CodeWrongFleet:
		return false
	case refusal.Code == join.CodeClockSkew:
		return !patient
	}
	return true
}

// admitted keeps what a grant gives. The membership file comes last.
func (s *self) admitted(g join.Grant, c join.Credential) error {
	var keys keyring.Keys
	if err := json.Unmarshal(g.Keys, &keys); err != nil {
		return fmt.Errorf("read the fleet's gossip keys: %w", err)
	}
	if err := s.ring.Set(keys); err != nil {
		return err
	}
	for _, e := range g.Voters {
		s.book.Put(e)
	}
	return s.accept(g.FleetName, c.Root(), g.Chain)
}

// discovery is the configuration of mDNS for one fleet.
func (s *self) discovery(fleet ident.FleetID, me func() ident.Endpoint, found func(ident.Endpoint)) discover.Config {
	return discover.Config{
		Self: me, Fleet: fleet, Loopback: s.cfg.Mesh.Loopback, Interfaces: s.cfg.Mesh.Interfaces, Found: found, Log: s.log,
	}
}

// JoinResult says what the robot became.
type JoinResult struct {
	FleetName string
	FleetID   ident.FleetID
	NodeID    ident.NodeID
	Name      string
}

// JoinFleet makes this robot a member of the fleet that made the token, and
// returns when it is; the node need not be running. ctx bounds the search.
func JoinFleet(ctx context.Context, c config.Config, text string) (JoinResult, error) {
	token, err := ident.ParseJoinToken(text)
	if err != nil {
		return JoinResult{}, err
	}
	log := Logger(c, os.Stderr)
	s, err := openSelf(c, "", log)
	if err != nil {
		return JoinResult{}, err
	}
	defer s.close()
	if m := s.member.Load(); m != nil {
		return JoinResult{}, fmt.Errorf("%w: %s (%s); run `skein leave` first, or use another --data", ErrMember, m.FleetName, m.Fleet())
	}
	host, err := link.New(link.Config{Key: s.key, Root: token.Root, Chain: s.chain, Log: log}) // any free port: nobody calls
	if err != nil {
		return JoinResult{}, err
	}
	defer host.Close()
	if err := s.joinFleet(ctx, host, join.Credential{Token: &token}, false); err != nil {
		return JoinResult{}, err
	}
	m := s.member.Load()
	return JoinResult{m.FleetName, m.Fleet(), s.key.ID(), s.cfg.NodeName()}, nil
}
