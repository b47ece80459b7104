package discover

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pion/mdns/v2"

	"skein/mesh/ident"
)

const (
	// ServiceType is the DNS-SD type (RFC 6763) that members answer to.
	ServiceType = "_skein._tcp"
	// lookEvery is how often the machine's interfaces are looked at.
	lookEvery = 2 * time.Second
	// txtVersion is the form of the TXT record.
	txtVersion = "1"
	filterSize = 12
)

// Config is what a Service needs. All but Interfaces and Loopback is required.
type Config struct {
	// Self is where this node is; addresses are not needed. An endpoint without
	// id only looks and does not answer: a node that is not admitted yet.
	Self  func() ident.Endpoint
	Fleet ident.FleetID
	// Loopback restricts it to the loopback interface.
	Loopback bool
	// Interfaces restricts it to these; empty means all that can multicast.
	Interfaces []string
	// Found is called for every answer of a node of the fleet, from several
	// goroutines, again and again for the same node. It must not block.
	Found func(ident.Endpoint)
	Log   *slog.Logger
}

// Service answers and asks. Make it with New, then call Run once.
type Service struct {
	cfg    Config
	filter string
}

// New checks the configuration. Nothing is sent before Run.
func New(cfg Config) (*Service, error) {
	if cfg.Self == nil || cfg.Found == nil || cfg.Log == nil || cfg.Fleet == "" {
		return nil, errors.New("discover: Self, Fleet, Found and Log are required")
	}
	return &Service{cfg: cfg, filter: fleetFilter(cfg.Fleet)}, nil
}

// fleetFilter tells fleets apart without giving the fleet's id away.
func fleetFilter(fleet ident.FleetID) string {
	sum := sha256.Sum256([]byte("skein/fleet" + string(fleet)))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:filterSize]
}

// Run answers and asks until ctx ends. It returns nil: an interface that
// cannot be used is tried again.
func (s *Service) Run(ctx context.Context) error {
	running := map[place]*station{}
	defer func() {
		for _, st := range running {
			st.stop()
		}
	}()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	complained := ""
	for {
		err := s.follow(running)
		if err != nil && err.Error() != complained {
			s.cfg.Log.Warn("mDNS does not work on an interface, will be tried again", "err", err)
		}
		complained = fmt.Sprint(err)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// follow starts stations at new places and stops those at places that are gone.
func (s *Service) follow(running map[place]*station) error {
	now, err := s.places()
	if err != nil {
		return err
	}
	for at, st := range running {
		if _, still := now[at]; !still {
			st.stop()
			delete(running, at)
		}
	}
	var errs []error
	for at, iface := range now {
		if running[at] != nil {
			continue
		}
		st, err := s.open(at, iface)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", iface.Name, err))
			continue
		}
		running[at] = st
	}
	return errors.Join(errs...)
}

// place is an interface with an address, and what this node says there: when
// any of it changes, a new station is set up.
type place struct {
	index int
	addr  netip.Addr
	self  string
}

// places are the interfaces to use now, one address each.
func (s *Service) places() (map[place]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	me := s.cfg.Self()
	said := fmt.Sprint(me.ID, me.LinkPort, me.GossipPort, me.HTTPPort)
	out := map[place]net.Interface{}
	for _, iface := range all {
		if !s.usable(iface) {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().Is4() {
				out[place{iface.Index, prefix.Addr(), said}] = iface
				break
			}
		}
	}
	return out, nil
}

func (s *Service) usable(iface net.Interface) bool {
	if iface.Flags&net.FlagUp == 0 || len(s.cfg.Interfaces) > 0 && !slices.Contains(s.cfg.Interfaces, iface.Name) {
		return false
	}
	if iface.Flags&net.FlagLoopback != 0 {
		return s.cfg.Loopback // it carries multicast although it has no such flag
	}
	return !s.cfg.Loopback && iface.Flags&net.FlagMulticast != 0 && iface.Flags&net.FlagPointToPoint == 0
}

// instance is what this node answers with.
func (s *Service) instance(me ident.Endpoint) mdns.ServiceInstance {
	return mdns.ServiceInstance{
		Instance: string(me.ID), Service: ServiceType, Host: string(me.ID) + ".local.", Port: me.LinkPort,
		Text: []mdns.TXTEntry{
			text("v", txtVersion), text("f", s.filter), text("k", base64.RawURLEncoding.EncodeToString(me.PublicKey)),
			text("g", strconv.Itoa(int(me.GossipPort))), text("h", strconv.Itoa(int(me.HTTPPort))),
		},
	}
}

func text(key, value string) mdns.TXTEntry { return mdns.TXTEntry{Key: key, Value: []byte(value)} }

// heard passes on an answer of a node of this fleet.
func (s *Service) heard(e mdns.ServiceEvent) {
	if endpoint, ok := parse(e, s.filter); ok && endpoint.ID != s.cfg.Self().ID {
		s.cfg.Found(endpoint)
	}
}

// parse reads an answer; ok only if it is whole, true to itself and of the fleet.
func parse(e mdns.ServiceEvent, filter string) (ident.Endpoint, bool) {
	fields := map[string]string{}
	for _, entry := range e.Instance.Text {
		fields[entry.Key] = string(entry.Value)
	}
	key, err := base64.RawURLEncoding.DecodeString(fields["k"])
	if err != nil || len(key) != ed25519.PublicKeySize || fields["v"] != txtVersion || fields["f"] != filter {
		return ident.Endpoint{}, false
	}
	gossip, err1 := strconv.ParseUint(fields["g"], 10, 16)
	http, err2 := strconv.ParseUint(fields["h"], 10, 16)
	if errors.Join(err1, err2) != nil || !e.Addr.IsValid() {
		return ident.Endpoint{}, false
	}
	out := ident.Endpoint{
		ID: ident.NodeID(e.Instance.Instance), PublicKey: key, Addrs: []netip.Addr{e.Addr.Unmap().WithZone("")},
		LinkPort: e.Instance.Port, GossipPort: uint16(gossip), HTTPPort: uint16(http),
	}
	return out, out.Valid()
}
