package discover

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"skein/mesh/ident"
)

const (
	serviceName = "_skein._tcp.local."
	typesName   = "_services._dns-sd._udp.local." // RFC 6763 section 9
	domain      = ".local."

	// Times to live as RFC 6762 section 10 wants them: 120 s for what depends on
	// a host name or address, 75 min for the rest.
	hostTTLSeconds    = 120
	serviceTTLSeconds = 4500
	// legacyTTLSeconds is the most that section 6.7 allows towards a resolver
	// that is no multicast DNS responder itself.
	legacyTTLSeconds = 10

	// cacheFlush says that these are all the records of that name and type.
	cacheFlush = 1 << 15

	// maxRecords bounds the work on one packet.
	maxRecords = 128
	// maxKnown is how many known answers a query lists: what fits in one packet.
	maxKnown    = 28
	txtVersion  = "1"
	maxTXTBytes = 255
)

var tagEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// fleetTag is how announcements of one fleet are told from another's without
// telling its id: the first 12 characters of the base32 of a hash of it.
func fleetTag(fleet ident.FleetID) string {
	sum := sha256.Sum256([]byte("skein/fleet" + string(fleet)))
	return tagEncoding.EncodeToString(sum[:])[:12]
}

// announcement is what one packet says about one node.
type announcement struct {
	node ident.Endpoint
	tag  string
	// gone: the node says goodbye; only node.ID is set.
	gone bool
}

// question is one question of a query. Names are in lower case.
type question struct {
	name string
	kind dnsmessage.Type
}

// message is a packet as far as this package is interested.
type message struct {
	id        uint16
	query     bool
	questions []question
	// known are the nodes that the asker lists as known to it.
	known     []ident.NodeID
	announced []announcement
}

// reply says how an announcement answers a query that was not sent from the
// multicast DNS port: RFC 6762 section 6.7 wants id and question back.
type reply struct {
	id    uint16
	asked question
}

// encodeAnnouncement makes the packet for a node at the given addresses; goodbye
// makes it one that takes everything back. to is set for an answer to a resolver.
func encodeAnnouncement(e ident.Endpoint, tag string, addrs []netip.Addr, goodbye bool, to *reply) ([]byte, error) {
	w := newWriter(goodbye, to)
	instance := string(e.ID) + "." + serviceName
	host := string(e.ID) + domain
	w.add(serviceName, serviceTTLSeconds, false, &dnsmessage.PTRResource{PTR: w.name(instance)})
	w.add(instance, hostTTLSeconds, true, &dnsmessage.SRVResource{Port: e.LinkPort, Target: w.name(host)})
	w.add(instance, serviceTTLSeconds, true, &dnsmessage.TXTResource{TXT: []string{
		"v=" + txtVersion,
		"f=" + tag,
		"k=" + base64.RawURLEncoding.EncodeToString(e.PublicKey),
		"g=" + strconv.Itoa(int(e.GossipPort)),
		"h=" + strconv.Itoa(int(e.HTTPPort)),
	}})
	for _, a := range addrs {
		w.add(host, hostTTLSeconds, true, &dnsmessage.AResource{A: a.As4()})
	}
	return w.finish()
}

// encodeTypes answers which services there are on this host.
func encodeTypes(to *reply) ([]byte, error) {
	w := newWriter(false, to)
	w.add(typesName, serviceTTLSeconds, false, &dnsmessage.PTRResource{PTR: w.name(serviceName)})
	return w.finish()
}

// encodeQuery asks for all instances except the known ones, which then stay silent.
func encodeQuery(known []ident.NodeID) ([]byte, error) {
	var w writer
	msg := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: w.name(serviceName), Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET,
	}}}
	for _, id := range known[:min(len(known), maxKnown)] {
		w.add(serviceName, serviceTTLSeconds, false, &dnsmessage.PTRResource{PTR: w.name(string(id) + "." + serviceName)})
	}
	msg.Answers = w.msg.Answers
	w.msg = msg
	return w.finish()
}

// writer collects records and the first error.
type writer struct {
	msg     dnsmessage.Message
	goodbye bool
	legacy  bool
	err     error
}

func newWriter(goodbye bool, to *reply) *writer {
	w := &writer{goodbye: goodbye, legacy: to != nil}
	w.msg.Header = dnsmessage.Header{Response: true, Authoritative: true}
	if to != nil {
		w.msg.ID = to.id
		w.msg.Questions = []dnsmessage.Question{{Name: w.name(to.asked.name), Type: to.asked.kind, Class: dnsmessage.ClassINET}}
	}
	return w
}

func (w *writer) name(s string) dnsmessage.Name {
	n, err := dnsmessage.NewName(s)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("name %q: %w", s, err)
	}
	return n
}

// add appends a record. unique ones belong to this node alone.
func (w *writer) add(name string, ttlSeconds uint32, unique bool, body dnsmessage.ResourceBody) {
	h := dnsmessage.ResourceHeader{Name: w.name(name), Class: dnsmessage.ClassINET, TTL: ttlSeconds}
	if w.legacy {
		h.TTL = min(h.TTL, legacyTTLSeconds)
	} else if unique {
		h.Class |= cacheFlush
	}
	if w.goodbye {
		h.TTL = 0
	}
	w.msg.Answers = append(w.msg.Answers, dnsmessage.Resource{Header: h, Body: body})
}

