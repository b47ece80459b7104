package rescue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"skein/consensus/event"
	"skein/consensus/history"
	"skein/mesh/discover"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/node/config"
)

const (
	// askAtOnce is how many nodes are asked side by side.
	askAtOnce = 16
	// lookFor is how long mDNS is listened to for nodes that no file names.
	lookFor = 2500 * time.Millisecond
)

// Peer is another node that was asked, or was to be.
type Peer struct {
	ID   ident.NodeID `json:"id"`
	Name string       `json:"name"`
	// Voter: in this node's log it votes.
	Voter bool `json:"voter"`
	// Standing is its answer, nil if there was none; then Why says why not.
	Standing *Standing `json:"standing,omitempty"`
	Why      string    `json:"why,omitempty"`
	// silent: it is there and cannot or will not answer.
	silent bool
}

// label is how a peer is called in a message.
func (p Peer) label() string {
	if p.Name == "" {
		return p.ID.Short()
	}
	return fmt.Sprintf("%s (%s)", p.Name, p.ID.Short())
}

// asker asks other nodes in the name of a stopped one.
type asker struct {
	host  *link.Host
	book  []ident.Endpoint
	mesh  config.Mesh
	fleet ident.FleetID
	log   *slog.Logger
}

// newAsker opens a link with the node's own key. Nobody is served on it.
func (s *stopped) newAsker(mesh config.Mesh, log *slog.Logger) (*asker, error) {
	book, err := discover.OpenBook(s.dir.Peers(), log)
	if err != nil {
		return nil, err
	}
	a := &asker{book: book.All(), mesh: mesh, fleet: s.member.Fleet(), log: log}
	if err := book.Close(); err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if mesh.Loopback {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	a.host, err = link.New(link.Config{Key: s.key, Root: s.member.Root, Chain: func() ident.Chain { return s.member.Chain }, Listen: at, Log: log})
	return a, err
}

func (a *asker) close() error { return a.host.Close() }

// find learns addresses: from the address book, from the configured peers and
// from mDNS. It gives the nodes that have one.
func (a *asker) find(ctx context.Context) ([]ident.NodeID, error) {
	found := map[ident.NodeID]ident.Endpoint{}
	for _, e := range a.book {
		found[e.ID] = e
	}
	for _, peer := range a.mesh.Peers {
		e, err := a.identify(ctx, peer)
		if err != nil {
			a.log.Warn("configured peer does not answer", "peer", peer, "error", err)
			continue
		}
		found[e.ID] = e
	}
	if a.mesh.MDNS {
		seen, err := a.listen(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range seen {
			found[e.ID] = e
		}
	}
	var ids []ident.NodeID
	for id, e := range found {
		a.host.Know(e)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, ctx.Err()
}

func (a *asker) identify(ctx context.Context, peer string) (ident.Endpoint, error) {
	tcp, err := net.ResolveTCPAddr("tcp", peer)
	if err != nil {
		return ident.Endpoint{}, err
	}
	at := netip.AddrPortFrom(tcp.AddrPort().Addr().Unmap(), tcp.AddrPort().Port())
	return a.host.Identify(ctx, at)
}

// listen collects who announces itself for a moment. This node, which does not
// run, announces nothing.
func (a *asker) listen(ctx context.Context) ([]ident.Endpoint, error) {
	var mu sync.Mutex
	var seen []ident.Endpoint
	finder, err := discover.New(discover.Config{
		Self: func() ident.Endpoint { return ident.Endpoint{} }, Fleet: a.fleet, Loopback: a.mesh.Loopback, Interfaces: a.mesh.Interfaces,
		Found: func(e ident.Endpoint) {
			mu.Lock()
			defer mu.Unlock()
			if len(seen) < discover.MaxPeers {
				seen = append(seen, e)
			}
		}, Log: a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("look for other robots: %w", err)
	}
	ctx, stop := context.WithTimeout(ctx, lookFor)
	defer stop()
	if err := finder.Run(ctx); err != nil && !errors.Is(err, ctx.Err()) {
		return nil, fmt.Errorf("look for other robots: %w", err)
	}
	mu.Lock()
	defer mu.Unlock()
	return seen, nil
}

// askAll asks every one of peers how far its log is, from this node's cursor.
func (a *asker) askAll(ctx context.Context, peers []Peer, cursor event.Cursor) {
	var all sync.WaitGroup
	turns := make(chan struct{}, askAtOnce)
	for i := range peers {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			s, err := a.ask(ctx, peers[i].ID, Question{Cursor: cursor}, nil)
			if err == nil {
				peers[i].Standing = &s
				return
			}
			peers[i].Why = strings.ReplaceAll(err.Error(), "\n", "; ")
			peers[i].silent = !errors.Is(err, link.ErrUnreachable)
		})
	}
	all.Wait()
}

// ask asks one node.
func (a *asker) ask(ctx context.Context, id ident.NodeID, q Question, each func(history.Record) error) (Standing, error) {
	openCtx, cancel := context.WithTimeout(ctx, chainTimeout)
	defer cancel()
	st, err := a.host.Open(openCtx, id, ChainProtocol)
	if err != nil {
		return Standing{}, err
	}
	defer st.Close()
	return AskChain(ctx, st, q, each)
}
