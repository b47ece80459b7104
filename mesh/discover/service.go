package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"skein/mesh/ident"
)

const (
	// lookEvery is how often interfaces and Config.Self are looked at again.
	lookEvery = 2 * time.Second
	// inboxPackets bounds what has been received and not read; more is dropped,
	// as the network would.
	inboxPackets = 256
	// foundPerSecond and foundBurst bound calls of Config.Found: a flood of made-up
	// nodes must not become a flood of attempts to reach them.
	foundPerSecond = 50
	foundBurst     = 256
)

// Config is what a Service needs. All but Loopback, Interfaces is required.
type Config struct {
	// Self is what to announce; its addresses are not used, each interface tells
	// its own. Without an id nothing is announced. It is asked every 2 s.
	Self  func() ident.Endpoint
	Fleet ident.FleetID
	// Loopback uses the loopback interface and no other.
	Loopback bool
	// Interfaces restricts it to these names; empty means all that can multicast.
	Interfaces []string
	// Found is told of every node of the fleet that announces itself: when it is
	// new, when it has changed, and at most once a second when it has not.
	Found func(ident.Endpoint)
	Log   *slog.Logger
}

// Service announces a node and finds others. Make it with New; call Run once.
type Service struct {
	cfg   Config
	tag   string
	inbox chan packet

	// The rest belongs to Run's goroutine.
	self  ident.Endpoint // what was announced last
	links map[int]*link  // by interface index
	asker asker
	seen  sightings
	found *rate.Limiter
	wg    sync.WaitGroup // readers
	// complained is the last warning, so that it is not repeated every 2 s.
	complained string
}

// packet is what a reader hands to Run.
type packet struct {
	from    netip.AddrPort
	ifIndex int
	body    []byte
}

// New checks the configuration. Nothing is sent or opened before Run.
func New(cfg Config) (*Service, error) {
	if cfg.Self == nil || cfg.Found == nil || cfg.Log == nil || cfg.Fleet == "" {
		return nil, errors.New("discover: Self, Fleet, Found and Log are required")
	}
	return &Service{
		cfg:   cfg,
		tag:   fleetTag(cfg.Fleet),
		inbox: make(chan packet, inboxPackets),
		links: make(map[int]*link),
		seen:  make(sightings),
		found: rate.NewLimiter(foundPerSecond, foundBurst),
	}, nil
}

// Run announces and looks until ctx ends, then says goodbye. It returns nil: an
// interface that cannot be used is tried again. A ctx with a cause of its own
// ends it as a crash would: without a goodbye.
func (s *Service) Run(ctx context.Context) error {
	defer func() { s.end(errors.Is(context.Cause(ctx), context.Canceled)) }()
	s.look(time.Now())
	poll := time.NewTicker(lookEvery)
	defer poll.Stop()
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		alarm.Reset(s.act(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			s.look(time.Now())
		case p := <-s.inbox:
			s.read(p, time.Now())
		case <-alarm.C:
		}
	}
}

// end closes everything, after a goodbye if that is wanted.
func (s *Service) end(goodbye bool) {
	for _, l := range s.links {
		if goodbye {
			s.sendGoodbye(l)
		}
		l.conn.Close()
	}
	s.wg.Wait()
}

// look follows interfaces and what this node is.
func (s *Service) look(now time.Time) {
	ports, err := usablePorts(s.cfg.Loopback, s.cfg.Interfaces)
	errs := []error{err}
	if err == nil {
		errs = append(errs, s.follow(ports, now))
	}
	s.complain(errors.Join(errs...))
	self := s.cfg.Self()
	self.Addrs = nil
	if self.ID != s.self.ID || !self.Equal(s.self) {
		if self.ID != s.self.ID {
			for _, l := range s.links {
				s.sendGoodbye(l)
			}
		}
		s.self = self
		for _, l := range s.links {
			l.announcer.start(now)
		}
	}
}

// complain warns of what does not work, once for each reason.
func (s *Service) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		if text != s.complained {
			s.cfg.Log.Warn("mDNS does not work on an interface, will be tried again", "err", err)
		}
	}
	s.complained = text
}

// follow closes the links of interfaces that are gone and opens those of new
// ones. An address that changed is announced again.
func (s *Service) follow(ports []port, now time.Time) error {
	present := make(map[int]bool, len(ports))
	var errs []error
	for _, p := range ports {
		present[p.index] = true
		l := s.links[p.index]
		switch {
		case l != nil && l.port.equal(p):
			continue
		case l != nil:
			l.port = p
		default:
			conn, err := openSocket(p.index)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
				continue
			}
			l = newLink(p, conn)
			s.links[p.index] = l
			s.wg.Go(func() { s.receive(conn, p.index) })
		}
		l.announcer.start(now)
		s.asker.start(now)
	}
	for index, l := range s.links {
		if !present[index] {
			l.conn.Close()
			delete(s.links, index)
			s.seen.dropInterface(index)
		}
	}
	return errors.Join(errs...)
}