func (w *writer) finish() ([]byte, error) {
	if w.err != nil {
		return nil, fmt.Errorf("make mDNS packet: %w", w.err)
	}
	b, err := w.msg.Pack()
	if err != nil {
		return nil, fmt.Errorf("make mDNS packet: %w", err)
	}
	return b, nil
}

// records are the parts of announcements found in one packet, by name.
type records struct {
	pointers map[string]uint32 // instance → TTL
	services map[string]dnsmessage.SRVResource
	texts    map[string][]string
	hosts    map[string][]netip.Addr
}

// parse reads a packet. What is not about this package's service is skipped; an
// error means that it is no DNS message at all.
func parse(b []byte) (message, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil {
		return message{}, err
	}
	msg := message{id: h.ID, query: !h.Response}
	if msg.questions, err = parseQuestions(&p); err != nil {
		return message{}, err
	}
	found := records{
		pointers: make(map[string]uint32),
		services: make(map[string]dnsmessage.SRVResource),
		texts:    make(map[string][]string),
		hosts:    make(map[string][]netip.Addr),
	}
	// A broken record ends the reading; what came before it counts.
	budget := maxRecords
	if parseRecords(p.AnswerHeader, p.SkipAnswer, &p, &found, &budget) == nil && p.SkipAllAuthorities() == nil {
		parseRecords(p.AdditionalHeader, p.SkipAdditional, &p, &found, &budget)
	}
	for instance, ttl := range found.pointers {
		id, ok := nodeOf(instance)
		switch {
		case !ok:
		case msg.query:
			msg.known = append(msg.known, id)
		case ttl == 0:
			msg.announced = append(msg.announced, announcement{node: ident.Endpoint{ID: id}, gone: true})
			delete(found.services, instance)
		}
	}
	if !msg.query {
		for instance := range found.services {
			if a, ok := found.assemble(instance); ok {
				msg.announced = append(msg.announced, a)
			}
		}
	}
	return msg, nil
}

func parseQuestions(p *dnsmessage.Parser) ([]question, error) {
	var list []question
	for range maxRecords {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, question{strings.ToLower(q.Name.String()), q.Type})
	}
	return nil, fmt.Errorf("more than %d questions", maxRecords)
}

// parseRecords reads one section.
func parseRecords(next func() (dnsmessage.ResourceHeader, error), skip func() error, p *dnsmessage.Parser, into *records, budget *int) error {
	for ; *budget > 0; *budget-- {
		h, err := next()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := into.take(h, skip, p); err != nil {
			return err
		}
	}
	return errors.New("too many records")
}

// take reads the record whose header was just read.
func (r *records) take(h dnsmessage.ResourceHeader, skip func() error, p *dnsmessage.Parser) error {
	name := strings.ToLower(h.Name.String())
	switch {
	case h.Type == dnsmessage.TypePTR && name == serviceName:
		body, err := p.PTRResource()
		r.pointers[strings.ToLower(body.PTR.String())] = h.TTL
		return err
	case h.Type == dnsmessage.TypeSRV && strings.HasSuffix(name, "."+serviceName):
		body, err := p.SRVResource()
		r.services[name] = body
		return err
	case h.Type == dnsmessage.TypeTXT && strings.HasSuffix(name, "."+serviceName):
		body, err := p.TXTResource()
		r.texts[name] = body.TXT
		return err
	case h.Type == dnsmessage.TypeA && h.TTL > 0:
		body, err := p.AResource()
		if len(r.hosts[name]) < ident.MaxAddrs {
			r.hosts[name] = append(r.hosts[name], netip.AddrFrom4(body.A))
		}
		return err
	default:
		return skip()
	}
}

// nodeOf reads the node id from an instance name.
func nodeOf(instance string) (ident.NodeID, bool) {
	label, ok := strings.CutSuffix(instance, "."+serviceName)
	if !ok {
		return "", false
	}
	id, err := ident.ParseNodeID(label)
	return id, err == nil
}

// assemble puts the records of an instance together. Everything must be in the
// packet: nothing is kept of incomplete ones, so nobody can fill our memory.
func (r *records) assemble(instance string) (announcement, bool) {
	id, ok := nodeOf(instance)
	srv := r.services[instance]
	if !ok || strings.ToLower(srv.Target.String()) != string(id)+domain {
		return announcement{}, false
	}
	txt := make(map[string]string, 8)
	for _, entry := range r.texts[instance] {
		key, value, _ := strings.Cut(entry, "=")
		if _, twice := txt[key]; !twice && len(txt) < 16 {
			txt[key] = value
		}
	}
	key, err := base64.RawURLEncoding.DecodeString(txt["k"])
	gossip, gossipErr := strconv.ParseUint(txt["g"], 10, 16)
	http, httpErr := strconv.ParseUint(txt["h"], 10, 16)
	if err := errors.Join(err, gossipErr, httpErr); err != nil || txt["v"] != txtVersion {
		return announcement{}, false
	}
	a := announcement{tag: txt["f"], node: ident.Endpoint{
		ID:         id,
		PublicKey:  ed25519.PublicKey(key),
		Addrs:      r.hosts[string(id)+domain],
		LinkPort:   srv.Port,
		GossipPort: uint16(gossip),
		HTTPPort:   uint16(http),
	}}
	return a, a.node.Valid()
}
