// Package skeinlog runs the consensus of Skein for the benchmark: voters in
// processes of their own, followers, and clients that are nodes of the fleet.
//
// A voter has the parts a node has between the network and the disk: the link
// (TCP, Noise, yamux, certificates), the Raft group with group commit, the
// replica with validation, state, sessions and hash-chained history, following,
// and proposing. Clients propose over the link, as nodes that do not vote do.
// What is left out is said in DESIGN.md.
package skeinlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"skein/consensus/event"
	"skein/mesh/ident"
	"skein/mesh/link"
	"skein/scripts/bench/log/load"
)

// System is the name of the member processes.
const System = "skein"

// Voters and Robots are how many of them the fleet has. All keys of its world
// are made from their numbers, so that every process knows all of them.
const (
	Voters = 3
	Robots = 64

	firstClient   = 100
	firstFollower = 200
	firstRobot    = 1000
	rootKey       = 1_000_000
)

// operator is the person in whose name the clients speak.
const (
	operator = "ada"
	token    = "the token of ada"
)

const raftProtocol link.Protocol = "/skein/raft/1"

func key(i int) ident.Key {
	seed := sha256.Sum256(fmt.Appendf(nil, "skein bench %d", i))
	k, err := ident.KeyFromSeed(seed[:])
	if err != nil {
		panic(err) // the seed has the right size
	}
	return k
}

func id(i int) ident.NodeID { return key(i).ID() }

// host makes a node's end of the link; port 0 is any.
func host(i, port int) (*link.Host, error) {
	root := key(rootKey)
	chain := ident.NewChain(ident.FleetIDOf(root.Public()), key(i).Public(), i < Voters, time.Now(), root, nil)
	return link.New(link.Config{
		Key: key(i), Root: root.Public(), Listen: netip.AddrPortFrom(loopback(), uint16(port)),
		Chain: func() ident.Chain { return chain }, Log: silent(),
	})
}

// endpoint says where node i is.
func endpoint(i, port int) ident.Endpoint {
	return ident.Endpoint{ID: id(i), PublicKey: key(i).Public(), Addrs: []netip.Addr{loopback()}, LinkPort: uint16(port)}
}

func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// silent has no place to log to: what goes wrong shows in the figures, or ends
// the member.
func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// streams opens streams of one protocol.
type streams struct {
	host     *link.Host
	protocol link.Protocol
}

// Open implements what raftgroup and follow ask of a link.
func (s streams) Open(ctx context.Context, id ident.NodeID) (net.Conn, error) {
	return s.host.Open(ctx, id, s.protocol)
}

// drafts are what the clients propose, one at a time: labels of a robot, whose
// data has exactly the size of the payload. Each needs its number, see number.
func drafts(salt string) []event.Draft {
	all := make([]event.Draft, Robots)
	for i := range all {
		about := id(firstRobot + i)
		labels := map[string]string{"note": salt + unnumbered, "site": strings.Repeat("s", 128), "zone": ""}
		bare := len(event.RobotLabelsChanged{Set: labels}.Draft(about).Data)
		labels["zone"] = strings.Repeat("z", load.PayloadBytes-bare)
		all[i] = event.RobotLabelsChanged{Set: labels}.Draft(about)
	}
	return all
}

// unnumbered is where a draft's number goes.
const unnumbered = " 0000000000000000"

// number gives a draft a number of its own, because the state refuses a change
// that changes nothing. It writes digits and encodes nothing, so that the load
// costs little.
func number(d event.Draft, n uint64) event.Draft {
	data := bytes.Clone(d.Data)
	at := bytes.Index(data, []byte(unnumbered)) + len(unnumbered)
	for ; n > 0; n /= 10 {
		at--
		data[at] = byte('0' + n%10)
	}
	d.Data = data
	return d
}

// genesis founds the fleet: voters, clients, followers, robots, and a person.
func genesis() []event.Batch {
	founder := id(0)
	root := key(rootKey)
	admin := event.Actor{Kind: event.KindGenesis, ID: string(founder)}
	found := event.Batch{Actor: admin, Drafts: []event.Draft{
		event.FleetCreated{Name: "bench", Root: root.Public(), History: "bench"}.Draft(),
		event.PersonAdded{PublicKey: key(rootKey + 1).Public(), Scopes: []string{event.ScopeAdmin, event.ScopeOperator}}.Draft(operator),
		event.EnrolmentAdded{PublicKey: root.Public()}.Draft(),
		event.NodeAdmitted{PublicKey: key(0).Public(), Name: "founder", By: event.ByGenesis}.Draft(),
		event.VoterEligible{Eligible: true}.Draft(founder),
		event.VoterApproved{}.Draft(founder),
		event.VoterAdded{}.Draft(founder),
	}}
	admit := event.Batch{Actor: event.Actor{Kind: event.KindLeader, ID: string(founder)}}
	for _, span := range [][2]int{{1, Voters}, {firstClient, firstClient + MaxClients}, {firstRobot, firstRobot + Robots}} {
		for i := span[0]; i < span[1]; i++ {
			admit.Drafts = append(admit.Drafts, event.NodeAdmitted{
				PublicKey: key(i).Public(), Name: fmt.Sprintf("n%d", i), By: event.ByEnrolment, Ref: string(root.ID())}.Draft())
		}
	}
	batches := []event.Batch{found, admit}
	for i := range Robots {
		about := id(firstRobot + i)
		batches = append(batches, event.Batch{
			Producer: event.Producer{Node: about, Boot: 1, N: 1},
			Actor:    event.Actor{Kind: event.KindNode, ID: string(about)},
			Drafts: []event.Draft{event.RobotRegistered{
				Name: fmt.Sprintf("robot%d", i), Type: event.LeKiwi, Version: "bench", Arch: "arm64", OS: "linux"}.Draft(about)},
		})
	}
	return batches
}