// receive reads one socket until it is closed.
func (s *Service) receive(conn *net.UDPConn, ifIndex int) {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // about one packet; the socket stays usable
		}
		select {
		case s.inbox <- packet{from, ifIndex, append([]byte(nil), buf[:n]...)}:
		default:
		}
	}
}

// act sends what is due and returns how long until something else is.
func (s *Service) act(now time.Time) time.Duration {
	next := lookEvery
	for _, l := range s.links {
		if s.self.ID != "" {
			next = min(next, l.announcer.act(now, func() { s.sendAnnouncement(l) }))
		}
	}
	if len(s.links) > 0 {
		next = min(next, s.asker.act(now, func() { s.sendQuestion(now) }))
	}
	return max(next, time.Millisecond)
}

func (s *Service) sendAnnouncement(l *link) {
	b, err := encodeAnnouncement(s.self, s.tag, l.port.addrs, false, nil)
	s.send(l, b, err, group)
}

func (s *Service) sendGoodbye(l *link) {
	if s.self.ID == "" || !l.announcer.announced {
		return
	}
	b, err := encodeAnnouncement(s.self, s.tag, l.port.addrs, true, nil)
	s.send(l, b, err, group)
	l.announcer = announcer{}
}

func (s *Service) sendQuestion(now time.Time) {
	for index, l := range s.links {
		var known []ident.NodeID
		if s.self.ID != "" {
			known = append(known, s.self.ID) // or we would answer ourselves
		}
		b, err := encodeQuery(append(known, s.seen.known(index, now)...))
		s.send(l, b, err, group)
	}
}

func (s *Service) send(l *link, b []byte, err error, to netip.AddrPort) {
	if err == nil {
		_, err = l.conn.WriteToUDPAddrPort(b, to)
	}
	if err != nil {
		s.cfg.Log.Debug("mDNS packet not sent", "interface", l.port.name, "err", err)
	}
}

// read takes one packet from the network. Whatever it holds, the work and the
// memory it causes are bounded.
func (s *Service) read(p packet, now time.Time) {
	l := s.links[p.ifIndex]
	if l == nil {
		return // received before the interface went away
	}
	msg, err := parse(p.body)
	switch {
	case err != nil:
		return
	case msg.query:
		s.readQuery(l, msg, p.from, now)
	case p.from.Port() == mdnsPort: // RFC 6762 section 6: others are to be ignored
		for _, a := range msg.announced {
			s.readAnnouncement(l, a, now)
		}
	}
}

func (s *Service) readQuery(l *link, msg message, from netip.AddrPort, now time.Time) {
	if s.self.ID == "" {
		return
	}
	asked, q := wanted(msg, s.self.ID)
	switch {
	case asked == nothing:
	case from.Port() != mdnsPort:
		s.answerDirectly(l, msg.id, q, asked, from)
	case asked == serviceTypes:
		if l.types.Allow() {
			b, err := encodeTypes(nil)
			s.send(l, b, err, group)
		}
	default:
		l.announcer.answer(now, asked == sharedRecord)
	}
	if asked == sharedRecord || asked == nothing {
		s.asker.heard(msg, s.seen, s.self.ID, now)
	}
}

// answerDirectly serves a resolver that is no multicast DNS responder.
func (s *Service) answerDirectly(l *link, id uint16, q question, asked interest, from netip.AddrPort) {
	if !l.direct.Allow() {
		return
	}
	to := &reply{id, q}
	b, err := encodeAnnouncement(s.self, s.tag, l.port.addrs, false, to)
	if asked == serviceTypes {
		b, err = encodeTypes(to)
	}
	s.send(l, b, err, from)
}

func (s *Service) readAnnouncement(l *link, a announcement, now time.Time) {
	switch {
	case a.gone:
		delete(s.seen, a.node.ID)
	case a.tag != s.tag || a.node.ID == s.self.ID || !reachable(a.node.Addrs, s.cfg.Loopback):
	default:
		if e, tell := s.seen.note(a.node, l.port.index, now); tell && s.found.Allow() {
			s.cfg.Found(e)
		}
	}
}

// reachable refuses addresses that nobody can have on this kind of link, so that
// a node is not sent after its own loopback interface.
func reachable(addrs []netip.Addr, loopback bool) bool {
	for _, a := range addrs {
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() != loopback {
			return false
		}
	}
	return true
}

// shortly is a random time of up to limit: what many do at once is spread.
func shortly(limit time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(limit))) }
