package discover

import (
	"net"
	"slices"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/time/rate"

	"skein/mesh/ident"
)

const (
	// announceTimes is how often a node says that it is there, the first gap
	// being announceGap and each further one twice as long (RFC 6762 section 8.3).
	announceTimes = 3
	announceGap   = time.Second
	// answerDelay spreads the answers of many nodes to one question (section 6).
	answerMin = 20 * time.Millisecond
	answerMax = 120 * time.Millisecond
	// answerGap is the least time between two announcements on an interface.
	// Section 6 wants a second; with that, a node that starts right after
	// another announced itself would not find it for a second.
	answerGap = 200 * time.Millisecond
	// directPerSecond bounds answers to resolvers that are no responders.
	directPerSecond = 10

	// askFirst is the gap between the first two questions; each further one is
	// three times as long, up to askLast (section 5.2).
	askFirst = time.Second
	askLast  = 2 * time.Minute
	// askSpread keeps nodes that start together from asking together.
	askSpread = 20 * time.Millisecond
)

// link is one interface in use.
type link struct {
	port      port
	conn      *net.UDPConn
	announcer announcer
	direct    *rate.Limiter
	types     *rate.Limiter
}

func newLink(p port, conn *net.UDPConn) *link {
	return &link{
		port:   p,
		conn:   conn,
		direct: rate.NewLimiter(directPerSecond, directPerSecond),
		types:  rate.NewLimiter(1, 1),
	}
}

// announcer decides when a node announces itself on one interface.
type announcer struct {
	announced bool
	left      int // further unasked announcements
	gap       time.Duration
	due       time.Time // zero: nothing to send
	last      time.Time
}

// start announces anew, at once.
func (a *announcer) start(now time.Time) {
	a.left, a.gap, a.due = announceTimes, announceGap, now
}

// answer makes the node answer a question: a shared one after a random delay,
// one about this node alone at once.
func (a *announcer) answer(now time.Time, shared bool) {
	at := now
	if shared {
		at = now.Add(answerMin + shortly(answerMax-answerMin))
	}
	if soonest := a.last.Add(answerGap); at.Before(soonest) {
		at = soonest
	}
	if a.due.IsZero() || at.Before(a.due) {
		a.due = at
	}
}

// act sends if it is time, and returns how long until the next time.
func (a *announcer) act(now time.Time, send func()) time.Duration {
	if a.due.IsZero() {
		return lookEvery
	}
	if wait := a.due.Sub(now); wait > 0 {
		return wait
	}
	send()
	a.announced, a.last, a.due = true, now, time.Time{}
	if a.left > 0 {
		a.left--
	}
	if a.left == 0 {
		return lookEvery
	}
	wait := a.gap
	a.due, a.gap = now.Add(wait), 2*wait
	return wait
}

// asker decides when a node asks who is there.
type asker struct {
	gap time.Duration
	due time.Time
}

// start asks anew: soon, soon again, then ever more seldom.
func (k *asker) start(now time.Time) {
	k.gap, k.due = askFirst, now.Add(shortly(askSpread))
}

// act asks if it is time, and returns how long until the next time.
func (k *asker) act(now time.Time, ask func()) time.Duration {
	if wait := k.due.Sub(now); wait > 0 {
		return wait
	}
	ask()
	k.postpone(now)
	return k.due.Sub(now)
}

func (k *asker) postpone(now time.Time) {
	k.due = now.Add(k.gap*3/4 + shortly(k.gap/2))
	k.gap = min(3*k.gap, askLast)
}

// heard takes a question of somebody else for our own if its answers will tell
// us as much: it is not early days, and the asker knows nobody whom we do not
// (RFC 6762 section 7.3). So of a whole fleet one node asks.
func (k *asker) heard(msg message, seen sightings, self ident.NodeID, now time.Time) {
	if k.gap < askLast || !slices.ContainsFunc(msg.questions, asksService) {
		return
	}
	for _, id := range msg.known {
		if seen[id] == nil && id != self {
			return
		}
	}
	k.postpone(now)
}

func asksService(q question) bool { return q.name == serviceName && q.kind == dnsmessage.TypePTR }

// interest is what a query wants of us.
type interest int

const (
	nothing interest = iota
	// sharedRecord: who is there? Many answer.
	sharedRecord
	// ownRecord: something about this node by name.
	ownRecord
	// serviceTypes: which services are there?
	serviceTypes
)

// wanted finds the first question that this node can answer.
func wanted(msg message, self ident.NodeID) (interest, question) {
	host := string(self) + domain
	instance := string(self) + "." + serviceName
	for _, q := range msg.questions {
		all := q.kind == dnsmessage.TypeALL
		switch {
		case q.name == serviceName && (all || q.kind == dnsmessage.TypePTR):
			if slices.Contains(msg.known, self) {
				continue
			}
			return sharedRecord, q
		case q.name == instance && (all || q.kind == dnsmessage.TypeSRV || q.kind == dnsmessage.TypeTXT),
			q.name == host && (all || q.kind == dnsmessage.TypeA):
			return ownRecord, q
		case q.name == typesName && (all || q.kind == dnsmessage.TypePTR):
			return serviceTypes, q
		}
	}
	return nothing, question{}
}
